"""Multiply-adds of a traced function, counted exactly from its jaxpr and named by module.

Convolutions and dot products are counted, of the shapes that are really computed: a padded border
counts, a gather (grid sampling) and elementwise work do not. This is the way papers count; their
"FLOPs" are as a rule multiply-adds. Nothing is compiled or run, so full-size models take seconds.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

GIGA = 1e9


@dataclasses.dataclass(frozen=True)
class OperationCount:
    """Multiply-adds by the scope they were traced in.

    Attributes:
      by_scope: name-stack path such as `Generator/dense_motion/hourglass` -> multiply-adds.
      uncounted_loops: `while` loops met; their bodies were counted once, as their trip count is
        not known before they run.
    """

    by_scope: Mapping[str, int]
    uncounted_loops: int = 0

    @property
    def total(self) -> int:
        """All multiply-adds."""
        return sum(self.by_scope.values())

    def grouped(self, groups: Mapping[str, str], *, rest: str = "other") -> dict[str, int]:
        """Sums scopes into named groups.

        Args:
          groups: label -> regular expression searched in the scope; the first that matches wins.
          rest: label of what no expression matches.

        Returns:
          Label -> multiply-adds, in the order of `groups`, `rest` last when it is not zero.
        """
        sums = dict.fromkeys(groups, 0)
        remainder = 0
        for scope, macs in self.by_scope.items():
            label = next(
                (name for name, pattern in groups.items() if re.search(pattern, scope)), None
            )
            if label is None:
                remainder += macs
            else:
                sums[label] += macs
        return {**sums, rest: remainder} if remainder else sums


def count_operations(function: Callable[..., Any], *args: Any) -> OperationCount:
    """Counts the multiply-adds of one call, without running it.

    What the result does not depend on is not counted, as XLA removes it too.

    Args:
      function: a traceable function of arrays.
      *args: arrays, or `jax.ShapeDtypeStruct`s in their place.

    Returns:
      The counts by module scope.
    """
    closed = jax.make_jaxpr(function)(*args)
    sums: dict[str, int] = {}
    loops = 0
    for scope, macs, is_loop in _walk(closed.jaxpr, "", 1, [True] * len(closed.jaxpr.outvars)):
        loops += is_loop
        if macs:
            sums[scope] = sums.get(scope, 0) + macs
    return OperationCount(sums, loops)


def _walk(
    jaxpr: Any, prefix: str, times: int, wanted: list[bool]
) -> Iterator[tuple[str, int, bool]]:
    """Yields (scope, multiply-adds, is an uncounted loop) of what the wanted outputs need."""
    for equation, outputs_wanted in _live(jaxpr, wanted):
        scope = "/".join(part for part in (prefix, str(equation.source_info.name_stack)) if part)
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            yield scope, times * _convolution(equation), False
        elif name == "dot_general":
            yield scope, times * _dot(equation), False
        elif name == "cond":
            counts = [
                list(_walk(branch.jaxpr, scope, times, outputs_wanted))
                for branch in params["branches"]
            ]
            yield from max(counts, key=lambda entries: sum(macs for _, macs, _ in entries))
        elif name == "while":
            yield scope, 0, True
            for part in ("cond_jaxpr", "body_jaxpr"):
                inner = params[part].jaxpr
                yield from _walk(inner, scope, times, [True] * len(inner.outvars))
        else:
            repeats = times * (params["length"] if name == "scan" else 1)
            for inner in _inner(params):
                # Outputs of a call correspond one to one; a loop's carry feeds itself.
                calls = name != "scan" and len(inner.outvars) == len(outputs_wanted)
                needed = outputs_wanted if calls else [True] * len(inner.outvars)
                yield from _walk(inner, scope, repeats, needed)


def _live(jaxpr: Any, wanted: list[bool]) -> list[tuple[Any, list[bool]]]:
    """The equations the wanted outputs depend on, each with which of its outputs are used."""
    used = {id(var) for var, want in zip(jaxpr.outvars, wanted, strict=True) if want}
    live = []
    for equation in reversed(jaxpr.eqns):
        outputs = [id(var) in used for var in equation.outvars]
        if any(outputs):
            live.append((equation, outputs))
            used.update(id(var) for var in equation.invars)
    return live[::-1]


def _inner(params: Mapping[str, Any]) -> Iterator[Any]:
    """The jaxpr of a call-like equation (jit, remat, custom derivatives, scan): its primal one."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            yield getattr(params[key], "jaxpr", params[key])
            return


def _convolution(equation: Any) -> int:
    """Output elements x kernel taps x input channels of a group."""
    kernel = equation.invars[1].aval.shape
    spec = equation.params["dimension_numbers"].rhs_spec  # (out, in, *spatial) axes of the kernel
    per_output = math.prod(kernel[axis] for axis in spec[1:])
    return math.prod(equation.outvars[0].aval.shape) * per_output


def _dot(equation: Any) -> int:
    """Output elements x contracted length."""
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
