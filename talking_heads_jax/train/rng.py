"""Random streams that depend on nothing but (seed, stream name, indices).

A stream is reached by folding integers into the run's key, so a resumed run draws the numbers the
uninterrupted one would have drawn, and adding a stream never moves another.
"""

import zlib

import jax

from talking_heads_jax.typing import Array


def run_key(seed: int) -> Array:
    """The key of a run; every stream derives from it.

    Args:
      seed: the config's `seed`.
    """
    return jax.random.key(seed)


def stream(key: Array, name: str, *indices: int | Array) -> Array:
    """The key of a named stream at the given indices.

    Args:
      key: a run key, or another stream.
      name: what the numbers are for; equal names give equal streams.
      *indices: step, accumulation index, ...; may be traced.

    Returns:
      A key that differs for any other name or index (up to 32-bit hash collisions of names).
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    for index in indices:
        key = jax.random.fold_in(key, index)
    return key
