"""The table of systems. Slices are imported by name, when asked for, and never by each other."""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from talking_heads_jax.errors import ArgumentError, ConfigError, requirement
from talking_heads_jax.models.base import Phase, TalkingHead


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where a system lives: `module:attribute` of its class and of its phase builder."""

    model: str
    phases: str


_MODELS = {
    "fomm": _Entry(
        model="talking_heads_jax.models.fomm.model:FirstOrderMotionModel",
        phases="talking_heads_jax.models.fomm.objectives:build_phases",
    ),
    "fnevr": _Entry(
        model="talking_heads_jax.models.fnevr.model:FaceNeuralVolumeRendering",
        phases="talking_heads_jax.models.fnevr.objectives:build_phases",
    ),
}


def list_models() -> tuple[str, ...]:
    """Names of the systems that can be built."""
    return tuple(_MODELS)


def _load(path: str) -> Any:
    module, attribute = path.split(":")
    return getattr(importlib.import_module(module), attribute)


def _entry(name: str) -> _Entry:
    if name not in _MODELS:
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
      ConfigError: if an argument is unknown; lists the known ones.
    """
    cls = model_class(name)
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
    return cls(**arguments)


def build_phases(model: TalkingHead, objectives: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The training phases of a system, in the order they run within one step.

    Args:
      model: a system of this registry.
      objectives: the config section `objectives`: loss weights and choices.

    Raises:
      ConfigError: for an unknown key or an impossible combination.
    """
    return _load(_entry(model.name).phases)(model, objectives)
