"""The runner: reduced golden cases pass, wrong networks and unknown cases fail."""

import functools
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from talking_heads_jax.batch import FaceInputs, Keypoints
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.parity import first_order, report, runner, sizes
from tests.parity.synthetic_cases import (
    golden_variables,
    random_image,
    random_keypoints,
    write_case,
)

_REDUCED = Path(__file__).resolve().parents[1] / "testdata" / "golden"
_FORWARD = [
    "fomm_kp_detector",
    "fnevr_kp_detector",
    "fomm_generator",
    "fnevr_generator",
    "fomm_discriminator",
    "fomm_equivariance",
    "vgg19_features",
]
# Deliberately unusual, so that a default that slips in anywhere shows.
_SMALL = {
    "resolution": 32,
    "num_keypoints": 3,
    "keypoint_detector": {
        "block_expansion": 4,
        "max_features": 12,
        "num_blocks": 3,
        "scale_factor": 0.5,
    },
    "discriminator": {"block_expansion": 3, "max_features": 10, "num_blocks": 3},
}
_SMALL_GENERATOR = {
    "block_expansion": 4,
    "max_features": 12,
    "num_down_blocks": 2,
    "dense_motion_options": {
        "block_expansion": 6,
        "max_features": 20,
        "num_blocks": 2,
        "scale_factor": 0.25,
    },
}
_SMALL_FOMM = {**_SMALL, "generator": {**_SMALL_GENERATOR, "num_bottleneck_blocks": 1}}
_SMALL_FNEVR = {
    **_SMALL,
    "generator": {
        **_SMALL_GENERATOR,
        "image_head_features": 5,
        "volume_options": {"channels": 4, "depth": 3, "hidden_features": 7},
        "spade_options": {"segmentation_features": 6, "block_features": [8, 7, 6, 5]},
    },
}


def _case_failures(case_report):
    return {output.name: output.failures for output in case_report.outputs if not output.passed}


@pytest.mark.parametrize("name", _FORWARD)
def test_run_case_passes_reduced_golden_cases_at_full_size(name):
    found = runner.run_case(_REDUCED, name)
    assert found.status == runner.PASSED, found.message or _case_failures(found)
    assert found.outputs


@pytest.mark.parity
def test_run_case_passes_the_reduced_training_step():
    found = runner.run_case(_REDUCED, "fomm_training_step")
    assert found.status == runner.PASSED, found.message or _case_failures(found)


@pytest.mark.parity
@pytest.mark.parametrize("implementation", ["plain", "fast"])
@pytest.mark.parametrize("name", _FORWARD)
def test_run_case_passes_full_golden_cases(shared_folder, name, implementation):
    found = runner.run_case(
        shared_folder / "golden", name, model_options={"implementation": implementation}
    )
    assert found.status == runner.PASSED, found.message or _case_failures(found)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["flame_lbs", "deep3d_face_model"])
def test_run_case_passes_the_face_models(shared_folder, name):
    found = runner.run_case(shared_folder / "golden", name)
    assert found.status == runner.PASSED, found.message or _case_failures(found)


def test_run_case_fails_on_the_papers_transmittance_where_the_code_has_another(monkeypatch):
    read = sizes.fnevr_generator_arguments

    def wrong(shapes):
        arguments = read(shapes)
        arguments["generator"]["volume_options"]["transmittance"] = "exclusive"
        return arguments

    monkeypatch.setattr(sizes, "fnevr_generator_arguments", wrong)
    found = runner.run_case(_REDUCED, "fnevr_generator")
    assert found.status == runner.FAILED
    assert set(_case_failures(found)) == {"prediction", "render"}  # the motion is untouched


def _write_generator_case(folder, name, arguments, keys):
    model = build_model(name, **arguments)
    state, variables = golden_variables(model, "generator")
    count = arguments["num_keypoints"]
    source, driving = random_keypoints(1, count), random_keypoints(2, count)
    image = random_image(0, arguments["resolution"])
    outputs = jax.jit(functools.partial(model.networks["generator"].apply, train=False))(
        variables["generator"],
        image.astype(np.float32) / 255,
        source_keypoints=Keypoints(*source),
        driving_keypoints=Keypoints(*driving),
    )
    write_case(
        folder,
        f"{name}_generator",
        state=state,
        inputs={
            "source": image,
            "kp_source_value": source[0],
            "kp_source_jacobian": source[1],
            "kp_driving_value": driving[0],
            "kp_driving_jacobian": driving[1],
        },
        outputs={key: np.asarray(outputs[key]) for key in keys},
    )


_KEYS = ("prediction", "mask", "deformation", "occlusion_map", "deformed")


@pytest.fixture(scope="module")
def small_cases(tmp_path_factory):
    """Cases of the golden names in other sizes, made by our own networks."""
    folder = tmp_path_factory.mktemp("golden")
    _write_generator_case(folder, "fomm", _SMALL_FOMM, _KEYS)
    _write_generator_case(folder, "fnevr", _SMALL_FNEVR, (*_KEYS, "render"))
    model = build_model("fomm", **_SMALL_FOMM)
    images = {
        key: random_image(seed, 32, batch=2) for seed, key in enumerate(("source", "driving"))
    }
    state, variables = golden_variables(model, "kp_detector")
    outputs = {}
    detect = jax.jit(lambda v, image: model.encode_driving(v, FaceInputs(image=image)))
    for key, image in images.items():
        found = detect(variables, image.astype(np.float32) / 255)
        outputs |= {f"{key}_value": found.value, f"{key}_jacobian": found.jacobian}
    write_case(folder, "fomm_kp_detector", state=state, inputs=images, outputs=outputs)
    state, variables = golden_variables(model, "discriminator")
    score = jax.jit(functools.partial(model.networks["discriminator"].apply, train=False))
    scores = score(variables["discriminator"], images["source"].astype(np.float32) / 255)[1.0]
    features = {f"feature_{i}": f[:, ::4, ::4] for i, f in enumerate(scores.features)}
    write_case(
        folder,
        "fomm_discriminator",
        state=state,
        inputs={"image": images["source"]},
        outputs={"map": scores.logits, **features},
    )
    return folder


@pytest.mark.parametrize(
    "name", ["fomm_generator", "fnevr_generator", "fomm_kp_detector", "fomm_discriminator"]
)
def test_run_case_reads_every_size_from_the_files(small_cases, name):
    found = runner.run_case(small_cases, name)
    assert found.status == runner.PASSED, found.message or _case_failures(found)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("dense_motion_options", {"keypoint_variance": 0.02}),
        (None, {"align_corners": True}),
    ],
)
def test_run_case_fails_on_wrong_networks(small_cases, monkeypatch, section, value):
    read = sizes.fnevr_generator_arguments

    def wrong(shapes):
        arguments = read(shapes)
        target = arguments["generator"]
        (target if section is None else target[section]).update(value)
        return arguments

    monkeypatch.setattr(sizes, "fnevr_generator_arguments", wrong)
    assert runner.run_case(small_cases, "fnevr_generator").status == runner.FAILED


def _copy(small_cases, folder, name="fomm_generator"):
    for ending in ("json", "npz"):
        shutil.copy(small_cases / f"{name}.{ending}", folder)
    return folder / f"{name}.json", folder / f"{name}.npz"


def test_run_case_fails_on_outputs_nobody_produces_or_limits(small_cases, tmp_path):
    path, arrays = _copy(small_cases, tmp_path)
    document = json.loads(path.read_text())
    data = dict(np.load(arrays))
    np.savez(arrays, **data, **{"out/unheard": np.zeros(1)})
    assert set(_case_failures(runner.run_case(tmp_path, "fomm_generator"))) == {"unheard"}
    del document["tolerance"]["mask"]
    path.write_text(json.dumps(document))
    assert set(_case_failures(runner.run_case(tmp_path, "fomm_generator"))) == {"unheard", "mask"}
    np.savez(arrays, **{key: value for key, value in data.items() if key != "out/prediction"})
    assert set(_case_failures(runner.run_case(tmp_path, "fomm_generator"))) == {
        "prediction",
        "mask",
    }


def test_run_case_fails_on_the_wrong_salt_before_running_anything(
    small_cases, tmp_path, monkeypatch
):
    path, _ = _copy(small_cases, tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "salt": "other"}))
    monkeypatch.setattr(first_order, "_keypoints", None)
    found = runner.run_case(tmp_path, "fomm_generator")
    assert found.status == runner.BROKEN
    assert "weights_sha256" in found.message


def test_run_folder_reports_unsupported_and_broken_cases_and_goes_on(tmp_path, capsys):
    for name in ("aaa_unknown", "fomm_equivariance"):
        write_case(tmp_path, name, outputs={"y": np.zeros(1)})
    (tmp_path / "vgg19_features.json").write_text("nonsense")
    for ending in ("json", "npz"):
        shutil.copy(_REDUCED / f"fomm_discriminator.{ending}", tmp_path)
    shutil.copy(_REDUCED / "images.npz", tmp_path)
    found = {item.name: item for item in runner.run_folder(tmp_path)}
    assert found["aaa_unknown"].status == runner.UNSUPPORTED
    assert found["fomm_equivariance"].status == runner.BROKEN
    assert found["vgg19_features"].status == runner.BROKEN
    assert found["fomm_discriminator"].status == runner.PASSED
    assert all("\n" not in item.message for item in found.values())
    assert report.run_and_print(tmp_path, ["aaa*"]) == 1
    assert report.run_and_print(tmp_path, ["aaa*"], pending=True) == 0
    assert report.run_and_print(tmp_path, ["aaa*", "vgg*"], pending=True) == 1
    assert report.run_and_print(tmp_path, ["fomm_d*"]) == 0
    text = capsys.readouterr().out
    assert "feature_3" in text and "tolerance max_abs 5e-05" in text
    assert "pending: aaa_unknown" in text


def test_thin_out_takes_stored_steps_and_documented_rows():
    full = np.arange(2 * 9 * 9 * 4).reshape(2, 9, 9, 4)
    stepped = runner.thin_out(full, (2, 2, 1, 2), steps=(1, 5, 9, 2), row_step=4)
    np.testing.assert_array_equal(stepped, full[:, ::5, ::9, ::2])
    rows = runner.thin_out(full, (2, 3, 3, 4), steps=None, row_step=4)
    np.testing.assert_array_equal(rows, full[:, ::4, ::4])
    assert runner.thin_out(full, full.shape, steps=None, row_step=4) is full


def test_as_json_survives_json():
    found = runner.run_case(_REDUCED, "fomm_equivariance")
    document = json.loads(json.dumps(report.as_json([found])))
    assert document[0]["outputs"]["points"]["passed"] is True
