"""Json, table and pictures; the folder they appear in; intervals."""

import json

import numpy as np
import pytest
from PIL import Image

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.evaluation import report
from talking_heads_jax.evaluation.intervals import bootstrap_interval
from talking_heads_jax.evaluation.pair_files import read_pairs
from tests.evaluation.toys import evaluate, noise_clips

SIZE = 16
CLIPS = noise_clips((6, 4, 9), SIZE)


@pytest.fixture(scope="module")
def result():
    return evaluate(CLIPS)


def test_bootstrap_interval_covers_the_mean_at_its_rate():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        interval = bootstrap_interval(rng.normal(1.0, 1.0, 40), resamples=400)
        covered += interval.low <= 1.0 <= interval.high
    # 95 % nominal; the percentile bootstrap of 40 values covers 93-95 %; 200 trials: ± 4 %.
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_interval_draws_whole_groups():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 25)
    groups = [f"p{int(value)}" for value in values]
    alone, grouped = bootstrap_interval(values), bootstrap_interval(values, groups)
    assert grouped.mean == alone.mean
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    assert np.isnan(bootstrap_interval([1.0, 2.0], ["a", "a"]).low)
    assert bootstrap_interval(values, groups, list(groups)) == grouped


def test_bootstrap_interval_of_crossed_groups_covers_both_effects():
    # Values are source effect + driving effect + noise: 6 sources x 8 driving clips, 150 worlds.
    rng = np.random.default_rng(1)
    sources, driving = np.divmod(np.arange(48), 8)
    covered, one_way = 0, 0
    for _ in range(150):
        values = rng.normal(size=6)[sources] + rng.normal(size=8)[driving]
        values += 0.3 * rng.normal(size=48)
        interval = bootstrap_interval(values, sources, driving, resamples=300)
        covered += interval.low <= 0 <= interval.high
        interval = bootstrap_interval(values, resamples=300)
        one_way += interval.low <= 0 <= interval.high
    # Few groups make percentile intervals short: 88 % of 95 % here; treating the 48 values as
    # independent covers half.
    assert covered / 150 > 0.8 > 0.65 > one_way / 150


@pytest.mark.parametrize("crossed", [False, True])
def test_bootstrap_interval_of_a_ratio_equals_loops(crossed):
    rng = np.random.default_rng(2)
    values, over = rng.random(12), 1 + rng.random(12)
    sources = np.arange(12) // 3
    driving = np.arange(12) % 4 if crossed else None
    found = bootstrap_interval(values, sources, driving, over=over, resamples=50, seed=5)
    rng = np.random.default_rng(5)
    ratios = []
    if crossed:
        times = [rng.multinomial(4, np.full(4, 0.25), size=50) for _ in range(2)]
        for a, b in zip(*times, strict=True):
            weights = [a[s] * b[d] for s, d in zip(sources, driving, strict=True)]
            if any(weights):
                ratios.append(np.dot(weights, values) / np.dot(weights, over))
    else:
        for people in rng.integers(0, 4, (50, 4)):
            drawn = [i for person in people for i in range(12) if sources[i] == person]
            ratios.append(values[drawn].sum() / over[drawn].sum())
    np.testing.assert_allclose(found.mean, values.sum() / over.sum(), rtol=1e-12)
    np.testing.assert_allclose(found[1:], np.quantile(ratios, [0.025, 0.975]), rtol=1e-12)


def test_bootstrap_interval_of_a_ring_is_conservative():
    """Everybody is source once and driver once, as in `synthetic_cross`."""
    rng = np.random.default_rng(3)
    people = np.arange(24)
    covered, widths = 0, []
    for _ in range(100):
        person = rng.normal(size=24)
        values = person + np.roll(person, 1)  # the worst case: one effect in both roles
        interval = bootstrap_interval(values, people, np.roll(people, 1), resamples=300)
        covered += interval.low <= 0 <= interval.high
        alone = bootstrap_interval(values, people, resamples=300)
        widths.append((interval.high - interval.low) / (alone.high - alone.low))
    assert covered >= 90
    assert 1.4 < np.mean(widths) < 3**0.5 + 0.1


def test_bootstrap_interval_leaves_unknown_values_out():
    known = bootstrap_interval([1.0, 2.0, 4.0], ["a", "b", "c"])
    assert bootstrap_interval([1.0, np.nan, 2.0, 4.0], ["a", "d", "b", "c"]) == known
    assert np.isnan(bootstrap_interval([np.nan, np.nan]).mean)


def test_gain_over_trivial_is_positive_for_a_better_model(result):
    for recipe in result.recipes:
        best = report.best_trivial(result, recipe)
        assert best != "copy_driving"
        sign = 1 if recipe.higher_is_better else -1
        means = {row: np.mean(columns[recipe.name]) for row, columns in result.values.items()}
        gain = report.gain_over_trivial(result, recipe)
        np.testing.assert_allclose(gain.mean, sign * (means["model"] - means[best]), rtol=1e-6)


def test_share_below_is_the_part_of_the_error_that_is_gone(result):
    recipe = result.recipes[0]
    # The toy model goes half of the way from the source to the driving frame, in every pair.
    share = report.share_below(result, recipe, "copy_source")
    # Half is gone whoever is drawn, though people differ in how much there is to lose.
    np.testing.assert_allclose(share, (0.5, 0.5, 0.5), rtol=1e-6)
    other = report.share_below(result, recipe, "blur_source_1px")
    columns = {row: np.mean(result.values[row][recipe.name]) for row in result.values}
    np.testing.assert_allclose(
        other.mean, 1 - columns["model"] / columns["blur_source_1px"], rtol=1e-6
    )
    assert other.low <= other.mean <= other.high
    table = report.as_markdown(result, {}).splitlines()
    assert any(line.startswith("| below copy_source, % | 50.0 [") for line in table)
    blurs = [f"blur_source_{sigma}px" for sigma in (1, 2, 3)]
    least = min(report.share_below(result, recipe, row).mean for row in blurs)
    assert any(line.startswith(f"| below the best blur, % | {100 * least:.1f} [") for line in table)
    pairs = report.as_json(result, {})["pairs"]
    assert [pair["identities"][0] for pair in pairs] == result.identity_ids
    document = report.as_json(result, {})["share_below"]["model"]
    assert document["copy_source"][recipe.name]["mean"] == share.mean
    assert set(document["copy_source"]) == {recipe.name}  # dB and SSIM have no share


def test_the_mean_over_frames_weighs_pairs_by_their_frames():
    clips = noise_clips((6, 4, 9), SIZE, masks=True)
    found = evaluate(clips, "reconstruction_fomm")
    assert found.num_frames == [6, 4, 9]
    rows = report.as_json(found, {})["rows"]
    values = np.array(found.values["model"]["l1/unit"])
    expected = (6 * values[0] + 4 * values[1] + 9 * values[2]) / 19
    column = rows["model"]["l1/unit"]
    np.testing.assert_allclose(column["mean_over_frames"], expected, rtol=1e-12)
    assert abs(column["mean"] - expected) > 1e-3 * expected  # the mean over clips is another
    assert all(
        ("mean_over_frames" in column) == ("masked" not in name)
        for columns in rows.values()
        for name, column in columns.items()
    )
    # A pair without a value has no frames that count.
    found.values["model"]["l1/unit"][1] = float("nan")
    without = report.mean_over_frames(found, "model", found.recipes[0])
    np.testing.assert_allclose(without, (6 * values[0] + 9 * values[2]) / 15, rtol=1e-12)


def test_the_table_of_fomms_protocol_has_a_line_of_means_over_frames(result):
    found = evaluate(CLIPS, "reconstruction_fomm")
    means = [report.mean_over_frames(found, "model", recipe) for recipe in found.recipes]
    line = "| model, mean over all frames | " + " | ".join(f"{mean:.4f}" for mean in means) + " |"
    assert line in report.as_markdown(found, {}).splitlines()
    assert "mean over all frames" not in report.as_markdown(result, {})


def test_write_report_writes_json_table_pairs_and_pictures(result, tmp_path):
    files = report.write_report(
        result, tmp_path / "out", {"perceptual_weights": "random"}, data={"split": "test"}
    )
    document = json.loads(files[0].read_text())
    assert document["num_pairs"] == 3 and document["num_identities"] == 2
    assert document["rows"]["copy_driving"]["l1/unit"]["mean"] == 0
    table = files[1].read_text()
    assert "perceptual_weights: random" in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    # Header, one line per row, and the gain over the best trivial answer, the copy and the blur.
    assert len(lines) == 2 + len(result.values) + 3
    assert len({line.count("|") for line in lines}) == 1
    assert read_pairs(files[2]) == (result.pair_list, {"split": "test"})
    grid = np.asarray(Image.open(files[3]))
    assert grid.shape == (3 * SIZE + 2 * 4, 4 * SIZE + 3 * 4, 3)
    np.testing.assert_array_equal(grid[:SIZE, :SIZE], CLIPS["clip0"].frames[0])


def test_write_report_never_overwrites_unless_told_to(result, tmp_path):
    output = tmp_path / "out"
    output.mkdir()  # empty: taken
    report.write_report(result, output, {"step": 1})
    before = (output / "table.md").read_text()
    with pytest.raises(ArgumentError, match="new or empty"):
        report.write_report(result, output, {"step": 2})
    assert (output / "table.md").read_text() == before
    report.write_report(result, output, {"step": 2}, replace=True)
    assert "step: 2" in (output / "table.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_report_that_fails_leaves_nothing_behind(result, tmp_path):
    with pytest.raises(TypeError):
        report.write_report(result, tmp_path / "out", {"step": object()})
    assert not list(tmp_path.iterdir())


def test_gallery_shows_the_frame_it_names(result):
    for row, clip in zip(result.gallery, CLIPS.values(), strict=True):
        source, driving = clip.frames[0], clip.frames[row.frame]
        np.testing.assert_array_equal(row.images["source"], source)
        np.testing.assert_array_equal(row.images["driving"], driving)
        mean = (source.astype(float) + driving) / 2
        np.testing.assert_allclose(row.images["model"], mean, atol=0.51)
        error = np.minimum(4 * np.abs(mean - driving), 255)
        np.testing.assert_allclose(row.images["error x4"], error, atol=0.51)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"weights": "random", "taps": [10.0, 0.0]}, "random"),
        ({"weights": "vgg19", "taps": [0.0, 0.0]}, "none (pixel loss)"),
    ],
)
def test_perceptual_weights_says_what_was_compared(section: dict, expected: str) -> None:
    config = {"objectives": {"perceptual": section}}
    assert report.perceptual_weights(config) == expected
    assert report.perceptual_weights({}) == "unknown"
