"""What GDPW's phases compute: against formulas with given images, and in two steps of a system."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.errors import ArgumentError, ConfigError
from talking_heads_jax.layers.patch_discriminator import PatchScores
from talking_heads_jax.models.base import ObjectiveResult, Phase, StepContext
from talking_heads_jax.models.gdpw.guidance import MeshPair
from talking_heads_jax.models.gdpw.objectives import GDPW_DEFAULTS
from talking_heads_jax.models.gdpw.warping_module import warp_by_flow
from talking_heads_jax.models.registry import build_phases
from talking_heads_jax.ops.resize import image_pyramid
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import adam
from talking_heads_jax.train.rng import run_key
from talking_heads_jax.train.state import create_state
from talking_heads_jax.train.step import make_train_step
from tests.models.toy_gdpw import SIZE, ball_mesh, crop_vertices, tiny_gdpw, write_mesh

_NO_VGG = {"perceptual": {"taps": (0.0,)}}
_NO_GAN = {"generator_gan": 0.0}


class GivenImages:
    """Networks that return given images; scores and features are simple functions of an image."""

    def __init__(self, outputs: dict[str, Any]) -> None:
        self.outputs, self.calls, self.judged = outputs, [], []

    def __call__(self, network: str, image: jax.Array, *given: Any, train: bool) -> Any:
        assert train
        self.calls.append(network)
        if network == "generator":
            assert isinstance(given[0], MeshPair)
            return self.outputs
        self.judged.append(image)
        logits = 3 * jnp.mean(image, axis=-1, keepdims=True) - 1
        return {1.0: PatchScores(logits, tuple(_maps(image, 4)))}


def _maps(images: Any, count: int) -> list[Any]:
    """As many feature maps, all different and ever smaller, as a network has."""
    return [images[:, ::n, ::n] ** n for n in range(1, count + 1)]


def _features(images: jax.Array) -> list[jax.Array]:
    return _maps(images, 5)


def _run(phase: Phase, networks: Any, batch: FramePair, carry: Any = None) -> ObjectiveResult:
    context = StepContext(jax.random.key(0), {"vgg19": _features}, carry or {}, jnp.zeros((), int))
    return phase.objective(networks, batch, context)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny_gdpw(write_mesh(tmp_path_factory.mktemp("mesh")))


@pytest.fixture(scope="module")
def batch() -> FramePair:
    rng = np.random.default_rng(0)
    template, _ = ball_mesh()

    def face(yaw_deg: float) -> FaceInputs:
        return FaceInputs(
            image=jnp.asarray(rng.random((2, SIZE, SIZE, 3), np.float32)),
            vertices=jnp.asarray(crop_vertices(template, yaw_deg=yaw_deg, batch=2)),
            mask=jnp.asarray(rng.integers(0, 13, (2, SIZE, SIZE, 1)).astype(np.uint8)),
        )

    return FramePair(face(0.0), face(15.0))


@pytest.fixture
def networks() -> GivenImages:
    rng = np.random.default_rng(1)
    images = [jnp.asarray(rng.random((2, side, side, 3), np.float32)) for side in (8, 16, 32, 32)]
    return GivenImages(
        {"prediction": images[3], "deformed": images[2], "warped_sources": images[:3]}
    )


def _mean(difference: Any) -> np.ndarray:
    return np.abs(np.asarray(difference)).mean((1, 2, 3))


def _map_distance(image: Any, target: Any, count: int) -> np.ndarray:
    """Sum over the feature maps of their mean absolute difference, (b,)."""
    pairs = zip(_maps(np.asarray(image), count), _maps(np.asarray(target), count), strict=True)
    return sum((_mean(ours - theirs) for ours, theirs in pairs), start=np.zeros(len(target)))


def _shrunk(image: Any, factor: int) -> np.ndarray:
    b, h, w, c = image.shape
    return np.asarray(image).reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))


def test_released_recipe_is_the_default_and_has_every_term(
    model: Any, batch: FramePair, networks: GivenImages
) -> None:
    generator, discriminator = build_phases(model, {})
    assert generator.trains == ("generator",) and discriminator.trains == ("discriminator",)
    assert generator.helpers == ("vgg19",) and generator.inputs == ("vertices",)
    result = _run(generator, networks, batch)
    losses, target = result.losses, batch.driving.image
    prediction, warped = networks.outputs["prediction"], networks.outputs["deformed"]
    assert set(losses) == {
        "pixel_l1", "perceptual", "warped_perceptual", "generator_gan", "feature_matching",
        "warped_generator_gan", "warped_feature_matching",
    }  # fmt: skip
    np.testing.assert_allclose(losses["pixel_l1"], 10 * _mean(prediction - target), rtol=1e-5)
    for name, image in (("", prediction), ("warped_", warped)):
        logits = 3 * np.asarray(image).mean(-1, keepdims=True) - 1
        expected = ((1 - logits) ** 2).mean((1, 2, 3))
        np.testing.assert_allclose(losses[f"{name}generator_gan"], expected, rtol=1e-5)
        matched = 10 * _map_distance(image, target, 4)
        np.testing.assert_allclose(losses[f"{name}feature_matching"], matched, rtol=1e-5)
    # The result at four sizes, which the images that the flows warp have of their own.
    scales = (1.0, 0.5, 0.25, 0.125)
    results, targets = image_pyramid(prediction, scales), image_pyramid(target, scales)
    expected = sum(10 * _map_distance(results[scale], targets[scale], 5) for scale in scales)
    np.testing.assert_allclose(losses["perceptual"], expected, rtol=1e-5)
    # The sides 16 and 32; 8 has no map at the depth of the network's last tap.
    expected = sum(
        10 * _map_distance(image, _shrunk(target, SIZE // image.shape[1]), 5)
        for image in networks.outputs["warped_sources"][1:]
    )
    np.testing.assert_allclose(losses["warped_perceptual"], expected, rtol=1e-5)


def test_defaults_are_the_numbers_of_the_released_code() -> None:
    perceptual = GDPW_DEFAULTS["perceptual"]
    assert perceptual["taps"] == (10.0,) * 5
    assert perceptual["scales"] == (1.0, 0.5, 0.25, 0.125)
    assert GDPW_DEFAULTS["feature_matching"] == (10.0,) * 4
    assert GDPW_DEFAULTS["adversarial"] == "least_squares"
    assert GDPW_DEFAULTS["pixel_l1"] == 10.0
    for name in ("warped_perceptual", "warped_gan", "generator_gan", "discriminator_gan"):
        assert GDPW_DEFAULTS[name] == 1.0, name


def test_discriminator_judges_the_carried_images_eight_times_a_step(
    model: Any, batch: FramePair, networks: GivenImages
) -> None:
    generator, discriminator = build_phases(model, _NO_VGG)
    carry = _run(generator, networks, batch).carry
    losses = _run(discriminator, networks, batch, carry).losses
    assert networks.calls == ["generator"] + 8 * ["discriminator"]
    prediction, warped = networks.outputs["prediction"], networks.outputs["deformed"]
    target = batch.driving.image
    assert all(
        seen is wanted
        for seen, wanted in zip(
            networks.judged, 2 * [prediction, target, warped, target], strict=True
        )
    )
    real = 3 * np.asarray(target).mean(-1) - 1
    for name, image in (("", prediction), ("warped_", warped)):
        fake = 3 * np.asarray(image).mean(-1) - 1
        expected = ((1 - real) ** 2 + fake**2).mean((1, 2))
        np.testing.assert_allclose(losses[f"{name}discriminator_gan"], expected, rtol=1e-5)
    assert len(losses) == 2


def test_text_of_the_paper_is_hinge_features_and_nothing_else(
    model: Any, batch: FramePair, networks: GivenImages
) -> None:
    from configs.gdpw import vox_paper_256

    options = vox_paper_256.get_config().objectives.to_dict()
    generator, discriminator = build_phases(model, options)
    result = _run(generator, networks, batch)
    assert set(result.losses) == {"perceptual", "generator_gan", "feature_matching"}
    prediction, target = networks.outputs["prediction"], batch.driving.image
    expected = 10 * _map_distance(prediction, target, 5)  # the paper speaks of no pyramid
    np.testing.assert_allclose(result.losses["perceptual"], expected, rtol=1e-5)
    fake = 3 * np.asarray(prediction).mean(-1) - 1
    np.testing.assert_allclose(result.losses["generator_gan"], -fake.mean((1, 2)), rtol=1e-4)
    (loss,) = _run(discriminator, networks, batch, result.carry).losses.values()
    real = 3 * np.asarray(target).mean(-1) - 1
    expected = np.maximum(1 - real, 0) + np.maximum(1 + fake, 0)
    np.testing.assert_allclose(loss, expected.mean((1, 2)), rtol=1e-4)


def test_small_recipe_weighs_pixels_and_needs_no_other_network(
    model: Any, batch: FramePair, networks: GivenImages
) -> None:
    from configs.gdpw import synthetic_64

    (phase,) = build_phases(model, synthetic_64.get_config().objectives.to_dict())
    assert phase.helpers == () and phase.inputs == ("vertices", "mask")
    result = _run(phase, networks, batch)
    assert set(result.losses) == {"pixel_pyramid", "warped_pyramid", "gradient_l1"}
    assert networks.calls == ["generator"]


def test_impossible_objectives_and_missing_records_are_named(
    model: Any, batch: FramePair, networks: GivenImages
) -> None:
    with pytest.raises(ConfigError, match="equivariance_value"):
        build_phases(model, {"equivariance_value": 1.0})
    for name in ("warped_gan", "warped_perceptual"):
        with pytest.raises(ConfigError, match=rf"{name} must not be negative"):
            build_phases(model, {name: -1.0})
    both = tiny_gdpw(model.mesh.name, alpha_blend=True, generator={"residual": True})
    with pytest.raises(ArgumentError, match="residual and alpha_blend must not be both"):
        jax.eval_shape(both.init, jax.random.key(0))
    plain = {**_NO_VGG, **_NO_GAN}
    regions = {"pixel_pyramid": {"weight": 1.0}, "region_weights": {"head": 1.0}}
    for options, field in ((plain, "vertices"), ({**plain, **regions}, "mask")):
        (phase,) = build_phases(model, options)
        without = batch._replace(driving=batch.driving._replace(**{field: None}))
        with pytest.raises(ConfigError, match=f"hold `{field}`"):
            _run(phase, networks, without)


def test_matching_corner_rules_leave_a_still_picture_alone(batch: FramePair) -> None:
    still = jnp.zeros((2, SIZE, SIZE, 2))
    image = batch.source.image
    kept = warp_by_flow(image, still, align_corners=True)
    np.testing.assert_allclose(kept, image, atol=1e-5)  # a sample a hair off its pixel
    released = np.asarray(warp_by_flow(image, still, align_corners=False))
    # Outer pixels are sampled half outside, where there is nothing (spec section 1.5).
    np.testing.assert_allclose(released[:, 0, 0], np.asarray(image)[:, 0, 0] / 4, atol=1e-5)


def test_two_steps_move_codes_that_are_seen_and_no_others(batch: FramePair, tmp_path: Path) -> None:
    """Real steps of the whole system, both phases, with a residual output as the small configs."""
    model = tiny_gdpw(
        write_mesh(tmp_path), generator={"num_levels": 3, "residual": True, "align_corners": True}
    )
    options = {**_NO_VGG, "feature_matching": (1.0, 1.0), "warped_gan": 0.0}  # compiles sooner
    phases = build_phases(model, options)
    rules = [(".*", lambda step: jnp.float32(1e-3))]
    optimizers = {
        name: adam(rules, b1=0.9, b2=0.999, eps=1e-8, clip_norm=None) for name in model.networks
    }
    ema = Ema(("generator",), 0.5, False)
    variables = model.init(jax.random.key(0))
    # The step donates its state.
    before = jax.tree.map(np.array, variables)
    state = create_state(variables, optimizers, ema=ema)
    step = make_train_step(model.networks, phases, optimizers, ema=ema, with_gradients=True)
    plain = batch._replace(
        source=batch.source._replace(mask=None), driving=batch.driving._replace(mask=None)
    )
    for _ in range(2):
        state, metrics, details = step(state, plain, {}, run_key(0))
    assert int(state.step) == 2 and not bool(state.halted)
    assert all(np.isfinite(float(value)) for value in metrics.values())
    assert float(metrics["grad_norm/discriminator/discriminator"]) > 0
    moved = (
        np.asarray(state.networks["generator"].params["codes"])
        - (before["generator"]["params"]["codes"])
    )
    moved = np.abs(moved).max(axis=-1) > 0
    # The back of the ball turns its back in both views, its front shows in both.
    template, _ = ball_mesh()
    assert moved[template[:, 2] > 0.5].all() and not moved[template[:, 2] < -0.5].any()
    # Something is added to the warped source, and goes on learning.
    prediction, warped = (np.asarray(details.carry[name]) for name in ("prediction", "deformed"))
    assert np.abs(prediction - warped).mean() > 1e-3 and 0 <= prediction.min() <= 1
    head = details.gradients["generator"]["generator"]["decoder"]["output"]["kernel"]
    assert np.abs(np.asarray(head)[..., :3]).max() > 0
    for network in ("generator", "discriminator"):
        spectral = state.networks[network].collections["spectral"]
        changed = jax.tree.map(
            lambda new, old: bool((np.asarray(new) != old).any()),
            spectral,
            before[network]["spectral"],
        )
        assert all(jax.tree.leaves(changed))
