"""Detector and dense motion: initial Jacobians, soft-argmax, the still motion."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.layers.dense_motion import DenseMotion, DenseMotionNetwork, deform_features
from talking_heads_jax.layers.keypoint_detector import KeypointDetector
from talking_heads_jax.ops.coordinates import corner_grid

_DETECTOR = {"num_keypoints": 3, "block_expansion": 4, "max_features": 8, "num_blocks": 2}


def _image(seed: int = 0) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), (2, 64, 64, 3))


def test_keypoint_detector_starts_with_identity_jacobians() -> None:
    module = KeypointDetector(**_DETECTOR)
    variables = module.init(jax.random.key(0), _image(), train=False)
    keypoints = module.apply(variables, _image(), train=False)
    np.testing.assert_allclose(keypoints.jacobian, np.tile(np.eye(2), (2, 3, 1, 1)), atol=1e-6)
    assert np.abs(keypoints.value).max() <= 1.0


def test_keypoint_detector_finds_the_peak_of_its_heatmap() -> None:
    """A head whose kernel copies one input channel: the keypoint is the bright pixel."""
    module = KeypointDetector(**_DETECTOR, scale_factor=1.0)
    variables = module.init(jax.random.key(0), _image(), train=False)
    kernel = np.zeros(variables["params"]["heatmap"]["kernel"].shape, np.float32)
    kernel[3, 3, 4:, :] = 100.0  # channels after the 4 features are the raw image
    variables["params"]["heatmap"] = {"kernel": kernel, "bias": np.zeros(3, np.float32)}
    image = np.zeros((1, 64, 64, 3), np.float32)
    image[0, 3 + 10, 3 + 29] = 1.0  # row 10, column 29 of the 58×58 heatmap
    value = module.apply(variables, jnp.asarray(image), train=False).value
    expected = [2 * 29 / 57 - 1, 2 * 10 / 57 - 1]
    np.testing.assert_allclose(value, np.tile(expected, (1, 3, 1)), atol=1e-5)


def test_keypoint_detector_without_jacobians_has_no_head_for_them() -> None:
    module = KeypointDetector(**_DETECTOR, estimate_jacobian=False)
    variables = module.init(jax.random.key(0), _image(), train=False)
    assert "jacobian" not in variables["params"]
    assert module.apply(variables, _image(), train=False).jacobian is None


def test_dense_motion_is_still_when_keypoints_agree() -> None:
    module = DenseMotionNetwork(
        num_keypoints=3, block_expansion=4, max_features=8, num_blocks=2, scale_factor=0.5
    )
    keypoints = Keypoints(
        jax.random.uniform(jax.random.key(2), (2, 3, 2), minval=-0.8, maxval=0.8),
        jnp.tile(jnp.asarray([[2.0, 0.5], [0.0, 1.0]]), (2, 3, 1, 1)),
    )
    image = _image()
    arguments = {"source_keypoints": keypoints, "driving_keypoints": keypoints, "train": False}
    small = jnp.asarray(image[:, ::2, ::2])
    variables = module.init(jax.random.key(0), small, **arguments)
    motion = module.apply(variables, small, **arguments)
    identity = np.broadcast_to(corner_grid(32, 32), (2, 32, 32, 2))
    np.testing.assert_allclose(motion.deformation, identity, atol=1e-5)
    np.testing.assert_allclose(motion.mask.sum(-1), 1.0, atol=1e-6)
    assert motion.sparse_deformed.shape == (2, 4, 32, 32, 3)


def test_deform_features_hides_what_is_occluded() -> None:
    features = jnp.ones((1, 16, 16, 2))
    grid = jnp.asarray(corner_grid(8, 8))[None]
    occlusion = jnp.zeros((1, 8, 8, 1)).at[:, :, 4:].set(1.0)
    motion = DenseMotion(grid, occlusion, jnp.ones((1, 8, 8, 1)), features[:, None])
    result = deform_features(features, motion, align_corners=True)
    np.testing.assert_array_equal(result[:, :, :7], 0.0)  # column 7 is where the halves blend
    np.testing.assert_allclose(result[:, :, 9:], 1.0, atol=1e-6)
