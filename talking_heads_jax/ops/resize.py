"""Changing the size of images: PyTorch-equal interpolation and the anti-aliased pyramid.

Images are NHWC. Interpolation weights are computed and applied in float32 (or wider); the result
has the image's dtype.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.typing import Array, Float, FloatArray, typechecked


def _linear_taps(old: int, new: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """Lower source index and fraction for each of `new` output pixels along one axis."""
    place = np.arange(new, dtype=np.float64)
    if align_corners:
        place = place * ((old - 1) / (new - 1)) if new > 1 else np.zeros(new)
    else:
        place = np.maximum((place + 0.5) * (old / new) - 0.5, 0)
    lower = np.minimum(np.floor(place).astype(np.int32), old - 1)
    return lower, place - lower


def _resize_axis(x: Array, axis: int, new: int, align_corners: bool) -> Array:
    old = x.shape[axis]
    if old == new:
        return x
    lower, fraction = _linear_taps(old, new, align_corners)
    upper = np.minimum(lower + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = new
    weight = jnp.asarray(fraction.reshape(shape), x.dtype)
    first = jnp.take(x, lower, axis=axis, mode="clip")
    second = jnp.take(x, upper, axis=axis, mode="clip")
    return first * (1 - weight) + second * weight


@typechecked
def resize_bilinear(
    x: Float[Array, "b h w c"], size: tuple[int, int], *, align_corners: bool
) -> Float[Array, "b h2 w2 c"]:
    """Bilinear interpolation without anti-aliasing.

    Args:
      x: images or maps.
      size: (h2, w2) of the result.
      align_corners: whether the centres (True) or the edges (False) of the outer pixels stay where
        they are. With edges, samples beyond the outer centres repeat the outer pixel.

    Returns:
      The resized array, in the dtype of `x`; `x` itself when the size does not change.

    Source:
      The documented behaviour of `torch.nn.functional.interpolate(mode='bilinear')`.
    """
    if x.shape[1:3] == size:
        return x
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # The axis that grows least goes first: the second pass then reads fewer numbers.
    for axis in sorted((1, 2), key=lambda axis: size[axis - 1] / x.shape[axis]):
        wide = _resize_axis(wide, axis, size[axis - 1], align_corners)
    return wide.astype(x.dtype)


@typechecked
def resize_nearest(x: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Nearest-neighbour resize: output pixel i shows input pixel floor(i * old / new).

    Args:
      x: (b h w c).
      size: (h2, w2) of the result.

    Returns:
      (b h2 w2 c); pixels are repeated when the new size is a multiple of the old one.

    Source:
      The documented behaviour of `torch.nn.functional.interpolate(mode='nearest')`.
    """
    for axis, new in ((1, size[0]), (2, size[1])):
        old = x.shape[axis]
        if new % old == 0:
            x = jnp.repeat(x, new // old, axis=axis, total_repeat_length=new)
        elif old % new == 0:
            x = jax.lax.slice_in_dim(x, 0, old, old // new, axis)
        else:
            # Exact integers: (i * old) // new needs no rounding rule.
            index = np.arange(new) * old // new
            x = jnp.take(x, index, axis=axis, mode="clip")
    return x


def _stride(scale: float) -> int:
    """The integer 1 / scale."""
    inverse = 1 / scale if scale > 0 else 0.0
    stride = round(inverse)
    if stride < 1 or abs(inverse - stride) > 1e-6:
        raise ArgumentError(
            requirement(
                "the scale of an anti-aliased image",
                "be 1 over an integer",
                scale,
                "Use 1, 0.5, 0.25 or 0.125.",
            )
        )
    return stride


def antialias_kernel(scale: float) -> np.ndarray:
    """Taps of the Gaussian that precedes shrinking; the 2-D kernel is their outer product.

    Args:
      scale: new size over old size, 1 over an integer.

    Returns:
      float64 numpy, odd length 2 round(4 sigma) + 1 with sigma = (1 / scale - 1) / 2, sum 1; a
      single 1 for scale 1.

    Raises:
      ArgumentError: `scale` is not 1 over an integer.

    Source:
      FOMM (Siarohin et al. 2019), its released code: the anti-aliased interpolation.
    """
    sigma = (_stride(scale) - 1) / 2
    radius = round(4 * sigma)
    if radius == 0:
        return np.ones((1,), np.float64)
    place = np.arange(-radius, radius + 1, dtype=np.float64)
    taps = np.exp(-np.square(place / sigma) / 2)
    return taps / taps.sum()


def _antialias_matrix(size: int, scale: float) -> np.ndarray:
    """(ceil(size * scale), size) rows of taps around every stride-th pixel, zeros outside."""
    stride = _stride(scale)
    taps = antialias_kernel(scale)
    radius = len(taps) // 2
    centres = np.arange(0, size, stride)
    padded = np.zeros((len(centres), size + 2 * radius))
    for row, centre in enumerate(centres):
        padded[row, centre : centre + len(taps)] = taps
    return padded[:, radius : radius + size]


@typechecked
def antialias_downsample(
    x: Float[Array, "b h w c"], scale: float | int
) -> Float[Array, "b h2 w2 c"]:
    """Blurs with `antialias_kernel` (zeros outside) and keeps every (1 / scale)-th pixel from 0 on.

    Args:
      x: images.
      scale: new size over old size, 1 over an integer; 1 returns `x` unchanged.

    Returns:
      ceil(size * scale) pixels a side, in the dtype of `x`.

    Raises:
      ArgumentError: `scale` is not 1 over an integer.

    Source:
      FOMM, its released code. The blur is separable, and only the kept pixels are computed: one
      small matrix product per axis, quicker on a CPU than a strided convolution.
    """
    if _stride(scale) == 1:
        return x
    compute = jnp.promote_types(x.dtype, jnp.float32)
    rows = jnp.asarray(_antialias_matrix(x.shape[1], scale), compute)
    columns = jnp.asarray(_antialias_matrix(x.shape[2], scale), compute)
    highest = jax.lax.Precision.HIGHEST
    wide = jnp.einsum("oh,bhwc->bowc", rows, x.astype(compute), precision=highest)
    return jnp.einsum("pw,bowc->bopc", columns, wide, precision=highest).astype(x.dtype)


@typechecked
def image_pyramid(x: Float[Array, "b h w c"], scales: Sequence[float | int]) -> dict[float, Array]:
    """The image at several anti-aliased scales, each made from the full-size image.

    Args:
      x: images.
      scales: each 1 over an integer.

    Returns:
      scale -> image, in the order of `scales`.

    Raises:
      ArgumentError: a scale is not 1 over an integer.
    """
    return {float(scale): antialias_downsample(x, scale) for scale in scales}


@typechecked
def average_pool(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Means over factor x factor blocks; a remainder at the right and bottom is dropped.

    Args:
      x: images or maps.
      factor: block side and stride.

    Returns:
      floor(size / factor) pixels a side, in the dtype of `x`.
    """
    b, h, w, c = x.shape
    h, w = h // factor, w // factor
    blocks = x[:, : h * factor, : w * factor].reshape(b, h, factor, w, factor, c)
    return jnp.mean(blocks, axis=(2, 4))


@typechecked
def max_pool(
    x: Float[Array, "b h w c"], size: int, *, stride: int, padding: int = 0
) -> Float[Array, "b h2 w2 c"]:
    """Largest value of each window; a remainder at the right and bottom is dropped.

    Args:
      x: images or maps.
      size: side of the window.
      stride: from one window to the next.
      padding: rows and columns added on every side; they never win.

    Returns:
      floor((side + 2 padding - size) / stride) + 1 pixels a side, in the dtype of `x`.
    """
    lowest = -jnp.inf if x.dtype != jnp.bfloat16 else jnp.asarray(-jnp.inf, x.dtype)
    edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    windows = ((1, size, size, 1), (1, stride, stride, 1))
    return jax.lax.reduce_window(x, lowest, jax.lax.max, *windows, edges)
