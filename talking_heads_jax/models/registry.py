"""The table of systems. Slices are imported by name, when asked for, and never by each other."""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from talking_heads_jax.errors import (
    ArgumentError,
    ConfigError,
    TalkingHeadsError,
    requirement,
)
from talking_heads_jax.models.base import Phase, TalkingHead


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where a system lives: `module:attribute` of its class and of its phase builder."""

    model: str
    phases: str


# What no system has: beyond, building one would take all memory or never end. Arguments may come
# from the model.json of a checkpoint that nobody vouches for.
_LARGEST_NUMBER = 2**20
_LARGEST = {"resolution": 4096, "blocks": 64}  # endings of names -> limit
_SCALES = (1 / 64, 64.0)
_DEEPEST, _LONGEST = 8, 256

_MODELS = {
    "fomm": _Entry(
        model="talking_heads_jax.models.fomm.model:FirstOrderMotionModel",
        phases="talking_heads_jax.models.fomm.objectives:build_phases",
    ),
    "fnevr": _Entry(
        model="talking_heads_jax.models.fnevr.model:FaceNeuralVolumeRendering",
        phases="talking_heads_jax.models.fnevr.objectives:build_phases",
    ),
    "gdpw": _Entry(
        model="talking_heads_jax.models.gdpw.model:ProgressiveWarping",
        phases="talking_heads_jax.models.gdpw.objectives:build_phases",
    ),
}


def list_models() -> tuple[str, ...]:
    """Names of the systems that can be built."""
    return tuple(_MODELS)


def _load(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)


def _entry(name: str) -> _Entry:
    if not isinstance(name, str) or name not in _MODELS:
        raise ArgumentError(
            requirement(
                "model name", "be registered", repr(name), f"Use one of {', '.join(_MODELS)}."
            )
        )
    return _MODELS[name]


def model_class(name: str) -> type[TalkingHead]:
    """The class registered under `name`.

    Raises:
      ArgumentError: if `name` is not registered; lists the names.
    """
    return _load(_entry(name).model)


def build_model(name: str, **arguments: Any) -> TalkingHead:
    """Builds a system from its constructor arguments.

    Raises:
      ArgumentError: if `name` is not registered.
      ConfigError: if an argument is unknown (lists the known ones), of a wrong type or far beyond
        any system.
    """
    cls = model_class(name)
    _check_values(name, arguments)
    known = set(inspect.signature(cls).parameters)
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise ConfigError(
            requirement(
                f"arguments of model '{name}'",
                "be known",
                ", ".join(unknown),
                f"Known: {', '.join(sorted(known))}.",
            )
        )
    try:
        return cls(**arguments)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, TalkingHeadsError):
            raise
        raise ConfigError(
            requirement(
                f"arguments of model '{name}'",
                "be of the types its class documents",
                f"{type(error).__name__}: {error}",
                "Correct the config, model.json or --arguments.",
            )
        ) from error


def _check_values(name: str, arguments: Mapping[str, Any]) -> None:
    """Raises for numbers and structures that no system has."""
    waiting: list[tuple[str, Any, int]] = [("", arguments, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        problem = None
        if isinstance(value, Mapping | list | tuple):
            if depth > _DEEPEST or len(value) > _LONGEST:
                problem = "a structure of that size"
            elif isinstance(value, Mapping):
                waiting += [(str(inner), child, depth + 1) for inner, child in value.items()]
            else:
                waiting += [(key, child, depth + 1) for child in value]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            limits = [limit for ending, limit in _LARGEST.items() if key.endswith(ending)]
            fits = abs(value) <= min([_LARGEST_NUMBER, *limits])
            if key.startswith("scale"):
                fits = _SCALES[0] <= value <= _SCALES[1]
            problem = None if fits else value
        if problem is not None:
            raise ConfigError(
                requirement(
                    f"argument '{key}' of model '{name}'",
                    "be of a plausible size",
                    problem,
                    "Correct the config, model.json or --arguments.",
                )
            )


def build_phases(model: TalkingHead, objectives: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The training phases of a system, in the order they run within one step.

    Args:
      model: a system of this registry.
      objectives: the config section `objectives`: loss weights and choices.

    Raises:
      ConfigError: for an unknown key or an impossible combination.
    """
    return _load(_entry(model.name).phases)(model, objectives)
