"""Properties of motions, their composition, and the warp."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.ops import warping
from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.grid_sample import grid_sample
from talking_heads_jax.ops.resize import resize_bilinear

# Compiled as a whole: running operation by operation compiles each of them.
RULES = ("align_corners", "padding")
grid_sample = jax.jit(grid_sample, static_argnames=RULES)
resize_bilinear = jax.jit(resize_bilinear, static_argnames=("size", "align_corners"))
sparse_motions = jax.jit(warping.sparse_motions, static_argnames=("h", "w"))
combine_motions = jax.jit(warping.combine_motions)
occlude = jax.jit(warping.occlude)
warp = jax.jit(warping.warp, static_argnames=RULES)


def _keypoints(seed, *, count=3):
    rng = np.random.default_rng(seed)
    value = jnp.asarray(rng.uniform(-0.7, 0.7, (2, count, 2)), jnp.float32)
    jacobian = jnp.asarray(np.eye(2) + 0.2 * rng.normal(size=(2, count, 2, 2)), jnp.float32)
    return Keypoints(value, jacobian)


def test_sparse_motions_equals_the_equation():
    source, driving = _keypoints(0), _keypoints(1)
    motions = sparse_motions(source, driving, 4, 5)
    grid = np.asarray(corner_grid(4, 5), np.float64)
    np.testing.assert_array_equal(motions[:, 0], np.broadcast_to(corner_grid(4, 5), (2, 4, 5, 2)))
    for b in range(2):
        for k in range(3):
            affine = np.asarray(source.jacobian[b, k]) @ np.linalg.inv(driving.jacobian[b, k])
            moved = (grid - driving.value[b, k]) @ affine.T + source.value[b, k]
            np.testing.assert_allclose(motions[b, k + 1], moved, atol=1e-5)


def test_sparse_motions_of_equal_keypoints_is_the_identity():
    keypoints = _keypoints(2)
    motions = sparse_motions(keypoints, keypoints, 5, 4)
    np.testing.assert_allclose(
        motions, jnp.broadcast_to(corner_grid(5, 4), motions.shape), atol=1e-5
    )


def test_sparse_motions_maps_driving_points_to_source_points():
    source = Keypoints(jnp.array([[[0.5, -0.25]]]), _keypoints(3, count=1).jacobian[:1])
    driving = Keypoints(jnp.array([[[0.0, 1.0]]]), _keypoints(4, count=1).jacobian[:1])
    motions = sparse_motions(source, driving, 5, 5)
    np.testing.assert_allclose(motions[0, 1, 4, 2], [0.5, -0.25], atol=1e-6)


def test_sparse_motions_without_jacobians_translates():
    source, driving = _keypoints(5), _keypoints(6)
    motions = sparse_motions(source, driving._replace(jacobian=None), 4, 5)
    shift = (source.value - driving.value)[:, :, None, None]
    expected = corner_grid(4, 5) + shift
    np.testing.assert_allclose(motions[:, 1:], expected, atol=1e-6)


def test_sparse_motions_is_finite_for_singular_jacobians():
    source, driving = _keypoints(7), _keypoints(8)
    singular = jnp.zeros_like(driving.jacobian)

    def warped(jacobian):
        motions = sparse_motions(source, driving._replace(jacobian=jacobian), 4, 4)
        return grid_sample(jnp.ones((2, 4, 4, 1)), motions, align_corners=False).sum()

    value, gradient = jax.jit(jax.value_and_grad(warped))(singular)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_combine_motions_of_one_hot_mask_picks_the_motion():
    motions = sparse_motions(_keypoints(9), _keypoints(10), 4, 5)
    choice = np.random.default_rng(11).integers(0, 4, (2, 4, 5))
    combined = combine_motions(jax.nn.one_hot(choice, 4), motions)
    expected = np.take_along_axis(np.asarray(motions), choice[:, None, ..., None], axis=1)[:, 0]
    np.testing.assert_array_equal(combined, expected)


def test_occlude_resizes_the_map_and_multiplies():
    features = jnp.asarray(np.random.default_rng(12).normal(size=(1, 8, 8, 3)), jnp.float32)
    visible = jnp.asarray(np.random.default_rng(13).uniform(size=(1, 4, 4, 1)), jnp.float32)
    resized = resize_bilinear(visible, (8, 8), align_corners=False)
    np.testing.assert_allclose(occlude(features, visible), features * resized, atol=1e-6)
    np.testing.assert_array_equal(occlude(features, jnp.zeros((1, 8, 8, 1))), 0)


def test_warp_by_one_pixel_shifts_the_image():
    image = jnp.asarray(np.random.default_rng(14).normal(size=(1, 5, 6, 2)), jnp.float32)
    right = corner_grid(5, 6) + jnp.array([2 / 5, 0.0])  # one pixel of six, corners aligned
    warped = warp(image, right[None], align_corners=True)
    np.testing.assert_allclose(warped[:, :, :-1], image[:, :, 1:], atol=1e-5)
    np.testing.assert_allclose(warped[:, :, -1], 0, atol=1e-5)


def test_warp_resizes_a_small_deformation_first():
    image = jnp.asarray(np.random.default_rng(15).normal(size=(2, 8, 12, 2)), jnp.float32)
    deformation = sparse_motions(_keypoints(16), _keypoints(17), 4, 6)[:, 1]
    warped = warp(image, deformation, align_corners=False, padding="border")
    large = resize_bilinear(deformation, (8, 12), align_corners=False)
    expected = grid_sample(image, large, align_corners=False, padding="border")
    np.testing.assert_allclose(warped, expected, atol=1e-6)
