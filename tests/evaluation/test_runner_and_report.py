"""The runner scores what a naive loop scores; the report says so in json, table and pictures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from talking_heads_jax.errors import DataError
from talking_heads_jax.evaluation import report, runner
from talking_heads_jax.evaluation.protocols import Clip, find_protocol
from talking_heads_jax.metrics.recipes import RECONSTRUCTION
from talking_heads_jax.models.base import FrameOutput, TalkingHead

_SIZE = 16


class _Halfway(TalkingHead):
    """Predicts the mean of source and driving: better than copying, worse than knowing."""

    name = "halfway"
    inference_networks = ()
    resolution = _SIZE

    @property
    def networks(self):
        return {}

    def arguments(self):
        return {}

    def init(self, rng, names=None):
        return {}

    def encode_source(self, variables, source):
        return {"image": source.image, "level": jnp.asarray(0.5)}

    def encode_driving(self, variables, driving):
        return driving.image

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        assert source_encoding["image"].shape == motion.shape
        level = source_encoding["level"]
        return FrameOutput(level * source_encoding["image"] + (1 - level) * motion, {})


def _clips(lengths=(6, 4, 9), size=_SIZE):
    clips = []
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        frames = rng.integers(0, 256, (length, size, size, 3), dtype=np.uint8)
        clips.append(Clip(f"clip{number}", frames, f"person{number // 2}"))
    return clips


@pytest.fixture(scope="module")
def result():
    return runner.evaluate_clips(
        _Halfway(), {}, _clips(), protocol=find_protocol("reconstruction"), batch_size=3
    )


def test_evaluate_clips_equals_a_naive_loop(result):
    for index, clip in enumerate(_clips()):
        frames = clip.frames.astype(np.float64) / 255
        errors = np.abs(frames[1:] - frames[:1]).mean(axis=(1, 2, 3))
        values = {row: columns["l1/unit"][index] for row, columns in result.values.items()}
        np.testing.assert_allclose(values["copy_source"], errors.mean(), rtol=1e-5)
        np.testing.assert_allclose(values["model"], errors.mean() / 2, rtol=1e-5)
        assert values["copy_driving"] == 0.0
        psnr = -10 * np.log10(np.square(0.5 * (frames[1:] - frames[:1])).mean(axis=(1, 2, 3)))
        # The mean of the frames' dB, not the dB of the mean.
        np.testing.assert_allclose(
            result.values["model"]["psnr/peak1"][index], psnr.mean(), rtol=1e-5
        )
    assert result.num_frames == [5, 3, 8]


def test_evaluate_clips_does_not_depend_on_the_batch_size(result):
    other = runner.evaluate_clips(
        _Halfway(), {}, _clips(), protocol=find_protocol("reconstruction"), batch_size=8
    )
    for row, columns in result.values.items():
        for recipe in RECONSTRUCTION:
            np.testing.assert_allclose(columns[recipe], other.values[row][recipe], rtol=1e-5)


def test_evaluate_clips_compiles_once_for_all_clips():
    count = 0

    class Counting(_Halfway):
        def encode_driving(self, variables, driving):
            nonlocal count
            count += 1
            return driving.image

    runner.evaluate_clips(
        Counting(), {}, _clips(), protocol=find_protocol("reconstruction"), batch_size=3
    )
    assert count == 1


def test_evaluate_clips_stops_at_max_clips_and_refuses_nothing_and_other_sizes():
    protocol = find_protocol("reconstruction")
    found = runner.evaluate_clips(_Halfway(), {}, _clips(), protocol=protocol, max_clips=2)
    assert found.clip_ids == ["clip0", "clip1"]
    with pytest.raises(DataError, match="at least 2 frames"):
        runner.evaluate_clips(_Halfway(), {}, _clips((1, 1)), protocol=protocol)
    with pytest.raises(DataError, match="--size 16"):
        runner.evaluate_clips(_Halfway(), {}, _clips((3,), size=20), protocol=protocol)


def test_bootstrap_interval_covers_the_mean_at_its_rate():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        interval = report.bootstrap_interval(rng.normal(1.0, 1.0, 40), resamples=400)
        covered += interval.low <= 1.0 <= interval.high
    # 95 % nominal; the percentile bootstrap of 40 values covers 93-95 %; 200 trials: ± 4 %.
    assert 0.88 <= covered / 200 <= 0.99


def test_bootstrap_interval_draws_whole_groups():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 25)
    groups = [f"p{int(value)}" for value in values]
    alone, grouped = report.bootstrap_interval(values), report.bootstrap_interval(values, groups)
    assert grouped.mean == alone.mean
    assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
    assert np.isnan(report.bootstrap_interval([1.0, 2.0], ["a", "a"]).low)


def test_gain_over_trivial_is_positive_for_a_better_model(result):
    for recipe in result.recipes:
        best = report.best_trivial(result, recipe)
        assert best != "copy_driving"
        sign = 1 if recipe.higher_is_better else -1
        means = {row: np.mean(columns[recipe.name]) for row, columns in result.values.items()}
        gain = report.gain_over_trivial(result, recipe)
        np.testing.assert_allclose(gain.mean, sign * (means["model"] - means[best]), rtol=1e-6)


def test_write_report_writes_json_table_and_pictures(result, tmp_path):
    files = report.write_report(result, tmp_path / "out", {"perceptual_weights": "random"})
    document = json.loads(files[0].read_text())
    assert document["num_clips"] == 3 and document["num_identities"] == 2
    assert document["rows"]["copy_driving"]["l1/unit"]["mean"] == 0
    table = files[1].read_text()
    assert "perceptual_weights: random" in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(result.values) + 1
    assert len({line.count("|") for line in lines}) == 1
    grid = np.asarray(Image.open(files[2]))
    assert grid.shape == (3 * _SIZE + 2 * 4, 4 * _SIZE + 3 * 4, 3)
    row = result.gallery[0]
    source = np.rint(255 * row.images["source"]).astype(np.uint8)
    np.testing.assert_array_equal(grid[:_SIZE, :_SIZE], source)


def test_gallery_shows_the_frame_it_names(result):
    row = result.gallery[0]
    clip = _clips()[0].frames.astype(np.float32) / 255
    np.testing.assert_allclose(row.images["driving"], clip[1 + row.frame], atol=1e-6)
    expected = 0.5 * (clip[0] + clip[1 + row.frame])
    np.testing.assert_allclose(row.images["prediction"], expected, atol=1e-6)
    assert jax.tree.leaves(row.images)


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
