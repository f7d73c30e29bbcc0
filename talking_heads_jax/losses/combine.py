"""From per-example loss values to the one scalar that is differentiated.

Losses return one value per example, so that padding can be weighted away exactly; the reductions of
this file turn them into means. Letters: b batch.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from talking_heads_jax.typing import Array, Float


def per_example_mean(values: Float[Array, "b ..."]) -> Float[Array, "b"]:
    """Mean over every axis but the first, in float32 or wider.

    Args:
      values: one array of errors per example; bfloat16 is widened before the sum.

    Returns:
      One mean per example.
    """
    wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    return jnp.mean(wide.reshape(wide.shape[0], -1), axis=1)


def weighted_mean(
    values: Float[Array, "*b"], weight: Float[Array, "b"] | None = None
) -> Float[Array, ""]:
    """Mean of a loss term over the real examples of a batch.

    Args:
      values: (b,) per-example values, or a scalar, which is returned as it is.
      weight: 1 for real examples and 0 for padding; None means that all are real.

    Returns:
      `sum(weight * values) / sum(weight)`; zero when nothing in the batch is real. A value that
      is not finite is ignored where its weight is zero.
    """
    if values.ndim == 0:
        return values
    if weight is None:
        return jnp.mean(values)
    real = weight > 0
    total = jnp.sum(jnp.where(real, weight * jnp.where(real, values, 0), 0))
    return total / jnp.maximum(jnp.sum(weight), jnp.finfo(weight.dtype).tiny)


def total_loss(
    losses: Mapping[str, Array], weight: Float[Array, "b"] | None = None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The sum of the means of all terms, and the means.

    Args:
      losses: term name -> (b,) weighted per-example values, or a scalar.
      weight: 1 for real examples and 0 for padding; None means that all are real.

    Returns:
      The scalar to differentiate, and term name -> mean.
    """
    means = {name: weighted_mean(values, weight) for name, values in losses.items()}
    return sum(means.values(), start=jnp.zeros(())), means
