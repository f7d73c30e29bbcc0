"""Convolution with torch-faithful spectral normalisation.

Flax's `SpectralNorm` keeps no `v` and iterates once in evaluation too; torch does neither, so a
converted discriminator needs its own layer. Letters: b batch, h w image, c channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from talking_heads_jax.layers.initializers import uniform_fan_in
from talking_heads_jax.typing import Array, Float


def _normalized(vector: Array, epsilon: float) -> Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), epsilon)


class SpectralConv(nn.Module):
    """2-D convolution, stride 1, whose kernel is divided by its largest singular value.

    The kernel is viewed as a matrix W (out, kh·kw·in). A training call first runs one power
    iteration, v ← Wᵀu/|·| then u ← Wv/|·|, stored in the collection `spectral`; evaluation uses the
    stored vectors. The divisor is uᵀWv with u, v held constant, so the gradient flows through W.

    Attributes:
      in_features: input channels.
      features: output channels.
      kernel_size: side of the kernel.
      padding: zeros on every side.
      normalize: False makes it a plain convolution (no `spectral` state).
      epsilon: lower bound of the norms in the power iteration.
      dtype: compute dtype of the convolution; the iteration is float32.

    Source: Miyato et al., Spectral Normalization for GANs (arXiv:1802.05957), Algorithm 1, in the
    form of torch's forward-pre-hook.
    """

    in_features: int
    features: int
    kernel_size: int
    padding: int = 0
    normalize: bool = True
    epsilon: float = 1e-12
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates `kernel`, `bias` and the vectors `u` (out,), `v` (kh, kw, in)."""
        side = self.kernel_size
        init = uniform_fan_in(side * side * self.in_features)
        self.kernel = self.param("kernel", init, (side, side, self.in_features, self.features))
        self.bias = self.param("bias", init, (self.features,))
        if self.normalize:
            self.u = self.variable("spectral", "u", self._unit_vector, (self.features,))
            self.v = self.variable(
                "spectral", "v", self._unit_vector, (side, side, self.in_features)
            )

    def _unit_vector(self, shape: tuple[int, ...]) -> Array:
        vector = jax.random.normal(self.make_rng("params"), shape)
        return _normalized(vector.reshape(-1), self.epsilon).reshape(shape)

    def normalized_kernel(self, *, train: bool) -> Float[Array, "k k c d"]:
        """The kernel `__call__` convolves with, for callers that do so in another form.

        Args:
          train: run one power iteration first.
        """
        if not self.normalize:
            return self.kernel
        matrix = self.kernel.reshape(-1, self.features).T
        u, v = self.u.value, self.v.value.reshape(-1)
        if train and not self.is_initializing():
            constant = lax.stop_gradient(matrix)
            v = _normalized(jnp.matmul(constant.T, u, precision="highest"), self.epsilon)
            u = _normalized(jnp.matmul(constant, v, precision="highest"), self.epsilon)
            self.u.value, self.v.value = u, v.reshape(self.v.value.shape)
        sigma = jnp.matmul(u, jnp.matmul(matrix, v, precision="highest"), precision="highest")
        return self.kernel / sigma

    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        """Convolves with the normalised kernel."""
        kernel = self.normalized_kernel(train=train)
        result = lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1, 1),
            padding=[(self.padding, self.padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return result + self.bias.astype(self.dtype)
