"""What the phases of FOMM and FNeVR compute, train, leave out and refuse."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.errors import ConfigError
from talking_heads_jax.models.base import Networks, ObjectiveResult, Phase, StepContext
from talking_heads_jax.models.registry import build_phases
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
    for term, field in (("density", "vertices"), ("pose_edit", "angles")):
        phase = build_phases(model, {**_BASE, "generator_gan": 0.0, term: {"weight": 1.0}})[0]
        networks = _networks(model_and_variables, "fnevr")
        with pytest.raises(ConfigError, match=field):
            jax.eval_shape(lambda p=phase, n=networks: _run(p, n, images_only).losses)
    flat = tiny_model("fnevr", generator={"volume_rendering": False, "decoder_inputs": ["warped"]})
    with pytest.raises(ConfigError, match="render_perceptual"):
        build_phases(flat, _BASE)
    with pytest.raises(ConfigError, match="perceptual"):
        build_phases(model, {"perceptul": {}})
