"""Sampling an image or a volume at arbitrary places, equal to PyTorch's `grid_sample`.

Grids hold (x, y) or (x, y, z) in [-1, 1]; `align_corners` says whether -1 and +1 are the centres
(True) or the outer edges (False) of the outer pixels. Coordinates are computed in float32 even for
a bfloat16 image; the result has the image's dtype. Letters: b batch, d h w space, c channels, g the
grid's own axes (any number).

The corners are fetched by one gather each on the flattened image and blended explicitly: of the
forms tried on a CPU the quickest to differentiate.
"""

import itertools
import math

import jax.numpy as jnp
from jax import lax

from talking_heads_jax.errors import check_choice
from talking_heads_jax.typing import Array, Float, typechecked

PADDINGS = ("zeros", "border", "reflection")
MODES = ("bilinear", "nearest")


def _clip_without_edge_gradient(index: Array, size: int) -> Array:
    """Clips to [0, size - 1]; the bounds themselves pass no gradient, as in PyTorch."""
    return jnp.where(index <= 0, 0, jnp.where(index >= size - 1, size - 1, index))


def _reflect(index: Array, size: int, align_corners: bool) -> Array:
    """Mirrors at the outer pixel centres (corners aligned) or the outer pixel edges."""
    low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
    if span == 0:
        return jnp.zeros_like(index)
    distance = jnp.abs(index - low)
    remainder = lax.rem(distance, jnp.asarray(span, index.dtype))
    odd = lax.rem(jnp.floor(distance / span), jnp.asarray(2, index.dtype)) == 1
    return low + jnp.where(odd, span - remainder, remainder)


def _to_index(coordinate: Array, size: int, *, align_corners: bool, padding: str) -> Array:
    """One normalised coordinate to a float pixel index (the first pixel's centre is 0)."""
    if align_corners:
        index = (coordinate + 1) / 2 * (size - 1)
    else:
        index = ((coordinate + 1) * size - 1) / 2
    if padding == "zeros":
        # All that lies this far out is zero anyway; the bound keeps the integer cast defined.
        return jnp.clip(index, -2, size + 1)
    if padding == "reflection":
        index = _reflect(index, size, align_corners)
    return _clip_without_edge_gradient(index, size)


def _sample(image: Array, grid: Array, *, align_corners: bool, padding: str, mode: str) -> Array:
    """Samples (b *space c) at (b *g n), where n is the number of axes in `space`."""
    check_choice("the padding of grid_sample", padding, PADDINGS)
    check_choice("the mode of grid_sample", mode, MODES)
    batch, *space, channels = image.shape
    outer = grid.shape[1:-1]
    compute = jnp.promote_types(jnp.promote_types(image.dtype, grid.dtype), jnp.float32)
    points = grid.astype(compute).reshape(batch, math.prod(outer), len(space))
    flat = image.reshape(batch, math.prod(space), channels)

    # Per axis: a list of (integer index, weight, whether it is inside) for the corners.
    axes = []
    for axis, size in enumerate(space):
        coordinate = points[..., len(space) - 1 - axis]  # x belongs to the last axis
        index = _to_index(coordinate, size, align_corners=align_corners, padding=padding)
        if mode == "nearest":
            corners = [(lax.stop_gradient(jnp.round(index)).astype(jnp.int32), None)]
        else:
            below = lax.stop_gradient(jnp.floor(index))
            fraction = index - below
            first = below.astype(jnp.int32)
            corners = [(first, 1 - fraction), (first + 1, fraction)]
        axes.append(
            [(jnp.clip(i, 0, size - 1), weight, (i >= 0) & (i < size)) for i, weight in corners]
        )

    total = None
    for corner in itertools.product(*axes):
        position = jnp.zeros_like(corner[0][0])
        factor = None
        for size, (index, weight, inside) in zip(space, corner, strict=True):
            position = position * size + index
            if weight is None:
                weight = jnp.ones(index.shape, compute)
            if padding == "zeros":
                weight = jnp.where(inside, weight, 0)
            factor = weight if factor is None else factor * weight
        values = jnp.take_along_axis(flat, position[..., None], axis=1, mode="promise_in_bounds")
        term = values.astype(compute) * factor[..., None]
        total = term if total is None else total + term
    return total.astype(image.dtype).reshape(batch, *outer, channels)


@typechecked
def grid_sample(
    image: Float[Array, "b h w c"],
    grid: Float[Array, "b *g 2"],
    *,
    align_corners: bool,
    padding: str = "zeros",
    mode: str = "bilinear",
) -> Float[Array, "b *g c"]:
    """Samples an image at the points of a grid; differentiable in image and grid.

    Args:
      image: any float dtype.
      grid: x, y in [-1, 1]; any number of axes between batch and (x, y), so that several motions
        of one image need no copies of it.
      align_corners: whether -1 and +1 are the centres (True) or the edges (False) of the outer
        pixels.
      padding: what lies outside: 'zeros'; 'border', the nearest edge pixel; 'reflection', the
        image mirrored at its outer pixel centres (corners aligned) or edges.
      mode: 'bilinear'; or 'nearest', which rounds halves to the even pixel and passes no gradient
        to the grid.

    Returns:
      The image at the grid's points, in the image's dtype.

    Raises:
      ArgumentError: an unknown padding or mode.

    Source:
      The documented behaviour of `torch.nn.functional.grid_sample` (PyTorch 2).
    """
    return _sample(image, grid, align_corners=align_corners, padding=padding, mode=mode)


@typechecked
def grid_sample_3d(
    volume: Float[Array, "b d h w c"],
    grid: Float[Array, "b *g 3"],
    *,
    align_corners: bool,
    padding: str = "zeros",
    mode: str = "bilinear",
) -> Float[Array, "b *g c"]:
    """Samples a volume at the points of a grid; differentiable in volume and grid.

    Args:
      volume: any float dtype.
      grid: x, y, z in [-1, 1]: x runs along w, y along h, z along d.
      align_corners: whether -1 and +1 are the centres (True) or the faces (False) of the outer
        voxels.
      padding: 'zeros', 'border' or 'reflection', as in `grid_sample`.
      mode: 'bilinear' (trilinear here) or 'nearest'.

    Returns:
      The volume at the grid's points, in the volume's dtype.

    Raises:
      ArgumentError: an unknown padding or mode.

    Source:
      The documented behaviour of `torch.nn.functional.grid_sample` (PyTorch 2).
    """
    return _sample(volume, grid, align_corners=align_corners, padding=padding, mode=mode)
