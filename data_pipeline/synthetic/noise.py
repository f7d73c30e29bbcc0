"""Smooth random fields in closed form: the same numbers on every machine that rounds alike."""

import numpy as np


def _hashed(lattice: np.ndarray, seed: int) -> np.ndarray:
    """Whole positions (... d) -> uniform numbers in [0, 1)."""
    state = np.full(lattice.shape[:-1], (seed * 0x9E3779B1) & 0xFFFFFFFF, np.uint32)
    with np.errstate(over="ignore"):
        for axis, prime in enumerate((0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)[: lattice.shape[-1]]):
            state ^= lattice[..., axis].astype(np.int64).astype(np.uint32) * np.uint32(prime)
            state ^= state >> np.uint32(15)
            state *= np.uint32(0x2C1B3C6D)
            state ^= state >> np.uint32(12)
            state *= np.uint32(0x297A2D39)
            state ^= state >> np.uint32(15)
    return (state >> np.uint32(8)).astype(np.float32) / np.float32(1 << 24)


def value_noise(points: np.ndarray, seed: int) -> np.ndarray:
    """Random values on the whole positions, joined smoothly.

    Args:
      points: (... d), d = 1, 2 or 3; one cell of the lattice has side 1.
      seed: of the field.

    Returns:
      (...) float32 in [-1, 1).
    """
    points = np.asarray(points, np.float32)
    cell = np.floor(points)
    t = points - cell
    t = t * t * (3.0 - 2.0 * t)
    dimensions = points.shape[-1]
    corners = [
        _hashed(cell + np.array(c, np.float32), seed) for c in np.ndindex(*(2,) * dimensions)
    ]
    for axis in reversed(range(dimensions)):  # the last axis varies fastest: neighbours in pairs
        along = t[..., axis]
        corners = [a + along * (b - a) for a, b in zip(corners[::2], corners[1::2], strict=True)]
    return 2.0 * corners[0] - 1.0


def fractal_noise(points: np.ndarray, seed: int, *, octaves: int = 3) -> np.ndarray:
    """Value noise in octaves, each twice as fine and half as strong.

    Args:
      points: (... d) in cells of the coarsest lattice.
      seed: of the field.
      octaves: how many.

    Returns:
      (...) float32, mostly in [-1, 1].
    """
    # Turned and moved between octaves: lattices on top of each other would show as a weave.
    shift = np.array([17.3, -9.1, 31.7], np.float32)[: points.shape[-1]]
    total = np.zeros(points.shape[:-1], np.float32)
    for octave in range(octaves):
        scale = np.float32(2.03**octave)
        total += np.float32(0.5**octave) * value_noise(
            scale * points + octave * shift, seed + octave
        )
    return total
