"""Flipping a frame with its mesh: what the mesh draws is flipped too, for any face model."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.mesh import mesh_of_model
from data_pipeline.records import Record
from data_pipeline.transforms import Augmentation, augment_pair, draw_augmentation, mirror_record
from talking_heads_jax.morphable.registry import load_morphable
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.ops.coordinates import px_to_ndc
from talking_heads_jax.ops.rasterizer import interpolate, rasterize
from tests.morphable.toy_models import toy_arrays

SIZE = 64


def turned_record(model: Any, yaw_deg: float) -> Record:
    """A frame of noise with the mean face, turned and off the middle."""
    angle = np.radians(yaw_deg)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    points = np.asarray(model.vertices(model.neutral()))[0]
    points = (points - points.mean(axis=0)) @ turn.T
    points = points * [1, -1, -1] * (0.8 * SIZE / np.ptp(points, axis=0).max())
    points[:, :2] += [SIZE / 2 + 4, SIZE / 2]
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    box, matrix = np.zeros(4, np.float32), np.eye(2, 3, dtype=np.float32)
    return Record(image, "clip", "who", 0, box, matrix, vertices=points.astype(np.float32))


def drawn(vertices: np.ndarray, attributes: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(h w d) what faces the viewer."""
    positions = jnp.asarray(vertices)[None]
    flat = px_to_ndc(positions[..., :2], (SIZE, SIZE), align_corners=False)
    positions = jnp.concatenate([flat, positions[..., 2:]], axis=-1)
    fragments = rasterize(positions, faces, height=SIZE, width=SIZE, cull="back_after")
    return np.asarray(interpolate(jnp.asarray(attributes), fragments, faces))[0]


@pytest.mark.parametrize("name", ["procedural", "toy"])
def test_a_mirrored_mesh_draws_the_mirrored_picture(name: str) -> None:
    if name == "toy":
        model = SkinnedFaceModel.from_arrays(toy_arrays(), name="toy")
    else:
        model = load_morphable(name)
    mesh, record = mesh_of_model(model), turned_record(model, 25.0)
    mirrored = mirror_record(record, mesh.mirror)
    assert np.array_equal(mirrored.image, record.image[:, ::-1])
    codes = np.asarray(model.attributes("nmfc"))
    plain = drawn(record.vertices, codes[mesh.mirror], mesh.faces)[:, ::-1]
    flipped = drawn(mirrored.vertices, codes, mesh.faces)
    covered, expected = (picture.any(axis=-1) for picture in (flipped, plain))
    assert expected.mean() > 0.2 and (covered != expected).mean() < 0.01
    # Triangles on the two sides are cut differently, and seams hold pairs of coinciding points.
    both = covered & expected
    assert np.abs(flipped - plain)[both].mean() < 0.005
    unmirrored = drawn(record.vertices, codes, mesh.faces)
    assert (unmirrored.any(axis=-1) != expected).mean() > 0.03


def test_one_draw_of_flip_and_colours_serves_both_frames_of_gdpws_recipe() -> None:
    recipe = Augmentation(time_flip=0.0)
    model = SkinnedFaceModel.from_arrays(toy_arrays(), name="toy")
    mirror = np.asarray(model.mirror)
    flips = 0
    for seed in range(40):
        draw = draw_augmentation(recipe, np.random.default_rng(seed))
        source, driving = turned_record(model, -10.0), turned_record(model, 15.0)
        first, second = augment_pair(source, driving, draw, vertex_mirror=mirror)
        # The pictures are equal before, and so after: the jitter is drawn once.
        assert np.array_equal(first.image, second.image)
        assert not draw.time_flip and len(draw.jitter) == 4
        for before, after in ((source, first), (driving, second)):
            wanted = before.vertices
            if draw.horizontal_flip:
                wanted = wanted[mirror] * [-1, 1, 1] + [SIZE, 0, 0]
            np.testing.assert_allclose(after.vertices, wanted, atol=1e-4)
        flips += draw.horizontal_flip
    assert 10 <= flips <= 30  # half; a standard deviation is 3.2
