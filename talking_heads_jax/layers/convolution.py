"""Convolutions and dense layers with explicit sizes, torch's default initialisation, and blocks.

Every module states its input width, so its parameters exist before it is called: a fast path can
read `conv.kernel` and merge it with another's. Padding is always explicit and zero. Compute dtype
is `dtype`; parameters stay float32. Letters: b batch, d depth, h w image, c channels.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from talking_heads_jax.layers.initializers import Initializer, uniform_fan_in
from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.ops.banded_convolution import conv_3d
from talking_heads_jax.ops.platform import target_platform
from talking_heads_jax.ops.resize import average_pool
from talking_heads_jax.ops.upsampled_convolution import conv_after_nearest_upsample
from talking_heads_jax.ops.winograd import conv_3x3
from talking_heads_jax.typing import Array, Float

# Where Winograd's form pays on a CPU (measured, docs/performance.md): wide layers on large maps.
# Accelerators' libraries choose such forms themselves.
_WINOGRAD_CHANNELS = 128
_WINOGRAD_SIDE = 32

_DIMENSIONS = {2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


class Conv(nn.Module):
    """Convolution in two or three dimensions with zero padding.

    Attributes:
      in_features: input channels.
      features: output channels.
      kernel_size: side per spatial axis; its length (2 or 3) is the dimension.
      padding: zeros added on every side of every spatial axis.
      stride: of every spatial axis.
      use_bias: whether there is a bias.
      implementation: 'plain', or 'fast': on a CPU, wide 3×3 layers multiply less (Winograd).
      dtype: compute dtype.
      kernel_init: kernel initialiser; None is torch's default.
      bias_init: bias initialiser; None is torch's default.
    """

    in_features: int
    features: int
    kernel_size: tuple[int, ...] = (3, 3)
    padding: int = 1
    stride: int = 1
    use_bias: bool = True
    implementation: str = "plain"
    dtype: Any = jnp.float32
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def setup(self) -> None:
        """Creates `kernel` (*k, in, out) and, unless it goes without, `bias` (out,)."""
        fan_in = self.in_features * math.prod(self.kernel_size)
        default = uniform_fan_in(fan_in)
        shape = (*self.kernel_size, self.in_features, self.features)
        self.kernel = self.param("kernel", self.kernel_init or default, shape)
        self.bias = None
        if self.use_bias:
            self.bias = self.param("bias", self.bias_init or default, (self.features,))

    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *t d"]:
        """Convolves channels-last `x`."""
        return self.apply_weights(
            x,
            self.kernel,
            self.bias,
            padding=self.padding,
            stride=self.stride,
            implementation=self.implementation,
            dtype=self.dtype,
        )

    @staticmethod
    def apply_weights(
        x: Float[Array, "b *s c"],
        kernel: Float[Array, "*k c d"],
        bias: Float[Array, " d"] | None,
        *,
        padding: int,
        stride: int = 1,
        implementation: str,
        dtype: Any,
    ) -> Float[Array, "b *t d"]:
        """The convolution itself, for callers that merge the weights of several layers."""
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        bias = None if bias is None else bias.astype(dtype)
        if implementation == "fast" and stride == 1 and _winograd_pays(x, kernel, padding):
            offset = jnp.zeros(kernel.shape[-1], dtype) if bias is None else bias
            return conv_3x3(x, kernel, offset, implementation="winograd")
        sides = kernel.ndim - 2
        result = lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride,) * sides,
            padding=[(padding, padding)] * sides,
            dimension_numbers=_DIMENSIONS[sides],
        )
        return result if bias is None else result + bias


def _winograd_pays(x: Array, kernel: Array, padding: int) -> bool:
    """Whether a layer's shape and the device favour Winograd's form."""
    return (
        target_platform() == "cpu"
        and x.dtype == jnp.float32
        and kernel.shape[:-2] == (3, 3)
        and padding == 1
        and min(kernel.shape[-2:]) >= _WINOGRAD_CHANNELS
        and min(x.shape[1:3]) >= _WINOGRAD_SIDE
    )


class Dense(nn.Module):
    """Linear layer on the last axis, with bias and torch's default initialisation.

    Attributes:
      in_features: input width.
      features: output width.
      dtype: compute dtype.
      kernel_init: kernel initialiser; None is torch's default.
      bias_init: bias initialiser; None is torch's default.
    """

    in_features: int
    features: int
    dtype: Any = jnp.float32
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None

    def setup(self) -> None:
        """Creates `kernel` (in, out) and `bias` (out,)."""
        default = uniform_fan_in(self.in_features)
        shape = (self.in_features, self.features)
        self.kernel = self.param("kernel", self.kernel_init or default, shape)
        self.bias = self.param("bias", self.bias_init or default, (self.features,))

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """Returns `x @ kernel + bias`."""
        return x.astype(self.dtype) @ self.kernel.astype(self.dtype) + self.bias.astype(self.dtype)


class DownBlock2d(nn.Module):
    """Convolution 3×3 → batch norm → ReLU → 2×2 mean pooling (odd sides are floored).

    Attributes:
      in_features: input channels.
      features: output channels.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv` and `norm`."""
        self.conv = Conv(self.in_features, self.features, dtype=self.dtype)
        self.norm = BatchNorm(self.features)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Halves the sides."""
        return average_pool(nn.relu(self.norm(self.conv(x), train=train)), 2)


class UpBlock2d(nn.Module):
    """Nearest ×2 → convolution 3×3 → batch norm → ReLU.

    Attributes:
      in_features: input channels.
      features: output channels.
      implementation: 'plain', or 'fast': the same numbers without convolving repeated pixels.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv` and `norm`."""
        self.conv = Conv(self.in_features, self.features, dtype=self.dtype)
        self.norm = BatchNorm(self.features)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Doubles the sides."""
        x = conv_after_nearest_upsample(
            x.astype(self.dtype),
            self.conv.kernel.astype(self.dtype),
            self.conv.bias.astype(self.dtype),
            factor=2,
            implementation="collapsed" if self.implementation == "fast" else "plain",
        )
        return nn.relu(self.norm(x, train=train))


class SameBlock2d(nn.Module):
    """Convolution k×k that keeps the size → batch norm → ReLU.

    Attributes:
      in_features: input channels.
      features: output channels.
      kernel_size: odd side of the kernel.
      dtype: compute dtype.
    """

    in_features: int
    features: int
    kernel_size: int = 3
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `conv` and `norm`."""
        self.conv = Conv(
            self.in_features,
            self.features,
            kernel_size=(self.kernel_size, self.kernel_size),
            padding=self.kernel_size // 2,
            dtype=self.dtype,
        )
        self.norm = BatchNorm(self.features)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w d"]:
        """Keeps the sides."""
        return nn.relu(self.norm(self.conv(x), train=train))


class ResBlock2d(nn.Module):
    """Pre-activation residual block: (batch norm → ReLU → convolution 3×3) twice, plus the input.

    Attributes:
      features: channels in and out.
      implementation: 'plain' or 'fast' (see `Conv`).
      dtype: compute dtype.
    """

    features: int
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `norm_1`, `conv_1`, `norm_2`, `conv_2`."""
        self.norm_1 = BatchNorm(self.features)
        options = {"implementation": self.implementation, "dtype": self.dtype}
        self.conv_1 = Conv(self.features, self.features, **options)
        self.norm_2 = BatchNorm(self.features)
        self.conv_2 = Conv(self.features, self.features, **options)

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        """Keeps the shape."""
        y = self.conv_1(nn.relu(self.norm_1(x, train=train)))
        y = self.conv_2(nn.relu(self.norm_2(y, train=train)))
        return x + y


class ResBlock3d(nn.Module):
    """Pre-activation residual block on volumes, convolutions 3×3×3.

    Attributes:
      features: channels in and out.
      implementation: 'plain', or 'fast': narrow volumes as banded 2-D convolutions.
      dtype: compute dtype.
    """

    features: int
    implementation: str = "plain"
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `norm_1`, `conv_1`, `norm_2`, `conv_2`."""
        kernel = (3, 3, 3)
        self.norm_1 = BatchNorm(self.features)
        self.conv_1 = Conv(self.features, self.features, kernel_size=kernel, dtype=self.dtype)
        self.norm_2 = BatchNorm(self.features)
        self.conv_2 = Conv(self.features, self.features, kernel_size=kernel, dtype=self.dtype)

    def __call__(self, x: Float[Array, "b d h w c"], *, train: bool) -> Float[Array, "b d h w c"]:
        """Keeps the shape."""
        y = self._convolve(self.conv_1, nn.relu(self.norm_1(x, train=train)))
        y = self._convolve(self.conv_2, nn.relu(self.norm_2(y, train=train)))
        return x + y

    def _convolve(self, conv: Conv, x: Array) -> Array:
        return conv_3d(
            x.astype(self.dtype),
            conv.kernel.astype(self.dtype),
            conv.bias.astype(self.dtype),
            implementation="banded" if self.implementation == "fast" else "plain",
        )
