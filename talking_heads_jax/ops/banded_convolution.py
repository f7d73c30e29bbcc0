"""A 3x3x3 convolution of a shallow volume as one 2-D convolution.

CPU libraries are slow at 3-D convolutions with few channels. With depth and channels merged into
one axis, the depth part of the kernel becomes a banded matrix, and the whole a 3x3 convolution on
depth * channels channels: more arithmetic (zeros in the band matrix), but in a form that is fast.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from talking_heads_jax.errors import check_choice, check_shape
from talking_heads_jax.typing import Array, Float, typechecked

IMPLEMENTATIONS = ("plain", "banded")


def _banded(x: Array, kernel: Array) -> Array:
    b, d, h, w, c = x.shape
    out = kernel.shape[-1]
    # shift[t, i, o] = 1 where tap t of output slice o reads input slice i = o + t - 1.
    shift = np.stack([np.eye(d, k=1 - tap) for tap in range(3)])
    band = jnp.einsum(
        "tie,thwco->hwiceo",
        jnp.asarray(shift, kernel.dtype),
        kernel,
        precision=lax.Precision.HIGHEST,
    ).reshape(3, 3, d * c, d * out)
    merged = x.transpose(0, 2, 3, 1, 4).reshape(b, h, w, d * c)
    y = lax.conv_general_dilated(
        merged,
        band.astype(x.dtype),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(b, h, w, d, out).transpose(0, 3, 1, 2, 4)


@typechecked
def conv_3d(
    x: Float[Array, "b d h w c"],
    kernel: Float[Array, "kd kh kw c o"],
    bias: Float[Array, " o"] | None,
    *,
    implementation: str,
) -> Float[Array, "b d h w o"]:
    """3x3x3 convolution, zeros outside, stride 1.

    Args:
      x: the volume.
      kernel: 3x3x3, depth first; cast to the dtype of `x`.
      bias: added to every voxel, or None.
      implementation: 'plain' is XLA's 3-D convolution; 'banded' gives the same numbers, up to
        rounding, by a 2-D convolution on d * c channels: for small d * c.

    Returns:
      The filtered volume, in the dtype of `x`.

    Raises:
      ArgumentError: an unknown implementation, or a kernel that is not 3x3x3.
    """
    check_choice("the implementation of the convolution", implementation, IMPLEMENTATIONS)
    check_shape("the kernel of the convolution", kernel.shape, (3, 3, 3, None, None))
    if implementation == "banded":
        y = _banded(x, kernel)
    else:
        y = lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (1, 1, 1),
            "SAME",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )
    return y if bias is None else y + bias.astype(y.dtype)
