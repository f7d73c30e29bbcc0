"""Options, and losses on images, that all systems share: perceptual, and against a discriminator.

Letters: b batch, h w image.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.layers.patch_discriminator import PatchScores
from talking_heads_jax.losses import adversarial
from talking_heads_jax.losses.feature_matching import feature_matching
from talking_heads_jax.losses.perceptual import perceptual_loss
from talking_heads_jax.models.base import Networks, StepContext
from talking_heads_jax.typing import Array

PERCEPTUAL_HELPER = "vgg19"
DISCRIMINATOR = "discriminator"


def read_options(
    given: Mapping[str, Any], defaults: Mapping[str, Any], section: str = "objectives"
) -> dict[str, Any]:
    """Fills a config section with defaults, nested sections too.

    Args:
      given: of the config.
      defaults: every known key.
      section: its name, for the message.

    Raises:
      ConfigError: for a key that has no default; lists the known ones.
    """
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ConfigError(
            requirement(
                f"keys of `{section}`",
                "be known",
                ", ".join(unknown),
                f"Known: {', '.join(sorted(defaults))}.",
            )
        )
    options = {}
    for key, default in defaults.items():
        value = given.get(key, default)
        if isinstance(default, Mapping):
            value = read_options(value, default, f"{section}.{key}")
        options[key] = value
    return options


def require_field(value: Any, field: str, term: str) -> Array:
    """Returns `value`, or says which term needs which field of the records.

    Args:
      value: of the batch, or None.
      field: its name.
      term: of the objectives.

    Raises:
      ConfigError: if the batch lacks the field.
    """
    if value is None:
        raise ConfigError(
            requirement(
                f"records for the loss `{term}`",
                f"hold `{field}`",
                "none",
                f"Set the weight of `objectives.{term}` to 0, or use data with `{field}`.",
            )
        )
    return jnp.asarray(value)


def uses_perceptual(options: Mapping[str, Any]) -> bool:
    """Whether any feature map of the perceptual network has a weight."""
    return any(options["perceptual"]["taps"])


def perceptual_term(
    options: Mapping[str, Any],
    context: StepContext,
    image: Array,
    target: Array,
    *,
    scales: tuple[float, ...] | None = None,
) -> Array:
    """The pyramid perceptual loss with the section's weights; (b,) values.

    Args:
      options: the section `objectives`; `perceptual.taps` are the weights.
      context: holds the perceptual network.
      image: (b h w 3) in [0, 1]; differentiable.
      target: (b h w 3).
      scales: of the pyramid; None for those of the section.
    """
    section = options["perceptual"]
    return perceptual_loss(
        context.helpers[PERCEPTUAL_HELPER],
        image,
        target,
        scales=tuple(section["scales"] if scales is None else scales),
        weights=tuple(section["taps"]),
    )


def generator_terms(
    options: Mapping[str, Any], networks: Networks, prediction: Array, target: Array, *given: Array
) -> dict[str, Array]:
    """`generator_gan` and `feature_matching`, those with a weight.

    The discriminator runs on the prediction first, then on the target, as FOMM's code does: each
    call has its own batch statistics and advances the spectral vectors.

    Args:
      options: the section `objectives`.
      networks: with a discriminator.
      prediction: (b h w 3) in [0, 1]; differentiable.
      target: (b h w 3).
      *given: what else the discriminator sees.

    Returns:
      Term → (b,) weighted values.
    """
    fake = networks(DISCRIMINATOR, prediction, *given, train=True)
    real = networks(DISCRIMINATOR, target, *given, train=True)
    kind, terms = options["adversarial"], {}
    terms["generator_gan"] = options["generator_gan"] * _sum_over_scales(
        lambda score: adversarial.generator_loss(score.logits, kind=kind), fake
    )
    weights = tuple(options["feature_matching"])
    if any(weights):
        terms["feature_matching"] = _sum_over_scales(
            lambda a, b: feature_matching(a.features, b.features, weights=weights), real, fake
        )
    return terms


def discriminator_term(
    options: Mapping[str, Any], networks: Networks, prediction: Array, target: Array, *given: Array
) -> Array:
    """`discriminator_gan`: (b,) weighted values.

    Args:
      options: the section `objectives`.
      networks: with a discriminator.
      prediction: (b h w 3) in [0, 1].
      target: (b h w 3).
      *given: what else the discriminator sees.
    """
    fake = networks(DISCRIMINATOR, prediction, *given, train=True)
    real = networks(DISCRIMINATOR, target, *given, train=True)
    return options["discriminator_gan"] * _sum_over_scales(
        lambda a, b: adversarial.discriminator_loss(
            a.logits, b.logits, kind=options["adversarial"]
        ),
        real,
        fake,
    )


def _sum_over_scales(function: Callable[..., Array], *scores: Mapping[float, PatchScores]) -> Array:
    """Sum of a loss over the discriminator's scales (the released configs have one)."""
    values = [function(*(score[scale] for score in scores)) for scale in scores[0]]
    return sum(values[1:], start=values[0])
