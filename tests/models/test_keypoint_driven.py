"""The protocol of FOMM and FNeVR: arguments, sharing of a source, exact savings, pictures."""

import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, FramePair, Keypoints
from talking_heads_jax.errors import ArgumentError, ConfigError
from talking_heads_jax.models.base import count_parameters
from talking_heads_jax.models.keypoint_driven import draw_keypoints
from talking_heads_jax.models.registry import build_model, list_models
from tests.models.conftest import tiny_model

KEYPOINT_MODELS = ("fomm", "fnevr")


@pytest.mark.parametrize(
    ("name", "detector", "generator"),
    [("fomm", 14_215_368, 45_575_391), ("fnevr", 14_215_368, 47_179_657)],
)
def test_full_size_parameter_counts_are_the_released_ones(
    name: str, detector: int, generator: int
) -> None:
    model = build_model(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert count_parameters(shapes["kp_detector"]["params"]) == detector
    assert count_parameters(shapes["generator"]["params"]) == generator
    assert count_parameters(shapes["discriminator"]["params"]) == 2_758_849


@pytest.mark.parametrize("name", KEYPOINT_MODELS)
def test_arguments_survive_json(name: str) -> None:
    model = tiny_model(name, dtype="bfloat16", generator={"align_corners": True})
    again = build_model(name, **json.loads(json.dumps(model.arguments())))
    assert again.arguments() == model.arguments()
    assert jax.eval_shape(again.init, jax.random.key(0)) == jax.eval_shape(
        model.init, jax.random.key(0)
    )


@pytest.mark.parametrize("name", KEYPOINT_MODELS)
def test_one_source_serves_a_batch_of_frames(
    name: str, model_and_variables: Callable, pair: FramePair
) -> None:
    model, variables = model_and_variables(name)
    source = FaceInputs(image=pair.source.image[:1])
    encoding = jax.jit(model.encode_source)(variables, source)
    motion = jax.jit(model.encode_driving)(variables, pair.driving)
    animate = jax.jit(model.animate_frame)
    together = animate(variables, encoding, motion).prediction
    for i in range(2):
        alone = animate(variables, encoding, jax.tree.map(lambda x, i=i: x[i : i + 1], motion))
        np.testing.assert_allclose(together[i : i + 1], alone.prediction, atol=2e-6)
    assert together.dtype == jnp.float32
    assert together.min() >= 0.0
    assert together.max() <= 1.0


@pytest.mark.parametrize("name", KEYPOINT_MODELS)
def test_fast_implementation_equals_plain(
    name: str, model_and_variables: Callable, pair: FramePair
) -> None:
    fast, variables = model_and_variables(name)
    plain = tiny_model(name, implementation="plain")
    assert fast.arguments()["implementation"] == "fast"
    results = []
    for model in (fast, plain):
        encoding = jax.jit(model.encode_source)(variables, pair.source)
        motion = jax.jit(model.encode_driving)(variables, pair.driving)
        moved = motion._replace(value=motion.value + 0.1)
        results.append(jax.jit(model.animate_frame)(variables, encoding, moved).prediction)
    np.testing.assert_allclose(results[0], results[1], atol=2e-5)  # instance norms near their eps


@pytest.mark.parametrize("name", KEYPOINT_MODELS)
def test_intermediates_do_not_change_the_prediction(
    name: str, model_and_variables: Callable, pair: FramePair
) -> None:
    model, variables = model_and_variables(name)
    encoding = jax.jit(model.encode_source)(variables, pair.source)
    bare = jax.jit(model.animate_frame)(variables, encoding, encoding.keypoints)
    full = jax.jit(lambda *a: model.animate_frame(*a, with_intermediates=True))(
        variables, encoding, encoding.keypoints
    )
    assert bare.intermediates == {}
    assert {"deformation", "occlusion_map", "mask", "deformed"} <= set(full.intermediates)
    assert ("render" in full.intermediates) == (name == "fnevr")
    np.testing.assert_allclose(bare.prediction, full.prediction, atol=2e-6)


def test_bfloat16_keeps_geometry_in_float32(pair: FramePair) -> None:
    model = tiny_model("fnevr", dtype="bfloat16")
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))

    def run(variables: dict) -> tuple:
        encoding = model.encode_source(variables, pair.source)
        output = model.animate_frame(
            variables, encoding, encoding.keypoints, with_intermediates=True
        )
        return encoding, output

    encoding, output = jax.eval_shape(run, shapes)
    assert encoding.keypoints.value.dtype == jnp.float32
    assert encoding.features.features.dtype == jnp.bfloat16
    assert output.prediction.dtype == jnp.float32
    assert output.intermediates["deformation"].dtype == jnp.float32


def test_panels_show_every_step(model_and_variables: Callable, pair: FramePair) -> None:
    model, variables = model_and_variables("fnevr")
    panels = jax.jit(model.panels)(variables, pair)
    assert set(panels) == {
        "source", "driving", "source_keypoints", "driving_keypoints", "deformation", "deformed",
        "occlusion_map", "render", "prediction",
    }  # fmt: skip
    for picture in panels.values():
        assert picture.shape == (2, 32, 32, 3)
        assert float(picture.min()) >= 0.0
        assert float(picture.max()) <= 1.0


def test_draw_keypoints_colours_the_pixel_under_the_point() -> None:
    image = jnp.full((1, 65, 65, 3), 0.5)
    drawn = draw_keypoints(image, jnp.asarray([[[0.0, -1.0]]]))  # middle of the top row
    changed = np.argwhere(np.abs(np.asarray(drawn) - 0.5).max(-1)[0] > 0)
    assert [0, 32] in changed.tolist()
    assert changed[:, 0].max() <= 2
    assert set(changed[:, 1]) <= set(range(30, 35))


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ArgumentError, match="fnevr"):
        build_model("fnever")
    with pytest.raises(ConfigError, match="num_keypoints"):
        build_model("fomm", keypoints=3)
    with pytest.raises(ConfigError, match="block_expansion"):
        build_model("fomm", generator={"widht": 3})
    with pytest.raises(ArgumentError, match="bfloat16"):
        build_model("fomm", dtype="float16")
    assert set(KEYPOINT_MODELS) <= set(list_models())


def test_motion_of_another_count_than_the_model_is_refused(
    model_and_variables: Callable, pair: FramePair
) -> None:
    model, variables = model_and_variables("fomm")
    encoding = jax.jit(model.encode_source)(variables, pair.source)
    wrong = Keypoints(jnp.zeros((2, 5, 2)), jnp.tile(jnp.eye(2), (2, 5, 1, 1)))
    with pytest.raises(Exception, match=r"\b(3|4|5|6)\b"):
        jax.eval_shape(model.animate_frame, variables, encoding, wrong)
