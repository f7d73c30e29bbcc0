"""Learning-rate schedules as functions of the step, written in samples or epochs.

A recipe is stated in what was seen, not in steps, so that a change of batch size keeps it. The
schedules are optax functions: step (number of finished steps) -> learning rate.
"""

import dataclasses

import optax

from talking_heads_jax.errors import ConfigError, check_choice, requirement

UNITS = ("steps", "samples", "epochs")


@dataclasses.dataclass(frozen=True)
class Clock:
    """Converts durations to steps.

    Attributes:
      batch_size: examples per step, over all processes and accumulation.
      epoch_samples: examples of one epoch: data set size times its repeats.
      drop_last: an epoch holds only whole batches (as the released trainers), so that it has
        floor(epoch_samples / batch_size) steps.
    """

    batch_size: int
    epoch_samples: int
    drop_last: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in one epoch, at least one."""
        whole, rest = divmod(self.epoch_samples, self.batch_size)
        return max(1, whole if self.drop_last or not rest else whole + 1)

    def steps(self, amount: float, unit: str) -> int:
        """The number of steps that `amount` of `unit` takes, rounded to the nearest.

        Args:
          amount: a duration or a moment, >= 0.
          unit: `steps`, `samples` or `epochs`.

        Raises:
          ArgumentError: for an unknown unit.
          ConfigError: for an amount that is negative or not finite.
        """
        check_choice("unit of a duration", unit, UNITS)
        if not 0 <= amount < float("inf"):
            raise ConfigError(
                requirement("a duration", "be >= 0 and finite", amount, f"Unit: {unit}.")
            )
        if unit == "steps":
            return round(amount)
        if unit == "samples":
            return round(amount / self.batch_size)
        return round(amount * self.steps_per_epoch)


def multi_step(
    base: float, milestones: tuple[float, ...], factor: float, *, unit: str, clock: Clock
) -> optax.Schedule:
    """`base`, multiplied by `factor` from each milestone on.

    Args:
      base: learning rate before the first milestone.
      milestones: increasing moments; the step that begins at one uses the new rate.
      factor: multiplier, 0.1 in the papers of the first-order-model family.
      unit: of the milestones.
      clock: converts them.

    Returns:
      A schedule of the step.
    """
    boundaries = [clock.steps(moment, unit) for moment in milestones]
    if len(set(boundaries)) < len(boundaries):
        raise ConfigError(
            requirement(
                "schedule milestones",
                "fall on different steps",
                f"{milestones} {unit} = steps {boundaries}",
                "Remove one, or use a unit fine enough for the data set.",
            )
        )
    return optax.piecewise_constant_schedule(base, dict.fromkeys(boundaries, factor))


def build_schedule(
    base: float,
    *,
    name: str,
    clock: Clock,
    unit: str = "epochs",
    duration: float = 0.0,
    milestones: tuple[float, ...] = (),
    factor: float = 0.1,
    warmup: float = 0.0,
) -> optax.Schedule:
    """Builds a schedule from the config section `schedule`.

    Args:
      base: the learning rate it multiplies.
      name: `constant`, `multi_step` or `cosine`.
      clock: converts durations to steps.
      unit: of `duration`, `milestones` and `warmup`.
      duration: length of the whole run; the end of `cosine`.
      milestones: of `multi_step`.
      factor: of `multi_step`; the final share of `base` for `cosine` is zero.
      warmup: length of a linear rise from zero that precedes the schedule's own values.

    Returns:
      A schedule of the step.

    Raises:
      ArgumentError: for an unknown name or unit.
    """
    check_choice("schedule.name", name, ("constant", "multi_step", "cosine"))
    if name == "constant":
        schedule = optax.constant_schedule(base)
    elif name == "multi_step":
        schedule = multi_step(base, milestones, factor, unit=unit, clock=clock)
    else:
        schedule = optax.cosine_decay_schedule(base, max(1, clock.steps(duration, unit)))
    warmup_steps = clock.steps(warmup, unit)
    if not warmup_steps:
        return schedule
    rise = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: rise(step) * schedule(step)
