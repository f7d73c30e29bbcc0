"""The random smooth deformation of FOMM's equivariance losses, and its Jacobian.

An affine map plus a radial term around a grid of control points; coordinates are (x, y) in [-1, 1].
Letters: b batch, n control points, k keypoints, h w image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from talking_heads_jax.ops.coordinates import corner_grid
from talking_heads_jax.ops.grid_sample import grid_sample
from talking_heads_jax.typing import Array, Float, FloatArray, typechecked

# Keeps the logarithm finite at a control point; the value of the released code.
_LOG_OFFSET = 1e-6


class ThinPlateSpline(NamedTuple):
    """One transform per example.

    Attributes:
      theta: (b 2 3) affine part, [A | t].
      control_points: (n 2) x, y in [-1, 1], shared by the batch.
      control_params: (b n) coefficient of each control point, the same for x and y.
    """

    theta: Array
    control_points: Array
    control_params: Array


def random_transform(
    rng: Array, batch: int, *, sigma_affine: float, sigma_tps: float, points_tps: int
) -> ThinPlateSpline:
    """Draws one transform per example, near the identity.

    Args:
      rng: a JAX random key.
      batch: number of transforms.
      sigma_affine: standard deviation of each affine entry around [I | 0].
      sigma_tps: standard deviation of the control coefficients; 0 leaves the affine map.
      points_tps: control points a side, on the corner-aligned grid.

    Returns:
      The transforms, float32.

    Source:
      FOMM (Siarohin et al. 2019), supplement on equivariance; released values 0.05, 0.005, 5.
    """
    affine_rng, tps_rng = jax.random.split(rng)
    noise = sigma_affine * jax.random.normal(affine_rng, (batch, 2, 3))
    control_points = corner_grid(points_tps, points_tps).reshape(-1, 2)
    params = sigma_tps * jax.random.normal(tps_rng, (batch, points_tps**2))
    return ThinPlateSpline(jnp.eye(2, 3) + noise, control_points, params)


@typechecked
def transform_points(
    transform: ThinPlateSpline, points: Float[Array, "b *p 2"]
) -> Float[Array, "b *p 2"]:
    """T(z) = A z + t + sum_i c_i r(|z - q_i|_1), r(d) = d^2 log(d + 1e-6), for both coordinates.

    Args:
      transform: one transform per example.
      points: x, y in [-1, 1].

    Returns:
      The transformed points, float32 or wider.

    Source:
      FOMM, released code.

    Differs from source:
      Nothing; note that it departs from the textbook spline: L1 distance, and one coefficient
      shared by x and y.
    """
    dtype = jnp.promote_types(points.dtype, jnp.float32)
    batch = points.shape[0]
    flat = points.astype(dtype).reshape(batch, -1, 2)
    theta = transform.theta.astype(dtype)[:, None]
    x, y = flat[..., 0:1], flat[..., 1:2]
    affine = theta[..., 0] * x + theta[..., 1] * y + theta[..., 2]
    control = transform.control_points.astype(dtype)
    distance = jnp.abs(x - control[:, 0]) + jnp.abs(y - control[:, 1])  # (b p n)
    radial = jnp.square(distance) * jnp.log(distance + _LOG_OFFSET)
    bend = jnp.sum(radial * transform.control_params.astype(dtype)[:, None], axis=-1)
    return (affine + bend[..., None]).reshape(points.shape)


@typechecked
def transform_frame(
    transform: ThinPlateSpline, image: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
    """Warps images backwards: the pixel at z shows the image at T(z).

    Args:
      transform: one transform per example.
      image: images.

    Returns:
      The warped images. The grid is corner-aligned and the sampling is not (as in the released
      code); outside, the image is mirrored at its outer edges.

    Source:
      FOMM, released code.
    """
    batch, h, w, _ = image.shape
    dtype = jnp.promote_types(image.dtype, jnp.float32)
    grid = jnp.broadcast_to(corner_grid(h, w).astype(dtype), (batch, h, w, 2))
    return grid_sample(
        image, transform_points(transform, grid), align_corners=False, padding="reflection"
    )


@typechecked
def transform_jacobian(transform: ThinPlateSpline, points: FloatArray) -> Float[Array, "b k 2 2"]:
    """Derivative of `transform_points`, itself differentiable in the points.

    Args:
      transform: one transform per example.
      points: (b k 2) x, y in [-1, 1].

    Returns:
      [[dTx/dx, dTx/dy], [dTy/dx, dTy/dy]] at every point.
    """

    def forward(places: Array) -> Array:
        return transform_points(transform, places)

    columns = []
    for axis in (0, 1):
        tangent = jnp.zeros_like(points).at[..., axis].set(1)
        columns.append(jax.jvp(forward, (points,), (tangent,))[1])
    return jnp.stack(columns, axis=-1)
