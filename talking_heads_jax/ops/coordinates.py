"""Coordinate grids under both corner rules, and Gaussians around points.

Points are (x, y) or (x, y, z), x to the right, y down, normalised to [-1, 1]; sizes are in array
order, (h, w) or (d, h, w). Two rules say what -1 and +1 are:

* `align_corners=True`: the *centres* of the first and the last pixel ("corner-aligned").
* `align_corners=False`: the outer *edges* of the first and the last pixel.

`_px` coordinates have the centre of pixel (row i, column j) at (j + 0.5, i + 0.5). Letters: b
batch, d h w space, k keypoints, n points.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.typing import Array, Float, FloatArray, typechecked


def _corner_axis(size: int) -> np.ndarray:
    """Corner-aligned centres of `size` pixels; a single pixel sits in the middle."""
    if size == 1:
        return np.zeros((1,), np.float32)
    steps = np.arange(size, dtype=np.float32) / np.float32(size - 1)
    return np.float32(2) * steps - np.float32(1)


def _check_size(coords: Array, size: Sequence[int]) -> None:
    if coords.shape[-1] != len(size):
        raise ArgumentError(
            requirement(
                "the size of the image",
                f"have one entry per coordinate ({coords.shape[-1]})",
                tuple(size),
                "Give (h, w) for (x, y) points and (d, h, w) for (x, y, z) points.",
            )
        )


@typechecked
def corner_grid(h: int, w: int) -> Float[Array, "h w 2"]:
    """Centres of all pixels, corner-aligned: the first is (-1, -1), the last is (1, 1).

    Args:
      h: rows.
      w: columns.

    Returns:
      float32 (x, y) of every pixel.

    Source:
      FOMM (Siarohin et al. 2019), its released code: the grid of keypoints and motions.
    """
    x = jnp.broadcast_to(_corner_axis(w)[None, :], (h, w))
    y = jnp.broadcast_to(_corner_axis(h)[:, None], (h, w))
    return jnp.stack([x, y], axis=-1)


@typechecked
def corner_grid_3d(d: int, h: int, w: int) -> Float[Array, "d h w 3"]:
    """Centres of all voxels, corner-aligned: the first is (-1, -1, -1), the last is (1, 1, 1).

    Args:
      d: depth slices, the z axis.
      h: rows, the y axis.
      w: columns, the x axis.

    Returns:
      float32 (x, y, z) of every voxel.
    """
    shape = (d, h, w)
    x = jnp.broadcast_to(_corner_axis(w)[None, None, :], shape)
    y = jnp.broadcast_to(_corner_axis(h)[None, :, None], shape)
    z = jnp.broadcast_to(_corner_axis(d)[:, None, None], shape)
    return jnp.stack([x, y, z], axis=-1)


@typechecked
def ndc_to_px(coords: FloatArray, size: Sequence[int], *, align_corners: bool) -> FloatArray:
    """Normalised coordinates to pixels (the first pixel's centre is at 0.5).

    Args:
      coords: (... 2) x, y or (... 3) x, y, z in [-1, 1].
      size: (h, w) or (d, h, w).
      align_corners: whether -1 and +1 are the centres (True) or the edges (False) of the outer
        pixels.

    Returns:
      The same shape, in pixels.

    Raises:
      ArgumentError: `size` has another number of axes than the points.
    """
    _check_size(coords, size)
    extent = jnp.asarray(tuple(reversed(size)), coords.dtype)
    if align_corners:
        return (coords + 1) / 2 * (extent - 1) + 0.5
    return (coords + 1) / 2 * extent


@typechecked
def px_to_ndc(coords: FloatArray, size: Sequence[int], *, align_corners: bool) -> FloatArray:
    """Pixels (the first pixel's centre is at 0.5) to normalised coordinates.

    Args:
      coords: (... 2) x, y or (... 3) x, y, z in pixels.
      size: (h, w) or (d, h, w).
      align_corners: whether -1 and +1 are the centres (True) or the edges (False) of the outer
        pixels.

    Returns:
      The same shape; an axis of one pixel is 0 everywhere when corners are aligned.

    Raises:
      ArgumentError: `size` has another number of axes than the points.
    """
    _check_size(coords, size)
    extent = jnp.asarray(tuple(reversed(size)), coords.dtype)
    if align_corners:
        single = extent == 1
        return jnp.where(single, 0, (coords - 0.5) * 2 / jnp.where(single, 1, extent - 1) - 1)
    return coords * 2 / extent - 1


def _axis_gaussians(position: Array, size: int, variance: float) -> Array:
    """(b n) positions along one axis to (b n size) unnormalised Gaussians."""
    distance = jnp.asarray(_corner_axis(size), position.dtype) - position[..., None]
    return jnp.exp(-0.5 / variance * jnp.square(distance))


@typechecked
def keypoint_gaussians(
    points: Float[Array, "b k 2"], h: int, w: int, *, variance: float | int
) -> Float[Array, "b h w k"]:
    """Isotropic Gaussians with peak 1 around points, on the corner-aligned grid.

    Args:
      points: x, y, corner-aligned in [-1, 1].
      h: rows.
      w: columns.
      variance: in squared normalised units, the same for x and y.

    Returns:
      exp(-|z - p|^2 / (2 variance)) at every pixel z, one channel per point.

    Source:
      FOMM, released code: the heatmaps given to the dense-motion network.
    """
    columns = _axis_gaussians(points[..., 0], w, variance)
    rows = _axis_gaussians(points[..., 1], h, variance)
    # exp(a + b) = exp(a) exp(b): h + w exponentials a point instead of h * w.
    return jnp.moveaxis(rows, 1, -1)[:, :, None, :] * jnp.moveaxis(columns, 1, -1)[:, None, :, :]


@typechecked
def splat_gaussians_3d(
    points: Float[Array, "b n 3"],
    weights: Float[Array, "b n"],
    size: tuple[int, int, int],
    *,
    variance: float | int,
) -> Float[Array, "b d h w"]:
    """Weighted sum of isotropic 3-D Gaussians with peak 1, on the corner-aligned grid.

    Args:
      points: x, y, z, corner-aligned in [-1, 1].
      weights: factor of each point.
      size: (d, h, w) of the volume.
      variance: in squared normalised units, the same for x, y and z.

    Returns:
      sum_i weights_i exp(-|z - p_i|^2 / (2 variance)) at every voxel z.

    Source:
      FNeVR (Zeng et al. 2022), equation 5: the target of its shape loss. The
      Gaussian factorises by axis, so the sum over points is one small matrix product.
    """
    d, h, w = size
    columns = _axis_gaussians(points[..., 0], w, variance)
    rows = _axis_gaussians(points[..., 1], h, variance)
    slices = _axis_gaussians(points[..., 2], d, variance) * weights[..., None]
    planes = slices[..., :, None] * rows[..., None, :]
    return jnp.einsum("bndh,bnw->bdhw", planes, columns, precision=jax.lax.Precision.HIGHEST)
