"""Checks on a list of phases, made once when the step is built."""

from collections.abc import Iterable, Sequence

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.models.base import Phase


def trained_networks(phases: Sequence[Phase]) -> tuple[str, ...]:
    """Names of the networks that at least one phase trains, in the order of first mention.

    Args:
      phases: of one recipe.
    """
    return tuple(dict.fromkeys(name for phase in phases for name in phase.trains))


def required_helpers(phases: Sequence[Phase]) -> tuple[str, ...]:
    """Names of the frozen helper networks that at least one phase calls.

    Args:
      phases: of one recipe.
    """
    return tuple(dict.fromkeys(name for phase in phases for name in phase.helpers))


def check_phases(
    phases: Sequence[Phase],
    networks: Iterable[str],
    optimizers: Iterable[str],
    helpers: Iterable[str],
) -> None:
    """Raises unless every name in the phases means something.

    Args:
      phases: of one recipe.
      networks: names of the model's networks.
      optimizers: names of the networks that have an optimiser.
      helpers: names of the frozen helper networks at hand.

    Raises:
      ConfigError: for an empty or ambiguous list, an unknown network, a network without an
        optimiser, a missing helper, or an interval below one.
    """
    names = [phase.name for phase in phases]
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            requirement(
                "phases", "be at least one, of different names", names, "Rename or add one."
            )
        )
    networks, optimizers, helpers = list(networks), list(optimizers), list(helpers)
    for phase in phases:
        wanted = (
            ("train networks of the model", phase.trains, networks),
            ("train networks that have an optimiser", phase.trains, optimizers),
            ("call helper networks that are loaded", phase.helpers, helpers),
        )
        for constraint, asked, known in wanted:
            unknown = [name for name in asked if name not in known]
            if unknown:
                raise ConfigError(
                    requirement(
                        f"phase '{phase.name}'",
                        constraint,
                        ", ".join(unknown),
                        f"Known: {', '.join(known) or 'none'}.",
                    )
                )
        if phase.interval < 1:
            raise ConfigError(
                requirement(
                    f"interval of phase '{phase.name}'", "be >= 1", phase.interval, "1: every step."
                )
            )
