"""Filters against plain loops, gaps and cuts, uneven times, and what jitter measures."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.tracking.smoothing import gaussian, jitter, one_euro


def plain_one_euro(values, times, scale, min_cutoff, coefficient, speed_cutoff):
    """One number after the other, as the paper's algorithm 1 reads."""

    def share(cutoff, step):
        tau = 1 / (2 * np.pi * cutoff)
        return 1 / (1 + tau / step)

    out, speed = [values[0]], 0.0
    for before, now, value in zip(times[:-1], times[1:], values[1:], strict=True):
        step = now - before
        change = (value - out[-1]) / step
        speed = share(speed_cutoff, step) * change + (1 - share(speed_cutoff, step)) * speed
        alpha = share(min_cutoff + coefficient * abs(speed) / scale, step)
        out.append(alpha * value + (1 - alpha) * out[-1])
    return np.array(out)


def test_one_euro_equals_a_plain_loop_at_uneven_times():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 3)).cumsum(0)
    times = rng.uniform(0.01, 0.2, 40).cumsum()
    smooth = one_euro(
        values, time_s=times, scale=2.0, min_cutoff_hz=0.7, speed_coefficient=3.0, speed_cutoff_hz=2
    )
    for column in range(3):
        expected = plain_one_euro(values[:, column], times, 2.0, 0.7, 3.0, 2.0)
        np.testing.assert_allclose(smooth[:, column], expected, rtol=1e-10)


def test_one_euro_both_ways_does_not_lag():
    ramp = np.arange(60.0)[:, None]
    middle = slice(20, 40)  # away from both starts
    causal = one_euro(ramp, 25.0, speed_coefficient=0.0)
    both = one_euro(ramp, 25.0, speed_coefficient=0.0, both_ways=True)
    assert (causal[middle] < ramp[middle] - 0.5).all()
    np.testing.assert_allclose(both[middle], ramp[middle], atol=1e-2)
    noise = np.random.default_rng(1).normal(size=(60, 2))
    forwards = one_euro(noise, 25.0, both_ways=True)
    backwards = one_euro(noise[::-1], 25.0, both_ways=True)[::-1]
    np.testing.assert_allclose(forwards, backwards, rtol=1e-9)


def test_one_euro_follows_quick_movement_and_holds_still():
    step = np.repeat([0.0, 10.0], 20)[:, None]
    slow = one_euro(step, 25.0, speed_coefficient=0.0)
    quick = one_euro(step, 25.0, speed_coefficient=5.0)
    assert slow[20, 0] < 5 < 9 < quick[20, 0]
    np.testing.assert_array_equal(one_euro(np.full((9, 2), 3.0), 25.0), 3.0)


@pytest.mark.parametrize("name", ["one_euro", "both_ways", "gaussian"])
def test_filters_do_not_cross_cuts_and_keep_gaps(name):
    def smooth(values, **keywords):
        if name == "gaussian":
            return gaussian(values, 1.5, **keywords)
        both = name == "both_ways"
        return one_euro(values, 25.0, both_ways=both, speed_coefficient=0.1, **keywords)

    values = np.random.default_rng(2).normal(size=(30, 2))
    values[12:] += 100
    segments = ((0, 12), (12, 30))
    parts = np.concatenate([smooth(values[:12]), smooth(values[12:])])
    np.testing.assert_allclose(smooth(values, segments=segments), parts, rtol=1e-12)
    assert np.abs(smooth(values) - parts).max() > 1, "without segments the cut would leak"
    gapped = values.copy()
    gapped[5, 0] = np.nan
    smoothed = smooth(gapped, segments=segments)
    assert np.isnan(smoothed[5, 0]) and np.isfinite(np.delete(smoothed, 10)).all()
    np.testing.assert_array_equal(smoothed[:, 1], smooth(values, segments=segments)[:, 1])


def test_one_euro_starts_anew_after_a_gap():
    values = np.concatenate([np.zeros(5), [np.nan], np.full(5, 9.0)])[:, None]
    np.testing.assert_array_equal(one_euro(values, 25.0)[6:], 9.0)


def test_gaussian_equals_the_weighted_mean_of_what_is_there():
    rng = np.random.default_rng(3)
    values, times = rng.normal(size=(15, 2)), rng.uniform(0.02, 0.06, 15).cumsum()
    values[4] = np.nan
    smooth = gaussian(values, 1.2, fps=25.0, time_s=times)
    for now in (0, 3, 7, 14):
        distance = (times - times[now]) * 25.0
        weights = np.exp(-0.5 * (distance / 1.2) ** 2) * (np.abs(distance) <= 3.6)
        weights[4] = 0
        expected = (weights[:, None] * np.where(np.isnan(values), 0, values)).sum(0) / weights.sum()
        np.testing.assert_allclose(smooth[now], expected, rtol=1e-10)
    np.testing.assert_array_equal(gaussian(values, 0.0), values)


def test_gaussian_keeps_a_ramp():
    """Times are rounded: the outermost neighbours must be taken on both sides or on none."""
    ramp = np.arange(300.0)[:, None]
    for fps in (25.0, 30.0, 29.97):
        smooth = gaussian(ramp, 1.0, fps=fps)
        np.testing.assert_allclose(smooth[5:-5], ramp[5:-5], atol=1e-6)


def test_jitter_is_the_noise_of_one_coordinate():
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(400, 51, 2)) * 0.3
    # 40,800 numbers, neighbours correlated: the estimate itself varies by less than 1 %.
    assert jitter(noise, length=10.0) == pytest.approx(0.03, rel=0.02)
    times = rng.uniform(0.02, 0.1, 400).cumsum()
    assert jitter(noise, length=10.0, time_s=times) == pytest.approx(0.03, rel=0.02)


def test_jitter_ignores_steady_movement_cuts_and_gaps():
    times = np.random.default_rng(5).uniform(0.02, 0.1, 30).cumsum()
    ramp = times[:, None, None] * np.array([[3.0, -2.0]]) + 1.0
    assert jitter(ramp, time_s=times) < 1e-12
    assert jitter(ramp) > 1e-3, "evenly spaced times would be wrong here"
    jump = np.repeat([0.0, 50.0], 6)[:, None, None] * np.ones((1, 4, 2))
    assert jitter(jump, segments=((0, 6), (6, 12))) == 0
    jump[3] = np.nan
    assert jitter(jump, segments=((0, 6), (6, 12))) == 0
    assert jitter(jump) > 1
    assert np.isnan(jitter(jump[:2]))


@pytest.mark.parametrize(
    "keywords",
    [
        {"min_cutoff_hz": 0.0},
        {"speed_cutoff_hz": -1.0},
        {"speed_coefficient": -1.0},
        {"scale": 0.0},
        {"min_cutoff_hz": float("nan")},
        {"fps": 0.0},
        {"time_s": [0.0, 2.0, 1.0]},
        {"time_s": [0.0, 1.0]},
    ],
)
def test_filters_refuse_senseless_numbers(keywords):
    with pytest.raises(ArgumentError):
        one_euro(np.zeros((3, 1)), **keywords)
    with pytest.raises(ArgumentError, match="sigma_frames"):
        gaussian(np.zeros((3, 1)), -1.0)
