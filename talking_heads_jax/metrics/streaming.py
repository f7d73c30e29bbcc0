"""The mean that every image metric shares: exact over padded batches, stable over long streams."""

import clu.metrics
import flax.struct
import jax.numpy as jnp

from talking_heads_jax.typing import Array, Float


@flax.struct.dataclass
class WeightedMean(clu.metrics.Metric):
    """Mean of per-example values, each with a weight; weight 0 (padding) leaves no trace.

    The sum carries its rounding error along (Neumaier), so that a hundred thousand frames cost no
    digits in float32. A value that is not finite in an example of weight 0 is ignored.

    Attributes:
      total: () sum of weight · value.
      compensation: () what rounding took from `total`.
      weight: () sum of the weights.
    """

    total: Array
    compensation: Array
    weight: Array

    @classmethod
    def empty(cls) -> "WeightedMean":
        """A mean of nothing; the neutral element of `merge`."""
        return cls(total=jnp.zeros(()), compensation=jnp.zeros(()), weight=jnp.zeros(()))

    @classmethod
    def from_values(
        cls, values: Float[Array, " b"], weight: Float[Array, " b"] | None = None
    ) -> "WeightedMean":
        """The mean of one batch.

        Args:
          values: one per example.
          weight: one per example; None means 1.
        """
        values = jnp.asarray(values, jnp.float32)
        weight = jnp.ones_like(values) if weight is None else jnp.asarray(weight, jnp.float32)
        used = jnp.where(weight > 0, values * weight, 0.0)
        return cls(total=used.sum(), compensation=jnp.zeros(()), weight=weight.sum())

    def update(
        self, values: Float[Array, " b"], weight: Float[Array, " b"] | None = None
    ) -> "WeightedMean":
        """Adds one batch; see `from_values`."""
        return self.merge(type(self).from_values(values, weight))

    def merge(self, other: "WeightedMean") -> "WeightedMean":
        """The mean over both streams."""
        total = self.total + other.total
        larger = jnp.where(jnp.abs(self.total) >= jnp.abs(other.total), self.total, other.total)
        smaller = jnp.where(jnp.abs(self.total) >= jnp.abs(other.total), other.total, self.total)
        lost = (larger - total) + smaller
        return type(self)(
            total=total,
            compensation=self.compensation + other.compensation + lost,
            weight=self.weight + other.weight,
        )

    def compute(self) -> Float[Array, ""]:
        """The mean; NaN for an empty stream."""
        return (self.total + self.compensation) / self.weight
