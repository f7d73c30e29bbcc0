"""Sparse motions of keypoints, their composition, and the backward warp.

A `deformation` is an absolute backward map: for every pixel of the result, the place (x, y) in the
source image to read, in [-1, 1], on the corner-aligned grid of FOMM. Letters: b batch, h w image,
k keypoints, c channels.
"""

import jax.numpy as jnp

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.grid_sample import grid_sample
from talking_heads_jax.ops.numerics import inverse_2x2, matmul_highest
from talking_heads_jax.ops.resize import resize_bilinear
from talking_heads_jax.typing import Array, Float, typechecked


@typechecked
def sparse_motions(
    source: Keypoints, driving: Keypoints, h: int, w: int
) -> Float[Array, "b motions h w 2"]:
    """First-order motion around each keypoint, from the driving to the source image.

    Args:
      source: keypoints of the identity image, (b k 2) corner-aligned in [-1, 1].
      driving: keypoints of the motion image. If one of the two has no Jacobians, motions are
        translations.
      h: rows of the result.
      w: columns of the result.

    Returns:
      k + 1 deformations: index 0 is the identity (the background), index i + 1 is
      p_S + J_S J_D^-1 (z - p_D) for keypoint i at every pixel z. Singular J_D give finite motions.

    Source:
      FNeVR (Zeng et al. 2022), equation 1, after FOMM (Siarohin et al. 2019).
    """
    dtype = jnp.promote_types(source.value.dtype, jnp.float32)
    source_value, driving_value = source.value.astype(dtype), driving.value.astype(dtype)
    grid = corner_grid(h, w).astype(dtype)
    x = grid[0, :, 0] - driving_value[..., 0:1]  # (b k w)
    y = grid[:, 0, 1] - driving_value[..., 1:2]  # (b k h)
    x, y = x[:, :, None, :, None], y[:, :, :, None, None]
    offset = source_value[:, :, None, None, :]
    if source.jacobian is None or driving.jacobian is None:
        motions = jnp.concatenate(jnp.broadcast_arrays(x, y), axis=-1) + offset
    else:
        affine = matmul_highest(
            source.jacobian.astype(dtype), inverse_2x2(driving.jacobian.astype(dtype))
        )[:, :, None, None]
        motions = affine[..., 0] * x + affine[..., 1] * y + offset
    identity = jnp.broadcast_to(grid, (motions.shape[0], 1, h, w, 2))
    return jnp.concatenate([identity, motions], axis=1)


@typechecked
def combine_motions(
    mask: Float[Array, "b h w m"], motions: Float[Array, "b m h w 2"]
) -> Float[Array, "b h w 2"]:
    """Blends motions by a mask.

    Args:
      mask: weight of each motion at each pixel; sums to 1 over the last axis.
      motions: deformations, x, y in [-1, 1].

    Returns:
      The blended deformation, in the dtype of `motions`.

    Source:
      FNeVR, equation 2 (first line), after FOMM.
    """
    weights = jnp.moveaxis(mask, -1, 1).astype(motions.dtype)
    return jnp.sum(weights[..., None] * motions, axis=1)


@typechecked
def occlude(
    features: Float[Array, "b h w c"], occlusion_map: Float[Array, "b h2 w2 1"]
) -> Float[Array, "b h w c"]:
    """Dims what the source image cannot show.

    Args:
      features: warped features.
      occlusion_map: 1 = visible, 0 = to be inpainted; resized bilinearly (edges fixed) to the
        features if its size differs.

    Returns:
      The product, in the dtype of `features`.

    Source:
      FNeVR, equation 2 (second line), after FOMM.
    """
    visible = resize_bilinear(occlusion_map, features.shape[1:3], align_corners=False)
    return features * visible.astype(features.dtype)


@typechecked
def warp(
    image: Float[Array, "b h w c"],
    deformation: Float[Array, "b h2 w2 2"],
    *,
    align_corners: bool,
    padding: str = "zeros",
) -> Float[Array, "b h w c"]:
    """Backward warp at the image's own size.

    Args:
      image: image or features.
      deformation: where to read, x, y in [-1, 1]; resized bilinearly (edges fixed) to the image if
        its size differs.
      align_corners: the corner rule of the *sampling*. FNeVR's and FOMM's weights in use today
        expect False, although their grid is corner-aligned: an identity deformation then shrinks
        the image by (size - 1) / size about its centre.
      padding: as in `grid_sample`.

    Returns:
      The warped image, in the image's dtype.

    Raises:
      ArgumentError: an unknown padding.
    """
    deformation = resize_bilinear(deformation, image.shape[1:3], align_corners=False)
    return grid_sample(image, deformation, align_corners=align_corners, padding=padding)
