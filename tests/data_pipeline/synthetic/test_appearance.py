"""Traits, coefficients and painted textures of the synthetic set's people."""

import numpy as np
import pytest

from data_pipeline.synthetic.appearance import draw_shape, draw_traits, paint, texture_maps
from data_pipeline.synthetic.noise import fractal_noise, value_noise
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.procedural_head import procedural_head_arrays

_SIZE = 128


@pytest.fixture(scope="module")
def arrays():
    return procedural_head_arrays()


def test_value_noise_meets_its_lattice_and_stays_in_range():
    rng = np.random.default_rng(0)
    whole = rng.integers(-50, 50, (200, 3)).astype(np.float32)
    values = value_noise(whole, 3)
    assert np.abs(value_noise(whole + 1e-3, 3) - values).max() < 0.01  # continuous
    points = rng.uniform(-20, 20, (4000, 2))
    assert np.abs(value_noise(points, 1)).max() <= 1
    assert abs(value_noise(points, 1).mean()) < 0.05
    assert np.abs(value_noise(points, 1) - value_noise(points, 2)).mean() > 0.2
    # One octave of the sum is the field itself.
    np.testing.assert_array_equal(
        fractal_noise(points, 5, octaves=1), value_noise(np.float32(1) * points, 5)
    )


def test_texture_maps_lie_on_the_template(arrays):
    maps = texture_maps(arrays, _SIZE)
    assert maps.position.shape == (_SIZE, _SIZE, 3) and np.isfinite(maps.position).all()
    assert set(np.unique(maps.part)) == set(range(1, len(PARTS)))
    template = arrays["v_template"]
    assert (maps.position >= template.min(0) - 1e-3).all()
    assert (maps.position <= template.max(0) + 1e-3).all()
    # A vertex of the skin is found where its texture coordinate says.
    face = np.flatnonzero(arrays["face_part"] == PARTS.index("face_skin"))[::97]
    uv = arrays["uv"][arrays["faces_uv"][face]].mean(1)
    middle = template[arrays["faces"][face]].mean(1)
    rows, columns = (uv[:, ::-1] * _SIZE).astype(int).T
    assert np.median(np.linalg.norm(maps.position[rows, columns] - middle, axis=1)) < 0.25


def test_people_are_reproducible_and_different(arrays):
    names = tuple(map(str, arrays["shape_names"]))
    first = paint(0, 5, arrays, _SIZE)
    np.testing.assert_array_equal(first, paint(0, 5, arrays, _SIZE))
    np.testing.assert_array_equal(draw_shape(0, 5, names), draw_shape(0, 5, names))
    for seed, identity in ((0, 6), (1, 5)):
        other = paint(seed, identity, arrays, _SIZE)
        assert np.abs(first.astype(float) - other)[..., :3].mean() > 8  # of 255 levels
        assert not np.array_equal(draw_shape(0, 5, names), draw_shape(seed, identity, names))


def test_shape_follows_the_traits(arrays):
    names = tuple(map(str, arrays["shape_names"]))
    styles = set()
    for identity in range(80):
        traits, shape = draw_traits(0, identity), draw_shape(0, identity, names)
        worn = [n for n, v in zip(names, shape, strict=True) if n.startswith("hair_") and v]
        bare = traits.hair_style in ("bald", "shaved")
        assert worn == ([] if bare else [traits.hair_style])
        assert shape[names.index("glasses")] == bool(traits.glasses)
        styles.add(traits.hair_style)
    assert len(styles) >= 7
    faces = np.stack([draw_shape(0, i, names)[:20] for i in range(400)])
    assert abs(faces.mean()) < 0.05 and 0.75 < faces.std() < 0.9


def test_the_pupil_is_dark_and_lies_in_the_middle_of_the_eye(arrays):
    maps = texture_maps(arrays, 256)
    texture = paint(0, 3, arrays, 256).astype(float)
    eye = maps.part == PARTS.index("eyeball")
    offset = maps.position[eye] - maps.eyes[np.where(maps.position[eye][:, 0] > 0, 0, 1)]
    angle = np.rad2deg(np.arccos(offset[:, 2] / np.linalg.norm(offset, axis=1)))
    bright = texture[eye][:, :3].mean(1)
    assert bright[angle < 7].max() < 40
    assert bright[(angle > 32) & (angle < 40)].min() > 150
