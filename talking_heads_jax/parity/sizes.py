"""Constructor arguments of FOMM's and FNeVR's networks, read off the shapes of a state dict.

A golden case says how large its networks are only through its tensors. Shapes are in official names
and PyTorch layouts: convolutions (o i kh kw), linear layers (o i).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from talking_heads_jax.errors import ParityError, requirement

Shapes = Mapping[str, tuple[int, ...]]


def shape_of(shapes: Shapes, name: str) -> tuple[int, ...]:
    """The shape of one tensor.

    Args:
      shapes: of a state dict.
      name: official tensor name.

    Raises:
      ParityError: if it is not there.
    """
    if name not in shapes:
        raise ParityError(
            requirement(
                "the case's state dict", f"hold '{name}'", "none", "Is it a case of this network?"
            )
        )
    return shapes[name]


def count_items(shapes: Shapes, pattern: str) -> int:
    """Largest number that `pattern`'s one group matches in a name, plus one; 0 without a match.

    Args:
      shapes: of a state dict.
      pattern: regular expression of the start of a name, with one group of digits.
    """
    found = [match.group(1) for name in shapes if (match := re.match(pattern, name))]
    return max(map(int, found), default=-1) + 1


def antialias_scale(shapes: Shapes, name: str) -> float:
    """The scale whose anti-alias kernel is stored under `name`; 1 when there is none.

    The kernel's side is 2·round(4σ) + 1 with σ = (1/scale - 1) / 2: 5, 13, 29 for 1/2, 1/4, 1/8.

    Args:
      shapes: of a state dict.
      name: of the kernel (c 1 side side).
    """
    if name not in shapes:
        return 1.0
    return 1.0 / (1.0 + (shapes[name][-1] - 1) / 4.0)


def hourglass_arguments(shapes: Shapes, prefix: str) -> dict[str, int]:
    """Fields `block_expansion`, `max_features`, `num_blocks` of an hourglass.

    Args:
      shapes: of a state dict.
      prefix: of its tensors, with the final dot.
    """
    blocks = count_items(shapes, re.escape(prefix) + r"encoder\.down_blocks\.(\d+)\.")
    if not blocks:
        shape_of(shapes, f"{prefix}encoder.down_blocks.0.conv.weight")
    widths = [
        shape_of(shapes, f"{prefix}encoder.down_blocks.{i}.conv.weight")[0] for i in range(blocks)
    ]
    last = shape_of(shapes, f"{prefix}decoder.up_blocks.{blocks - 1}.conv.weight")
    return {"block_expansion": last[0], "max_features": max(widths), "num_blocks": blocks}


def keypoint_detector_arguments(shapes: Shapes) -> dict[str, Any]:
    """Model arguments that a keypoint detector's tensors fix.

    Args:
      shapes: of its state dict.
    """
    first = shape_of(shapes, "predictor.encoder.down_blocks.0.conv.weight")
    return {
        "num_keypoints": shape_of(shapes, "kp.weight")[0],
        "image_channels": first[1],
        "keypoint_detector": {
            **hourglass_arguments(shapes, "predictor."),
            "scale_factor": antialias_scale(shapes, "down.weight"),
            "estimate_jacobian": "jacobian.weight" in shapes,
        },
    }


def _encoder_arguments(shapes: Shapes) -> dict[str, Any]:
    """What both generators share: appearance encoder and dense motion."""
    downs = count_items(shapes, r"down_blocks\.(\d+)\.")
    first = shape_of(shapes, "first.conv.weight")
    widths = [shape_of(shapes, f"down_blocks.{i}.conv.weight")[0] for i in range(downs)]
    motion = "dense_motion_network."
    return {
        "num_keypoints": shape_of(shapes, f"{motion}mask.weight")[0] - 1,
        "image_channels": first[1],
        "generator": {
            "block_expansion": first[0],
            "max_features": max([first[0], *widths]),
            "num_down_blocks": downs,
            "dense_motion_options": {
                **hourglass_arguments(shapes, f"{motion}hourglass."),
                "scale_factor": antialias_scale(shapes, f"{motion}down.weight"),
                "estimate_occlusion": f"{motion}occlusion.weight" in shapes,
            },
        },
    }


def fomm_generator_arguments(shapes: Shapes) -> dict[str, Any]:
    """Model arguments that FOMM's generator's tensors fix.

    Args:
      shapes: of its state dict.
    """
    arguments = _encoder_arguments(shapes)
    arguments["generator"]["num_bottleneck_blocks"] = count_items(shapes, r"bottleneck\.r(\d+)\.")
    return arguments


def fnevr_generator_arguments(shapes: Shapes) -> dict[str, Any]:
    """Model arguments that FNeVR's generator's tensors fix.

    Args:
      shapes: of its state dict.
    """
    arguments = _encoder_arguments(shapes)
    hidden, channels = shape_of(shapes, "Render_model.nerf_module.layer1.weight")
    blocks = count_items(shapes, r"decoder\.SPADE_(\d+)\.")
    arguments["generator"] |= {
        "image_head_features": shape_of(shapes, "Render_model.mini_decoder.0.conv.weight")[0],
        "volume_options": {
            "channels": channels,
            "depth": shape_of(shapes, "Render_model.rgb_predict.down_conv.weight")[0] // channels,
            "hidden_features": hidden,
        },
        "spade_options": {
            "segmentation_features": shape_of(shapes, "decoder.seg_conv.0.weight")[0],
            "block_features": [
                shape_of(shapes, f"decoder.SPADE_{i}.conv_1.weight")[0] for i in range(blocks)
            ],
        },
    }
    return arguments


def discriminator_arguments(shapes: Shapes) -> dict[str, Any]:
    """Model arguments that a discriminator's tensors fix.

    Args:
      shapes: of its state dict.

    Raises:
      ParityError: if it sees more than an image (the keypoint-conditioned variant).
    """
    keys = list(dict.fromkeys(re.findall(r"discs\.([\d-]+)\.", " ".join(shapes))))
    prefix = f"discs.{keys[0] if keys else 1}.down_blocks."
    spectral = f"{prefix}0.conv.weight_orig" in shapes
    weight = "conv.weight_orig" if spectral else "conv.weight"
    blocks = count_items(shapes, re.escape(prefix) + r"(\d+)\.")
    first = shape_of(shapes, f"{prefix}0.{weight}")
    if first[1] not in (1, 3):
        raise ParityError(
            requirement(
                "the discriminator",
                "see an image of 1 or 3 channels",
                first[1],
                "No such case yet.",
            )
        )
    widths = [shape_of(shapes, f"{prefix}{i}.{weight}")[0] for i in range(blocks)]
    return {
        "image_channels": first[1],
        "discriminator": {
            "scales": [float(key.replace("-", ".")) for key in keys],
            "block_expansion": math.ceil(widths[0] / 2),
            "max_features": max(widths),
            "num_blocks": blocks,
            "spectral_norm": spectral,
        },
    }
