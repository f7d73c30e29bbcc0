"""The trivial answers every model has to beat: copying, blurring or moving the source as a whole.

Copying the source is what a model that never moves would score; blurring it is the cheapest way to
lower pixel errors without moving; copying the driving frame is the perfect answer of same-identity
reconstruction and shows what the metrics' best values are. Moving the source by the affine map
between two silhouettes is what knowing where the head is gives, without knowing any face; moving
it as a face mesh moves is what the inputs of a mesh-driven system give, without learning.
Letters: b batch, h w c image.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.ops.coordinates import px_to_ndc
from talking_heads_jax.ops.grid_sample import grid_sample
from talking_heads_jax.ops.numerics import inverse_2x2, matmul_highest
from talking_heads_jax.ops.rasterizer import interpolate, rasterize
from talking_heads_jax.typing import Array, Float, Int

_TRUNCATE = 4.0  # standard deviations the blur kernel reaches
DEFAULT_SIGMAS_PX = (1.0, 2.0, 3.0)
# Added to both axes of a silhouette's covariance: the spread of a single pixel, so that a line of
# pixels still has an area.
_PIXEL_VARIANCE = 1.0 / 12.0


def copy_source(
    source: Float[Array, "b h w c"], driving: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """The source, one for each driving frame.

    Args:
      source: identity images; one, or as many as driving frames.
      driving: sets the batch size.
    """
    return jnp.broadcast_to(source, (driving.shape[0], *source.shape[1:]))


def copy_driving(
    source: Float[Array, "b h w c"], driving: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """The driving frames themselves.

    Args:
      source: not used.
      driving: motion images.
    """
    del source
    return driving


def blur_source(
    source: Float[Array, "b h w c"], driving: Float[Array, "b h w c"], *, sigma_px: float
) -> Float[Array, "b h w c"]:
    """The source, blurred by a Gaussian; the border continues its outermost pixels.

    Args:
      source: identity images; one, or as many as driving frames.
      driving: sets the batch size.
      sigma_px: standard deviation in pixels.

    Raises:
      ArgumentError: if `sigma_px` is not positive.
    """
    if not sigma_px > 0:
        raise ArgumentError(requirement("sigma_px", "be positive", sigma_px, "Use 1 to 3."))
    radius = math.ceil(_TRUNCATE * sigma_px)
    offsets = np.arange(-radius, radius + 1)
    taps = np.exp(-0.5 * (offsets / sigma_px) ** 2)
    taps /= taps.sum()
    blurred = source
    for axis in (1, 2):
        pads = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
        padded = jnp.pad(blurred, pads, mode="edge")
        size = source.shape[axis]
        blurred = sum(
            float(tap) * jax.lax.slice_in_dim(padded, i, i + size, axis=axis)
            for i, tap in enumerate(taps)
        )
    return copy_source(blurred, driving)


def move_by_silhouette(
    source: Float[Array, "b h w c"],
    driving: Float[Array, "b h w c"],
    source_mask: Float[Array, "b h w 1"],
    driving_mask: Float[Array, "b h w 1"],
) -> Float[Array, "b h w c"]:
    """The source moved by an affine map that takes its silhouette to the driving frame's.

    Of all affine maps between the two silhouettes' means and covariances (in pixels) the one that
    moves points least: a stretch without rotation, the optimal transport between two Gaussians.
    Where either silhouette is empty the source stays. Outside, its outermost pixels continue.

    Args:
      source: identity images; one, or as many as driving frames.
      driving: sets the batch size.
      source_mask: weight of each pixel, for the source images.
      driving_mask: the same, for the driving frames.

    Returns:
      One image per driving frame.

    Source: the closed form of the transport between Gaussians, e.g. Peyré and Cuturi, Computational
    Optimal Transport (2019), Remark 2.31.
    """
    count = driving.shape[0]
    height, width = source.shape[1:3]
    source_mean, source_root = _silhouette(source_mask)
    driving_mean, driving_root = _silhouette(driving_mask)
    # The map from driving to source, A = Rd^-1 (Rd Cs Rd)^1/2 Rd^-1, R the root of a covariance.
    covariance = matmul_highest(source_root, source_root)
    inner = matmul_highest(matmul_highest(driving_root, covariance), driving_root)
    inverse = inverse_2x2(driving_root)
    stretch = matmul_highest(matmul_highest(inverse, _root_2x2(inner)), inverse)
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    points = jnp.stack([columns, rows], axis=-1).astype(jnp.float32) + 0.5
    offsets = points - driving_mean[:, None, None]
    moved = source_mean[:, None, None] + jnp.einsum(
        "bij,bhwj->bhwi", stretch, offsets, precision=jax.lax.Precision.HIGHEST
    )
    empty = (driving_mask.sum(axis=(1, 2, 3)) <= 0) | (source_mask.sum(axis=(1, 2, 3)) <= 0)
    moved = jnp.where(empty[:, None, None, None], points, moved)
    grid = 2.0 * moved / jnp.array([width, height], jnp.float32) - 1.0
    images = jnp.broadcast_to(source, (count, *source.shape[1:]))
    return grid_sample(images, grid, align_corners=False, padding="border")


def warp_by_mesh(
    source: Float[Array, "b h w c"],
    driving: Array,
    source_vertices: Float[Array, "b v 3"],
    driving_vertices: Float[Array, "b v 3"],
    faces: Int[Array, "f 3"],
) -> Float[Array, "b h w c"]:
    """Every pixel of the driving mesh shows what the same point of the source's mesh shows.

    What the source hides there is taken from whatever hides it. Pixels beside the mesh stay, and
    outside the source its outermost pixels continue.

    Args:
      source: identity images; one, or as many as driving meshes.
      driving: anything with the batch's size.
      source_vertices: x, y in pixels, for the source images.
      driving_vertices: x, y in pixels, z smaller nearer, on the source's shape.
      faces: vertices of each triangle.

    Returns:
      One image per driving mesh.
    """
    height, width = source.shape[1:3]
    positions = px_to_ndc(driving_vertices[..., :2], (height, width), align_corners=False)
    positions = jnp.concatenate([positions, driving_vertices[..., 2:]], axis=-1)
    fragments = rasterize(positions, faces, height=height, width=width)
    places = interpolate(
        jnp.broadcast_to(source_vertices[..., :2], positions[..., :2].shape), fragments, faces
    )
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    centres = jnp.stack([columns, rows], axis=-1).astype(jnp.float32) + 0.5
    places = jnp.where((fragments.face_id >= 0)[..., None], places, centres)
    grid = px_to_ndc(places, (height, width), align_corners=False)
    return grid_sample(copy_source(source, driving), grid, align_corners=False, padding="border")


def _silhouette(mask: Float[Array, "b h w 1"]) -> tuple[Array, Array]:
    """Mean (b 2) in pixels and root of the covariance (b 2 2) of masks."""
    height, width = mask.shape[1:3]
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    points = jnp.stack([columns, rows], axis=-1).astype(jnp.float32) + 0.5
    weight = mask / jnp.maximum(mask.sum(axis=(1, 2, 3), keepdims=True), 1.0)
    mean = (weight * points).sum(axis=(1, 2))
    offsets = points - mean[:, None, None]
    covariance = jnp.einsum(
        "bhwk,bhwi,bhwj->bij",
        weight,
        offsets,
        offsets,
        precision=jax.lax.Precision.HIGHEST,
    )
    return mean, _root_2x2(covariance + _PIXEL_VARIANCE * jnp.eye(2))


def _root_2x2(matrix: Float[Array, "b 2 2"]) -> Float[Array, "b 2 2"]:
    """Root of positive definite matrices: (M + s I) / sqrt(trace M + 2 s), s = sqrt(det M)."""
    determinant = matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]
    root = jnp.sqrt(jnp.maximum(determinant, 0.0))[..., None, None]
    trace = jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
    return (matrix + root * jnp.eye(2)) / jnp.sqrt(trace + 2.0 * root)
