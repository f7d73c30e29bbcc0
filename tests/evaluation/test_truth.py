"""Regions, retrieval and the probe's columns equal naive loops, and know what they need."""

import functools

import jax
import numpy as np
import pytest
from scipy import ndimage

from configs.eval import load_protocol
from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, DataError
from talking_heads_jax.evaluation import report, results, runner
from talking_heads_jax.evaluation.answers import TrivialAnswer
from talking_heads_jax.evaluation.pairs import build_pairs
from talking_heads_jax.evaluation.runner import ExactTruth
from talking_heads_jax.metrics.recipes import RECIPES
from talking_heads_jax.metrics.retrieval import dilation_px
from talking_heads_jax.morphable.parts import REGIONS
from talking_heads_jax.networks.probe import expression_vector, load_probe, run_probe
from tests.evaluation.toys import evaluate, faces, protocol, toy_probe

CLIPS = faces()
METRICS = tuple(load_protocol("synthetic_same").metrics)
look = jax.jit(run_probe)


@pytest.fixture(scope="module")
def same():
    """The toy model goes half of the way to the driving frame."""
    return evaluate(CLIPS, "synthetic_same", recipes=METRICS, probe=toy_probe())


def unit(clip, number):
    return clip.frames[number].astype(np.float32) / np.float32(255)


def halfway(pair):
    clip = CLIPS[pair.driving_clip]
    return [(unit(clip, 0) + unit(clip, i)) / 2 for i in pair.driving_frames]


def test_regions_are_compared_where_the_true_frame_shows_them(same):
    for region in ("face", "mouth", "eyes"):
        for index, pair in enumerate(same.pairs):
            clip = CLIPS[pair.driving_clip]
            errors = []
            for number in pair.driving_frames:
                inside = np.isin(clip.masks[number], list(REGIONS[region]))
                errors.append(np.abs(unit(clip, 0) - unit(clip, number))[inside].mean())
            found = same.values["copy_source"][f"l1/masked-{region}"][index]
            np.testing.assert_allclose(found, np.mean(errors), rtol=1e-5)  # float32 sums


def test_a_frame_without_the_region_does_not_count():
    clips = {name: clip._replace(masks=clip.masks.copy()) for name, clip in CLIPS.items()}
    pair = build_pairs(protocol("synthetic_same"), clips.values()).pairs[0]
    clip = clips[pair.driving_clip]
    clip.masks[pair.driving_frames[0]] = 1  # skin only
    found = evaluate(clips, "synthetic_same", recipes=("l1/masked-mouth",))
    errors = []
    for number in pair.driving_frames[1:]:
        inside = np.isin(clip.masks[number], list(REGIONS["mouth"]))
        errors.append(np.abs(unit(clip, 0) - unit(clip, number))[inside].mean())
    np.testing.assert_allclose(
        found.values["copy_source"]["l1/masked-mouth"][0], np.mean(errors), rtol=1e-5
    )


@pytest.mark.parametrize("region", ["mouth", "eyes"])
def test_retrieval_equals_a_naive_loop_over_the_pairs_own_frames(same, region):
    side = 2 * dilation_px(16) + 1
    for index, pair in enumerate(same.pairs):
        clip, numbers = CLIPS[pair.driving_clip], pair.driving_frames
        shown = np.isin(clip.masks[list(numbers)], list(REGIONS[region])).any(axis=0)
        inside = ndimage.binary_dilation(shown, np.ones((side, side)))
        hits = [
            np.argmin([np.abs(image - unit(clip, i))[inside].mean() for i in numbers]) == own
            for own, image in enumerate(halfway(pair))
        ]
        assert same.values["model"][f"retrieval_{region}"][index] == np.float32(np.mean(hits))


def test_an_answer_that_does_not_move_scores_chance_and_the_table_prints_it(same):
    for row in ("copy_source", "blur_source_1px", "blur_source_3px"):
        for name in ("retrieval_mouth", "retrieval_eyes"):
            np.testing.assert_allclose(same.values[row][name], 1 / 3, rtol=1e-6)
    assert same.references["chance"] == {
        name: pytest.approx(1 / 3) for name in ("retrieval_mouth", "retrieval_eyes")
    }
    table = report.as_markdown(same, {})
    lines = [line for line in table.splitlines() if line.startswith("| chance |")]
    assert len(lines) == 1 and lines[0].count("0.3333") == 2


def test_the_probe_columns_compare_its_estimates_with_the_exact_truth(same):
    probe = toy_probe()
    for index, pair in enumerate(same.pairs):
        clip, numbers = CLIPS[pair.driving_clip], list(pair.driving_frames)
        seen = look(probe.params, probe.statistics, np.stack(halfway(pair)))
        source = look(probe.params, probe.statistics, unit(clip, 0)[None])
        points = clip.landmarks[numbers] / 16
        truth = expression_vector(clip.expression_coeffs[numbers], clip.joint_pose[numbers])
        scaled = (np.asarray(seen.expression) - truth) / 0.1
        expected = {
            "probe_landmarks_px": 256 * np.linalg.norm(seen.landmarks - points, axis=-1).mean(),
            "probe_angles_deg": np.rad2deg(np.abs(seen.angles - clip.angles[numbers])).mean(),
            "probe_expression": np.sqrt(np.mean(scaled**2, axis=1)).mean(),
            "probe_identity": (seen.embedding @ source.embedding[0]).mean(),
        }
        for name, value in expected.items():
            # The same network in batches of other sizes: float32 sums in another order.
            found = same.values["model"][name][index]
            np.testing.assert_allclose(found, value, rtol=1e-4, err_msg=name)


def test_the_probes_own_error_stands_beside_its_columns(same, tmp_path):
    row = same.references[runner.PROBE_ITSELF]
    assert row == {"probe_landmarks_px": 1.5, "probe_angles_deg": 2.5}
    assert f"| {runner.PROBE_ITSELF} | –" in report.as_markdown(same, {})
    assert report.as_json(same, {})["references"][runner.PROBE_ITSELF] == row
    results.write_partial(tmp_path, same, {}, {})
    back, _, _ = results.read_partial(tmp_path)
    assert back.references == same.references
    assert report.as_markdown(back, {}) == report.as_markdown(same, {})


def test_a_copy_of_the_source_is_the_right_person_and_nobody_gains_on_it(same):
    recipe = RECIPES["probe_identity"]
    np.testing.assert_allclose(same.values["copy_source"]["probe_identity"], 1.0, rtol=1e-5)
    assert np.isnan(report.gain_over_trivial(same, recipe).mean)
    assert "probe_identity" not in report.as_json(same, {})["gain_over_best_trivial"]["model"]


def test_across_identities_the_truth_is_rendered_and_motion_is_the_driving_frames():
    shifted = {name: unit(clip, 0) for name, clip in CLIPS.items()}

    def image(pair, number):
        return 0.5 * shifted[pair.source_clip] + 0.5 * unit(CLIPS[pair.driving_clip], number)

    truth = ExactTruth(
        image,
        lambda pair, number: CLIPS[pair.driving_clip].masks[number],
        "toys",
        lambda pair, number: CLIPS[pair.source_clip].landmarks[0] + number,
    )
    options = {"recipes": METRICS, "probe": toy_probe(), "truth": truth}
    found = evaluate(CLIPS, "synthetic_cross", **options)
    # The toy model is exactly this truth, and so retrieves it.
    assert max(found.values["model"]["l1/masked-face"]) < 1e-6
    assert found.values["model"]["retrieval_mouth"] == [1.0] * 3
    np.testing.assert_allclose(found.values["copy_source"]["retrieval_eyes"], 1 / 3, rtol=1e-6)
    probe, pair = toy_probe(), found.pairs[1]
    numbers = list(pair.driving_frames)
    seen = look(probe.params, probe.statistics, np.stack([image(pair, i) for i in numbers]))
    points = np.stack([truth.landmarks(pair, number) for number in numbers]) / 16
    expected = 256 * np.linalg.norm(seen.landmarks - points, axis=-1).mean()
    found_px = found.values["model"]["probe_landmarks_px"][1]
    np.testing.assert_allclose(found_px, expected, rtol=1e-4)
    expected = np.rad2deg(np.abs(seen.angles - CLIPS[pair.driving_clip].angles[numbers])).mean()
    found_deg = found.values["model"]["probe_angles_deg"][1]
    np.testing.assert_allclose(found_deg, expected, rtol=1e-4)
    # A copy of the driving frame competes as a picture, but knows all about the motion.
    assert report.best_trivial(found, RECIPES["retrieval_mouth"]) != "copy_driving"
    assert "copy_driving" in found.values and found.oracle == ""


def test_whose_shape_is_kept_is_told_by_the_rival_whatever_the_shards(tmp_path):
    def own(pair, number):
        return unit(CLIPS[pair.source_clip], 0)

    pairs = build_pairs(protocol("synthetic_cross"), CLIPS.values()).pairs
    alike, partly = pairs[0], pairs[1]

    def rival(pair, number):
        same = pair == alike or (pair == partly and number == pair.driving_frames[0])
        return own(pair, number) if same else unit(CLIPS[pair.driving_clip], number)

    options = {"recipes": ("shape_kept",), "truth": ExactTruth(own, rival=rival), "batch_size": 2}
    whole = evaluate(CLIPS, "synthetic_cross", **options)
    for row, value in (("copy_source", 1.0), ("copy_driving", -1.0), ("model", 0.0)):
        found = whole.values[row]["shape_kept"]
        np.testing.assert_allclose(found, [np.nan, value, value], atol=1e-6)
    column = report.as_json(whole, {})["rows"]["model"]["shape_kept"]
    assert "mean_over_frames" not in column  # it is not stored how many frames have a value
    table = report.as_markdown(whole, {})
    assert "(2 of 3 pairs)" in table and np.isnan(
        report.gain_over_trivial(whole, *whole.recipes).mean
    )
    parts = []
    for index in range(2):
        folder = tmp_path / str(index)
        folder.mkdir()
        part = evaluate(CLIPS, "synthetic_cross", shard=(index, 2), **options)
        results.write_partial(folder, part, {}, {})
        parts.append((str(index), results.read_partial(folder)[0]))
    assert report.as_markdown(results.merge_results(parts), {}) == table
    for truth in (ExactTruth(own), None):
        with pytest.raises(ArgumentError, match=r"driver's shape|have a truth"):
            evaluate(CLIPS, "synthetic_cross", **(options | {"truth": truth}))


def test_what_a_metric_needs_is_asked_for(monkeypatch, tmp_path):
    bare = {name: clip._replace(angles=None) for name, clip in CLIPS.items()}
    with pytest.raises(ArgumentError, match="exact angles of every frame"):
        evaluate(bare, recipes=("probe_angles_deg",), probe=toy_probe())
    bare = {name: clip._replace(masks=None) for name, clip in CLIPS.items()}
    with pytest.raises(ArgumentError, match="a mask of every frame"):
        evaluate(bare, recipes=("retrieval_mouth",))
    short = {
        name: clip._replace(expression_coeffs=clip.expression_coeffs[:, :2])
        for name, clip in CLIPS.items()
    }
    with pytest.raises(DataError, match="have the probe's 13 components, got 11"):
        evaluate(short, recipes=("probe_expression",), probe=toy_probe())
    missing = functools.partial(load_probe, tmp_path / "none.safetensors")
    monkeypatch.setattr(runner, "load_probe", missing)
    with pytest.raises(AssetNotFoundError, match="train_probe"):
        evaluate(CLIPS, recipes=("probe_identity",))
    long = faces((66, 66), size=4)
    with pytest.raises(ArgumentError, match="among at most 64 driving frames of a pair, got 65"):
        evaluate(long, recipes=("retrieval_mouth",))


def test_more_trivial_answers_compete():
    knowing = TrivialAnswer(lambda source, driving: 0.1 * source + 0.9 * driving)
    found = evaluate(CLIPS, recipes=("l1/unit",), more_trivial={"mesh_warp": knowing})
    assert report.best_trivial(found, RECIPES["l1/unit"]) == "mesh_warp"
    assert report.gain_over_trivial(found, RECIPES["l1/unit"]).high < 0
    with pytest.raises(ArgumentError, match="differ from the trivial rows"):
        evaluate(CLIPS, recipes=("l1/unit",), more_trivial={"model": knowing})
