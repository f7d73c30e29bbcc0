"""The picture of GDPW's learned codes."""

import numpy as np

from configs.gdpw import synthetic_32
from talking_heads_jax.build import build_model
from talking_heads_jax.media.image import read_image
from talking_heads_jax.workflows.code_pictures import draw_codes, embed_codes


def test_places_are_ranks_along_the_two_largest_axes():
    rng = np.random.default_rng(0)
    spread = np.array([0.0, 5.0, 0.1, 1.0])
    codes = (rng.standard_normal((50, 4)) * spread).astype(np.float32)
    places = embed_codes(codes)
    np.testing.assert_allclose(np.sort(places, axis=0)[:, 0], np.linspace(0, 1, 50), atol=1e-6)
    for axis, column in enumerate((1, 3)):
        ranks = codes[:, column].argsort().argsort()
        alike = np.corrcoef(places[:, axis], ranks)[0, 1]
        assert abs(alike) > 0.98


def test_codes_that_follow_the_head_give_smooth_colours(tmp_path):
    model = build_model(synthetic_32.base())
    smooth = np.asarray(model.mesh.coordinates)
    noise = np.random.default_rng(0).random(smooth.shape)
    edges = {}
    for name, codes in (("smooth", smooth), ("noise", noise)):
        path = tmp_path / f"{name}.png"
        draw_codes(model, {"generator": {"params": {"codes": codes}}}, path)
        picture = np.float32(read_image(path)) / 255
        front = picture[:, 2 * picture.shape[0] : 3 * picture.shape[0]]
        assert (front < 1).any(axis=-1).mean() > 0.1  # a head is there
        edges[name] = np.abs(np.diff(front, axis=1)).mean()
    assert edges["smooth"] < edges["noise"] / 3
