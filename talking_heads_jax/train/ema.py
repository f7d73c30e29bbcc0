"""Exponential moving averages of parameters, kept inside the training state."""

import dataclasses

import jax
import jax.numpy as jnp

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.typing import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Ema:
    """Which networks are averaged, and how slowly.

    Attributes:
      networks: names; each has `ema_params` in the state, the others None.
      decay: share of the old average kept per step; 0 turns averaging off.
      warmup: start with the small decay (1 + step) / (10 + step), so that early averages forget the
        random initialisation.
    """

    networks: tuple[str, ...]
    decay: float = 0.999
    warmup: bool = True

    def __post_init__(self) -> None:
        """Checks the decay.

        Raises:
          ConfigError: if it lies outside [0, 1).
        """
        if not 0.0 <= self.decay < 1.0:
            raise ConfigError(
                requirement("ema.decay", "lie in [0, 1)", self.decay, "Use 0 to turn it off.")
            )

    def covers(self, network: str) -> bool:
        """Whether the state holds averaged parameters of `network`."""
        return self.decay > 0 and network in self.networks


def ema_decay(ema: Ema, step: Array) -> Array:
    """The decay of one step.

    Args:
      ema: the settings.
      step: () number of finished steps before this one.
    """
    if not ema.warmup:
        return jnp.asarray(ema.decay, jnp.float32)
    step = step.astype(jnp.float32)
    return jnp.minimum(ema.decay, (1.0 + step) / (10.0 + step))


def update_ema(ema_params: PyTree, params: PyTree, decay: Array) -> PyTree:
    """`decay * average + (1 - decay) * params`, leaf by leaf, in the average's dtype.

    Args:
      ema_params: the averages so far.
      params: the parameters after the step.
      decay: () in [0, 1).
    """
    return jax.tree.map(
        lambda average, new: average + (1.0 - decay).astype(average.dtype) * (new - average),
        ema_params,
        params,
    )
