"""FNeVR's own parts: volume, pose editor, mesh feature, ablations."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FramePair, Keypoints
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.models.fnevr.mesh_feature import (
    VertexWeights,
    mesh_feature,
    normalize_vertices,
    sample_vertices,
)
from talking_heads_jax.models.fnevr.pose_editor import LightweightPoseEditor
from talking_heads_jax.models.fnevr.volume_renderer import FaceVolumeRenderer, ImageHead, _to_volume
from talking_heads_jax.ops.resize import resize_bilinear
from tests.models.conftest import tiny_model


def test_to_volume_reads_depth_as_the_fast_axis() -> None:
    x = jnp.arange(2 * 3 * 5 * 6.0).reshape(2, 3, 5, 6)
    volume = _to_volume(x, 2)
    assert volume.shape == (2, 3, 3, 5, 2)
    for c in range(2):
        for d in range(3):
            np.testing.assert_array_equal(volume[:, d, :, :, c], x[..., c * 3 + d])


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_volume_renderer_settings_change_the_numbers(activation: str) -> None:
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 8))
    results = {}
    for transmittance in ("inclusive", "exclusive"):
        module = FaceVolumeRenderer(
            8, 2, 3, 4, transmittance=transmittance, feature_activation=activation
        )
        variables = module.init(jax.random.key(1), x, train=False)
        results[transmittance] = module.apply(variables, x, train=False).features
    assert np.abs(results["inclusive"] - results["exclusive"]).max() > 1e-5
    if activation == "sigmoid":
        assert 0 < results["inclusive"].min() <= results["inclusive"].max() < 1


def test_volume_renderer_density_ignores_the_colour(pair: FramePair) -> None:
    module = FaceVolumeRenderer(8, 2, 3, 4)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 8))
    variables = module.init(jax.random.key(1), x, train=False)
    changed = jax.tree.map(lambda leaf: leaf, variables)
    changed["params"]["color_extractor"]["kernel"] += 1.0

    def densities(variables: dict) -> jax.Array:
        _, state = module.apply(
            variables, x, train=False, capture_intermediates=lambda m, _: m.name == "density",
            mutable=["intermediates"],
        )  # fmt: skip
        return state["intermediates"]["field"]["density"]["__call__"][0]

    np.testing.assert_array_equal(densities(variables), densities(changed))


def test_image_head_lies_in_the_upper_half() -> None:
    module = ImageHead(4, 4)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4))
    image = module.apply(module.init(jax.random.key(1), x, train=False), x, train=False)
    assert image.shape == (1, 32, 32, 3)
    assert float(image.min()) == 0.5  # ReLU before the sigmoid, as released


def _keypoints(batch: int = 2) -> Keypoints:
    rng = np.random.default_rng(0)
    return Keypoints(
        jnp.asarray(rng.uniform(-1, 1, (batch, 10, 2)).astype(np.float32)),
        jnp.asarray(rng.normal(size=(batch, 10, 2, 2)).astype(np.float32)),
    )


def test_pose_editor_starts_by_changing_nothing() -> None:
    module, keypoints = LightweightPoseEditor(), _keypoints()
    angles = jnp.full((2, 3), 0.4)
    edited = module.apply(module.init(jax.random.key(0), angles, keypoints), angles, keypoints)
    np.testing.assert_array_equal(edited.value, keypoints.value)
    np.testing.assert_array_equal(edited.jacobian, keypoints.jacobian)


def test_pose_editor_reads_69_numbers_and_writes_60() -> None:
    params = LightweightPoseEditor().init(jax.random.key(0), jnp.zeros((1, 3)), _keypoints(1))
    assert params["params"]["hidden_0"]["kernel"].shape[0] == 9 + 20 + 40
    assert params["params"]["output"]["kernel"].shape[1] == 20 + 40


def test_pose_editor_learns_a_turn() -> None:
    """Keypoints of a rigid set of 3-D points: the editor must learn where the turn takes them."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.6, 0.6, (10, 3)).astype(np.float32)
    from talking_heads_jax.geometry.rotations import matrix_from_angles

    def view(angles: np.ndarray) -> jax.Array:
        return jnp.einsum("bij,kj->bki", matrix_from_angles(jnp.asarray(angles)), points)[..., :2]

    angles = rng.uniform(-0.5, 0.5, (256, 3)).astype(np.float32)
    jacobian = jnp.tile(jnp.eye(2), (256, 10, 1, 1))
    source = Keypoints(view(np.zeros((256, 3), np.float32)), jacobian)
    target = view(angles)
    module = LightweightPoseEditor(hidden_features=(64, 64))
    params = module.init(jax.random.key(0), jnp.asarray(angles), source)

    def loss(params: dict) -> jax.Array:
        return jnp.abs(module.apply(params, jnp.asarray(angles), source).value - target).mean()

    import optax

    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params: dict, state: optax.OptState) -> tuple:
        gradients = jax.grad(loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state

    before, state = float(loss(params)), optimizer.init(params)
    for _ in range(300):
        params, state = step(params, state)
    assert float(loss(params)) < 0.1 * before


def test_pose_editor_reads_the_angles_however_far_its_biases_drift() -> None:
    """With plain ReLU a hidden layer below zero everywhere has no gradient to come back by."""
    module, keypoints = LightweightPoseEditor(hidden_features=(16, 16)), _keypoints()
    angles = jnp.asarray([[0.3, 0.0, 0.0], [0.0, 0.2, 0.1]])
    params = module.init(jax.random.key(0), angles, keypoints)["params"]
    for name in ("hidden_0", "hidden_1"):
        params[name]["bias"] = params[name]["bias"] - 100.0
    params["output"]["kernel"] = jnp.ones_like(params["output"]["kernel"])

    def total(turn: jax.Array) -> jax.Array:
        return module.apply({"params": params}, turn, keypoints).value.sum()

    assert np.abs(np.asarray(jax.grad(total)(angles))).min() > 1e-4


def test_mesh_feature_is_a_sum_of_gaussians() -> None:
    rng = np.random.default_rng(0)
    vertices = rng.uniform(-1, 1, (1, 4, 3)).astype(np.float32)
    weights = rng.uniform(0, 2, (1, 4)).astype(np.float32)
    feature = mesh_feature(jnp.asarray(vertices), jnp.asarray(weights), size=(3, 5, 4))
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (3, 5, 4)), indexing="ij")
    grid = np.stack([x, y, z], -1)
    distances = ((grid[None] - vertices[0][:, None, None, None]) ** 2).sum(-1)
    expected = (weights[0][:, None, None, None] * np.exp(-0.5 * distances / 0.01)).sum(0)
    np.testing.assert_allclose(feature[0], expected, atol=1e-5)


def test_normalize_vertices_puts_pixel_centres_on_the_corners() -> None:
    vertices = jnp.asarray([[[0.5, 0.5, 0.0], [63.5, 63.5, 31.5], [32.0, 32.0, -31.5]]])
    expected = [[-1, -1, 0], [1, 1, 1], [0, 0, -1]]
    np.testing.assert_allclose(normalize_vertices(vertices, 64)[0], expected, atol=1e-6)


def test_sample_vertices_is_even_and_refuses_small_meshes() -> None:
    vertices = jnp.arange(10.0)[None, :, None] * jnp.ones(3)
    np.testing.assert_array_equal(sample_vertices(vertices, 5)[0, :, 0], [0, 2, 4, 6, 8])
    with pytest.raises(ArgumentError, match="at least 11"):
        sample_vertices(vertices, 11)


def test_vertex_weights_are_positive() -> None:
    module = VertexWeights(num_vertices=6, features=(2, 2))
    image = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    weights = module.apply(module.init(jax.random.key(1), image, train=False), image, train=False)
    assert weights.shape == (2, 6)
    assert float(weights.min()) > 0


@pytest.mark.parametrize(
    ("settings", "has", "lacks"),
    [
        ({"volume_rendering": False, "decoder_inputs": ["warped"]}, [], ["volume_renderer"]),
        ({"decoder_type": "residual"}, ["volume_renderer", "fusion"], []),
        ({"decoder_inputs": ["rendered"]}, ["volume_renderer"], ["fusion"]),
    ],
    ids=["FOMM + SPADE", "FOMM + FVR", "without F_w"],
)
def test_ablations_are_settings(settings: dict, has: list, lacks: list, pair: FramePair) -> None:
    model = tiny_model("fnevr", generator=settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    modules = set(shapes["generator"]["params"])
    assert modules >= {"encoder", "dense_motion", "decoder", *has}
    assert not modules & set(lacks)
    encoding = jax.eval_shape(model.encode_source, shapes, pair.source)
    output = jax.eval_shape(model.animate_frame, shapes, encoding, encoding.keypoints)
    assert output.prediction.shape == (2, 32, 32, 3)


@pytest.mark.parametrize("name", ["fnevr", "fomm"])
def test_image_skip_shows_the_decoder_the_warped_source(name: str, pair: FramePair) -> None:
    """With its last layer at zero the decoder changes nothing of the occluded, warped source."""
    settings = {"image_skip": True, "num_down_blocks": 1}
    if name == "fnevr":
        settings |= {"volume_rendering": False, "decoder_inputs": ["warped"]}
    model = tiny_model(name, generator=settings)
    variables = model.init(jax.random.key(0), ("kp_detector", "generator"))
    final = variables["generator"]["params"]["decoder"]["final"]
    final["kernel"] = 0 * final["kernel"]

    @jax.jit
    def animate(bias: jax.Array) -> tuple[jax.Array, dict]:
        final["bias"] = bias
        encoding = model.encode_source(variables, pair.source)
        motion = model.encode_driving(variables, pair.driving)
        return model.animate_frame(variables, encoding, motion, with_intermediates=True)

    output, extras = animate(jnp.zeros(3))
    visible = resize_bilinear(extras["occlusion_map"], (32, 32), align_corners=False)
    np.testing.assert_allclose(output, extras["deformed"] * visible, atol=1e-5)
    white = animate(jnp.full(3, 100.0))[0]  # the largest difference: clipped to an image
    np.testing.assert_allclose(white, 1.0)


def test_impossible_generators_are_refused() -> None:
    for settings, match in (
        ({"volume_rendering": False}, "rendered"),
        ({"decoder_type": "unet"}, "spade"),
        ({"num_down_blocks": 0}, "num_down_blocks"),
        ({"num_down_blocks": 4}, "block_features"),
    ):
        with pytest.raises(ArgumentError, match=match):
            jax.eval_shape(tiny_model("fnevr", generator=settings).init, jax.random.key(0))


def test_edit_pose_uses_the_editor(model_and_variables: Callable, pair: FramePair) -> None:
    model, variables = model_and_variables("fnevr")
    encoding = jax.jit(model.encode_source)(variables, pair.source)
    edited = model.edit_pose(variables, encoding, pair.driving.angles)
    np.testing.assert_allclose(edited.value, encoding.keypoints.value, atol=1e-6)
