"""Which platform a program is made for: operations with several implementations choose by it.

It is the default backend's, except inside `compiling_for`: a CPU machine can compile for
accelerators it does not have.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_TARGET: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


def target_platform() -> str:
    """Returns 'cpu', 'gpu' or 'tpu': where the program that is being traced will run."""
    return _TARGET.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """While inside, what is traced is made for `platform`.

    A function that `jit` has traced before keeps its choices: trace new functions inside.

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
    """
    token = _TARGET.set(platform)
    try:
        yield
    finally:
        _TARGET.reset(token)
