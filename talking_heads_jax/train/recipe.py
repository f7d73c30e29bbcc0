"""A stage of a recipe as data: what is loaded, frozen and trained, with what, for how long."""

import dataclasses
from collections.abc import Mapping

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.models.base import Phase
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import Optimizer


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training run; a recipe of several stages is several configs joined by checkpoint paths.

    Attributes:
      name: of the stage, for logs and checkpoints.
      phases: run within each step, in order.
      optimizers: network name -> optimiser; rules inside freeze parameters by regex.
      num_steps: the step at which training ends.
      batch_size: examples per step over all processes.
      accumulation: microbatches per step.
      ema: averaged networks, or None.
      resume_from: folder of another run whose whole state (step included) starts this one; None.
      init_from: network name -> folder of a checkpoint that gives its variables; overridden by
        `resume_from`, and both by a checkpoint of this very run.
    """

    name: str
    phases: tuple[Phase, ...]
    optimizers: Mapping[str, Optimizer]
    num_steps: int
    batch_size: int
    accumulation: int = 1
    ema: Ema | None = None
    resume_from: str | None = None
    init_from: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
          ConfigError: if one is not positive or the batch does not split.
        """
        if min(self.num_steps, self.batch_size, self.accumulation) < 1:
            raise ConfigError(
                requirement(
                    "num_steps, batch_size and accumulation",
                    "be positive",
                    (self.num_steps, self.batch_size, self.accumulation),
                    "Correct the sections schedule and data.",
                )
            )
        if self.batch_size % self.accumulation:
            raise ConfigError(
                requirement(
                    "data.batch_size",
                    f"be divisible by optim.accumulation ({self.accumulation})",
                    self.batch_size,
                    "Change one of the two.",
                )
            )
