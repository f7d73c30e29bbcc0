"""A 3x3 convolution of a nearest-neighbour upsampled map, without making that map.

Along one axis and for factor s, an output pixel sees three pixels of the upsampled map, which show
only one or two different input values. The first pixel of each block of s sees (previous, current)
through [W0 | W1 + W2], the last sees (current, next) through [W0 + W1 | W2], all between see the
current value through W0 + W1 + W2. In two dimensions the outer combination holds, and all inner
pixels of a block are equal. The same numbers for a fraction of the arithmetic: 16 taps a block
instead of 36 for factor 2, 25 instead of 144 for factor 4.
"""

import jax.numpy as jnp
from jax import lax

from talking_heads_jax.errors import ArgumentError, check_choice, check_shape, requirement
from talking_heads_jax.ops.resize import resize_nearest
from talking_heads_jax.typing import Array, Float, typechecked

IMPLEMENTATIONS = ("plain", "collapsed")
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def _convolve(x: Array, kernel: Array, padding: str) -> Array:
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (1, 1), padding, dimension_numbers=_DIMENSIONS
    )


def _collapse(kernel: Array, axis: int) -> tuple[Array, Array]:
    """Two-tap kernels (last pixel of a block, first pixel of the next) and the inner one-tap one.

    Both two-tap kernels look at the same two input pixels: the boundary between two blocks has the
    last pixel of the one before it and the first pixel of the one after it. They are stacked on a
    new last axis.
    """
    first, middle, last = (lax.slice_in_dim(kernel, i, i + 1, axis=axis) for i in range(3))
    before = jnp.concatenate([first + middle, last], axis=axis)
    after = jnp.concatenate([first, middle + last], axis=axis)
    return jnp.stack([before, after], axis=-1), first + middle + last


def _collapsed(x: Array, kernel: Array, bias: Array | None, factor: int) -> Array:
    b, h, w, _ = x.shape
    out = kernel.shape[-1]
    row_edges, row_inner = _collapse(kernel, 0)  # (2 3 c o 2), (1 3 c o)
    corners, _ = _collapse(row_edges, 1)  # (2 2 c o 2 2)

    def phases(taps: Array, row_pad: int, column_pad: int) -> Array:
        """One convolution for all phases: (b, h', w', phase.., o)."""
        kh, kw, c = taps.shape[:3]
        flat = jnp.moveaxis(taps, 3, -1).reshape(kh, kw, c, -1)
        # Padded beforehand: else the kernel's gradient is a convolution of `x` with something
        # larger; XLA exchanges the two, and has no fast path for what results on CPUs.
        margins = ((0, 0), (row_pad, row_pad), (column_pad, column_pad), (0, 0))
        y = _convolve(jnp.pad(x, margins), flat, "VALID")
        y = y.reshape(*y.shape[:3], *taps.shape[4:], out)
        return y if bias is None else y + bias.astype(y.dtype)

    # Boundary (i, j) lies before block (i, j); its 2x2 pixels are the last row/column of the blocks
    # before it and the first row/column of the blocks after it.
    corner = phases(corners, 1, 1)  # (b h+1 w+1 row column o)
    if factor == 2:
        full = corner.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h + 2, 2 * w + 2, out)
        return full[:, 1:-1, 1:-1]

    row_edge = phases(_collapse(row_edges, 1)[1], 1, 0)  # (b h+1 w row o)
    column_edge = phases(_collapse(row_inner, 1)[0], 0, 1)  # (b h w+1 column o)
    inner = phases(_collapse(row_inner, 1)[1], 0, 0)  # (b h w o)
    repeats = factor - 2

    def join(left: Array, middle: Array, right: Array) -> Array:
        return jnp.stack([left, *[middle] * repeats, right], axis=3)  # (b h w s o)

    top = join(corner[:, :-1, :-1, 1, 1], row_edge[:, :-1, :, 1], corner[:, :-1, 1:, 1, 0])
    centre = join(column_edge[:, :, :-1, 1], inner, column_edge[:, :, 1:, 0])
    bottom = join(corner[:, 1:, :-1, 0, 1], row_edge[:, 1:, :, 0], corner[:, 1:, 1:, 0, 0])
    block = jnp.stack([top, *[centre] * repeats, bottom], axis=2)  # (b h s w s o)
    return block.reshape(b, factor * h, factor * w, out)


@typechecked
def conv_after_nearest_upsample(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c o"],
    bias: Float[Array, " o"] | None,
    *,
    factor: int,
    implementation: str,
) -> Float[Array, "b h2 w2 o"]:
    """3x3 convolution (zeros outside, stride 1) of `x` enlarged by pixel repetition.

    Args:
      x: the small map.
      kernel: 3x3, cast to the dtype of `x`.
      bias: added to every pixel, or None.
      factor: integer enlargement of both axes, at least 1.
      implementation: 'plain' enlarges, then convolves; 'collapsed' gives the same numbers, up to
        rounding, from the small map.

    Returns:
      (b, factor h, factor w, o) in the dtype of `x`.

    Raises:
      ArgumentError: an unknown implementation, a factor below 1, or a kernel that is not 3x3.

    Source:
      FNeVR's SPADE layers and all up-blocks of the FOMM family have this pair; the factorisation is
      exact algebra.
    """
    check_choice("the implementation of the convolution", implementation, IMPLEMENTATIONS)
    check_shape("the kernel of the convolution", kernel.shape, (3, 3, None, None))
    if factor < 1:
        raise ArgumentError(
            requirement(
                "the upsampling factor", "be at least 1", factor, "Use 1 for no upsampling."
            )
        )
    if implementation == "collapsed" and factor > 1:
        return _collapsed(x, kernel, bias, factor)
    large = resize_nearest(x, (x.shape[1] * factor, x.shape[2] * factor))
    y = _convolve(large, kernel, "SAME")
    return y if bias is None else y + bias.astype(y.dtype)
