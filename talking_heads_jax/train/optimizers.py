"""Optimisers: Adam whose learning rate is chosen parameter by parameter through regex rules.

A rule is (regex over the parameter's path, schedule) and the first match decides; `None` instead of
a schedule freezes the parameter. Schedules are read at the training step, not at a counter of
updates, so that phases which run at an interval stay on the common clock.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.typing import Array, PyTree

Rule = tuple[str, optax.Schedule | None]


class Optimizer(NamedTuple):
    """The optimiser of one network.

    Attributes:
      init: params -> optimiser state (moments in float32; none for frozen parameters).
      update: (gradients, state, params, step) -> (new params, new state).
      learning_rates: step -> the learning rates of the rules that train something, for the log.
      trainable: params -> tree of Python bools.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree, Array], tuple[PyTree, PyTree]]
    learning_rates: Callable[[Array], tuple[Array, ...]]
    trainable: Callable[[PyTree], PyTree]


def parameter_path(key_path: Sequence[Any]) -> str:
    """The name that rules match: keys joined by `/`, as in `down_blocks_0/conv/kernel`.

    Args:
      key_path: as `jax.tree_util.tree_map_with_path` gives it.
    """
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def match_rules(params: PyTree, patterns: Sequence[str], *, what: str = "parameter") -> PyTree:
    """For every parameter the index of the first pattern that its path matches in full.

    Args:
      params: a tree of arrays or shapes.
      patterns: regular expressions over paths; `.*` matches all.
      what: how an error calls a leaf.

    Returns:
      A tree of ints.

    Raises:
      ConfigError: if a parameter matches no pattern, or a pattern matches no parameter (a typing
        error would otherwise train what should be frozen). A final `.*` may be left without any.
    """
    compiled = [re.compile(pattern) for pattern in patterns]
    used: set[int] = set()

    def first(key_path: Sequence[Any], _: Any) -> int:
        path = parameter_path(key_path)
        for index, pattern in enumerate(compiled):
            if pattern.fullmatch(path):
                used.add(index)
                return index
        raise ConfigError(
            requirement(
                f"rules ({', '.join(patterns)})",
                f"cover every {what}",
                path,
                "End the list with ('.*', ...).",
            )
        )

    indices = jax.tree_util.tree_map_with_path(first, params)
    idle = [p for i, p in enumerate(patterns) if i not in used and p != ".*"]
    if idle and jax.tree.leaves(params):
        some = ", ".join(
            parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)[:3]
        )
        raise ConfigError(
            requirement(
                f"rule '{idle[0]}'",
                f"match a {what}",
                "none",
                f"Regexes are matched against whole paths such as {some}.",
            )
        )
    return indices


def adam(
    rules: Sequence[Rule],
    *,
    b1: float = 0.5,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float | None = None,
) -> Optimizer:
    """Adam with a schedule per parameter.

    Args:
      rules: (regex, schedule or None), first match wins; every parameter must match one.
      b1: decay of the first moment; 0.5 throughout the first-order-model family.
      b2: decay of the second moment; 0.999 in released code, 0.9 in FNeVR's paper.
      eps: added to the root of the second moment.
      clip_norm: largest global norm of the gradient of the trainable parameters; None: no limit.

    Returns:
      The optimiser of one network.
    """
    patterns = [pattern for pattern, _ in rules]
    schedules = [schedule for _, schedule in rules]

    def trainable(params: PyTree) -> PyTree:
        indices = match_rules(params, patterns)
        return jax.tree.map(lambda index: schedules[index] is not None, indices)

    def transform() -> optax.GradientTransformation:
        moments = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)
        if clip_norm is not None:
            moments = optax.chain(optax.clip_by_global_norm(clip_norm), moments)
        if all(schedule is not None for schedule in schedules):
            return moments
        return optax.masked(moments, trainable)

    inner = transform()

    def init(params: PyTree) -> PyTree:
        match_rules(params, patterns)
        return inner.init(params)

    def update(
        gradients: PyTree, state: PyTree, params: PyTree, step: Array
    ) -> tuple[PyTree, PyTree]:
        directions, state = inner.update(gradients, state, params)
        rates = [None if schedule is None else schedule(step) for schedule in schedules]

        def apply(index: int, value: Array, direction: Array) -> Array:
            rate = rates[index]
            if rate is None:
                return value
            return value - jnp.asarray(rate, value.dtype) * direction.astype(value.dtype)

        indices = match_rules(params, patterns)
        return jax.tree.map(apply, indices, params, directions), state

    def learning_rates(step: Array) -> tuple[Array, ...]:
        return tuple(
            jnp.asarray(schedule(step), jnp.float32)
            for schedule in schedules
            if schedule is not None
        )

    return Optimizer(init, update, learning_rates, trainable)
