"""Durations in samples and epochs, and the schedules built from them."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, ConfigError
from talking_heads_jax.train.schedules import Clock, build_schedule, multi_step

CLOCK = Clock(batch_size=20, epoch_samples=75 * 10)  # 37 whole batches


@pytest.mark.parametrize(
    "amount, unit, steps", [(7, "steps", 7), (100, "samples", 5), (2, "epochs", 74)]
)
def test_clock_converts_units(amount, unit, steps):
    assert CLOCK.steps(amount, unit) == steps


def test_clock_counts_the_ragged_batch_only_when_told():
    assert Clock(20, 750, drop_last=False).steps_per_epoch == 38
    assert Clock(20, 10).steps_per_epoch == 1


def test_clock_refuses_unknown_units_and_negative_durations():
    with pytest.raises(ArgumentError, match="'epochs'"):
        CLOCK.steps(1, "hours")
    with pytest.raises(ConfigError, match=">= 0"):
        CLOCK.steps(-1, "steps")


def test_multi_step_drops_exactly_at_epochs_60_and_90():
    schedule = multi_step(2e-4, (60, 90), 0.1, unit="epochs", clock=CLOCK)
    rates = [float(schedule(step)) for step in (0, 60 * 37 - 1, 60 * 37, 90 * 37 - 1, 90 * 37)]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 2e-5, 2e-5, 2e-6], rtol=1e-5)


def test_multi_step_is_a_function_of_samples_seen():
    """Twice the batch, half the steps: the same rate after the same samples."""
    double = Clock(batch_size=40, epoch_samples=1500)
    small = multi_step(1.0, (1000,), 0.1, unit="samples", clock=CLOCK)
    large = multi_step(1.0, (1000,), 0.1, unit="samples", clock=double)
    for samples in (960, 1000, 1040):
        assert float(small(samples // 20)) == pytest.approx(float(large(samples // 40)))


def test_multi_step_refuses_milestones_on_one_step():
    with pytest.raises(ConfigError, match="different steps"):
        multi_step(1.0, (1, 2), 0.1, unit="samples", clock=CLOCK)


def test_warmup_rises_linearly_into_the_schedule():
    schedule = build_schedule(1.0, name="constant", clock=CLOCK, unit="steps", warmup=4)
    np.testing.assert_allclose([float(schedule(i)) for i in range(6)], [0, 0.25, 0.5, 0.75, 1, 1])


def test_cosine_ends_at_zero():
    schedule = build_schedule(1.0, name="cosine", clock=CLOCK, unit="steps", duration=10)
    np.testing.assert_allclose([float(schedule(i)) for i in (0, 5, 10)], [1, 0.5, 0], atol=1e-7)
