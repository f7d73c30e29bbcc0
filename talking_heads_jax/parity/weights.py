"""Weights as a function of their names: golden cases need no stored parameters.

Every tensor of a reference state dict is drawn from its own generator, a PCG64 seeded by the first
eight bytes (little-endian) of SHA-256("<salt>/<name>"). What is drawn depends on the last part of
the name and on the number of axes, so that activations keep about unit variance. A digest of the
whole state dict tells whether this machine reproduces the reference bit for bit.
"""

import hashlib
import math
from collections.abc import Collection, Mapping

import numpy as np

from talking_heads_jax.errors import ParityError, requirement

_MATRIX_GAIN = 1.5  # variance of weights times their fan-in
_SPREAD_SCALE = 0.1  # norm weights: 1 + 0.1 n; running means: 0.1 n
_SPREAD_SHIFT = 0.05  # biases
_VARIANCE_RANGE = (0.5, 1.5)  # running variances


def _generator(name: str, salt: str) -> np.random.Generator:
    seed = hashlib.sha256(f"{salt}/{name}".encode()).digest()[:8]
    return np.random.Generator(np.random.PCG64(int.from_bytes(seed, "little")))


def draw_tensor(
    name: str, shape: tuple[int, ...], *, salt: str, unit_gain: bool = False
) -> np.ndarray:
    """Draws one tensor of a reference state dict.

    Args:
      name: its official name; the part after the last dot decides the distribution.
      shape: its official shape; the first axis counts outputs.
      salt: separates networks whose tensors share names.
      unit_gain: draw from N(0, 1) whatever the name says (equalised learning rate).

    Returns:
      float32, or int64 zeros for `num_batches_tracked`.
    """
    generator = _generator(name, salt)
    if unit_gain:
        return generator.standard_normal(shape).astype(np.float32)
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if kind == "running_var":
        return generator.uniform(*_VARIANCE_RANGE, shape).astype(np.float32)
    noise = generator.standard_normal(shape)
    if kind == "running_mean":
        noise = _SPREAD_SCALE * noise
    elif len(shape) > 1:
        noise = noise * np.sqrt(_MATRIX_GAIN / math.prod(shape[1:]))
    elif kind == "weight":
        noise = 1.0 + _SPREAD_SCALE * noise
    else:
        noise = _SPREAD_SHIFT * noise
    return np.asarray(noise).astype(np.float32)


def build_state_dict(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    salt: str = "",
    unit_gain: Collection[str] = (),
    scale: Mapping[str, float] | None = None,
    offset: Mapping[str, float] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Rebuilds a state dict in its official order and layouts.

    Args:
      shapes: official tensor name -> shape, in order.
      salt: see `draw_tensor`.
      unit_gain: names drawn from N(0, 1).
      scale: name -> factor, applied in float32.
      offset: name -> addend, applied after `scale`.
      constants: tensors that keep their true value (filters, spectral-norm vectors); neither scaled
        nor shifted.
    """
    scale, offset, constants = scale or {}, offset or {}, constants or {}
    state = {}
    for name, shape in shapes.items():
        if name in constants:
            state[name] = constants[name]
            continue
        value = draw_tensor(name, tuple(shape), salt=salt, unit_gain=name in unit_gain)
        if name in scale:
            value = value * np.float32(scale[name])
        if name in offset:
            value = value + np.float32(offset[name])
        state[name] = value
    return state


def state_dict_digest(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hex, of the bytes of all tensors in order."""
    digest = hashlib.sha256()
    for value in state.values():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def check_digest(case: str, state: Mapping[str, np.ndarray], expected: str) -> None:
    """Raises unless the rebuilt weights are the reference's, bit for bit.

    Raises:
      ParityError: with both digests.
    """
    found = state_dict_digest(state)
    if found != expected:
        raise ParityError(
            requirement(
                f"weights_sha256 of case '{case}'",
                f"be {expected[:16]}…",
                f"{found[:16]}…",
                "Its json or npz was changed, or numpy changed its random streams: use a numpy 2 "
                "release.",
            )
        )
