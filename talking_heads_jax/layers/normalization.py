"""Normalisation layers that match torch, number for number.

Batch norm: `flax.linen.BatchNorm` stores the biased running variance, torch the unbiased one.
Instance norm needs the two-pass variance: SPADE sees variances near its eps, where E[x²]−E[x]²
loses the answer. Statistics are float32 whatever the compute dtype (float64 stays float64); under a
sharded `jit` the batch is the global one.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from talking_heads_jax.typing import Array, Float


def _two_pass_moments(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, kept as axes of size 1."""
    mean = jnp.mean(x, axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axes, keepdims=True)


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as torch computes it.

    Training normalises with the biased variance of the batch and moves the running variance towards
    the *unbiased* one (n / (n − 1)). `momentum` is torch's: the weight of the new value.

    Attributes:
      features: channels.
      momentum: weight of the batch's statistics in the running ones.
      epsilon: added to the variance.
      affine: learn a scale and a bias; False leaves the normalised values as they are.

    Source: torch `BatchNorm2d`; FOMM's synchronised variant on one device. On several devices that
    variant clamps the variance instead of adding epsilon.
    Differs from source: epsilon is added on any number of devices; `num_batches_tracked` is absent.
    """

    features: int
    momentum: float = 0.1
    epsilon: float = 1e-5
    affine: bool = True

    def setup(self) -> None:
        """Creates `scale`, `bias` (when affine) and the running `mean`, `var`."""
        shape = (self.features,)
        if self.affine:
            self.scale = self.param("scale", nn.initializers.ones, shape)
            self.bias = self.param("bias", nn.initializers.zeros, shape)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)

    def __call__(self, x: Float[Array, "*b c"], *, train: bool) -> Float[Array, "*b c"]:
        """Normalises; in training also moves the running statistics."""
        if train:
            wide = x.astype(jnp.float32) if x.dtype != jnp.float64 else x
            mean, var = _two_pass_moments(wide, tuple(range(x.ndim - 1)))
            mean, var = mean.reshape(-1), var.reshape(-1)
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                self.mean.value += self.momentum * (lax.stop_gradient(mean) - self.mean.value)
                self.var.value += self.momentum * (lax.stop_gradient(unbiased) - self.var.value)
        else:
            mean, var = self.mean.value, self.var.value
        scale, bias = (self.scale, self.bias) if self.affine else (1.0, 0.0)
        gain = scale * lax.rsqrt(var + self.epsilon)
        if train:
            return ((wide - mean) * gain + bias).astype(x.dtype)
        # One multiply-add per value: the statistics are constants.
        return x * gain.astype(x.dtype) + (bias - mean * gain).astype(x.dtype)


class InstanceNorm(nn.Module):
    """Instance normalisation over the spatial axes, biased two-pass variance, no running state.

    Attributes:
      features: channels.
      affine: learn a scale and a bias.
      epsilon: added to the variance. With SPADE 1e-6 instead of 1e-5 is a different network.

    Source: torch `InstanceNorm2d`.
    """

    features: int
    affine: bool = False
    epsilon: float = 1e-5

    def setup(self) -> None:
        """Creates `scale` and `bias` when affine."""
        if self.affine:
            self.scale = self.param("scale", nn.initializers.ones, (self.features,))
            self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def __call__(self, x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
        """Normalises every channel of every example."""
        wide = x.astype(jnp.float32) if x.dtype != jnp.float64 else x
        mean, var = _two_pass_moments(wide, tuple(range(1, x.ndim - 1)))
        result = (wide - mean) * lax.rsqrt(var + self.epsilon)
        if self.affine:
            result = result * self.scale + self.bias
        return result.astype(x.dtype)
