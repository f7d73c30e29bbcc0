"""Names of FOMM's released checkpoints (spec of the networks: FOMM repository, vox-256)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from talking_heads_jax.conversion.rules import (
    ModelTable,
    Recreated,
    Rule,
    affine,
    antialias_weight,
    batch_norm,
    convolution,
    network_table,
    spectral_convolution,
)

# The kernel is exp and division in float32 there, float64 here; the largest tap is 0.62.
_KERNEL_TOLERANCE = 1e-6
_DEFAULT_SCALE = 0.25


def _hourglass(source: str, target: str) -> Iterator[Rule | Recreated]:
    for part, blocks in (("encoder", "down_blocks"), ("decoder", "up_blocks")):
        theirs, ours = f"{source}.{part}.{blocks}.{{i}}", f"{target}/{part}/{blocks}_{{i}}"
        yield from conv_block(theirs, ours)


def conv_block(source: str, target: str) -> Iterator[Rule | Recreated]:
    """Rules of convolution + batch norm (`conv`, `norm`)."""
    yield from convolution(f"{source}.conv", f"{target}/conv")
    yield from batch_norm(f"{source}.norm", f"{target}/norm")


def residual_block(source: str, target: str, layout: str) -> Iterator[Rule | Recreated]:
    """Rules of a pre-activation residual block (`conv1`, `norm1`, `conv2`, `norm2`).

    Args:
      source: official module.
      target: our module.
      layout: 'conv2d' or 'conv3d'.
    """
    for n in (1, 2):
        yield from convolution(f"{source}.conv{n}", f"{target}/conv_{n}", layout)
        yield from batch_norm(f"{source}.norm{n}", f"{target}/norm_{n}")


def _detector_kernel(arguments: Mapping[str, Any]) -> np.ndarray:
    options = arguments.get("keypoint_detector") or {}
    scale = options.get("scale_factor", _DEFAULT_SCALE)
    return antialias_weight(scale, arguments.get("image_channels", 3))


def _dense_motion_kernel(arguments: Mapping[str, Any]) -> np.ndarray:
    options = (arguments.get("generator") or {}).get("dense_motion_options") or {}
    scale = options.get("scale_factor", _DEFAULT_SCALE)
    return antialias_weight(scale, arguments.get("image_channels", 3))


KEYPOINT_DETECTOR = network_table(
    _hourglass("predictor", "hourglass"),
    convolution("kp", "heatmap"),
    convolution("jacobian", "jacobian"),
    Recreated("down.weight", "params/heatmap/kernel", _detector_kernel, _KERNEL_TOLERANCE),
)

DISCRIMINATOR = network_table(
    spectral_convolution("discs.{scale}.down_blocks.{i}.conv", "scale_{scale}/blocks_{i}/conv"),
    affine("discs.{scale}.down_blocks.{i}.norm", "scale_{scale}/blocks_{i}/norm"),
    spectral_convolution("discs.{scale}.conv", "scale_{scale}/logits"),
)


def encoder_and_motion() -> Iterator[Rule | Recreated]:
    """Rules of the generator parts that FOMM and FNeVR share."""
    yield from _hourglass("dense_motion_network.hourglass", "dense_motion/hourglass")
    yield from convolution("dense_motion_network.mask", "dense_motion/mask")
    yield from convolution("dense_motion_network.occlusion", "dense_motion/occlusion")
    yield Recreated(
        "dense_motion_network.down.weight",
        "params/dense_motion/mask/kernel",
        _dense_motion_kernel,
        _KERNEL_TOLERANCE,
    )
    yield from conv_block("first", "encoder/first")
    yield from conv_block("down_blocks.{i}", "encoder/down_blocks_{i}")


GENERATOR = network_table(
    encoder_and_motion(),
    residual_block("bottleneck.r{i}", "decoder/bottleneck_{i}", "conv2d"),
    conv_block("up_blocks.{i}", "decoder/up_blocks_{i}"),
    convolution("final", "decoder/final"),
)


def infer_arguments(state_dicts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Constructor arguments that tensor shapes tell: keypoints, and the discriminator's variant.

    Args:
      state_dicts: network name -> official state dict.
    """
    arguments: dict[str, Any] = {}
    heads = np.shape(state_dicts.get("kp_detector", {}).get("kp.weight"))
    if len(heads) == 4:
        arguments["num_keypoints"] = heads[0]
    discriminator = state_dicts.get("discriminator", {})
    first = "discs.1.down_blocks.0.conv."
    plain = np.shape(discriminator.get(first + "weight"))
    shape = plain or np.shape(discriminator.get(first + "weight_orig"))
    if len(shape) == 4:
        options = {}
        if plain:
            options["spectral_norm"] = False
        if shape[1] > 3:  # image channels, then one heatmap per keypoint (vox-adv)
            options["num_keypoints"] = shape[1] - 3
        if options:
            arguments["discriminator"] = options
    return arguments


TABLE = ModelTable(
    networks={
        "kp_detector": KEYPOINT_DETECTOR,
        "generator": GENERATOR,
        "discriminator": DISCRIMINATOR,
    },
    required=("kp_detector", "generator"),
    ignored=(r"optimizer_\w+", r"epoch\w*"),
    infer_arguments=infer_arguments,
)
