"""What counts as productive, as stall and as overhead, on a clock that the test moves."""

import pytest

from talking_heads_jax.train.throughput import Throughput, summary, window_means


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_wall_time_is_steps_stall_and_overhead():
    clock = Clock()
    log = Throughput(4, 2, clock=clock)
    with log.overhead():
        clock.now += 10  # restoring and compiling
    for step in (1, 2):
        with log.waiting_for_data():
            clock.now += 1
        clock.now += 4  # the step
        log.add(step, {"loss/g/total": float(step)})
    scalars = log.flush()
    assert scalars["perf/goodput"] == pytest.approx(8 / 20)
    assert scalars["perf/input_stall"] == pytest.approx(2 / 20)
    assert scalars["perf/images_per_second"] == pytest.approx(8 / 10)
    assert scalars["loss/g/total"] == 1.5 and scalars["samples"] == 8
    assert "goodput 40%" in summary(scalars) and "stall 10%" in summary(scalars)
    clock.now += 10  # a window of steps only: it stalls not at all, the run still has
    log.add(3, {"loss/g/total": 0.0})
    scalars = log.flush()
    assert scalars["perf/input_stall"] == 0 and scalars["perf/goodput"] == pytest.approx(18 / 30)
    with log.overhead():
        clock.now += 10  # the last checkpoint
    totals = log.totals()
    assert totals == pytest.approx((40.0, 18 / 40, 2 / 40))


def test_waiting_while_the_device_works_is_no_stall():
    clock = Clock()
    log = Throughput(4, 2, clock=clock)
    for busy in (True, False):
        with log.waiting_for_data(lambda busy=busy: busy):
            clock.now += 5
    assert log.totals().input_stall == pytest.approx(0.5)


def test_window_means_count_a_phase_where_it_ran():
    rows = [
        {"loss/lazy/a": 4.0, "active/lazy": 1.0, "loss/g/a": 1.0, "learning_rate/g": 3.0},
        {"loss/lazy/a": 0.0, "active/lazy": 0.0, "loss/g/a": 3.0, "learning_rate/g": 2.0},
    ]
    means = window_means(rows)
    assert means["loss/lazy/a"] == 4 and means["loss/g/a"] == 2 and means["learning_rate/g"] == 2
    assert means["active/lazy"] == 0.5
