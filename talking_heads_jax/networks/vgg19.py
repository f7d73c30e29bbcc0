"""VGG19's convolutional part, whose activations the perceptual losses compare.

The weights are torchvision's, converted by `talking-heads convert --model vgg19`. A seeded random
network of the same shape is an honest stand-in where there are none: its features still separate
images, but nothing trained with it may be compared with the papers.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.layers.convolution import Conv
from talking_heads_jax.ops.resize import max_pool
from talking_heads_jax.typing import Array, Float, PyTree

# torchvision's `features`: indices of the convolutions, their widths, and the taps after ReLU.
CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256),
    14: (256, 256), 16: (256, 256), 19: (256, 512), 21: (512, 512), 23: (512, 512),
    25: (512, 512), 28: (512, 512), 30: (512, 512), 32: (512, 512), 34: (512, 512),
}  # fmt: skip
TAPS = {"relu1_1": 0, "relu2_1": 5, "relu3_1": 10, "relu4_1": 19, "relu5_1": 28}
_POOL_BEFORE = (5, 10, 19, 28)
_LAST = 28
_MEAN = (0.485, 0.456, 0.406)  # ImageNet's, as torchvision normalises
_STD = (0.229, 0.224, 0.225)


class Vgg19Features(nn.Module):
    """The five activations relu1_1 … relu5_1.

    Attributes:
      dtype: compute dtype.

    Source: Simonyan & Zisserman (ICLR 2015), configuration E; torchvision's layout.
    """

    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `features_N` up to the last tap."""
        for index, (inputs, outputs) in CONVOLUTIONS.items():
            if index <= _LAST:
                setattr(self, f"features_{index}", Conv(inputs, outputs, dtype=self.dtype))

    def __call__(self, images: Float[Array, "b h w 3"]) -> list[Array]:
        """Returns the five feature maps of RGB images in [0, 1], shallow first."""
        x = (images - jnp.asarray(_MEAN, images.dtype)) / jnp.asarray(_STD, images.dtype)
        taps = []
        for index in CONVOLUTIONS:
            if index > _LAST:
                break
            if index in _POOL_BEFORE:
                x = max_pool(x, 2, stride=2)
            x = nn.relu(getattr(self, f"features_{index}")(x))
            if index in TAPS.values():
                taps.append(x)
        return taps


def random_parameters(seed: int) -> PyTree:
    """Parameters of a random stand-in: He-normal kernels, zero biases; the same for one seed."""
    params = {}
    for index, (inputs, outputs) in CONVOLUTIONS.items():
        if index <= _LAST:
            key = jax.random.fold_in(jax.random.key(seed), index)
            scale = math.sqrt(2.0 / (9 * inputs))
            kernel = scale * jax.random.normal(key, (3, 3, inputs, outputs))
            params[f"features_{index}"] = {"kernel": kernel, "bias": jnp.zeros(outputs)}
    return params
