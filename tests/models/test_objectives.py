"""What the phases of FOMM and FNeVR compute, train, leave out and refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, FramePair, Keypoints
from talking_heads_jax.errors import ConfigError
from talking_heads_jax.models.base import Networks, ObjectiveResult, Phase, StepContext
from talking_heads_jax.models.fnevr.mesh_feature import (
    mesh_feature,
    normalize_vertices,
    sample_vertices,
)
from talking_heads_jax.models.registry import build_phases
from talking_heads_jax.morphable.parts import PARTS
from tests.models.conftest import tiny_model

_BASE = {
    "perceptual": {"taps": (10.0, 1.0), "scales": (1.0, 0.5)},
    "feature_matching": (10.0, 10.0),
}
_SIX = {"density": {"weight": 1.0}, "pose_edit": {"weight": 1.0}}


def _features(images: jax.Array) -> list[jax.Array]:
    return [images, images[:, ::2, ::2] ** 2]


def _run(
    phase: Phase, networks: Networks, batch: FramePair, carry: dict[str, Any] | None = None
) -> ObjectiveResult:
    context = StepContext(jax.random.key(3), {"vgg19": _features}, carry or {}, jnp.zeros((), int))
    return phase.objective(networks, batch, context)


def _networks(model_and_variables: Callable, name: str) -> Networks:
    model, variables = model_and_variables(name)
    params = {key: value["params"] for key, value in variables.items()}
    state = {
        key: {k: v for k, v in value.items() if k != "params"} for key, value in variables.items()
    }
    return Networks(model.networks, params, state)


def test_fnevr_states_every_term_of_its_equation(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, _ = model_and_variables("fnevr")
    generator, discriminator = build_phases(model, {**_BASE, **_SIX})
    assert generator.trains == ("generator", "kp_detector", "vertex_weights", "pose_editor")
    assert discriminator.trains == ("discriminator",)
    networks = _networks(model_and_variables, "fnevr")
    result = jax.eval_shape(lambda: _run(generator, networks, pair).losses)
    assert set(result) == {
        "perceptual", "generator_gan", "feature_matching", "equivariance_value",
        "equivariance_jacobian", "render_perceptual", "density", "pose_edit",
    }  # fmt: skip
    assert all(value.shape in ((2,), ()) for value in result.values())


def test_zero_weights_remove_terms_networks_and_phases(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, _ = model_and_variables("fnevr")
    options = {
        **_BASE,
        "perceptual": {"taps": (0.0,)},
        "generator_gan": 0.0,
        "equivariance_value": 0.0,
        "equivariance_jacobian": 0.0,
        "render_perceptual": 0.0,
        "pixel_l1": 2.0,
    }
    (phase,) = build_phases(model, options)
    assert phase.trains == ("generator", "kp_detector")
    assert phase.helpers == ()
    networks = _networks(model_and_variables, "fnevr")
    losses = jax.jit(lambda: _run(phase, networks, pair).losses)()
    assert set(losses) == {"pixel_l1"}
    prediction = jax.jit(
        lambda: _run(phase, _networks(model_and_variables, "fnevr"), pair).carry["prediction"]
    )()
    expected = 2 * np.abs(prediction - pair.driving.image).mean((1, 2, 3))
    np.testing.assert_allclose(losses["pixel_l1"], expected, rtol=1e-5)


def test_discriminator_sees_the_carried_prediction(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, _ = model_and_variables("fomm")
    _, phase = build_phases(model, _BASE)
    keypoints = model.encode_driving(model_and_variables("fomm")[1], pair.driving)

    def loss(prediction: jax.Array) -> jax.Array:
        networks = _networks(model_and_variables, "fomm")
        carry = {"prediction": prediction, "driving_keypoints": keypoints}
        return jnp.sum(_run(phase, networks, pair, carry).losses["discriminator_gan"])

    perfect, noise = jax.jit(loss)(pair.driving.image), jax.jit(loss)(pair.source.image)
    assert perfect != noise


def test_equivariance_draws_from_the_context_unless_given(
    model_and_variables: Callable, pair: FramePair
) -> None:
    from talking_heads_jax.ops.thin_plate_spline import random_transform

    model, _ = model_and_variables("fomm")
    options = {**_BASE, "perceptual": {"taps": (0.0,)}, "generator_gan": 0.0, "pixel_l1": 1.0}
    (phase,) = build_phases(model, options)

    def value(carry: dict) -> jax.Array:
        networks = _networks(model_and_variables, "fomm")
        return _run(phase, networks, pair, carry).losses["equivariance_value"]

    settings = {"sigma_affine": 0.05, "sigma_tps": 0.005, "points_tps": 5}
    same = random_transform(jax.random.key(3), 2, **settings)
    other = random_transform(jax.random.key(4), 2, **settings)
    drawn = jax.jit(value)({})
    np.testing.assert_allclose(drawn, jax.jit(value)({"equivariance_transform": same}), rtol=1e-5)
    given = jax.jit(value)({"equivariance_transform": other})
    assert np.abs(np.asarray(drawn) - np.asarray(given)).max() > 1e-6


def test_pose_loss_leaves_the_detector_alone(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, variables = model_and_variables("fnevr")
    options = {**_BASE, "generator_gan": 0.0, "pose_edit": {"weight": 1.0}}
    (phase,) = build_phases(model, options)
    state = {
        key: {k: v for k, v in value.items() if k != "params"} for key, value in variables.items()
    }

    def loss(params: dict) -> jax.Array:
        result = _run(phase, Networks(model.networks, params, state), pair)
        return jnp.sum(result.losses["pose_edit"])

    gradients = jax.jit(jax.grad(loss))({k: v["params"] for k, v in variables.items()})
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients["pose_editor"])) > 0
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(gradients["kp_detector"]))


def test_missing_records_and_impossible_terms_are_named(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, _ = model_and_variables("fnevr")
    images_only = FramePair(
        FaceInputs(image=pair.source.image), FaceInputs(image=pair.driving.image)
    )
    masked = {"pixel_pyramid": {"weight": 1.0}, "region_weights": {"head": 1.0}}
    for options, field in (
        ({"density": {"weight": 1.0}}, "vertices"),
        ({"pose_edit": {"weight": 1.0}}, "angles"),
        (masked, "mask"),
    ):
        phase = build_phases(model, {**_BASE, "generator_gan": 0.0, **options})[0]
        assert phase.inputs == (field,)
        networks = _networks(model_and_variables, "fnevr")
        with pytest.raises(ConfigError, match=field):
            jax.eval_shape(lambda p=phase, n=networks: _run(p, n, images_only).losses)
    flat = tiny_model("fnevr", generator={"volume_rendering": False, "decoder_inputs": ["warped"]})
    with pytest.raises(ConfigError, match="render_perceptual"):
        build_phases(flat, _BASE)
    with pytest.raises(ConfigError, match="perceptual"):
        build_phases(model, {"perceptul": {}})
    with pytest.raises(ConfigError, match="weigh a term"):
        build_phases(model, {**_BASE, "region_weights": {"features": 4.0}})
    with pytest.raises(ConfigError, match="negative"):
        build_phases(model, {**_BASE, "gradient_l1": -1.0})


_PIXELS_ONLY = {
    "perceptual": {"taps": (0.0,)},
    "generator_gan": 0.0,
    "equivariance_value": 0.0,
    "equivariance_jacobian": 0.0,
}


def test_pixel_terms_weigh_the_regions_of_the_driving_mask(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, _ = model_and_variables("fomm")
    options = {
        **_PIXELS_ONLY,
        "region_weights": {"head": 2.0, "features": 4.0},
        "pixel_pyramid": {"weight": 3.0, "scales": (1.0,), "warped_weight": 2.0},
        "gradient_l1": 5.0,
    }
    (phase,) = build_phases(model, options)
    networks = _networks(model_and_variables, "fomm")
    result = jax.jit(lambda: _run(phase, networks, pair))()
    assert set(result.losses) == {"pixel_pyramid", "warped_pyramid", "gradient_l1"}
    weights = np.ones((2, 32, 32))
    mask = np.asarray(pair.driving.mask)[..., 0]
    for name in ("face_skin", "ears", "scalp", "hair", "glasses"):
        weights[mask == PARTS.index(name)] = 3
    for name in ("eyelids", "eyeball", "lips", "teeth", "mouth_interior"):
        weights[mask == PARTS.index(name)] = 7
    error = np.abs(result.carry["prediction"] - pair.driving.image).mean(-1)
    expected = 3 * (error * weights).sum((1, 2)) / weights.sum((1, 2))
    np.testing.assert_allclose(result.losses["pixel_pyramid"], expected, rtol=1e-4)


def test_warped_pyramid_trains_the_motion_and_not_the_decoder(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, variables = model_and_variables("fomm")
    (phase,) = build_phases(model, {**_PIXELS_ONLY, "pixel_pyramid": {"warped_weight": 1.0}})
    state = {
        key: {k: v for k, v in value.items() if k != "params"} for key, value in variables.items()
    }

    def loss(params: dict) -> jax.Array:
        return jnp.sum(
            _run(phase, Networks(model.networks, params, state), pair).losses["warped_pyramid"]
        )

    gradients = jax.jit(jax.grad(loss))({k: v["params"] for k, v in variables.items()})
    largest = jax.tree.map(lambda g: float(jnp.abs(g).max()), gradients)
    assert max(jax.tree.leaves(largest["generator"]["dense_motion"])) > 0
    assert max(jax.tree.leaves(largest["kp_detector"])) > 0
    assert max(jax.tree.leaves(largest["generator"]["decoder"])) == 0


def test_density_loss_falls_where_the_volume_lights_up_at_the_mesh(pair: FramePair) -> None:
    """The term as the phase computes it, for meshes of the sizes in use, and a hand-made volume."""
    options = {
        **_PIXELS_ONLY,
        "render_perceptual": 0.0,
        "density": {"weight": 1.0, "variance": 0.05},
    }
    model = tiny_model("fnevr", vertex_weights={"num_vertices": 512, "features": [2, 2]})
    (phase,) = build_phases(model, options)
    drawn = np.random.default_rng(0).normal(size=(2, 11763, 3))
    shell = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True) * [10, 13, 11] + [16, 16, 0]
    for count in (11763, 5023):
        vertices = jnp.asarray(shell[:, :count], jnp.float32)
        mesh = mesh_feature(
            sample_vertices(normalize_vertices(vertices, 32), 512),
            jnp.ones((2, 512)),
            size=(3, 8, 8),
            variance=0.05,
        )
        batch = pair._replace(driving=pair.driving._replace(vertices=vertices))

        def value(volume: jax.Array, batch: FramePair = batch) -> jax.Array:
            return jnp.mean(_run(phase, _VolumeStub(volume), batch).losses["density"])

        at_mesh = mesh[..., None] * jnp.ones(2)
        away = (at_mesh < 0.01 * jnp.max(mesh)).astype(jnp.float32)
        assert float(value(at_mesh)) < -0.89 < 0.0 < float(value(away))
        step = jax.grad(value)(away)
        assert float(value(away - 0.1 * step / jnp.abs(step).max())) < float(value(away))


class _VolumeStub:
    """Networks whose generator returns a given shape volume; vertices weigh one each."""

    def __init__(self, volume: jax.Array) -> None:
        self._volume = volume

    def __call__(self, network: str, image: jax.Array, **_: Any) -> Any:
        if network == "vertex_weights":
            return jnp.ones((image.shape[0], 512))
        keypoints = Keypoints(jnp.zeros((2, 3, 2)), jnp.tile(jnp.eye(2), (2, 3, 1, 1)))
        outputs = {"prediction": image, "deformed": image, "shape_volume": self._volume}
        return keypoints if network == "kp_detector" else outputs
