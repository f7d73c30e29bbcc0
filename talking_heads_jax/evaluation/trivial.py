"""The trivial answers every model has to beat: copy the source, blur it, copy the driving frame.

Copying the source is what a model that never moves would score; blurring it is the cheapest way to
lower pixel errors without moving; copying the driving frame is the perfect answer of same-identity
reconstruction and shows what the metrics' best values are.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.typing import Array, Float

_TRUNCATE = 4.0  # standard deviations the blur kernel reaches
DEFAULT_SIGMAS_PX = (1.0, 2.0, 3.0)


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
