"""Geometric patterns that guide the displacements, drawn from two meshes, and their pyramid.

Vertices come as (x, y, z): x, y in pixels of the crop, where pixel (row i, column j) covers [j, j +
1) × [i, i + 1), z in the same scale, smaller nearer. Flows point from the driving to the source
mesh, x then y, in units of half the image. Letters: b batch, v vertices, f faces, h w image, d
channels of the codes, m of the whole map.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.ops.rasterizer import MeshTopology, antialias, interpolate, rasterize
from talking_heads_jax.ops.resize import antialias_downsample, antialias_kernel
from talking_heads_jax.typing import Array, Float

GUIDANCES = ("geometry", "codes", "both", "nmfc")
PYRAMIDS = ("strided", "literal")
CULLINGS = ("back_after", "back")
#: Official meshes are in pixel indices (the first centre at 0) but drawn as if in pixels.
OFFICIAL_SHIFT_PX = -0.5


class MeshPair(NamedTuple):
    """Two meshes of one topology; the generator draws them with its own codes.

    Attributes:
      source: (b v 3) vertices in crop pixels.
      driving: (b v 3) likewise.
    """

    source: Array
    driving: Array


class GuidanceMaps(NamedTuple):
    """What the rasteriser has drawn; 0 outside the meshes.

    Attributes:
      flow: (b h w 2) geometric displacement field on the driving mesh, or None.
      driving_codes: (b h w d) codes or coordinates on the driving mesh, or None.
      source_codes: (b h w d) the same on the source mesh, input of the encoder, or None.
    """

    flow: Array | None = None
    driving_codes: Array | None = None
    source_codes: Array | None = None

    def modulation(self) -> Float[Array, "b h w m"]:
        """What modulates the decoder: codes, then flow."""
        maps = [part for part in (self.driving_codes, self.flow) if part is not None]
        return jnp.concatenate(maps, axis=-1)


def normalize_vertices(
    vertices: Float[Array, "b v 3"], size: int, *, shift_px: float
) -> Float[Array, "b v 3"]:
    """Crop pixels to the rasteriser's [-1, 1]; depth in the same unit.

    Args:
      vertices: in pixels of a crop of `size`.
      size: side in pixels.
      shift_px: added to x and y first.
    """
    shift = jnp.asarray([shift_px - size / 2, shift_px - size / 2, 0.0], jnp.float32)
    return (jnp.asarray(vertices, jnp.float32) + shift) * (2.0 / size)


def draw_attributes(
    attributes: Float[Array, "b v d"] | Float[Array, "v d"],
    positions: Float[Array, "b v 3"],
    faces: np.ndarray,
    topology: MeshTopology | None,
    *,
    size: int,
    cull: str = "back_after",
) -> Float[Array, "b h w d"]:
    """Draws per-vertex attributes; what faces away is background.

    Args:
      attributes: one row per vertex. Differentiable.
      positions: normalised, of `normalize_vertices`.
      faces: (f 3) vertices of each triangle.
      topology: of the faces, to smooth the silhouettes; None leaves them jagged.
      size: side of the maps.
      cull: 'back_after', as released: where the nearest triangle faces away, nothing behind it
        shows; 'back': triangles that face away hide nothing.
    """
    attributes = jnp.asarray(attributes, jnp.float32)
    fragments = rasterize(positions, faces, height=size, width=size, cull=cull)
    image = interpolate(attributes, fragments, faces)
    if topology is None:
        return image
    return antialias(image, fragments, positions, faces, topology)


def guidance_maps(
    source_vertices: Float[Array, "b v 3"],
    driving_vertices: Float[Array, "b v 3"],
    faces: np.ndarray,
    attributes: Float[Array, "v d"] | np.ndarray | None = None,
    *,
    size: int,
    with_flow: bool = True,
    with_source: bool = True,
    topology: MeshTopology | None = None,
    shift_px: float = OFFICIAL_SHIFT_PX,
    cull: str = "back_after",
) -> GuidanceMaps:
    """Draws the maps of two meshes.

    Args:
      source_vertices: in crop pixels.
      driving_vertices: in crop pixels.
      faces: (f 3) vertices of each triangle, counter-clockwise seen from outside.
      attributes: codes or coordinates of the vertices; None draws none.
      size: side of the crop and of the maps.
      with_flow: draw the displacement field.
      with_source: draw the attributes on the source mesh too.
      topology: of the faces; None leaves silhouettes jagged.
      shift_px: see `normalize_vertices`.
      cull: see `draw_attributes`.

    Source: Zhong et al. (BMVC 2022), section 3.2; the released renderer.
    Differs from source: depth is not stretched to the z-buffer's range: ours has none. The
      visibility map, which the released code draws and then drops, is not drawn.
    """
    source = normalize_vertices(source_vertices, size, shift_px=shift_px)
    driving = normalize_vertices(driving_vertices, size, shift_px=shift_px)
    columns = []
    if attributes is not None:
        rows = jnp.asarray(attributes, jnp.float32)
        columns.append(jnp.broadcast_to(rows, (driving.shape[0], *rows.shape)))
    if with_flow:
        columns.append(source[..., :2] - driving[..., :2])
    how = {"size": size, "cull": cull}
    drawn = draw_attributes(jnp.concatenate(columns, axis=-1), driving, faces, topology, **how)
    flow = drawn[..., -2:] if with_flow else None
    if attributes is None:
        return GuidanceMaps(flow=flow)
    source_codes = None
    if with_source:
        source_codes = draw_attributes(rows, source, faces, topology, **how)
    return GuidanceMaps(flow, drawn[..., : rows.shape[-1]], source_codes)


def guidance_pyramid(
    modulation: Float[Array, "b h w m"],
    strides: Iterable[int],
    *,
    implementation: str = "strided",
) -> dict[int, Array]:
    """The map at every stride: a Gaussian of deviation (s − 1) / 2, then every s-th pixel from 0.

    Args:
      modulation: at full size. Values keep their unit whatever the size.
      strides: of the levels.
      implementation: 'strided' computes only what is kept; 'literal', the reference, blurs the
        whole map by a two-dimensional kernel first (125² taps at stride 32).

    Returns:
      stride -> (b h/s w/s m).

    Source: FOMM's anti-aliased interpolation, which GDPW's released code uses.
    """
    check_choice("the implementation of the guidance pyramid", implementation, PYRAMIDS)
    modulation = jnp.asarray(modulation)
    shrink = antialias_downsample if implementation == "strided" else _downsample_literally
    return {stride: shrink(modulation, 1 / stride) for stride in strides}


def _downsample_literally(x: Array, scale: float) -> Array:
    """Depthwise two-dimensional convolution at full size; then most of the result is dropped."""
    stride = round(1 / scale)
    taps = antialias_kernel(scale)
    radius = len(taps) // 2
    channels = x.shape[-1]
    kernel = jnp.asarray(np.outer(taps, taps), x.dtype)[:, :, None, None]
    blurred = lax.conv_general_dilated(
        x,
        jnp.tile(kernel, (1, 1, 1, channels)),
        window_strides=(1, 1),
        padding=[(radius, radius)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
        precision=lax.Precision.HIGHEST,
    )
    return blurred[:, ::stride, ::stride]


def check_vertices(
    vertices: Array | None, num_vertices: int, who: str, *, mesh: str
) -> Float[Array, "b v 3"]:
    """Returns the vertices if they can be those of the mesh.

    Args:
      vertices: (b v 3).
      num_vertices: v of the mesh.
      who: 'source' or 'driving'.
      mesh: its name.

    Raises:
      ArgumentError: if there are none, or not as many.
    """
    shape: Sequence[int] | None = None if vertices is None else vertices.shape
    if shape is None or len(shape) != 3 or shape[1:] != (num_vertices, 3):
        raise ArgumentError(
            requirement(
                f"vertices of the {who} face",
                f"have shape (b, {num_vertices}, 3), as mesh '{mesh}'",
                "none" if shape is None else tuple(shape),
                "Fit that face model to the image, or build the model for another mesh.",
            )
        )
    return vertices
