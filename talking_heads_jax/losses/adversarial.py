"""Adversarial losses on logits: least squares, hinge, non-saturating; and the R1 penalty.

`real` and `fake` are the words of the GAN literature: logits of target images and of predictions.
Logits may have any shape after the batch; patches are averaged. Letters: b batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from talking_heads_jax.errors import check_choice
from talking_heads_jax.losses.combine import per_example_mean
from talking_heads_jax.typing import Array, Float

KINDS = ("least_squares", "hinge", "non_saturating")


def generator_loss(fake_logits: Float[Array, "b ..."], *, kind: str) -> Float[Array, "b"]:
    """What the generator minimises so that its images count as real.

    Args:
      fake_logits: the discriminator's output on predictions.
      kind: `least_squares` (1 - D)^2, `hinge` -D, or `non_saturating` softplus(-D).

    Returns:
      One value per example.

    Raises:
      ArgumentError: for an unknown kind.

    Source: Mao et al. 2017 (least squares, as in first-order-model); Miyato et al. 2018 (hinge);
      Goodfellow et al. 2014 (non-saturating).
    """
    check_choice("adversarial loss kind", kind, KINDS)
    if kind == "least_squares":
        return per_example_mean(jnp.square(1.0 - fake_logits))
    if kind == "hinge":
        return per_example_mean(-fake_logits)
    return per_example_mean(jax.nn.softplus(-fake_logits))


def discriminator_loss(
    real_logits: Float[Array, "b ..."], fake_logits: Float[Array, "b ..."], *, kind: str
) -> Float[Array, "b"]:
    """What the discriminator minimises to tell targets from predictions.

    Args:
      real_logits: its output on target images.
      fake_logits: its output on predictions; the caller stops the gradient into the generator.
      kind: `least_squares` (1 - D_real)^2 + D_fake^2, `hinge` relu(1 - D_real) + relu(1 + D_fake),
        or `non_saturating` softplus(-D_real) + softplus(D_fake).

    Returns:
      One value per example.

    Raises:
      ArgumentError: for an unknown kind.

    Source: as `generator_loss`.
    """
    check_choice("adversarial loss kind", kind, KINDS)
    if kind == "least_squares":
        return per_example_mean(jnp.square(1.0 - real_logits)) + per_example_mean(
            jnp.square(fake_logits)
        )
    if kind == "hinge":
        return per_example_mean(jax.nn.relu(1.0 - real_logits)) + per_example_mean(
            jax.nn.relu(1.0 + fake_logits)
        )
    return per_example_mean(jax.nn.softplus(-real_logits)) + per_example_mean(
        jax.nn.softplus(fake_logits)
    )


def r1_penalty(
    discriminator: Callable[[Array], Array], images: Float[Array, "b h w c"]
) -> Float[Array, "b"]:
    """Squared norm of the gradient of the logits with respect to real images.

    Args:
      discriminator: images -> logits; each example's logits must depend on that example only.
      images: real images, in whatever range the discriminator takes.

    Returns:
      One value per example, without the customary factor gamma / 2.

    Source: Mescheder et al. 2018, Eq. 9.
    """
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(images)
    return jnp.sum(jnp.square(gradient), axis=tuple(range(1, gradient.ndim)))
