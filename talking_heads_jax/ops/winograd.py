"""A 3x3 convolution with a quarter of the multiplications: Winograd's minimal filtering.

The image is cut into overlapping tiles of 6x6 pixels, each giving 4x4 results. A tile and the
kernel are polynomials; evaluated at six points per axis, their product is a product of values: 36
matrix products over the channels of all tiles, where the plain form needs 144. Worth its transforms
on a CPU when both channel counts are large (128 and more); accelerators choose such forms
themselves.

The points decide the rounding error. The usual 0, +-1, +-2 loses a factor of ten against the plain
form; 0, +-sqrt(1/2), +-sqrt(2) and infinity loses a factor of two.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from talking_heads_jax.errors import check_choice, check_shape
from talking_heads_jax.typing import Array, Float, typechecked

IMPLEMENTATIONS = ("plain", "winograd")
_TILE = 4  # results a side
_SIDE = _TILE + 2  # pixels a side of an overlapping tile
_POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0))


@functools.cache
def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices (4 6), (6 3), (6 6) of results, kernel and tile: y = A ((G g) * (B d)).

    Toom and Cook's construction, transposed: row i of G evaluates the kernel at point i (the last
    row is infinity), A evaluates powers of the points, B holds the coefficients of the products of
    (t - point) over the other points.
    """
    points = np.array(_POINTS)
    finite = len(points)
    result = np.zeros((_TILE, _SIDE))
    kernel = np.zeros((_SIDE, 3))
    tile = np.zeros((_SIDE, _SIDE))
    for i, point in enumerate(points):
        others = np.delete(points, i)
        result[:, i] = point ** np.arange(_TILE)
        kernel[i] = point ** np.arange(3) / np.prod(point - others)
        tile[i, :finite] = np.poly(others)[::-1]
    result[-1, -1] = kernel[-1, -1] = 1
    tile[-1] = np.poly(points)[::-1]
    # The points come in pairs of opposite sign: what should cancel is zero, not rounding.
    tile[np.abs(tile) < 1e-12] = 0
    return result, kernel, tile


def _combine(matrix: np.ndarray, parts: list[Array]) -> list[Array]:
    """Rows of `matrix` times the list `parts`, as sums that fuse; zeros cost nothing."""
    sums = []
    for row in matrix:
        terms = [
            part if factor == 1 else part * np.asarray(factor, part.dtype)
            for factor, part in zip(row, parts, strict=True)
            if factor != 0
        ]
        sums.append(functools.reduce(jnp.add, terms))
    return sums


def _transform_kernel(kernel: Array) -> list[list[Array]]:
    """(3 3 c o) to 6 x 6 matrices (c o): the kernel's values at the points."""
    matrix = _transforms()[1]
    return [_combine(matrix, list(row)) for row in _combine(matrix, list(kernel))]


def _winograd(x: Array, kernel: Array) -> Array:
    result_matrix, _, tile_matrix = _transforms()
    b, h, w, c = x.shape
    out = kernel.shape[-1]
    weights = _transform_kernel(kernel)
    tall, wide = -(-h // _TILE), -(-w // _TILE)  # tiles
    # One pixel of the convolution's own padding, and what completes the last tiles.
    bottom, right = _TILE * tall - h, _TILE * wide - w
    padded = jnp.pad(x, ((0, 0), (1, 1 + bottom), (1, 1 + right), (0, 0)))

    def strided(array: Array, axis: int, start: int, count: int) -> Array:
        stop = start + (count - 1) * _TILE + 1
        return lax.slice_in_dim(array, start, stop, _TILE, axis)

    by_row = []  # per point of the rows: results along the columns
    rows = _combine(tile_matrix, [strided(padded, 1, i, tall) for i in range(_SIDE)])
    for i, row in enumerate(rows):
        values = _combine(tile_matrix, [strided(row, 2, j, wide) for j in range(_SIDE)])
        products = [
            jnp.matmul(value.reshape(-1, c), weights[i][j]) for j, value in enumerate(values)
        ]
        by_row.append(_combine(result_matrix, products))
    by_column = [_combine(result_matrix, list(column)) for column in zip(*by_row, strict=True)]

    def pixel(i: int, j: int) -> Array:
        """Result (i, j) of every tile."""
        return by_column[j][i].reshape(b, tall, wide, out)

    # Stacked where they belong, so that no transposition follows.
    lines = [jnp.stack([pixel(i, j) for j in range(_TILE)], axis=3) for i in range(_TILE)]
    y = jnp.stack(lines, axis=2).reshape(b, tall * _TILE, wide * _TILE, out)
    return y[:, :h, :w]


@typechecked
def conv_3x3(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c o"],
    bias: Float[Array, " o"] | None,
    *,
    implementation: str,
) -> Float[Array, "b h w o"]:
    """3x3 convolution, zeros outside, stride 1.

    Args:
      x: the map.
      kernel: 3x3, cast to the dtype of `x`.
      bias: added to every pixel, or None.
      implementation: 'plain' is XLA's convolution; 'winograd' gives the same numbers, up to about
        twice the rounding. In less than float32 it always is the plain form: the transforms would
        lose too many bits.

    Returns:
      The filtered map, in the dtype of `x`.

    Raises:
      ArgumentError: an unknown implementation, or a kernel that is not 3x3.

    Source:
      Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks"; the
      points are the usual remedy for its rounding errors.
    """
    check_choice("the implementation of the convolution", implementation, IMPLEMENTATIONS)
    check_shape("the kernel of the convolution", kernel.shape, (3, 3, None, None))
    if implementation == "winograd" and x.dtype.itemsize >= 4:
        y = _winograd(x, kernel.astype(x.dtype))
    else:
        y = lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return y if bias is None else y + bias.astype(y.dtype)
