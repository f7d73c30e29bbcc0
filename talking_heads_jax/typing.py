"""Array annotations and the switch that checks them.

Shapes live in annotations, with the letters of the house: b batch, t time, h w c image,
k keypoints, n points or rays, s samples per ray, p planes, v vertices, f faces, d feature.
`@typechecked` verifies them at call (trace) time when the environment variable
`TALKING_HEADS_TYPECHECK` is `1`, as the tests set it; otherwise it returns the function untouched.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jaxtyping import Bool, Float, Int, UInt8

Array = jax.Array
PyTree = Any
FloatArray = Float[Array, "..."]

__all__ = ["Array", "Bool", "Float", "FloatArray", "Int", "PyTree", "UInt8", "typechecked"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def typechecked(function: _Function) -> _Function:
    """Checks the annotated shapes and dtypes of `function` while tests run; free otherwise."""
    if os.environ.get("TALKING_HEADS_TYPECHECK") != "1":
        return function
    import beartype
    import jaxtyping

    return jaxtyping.jaxtyped(function, typechecker=beartype.beartype)
