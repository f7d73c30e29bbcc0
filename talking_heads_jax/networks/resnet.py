"""Residual networks up to their last map: the trunks of DECA, Deep3DFaceRecon and face parsing.

Layers are those of torchvision's ResNet-18 and ResNet-50 (the strided convolution of a bottleneck
is its 3 × 3 one), always in evaluation mode: batch norm uses the stored statistics. Letters:
b batch, h w image, c channels.

Source: He et al., Deep residual learning for image recognition (CVPR 2016); torchvision's layout.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.layers.normalization import BatchNorm
from talking_heads_jax.ops.resize import max_pool
from talking_heads_jax.typing import Array, Float

#: Blocks per stage.
RESNET_18, RESNET_50 = (2, 2, 2, 2), (3, 4, 6, 3)
#: Output channels of a bottleneck over its inner ones.
EXPANSION = 4


class _Block(nn.Module):
    """A residual block, basic or bottleneck, with a 1 × 1 shortcut where the shape changes.

    Attributes:
      in_features: channels in.
      inner_features: channels of the 3 × 3 convolutions.
      bottleneck: 1 × 1, 3 × 3, 1 × 1 to `EXPANSION` times the channels, instead of two 3 × 3.
      stride: of the block.
      dtype: compute dtype.
    """

    in_features: int
    inner_features: int
    bottleneck: bool
    stride: int
    dtype: Any

    def setup(self) -> None:
        """Creates `conv_i`, `norm_i` and, where needed, `shortcut_conv`, `shortcut_norm`."""
        inner = self.inner_features
        out = inner * EXPANSION if self.bottleneck else inner
        # (in, out, side, stride) of each convolution.
        if self.bottleneck:
            plan = ((self.in_features, inner, 1, 1), (inner, inner, 3, self.stride))
            plan += ((inner, out, 1, 1),)
        else:
            plan = ((self.in_features, inner, 3, self.stride), (inner, out, 3, 1))
        self.num_layers = len(plan)
        for index, layer in enumerate(plan, start=1):
            setattr(self, f"conv_{index}", _convolution(*layer, dtype=self.dtype))
            setattr(self, f"norm_{index}", BatchNorm(layer[1]))
        self.has_shortcut = self.stride != 1 or self.in_features != out
        if self.has_shortcut:
            self.shortcut_conv = _convolution(
                self.in_features, out, 1, self.stride, dtype=self.dtype
            )
            self.shortcut_norm = BatchNorm(out)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """Adds the block's change to its input."""
        y = x
        for index in range(1, self.num_layers + 1):
            y = getattr(self, f"conv_{index}")(y)
            y = getattr(self, f"norm_{index}")(y, train=False)
            if index < self.num_layers:
                y = nn.relu(y)
        if self.has_shortcut:
            x = self.shortcut_norm(self.shortcut_conv(x), train=False)
        return nn.relu(x + y)


def _convolution(inputs: int, outputs: int, side: int, stride: int, *, dtype: Any) -> Conv:
    return Conv(
        inputs,
        outputs,
        kernel_size=(side, side),
        padding=side // 2,
        stride=stride,
        use_bias=False,
        dtype=dtype,
    )


class ResidualTrunk(nn.Module):
    """A ResNet without its classifier.

    Attributes:
      depths: blocks per stage.
      bottleneck: ResNet-50's blocks instead of ResNet-18's.
      features: channels of the stem; each stage has twice those of the one before.
      dtype: compute dtype.
    """

    depths: tuple[int, ...] = RESNET_50
    bottleneck: bool = True
    features: int = 64
    dtype: Any = jnp.float32

    @property
    def out_features(self) -> int:
        """Channels of the last map."""
        last = self.features * 2 ** (len(self.depths) - 1)
        return last * EXPANSION if self.bottleneck else last

    def setup(self) -> None:
        """Creates `conv_1`, `norm_1` and the blocks `layer_<stage>_<block>`."""
        self.conv_1 = _convolution(3, self.features, 7, 2, dtype=self.dtype)
        self.norm_1 = BatchNorm(self.features)
        width = self.features
        for stage, depth in enumerate(self.depths, start=1):
            inner = self.features * 2 ** (stage - 1)
            for index in range(depth):
                stride = 2 if index == 0 and stage > 1 else 1
                block = _Block(width, inner, self.bottleneck, stride, self.dtype)
                setattr(self, f"layer_{stage}_{index}", block)
                width = inner * EXPANSION if self.bottleneck else inner

    def __call__(self, x: Float[Array, "b h w 3"]) -> list[Array]:
        """Returns the maps behind the stages, at 1/4, 1/8, 1/16 and 1/32 of the size.

        Args:
          x: images, already normalised as the network's owner does.
        """
        x = nn.relu(self.norm_1(self.conv_1(x), train=False))
        x = max_pool(x, 3, stride=2, padding=1)
        maps = []
        for stage, depth in enumerate(self.depths, start=1):
            for index in range(depth):
                x = getattr(self, f"layer_{stage}_{index}")(x)
            maps.append(x)
        return maps
