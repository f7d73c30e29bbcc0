"""Names of GDPW's released checkpoints, `PWM_{geom_disp,neural_codes,both}.pth`.

Levels are named by their stride, x1 to x32. The generator's file holds more than the network: the
triangles of its mesh, blur kernels (the one of x1 is 0/0), and a shortcut block of x32 that nothing
passes through.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from talking_heads_jax.conversion.rules import (
    ModelTable,
    Recreated,
    Rule,
    antialias_weight,
    batch_norm,
    network_table,
    spectral_convolution,
)
from talking_heads_jax.errors import ConversionError, requirement
from talking_heads_jax.models.gdpw.generator import ProgressiveGenerator

_STRIDES = (1, 2, 4, 8, 16, 32)
_FLOW, _COORDINATES = 2, 3  # channels
# The kernel is exp and division in float32 there, float64 here; the largest tap is 0.62.
_KERNEL_TOLERANCE = 1e-6
# Fields of the generator that the official code knows in one way only, which is our default, and
# of which the tensors do not tell.
_ONE_WAY = (
    "align_corners",
    "cull",
    "finest_block",
    "flow_correction",
    "residual",
    "smooth_silhouettes",
    "spectral_heads",
    "vertex_shift_px",
)
_GUIDANCES = {(False, True): "geometry", (True, False): "codes", (True, True): "both"}


def _block(source: str, target: str) -> Iterator[Rule | Recreated]:
    yield from spectral_convolution(f"{source}.conv", f"{target}/conv")
    yield from batch_norm(f"{source}.norm", f"{target}/norm")


def _spade_block(source: str, target: str) -> Iterator[Rule | Recreated]:
    yield from spectral_convolution(f"{source}.non_identity_shortcut", f"{target}/shortcut")
    for n in range(2):
        theirs, ours = f"{source}.spade{n + 1}", f"{target}/norm_{n}"
        yield from (
            item
            for item in batch_norm(f"{theirs}.norm", f"{ours}/norm")
            if not (isinstance(item, Rule) and item.target.startswith("params"))  # not affine
        )
        yield from spectral_convolution(f"{theirs}.shared_conv.0", f"{ours}/shared")
        yield from spectral_convolution(f"{theirs}.gamma_conv", f"{ours}/gamma")
        yield from spectral_convolution(f"{theirs}.beta_conv", f"{ours}/beta")
        yield from spectral_convolution(f"{source}.conv{n + 1}", f"{target}/conv_{n}")


def _guidance_features(arguments: Mapping[str, Any]) -> int:
    """Channels of the guidance map."""
    guidance, codes = arguments.get("guidance", "codes"), arguments.get("num_codes", 16)
    return {"geometry": _FLOW, "both": codes + _FLOW, "nmfc": _COORDINATES}.get(guidance, codes)


def _blur_kernel(
    stride: int, channels: Callable[[Mapping[str, Any]], int]
) -> Callable[[Mapping[str, Any]], np.ndarray]:
    def value(arguments: Mapping[str, Any]) -> np.ndarray:
        if stride == 1:
            # exp(-0/0) over itself: NaN in the file, bypassed by the code.
            return np.full((channels(arguments), 1, 1, 1), -np.nan, np.float32)
        return antialias_weight(1 / stride, channels(arguments))

    return value


def _blur_kernels() -> Iterator[Recreated]:
    for stride in _STRIDES:
        level = "output" if stride == 1 else f"level_{stride}/up/conv"
        yield Recreated(
            f"downsamples.x{stride}.weight",
            f"params/decoder/{level}/bias",
            _blur_kernel(stride, _guidance_features),
            _KERNEL_TOLERANCE if stride > 1 else None,
        )


GENERATOR = network_table(
    Rule("embeds", "params/codes"),
    _block("down_layers.x{i}", "encoder/down_{i}"),
    _block("shortcut_layers.x{i}", "encoder/shortcut_{i}"),
    _spade_block("up_layers.x{i}_spade", "decoder/level_{i}/spade"),
    spectral_convolution("up_layers.x{i}_flow", "decoder/level_{i}/flow/conv"),
    _block("up_layers.x{i}_up", "decoder/level_{i}/up"),
    spectral_convolution("up_layers.x1_out", "decoder/output"),
    _blur_kernels(),
    # The triangles of the mesh model, which we take from its own file; and the idle shortcut.
    kept=(r"mesh_renderer\.tri", r"shortcut_layers\.x32\..*"),
)

DISCRIMINATOR = network_table(
    _block("discs.x{i}.layers.{j}", "stride_{i}/blocks_{j}"),
    spectral_convolution("discs.x{i}.out_convs.0", "stride_{i}/logits"),
    (
        Recreated(
            f"downs.x{stride}.weight",
            f"params/stride_{stride}/logits/bias",
            _blur_kernel(stride, lambda arguments: 3),
            _KERNEL_TOLERANCE if stride > 1 else None,
        )
        for stride in _STRIDES
    ),
)


def arguments_of_shapes(
    generator: Mapping[str, tuple[int, ...]], discriminator: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """Constructor arguments that tensor shapes tell: guidance, codes, widths, spectral norm.

    Args:
      generator: official name -> shape; empty if there is none.
      discriminator: likewise.
    """
    arguments: dict[str, Any] = {}
    if generator:
        arguments |= _generator_arguments(generator)
    if discriminator:
        arguments["discriminator"] = _discriminator_arguments(discriminator)
    first = "conv.weight"
    for shapes, name in ((generator, "down_layers.x1."), (discriminator, "discs.x1.layers.0.")):
        if name + first in shapes:
            arguments["spectral_norm"] = False
    return arguments


def _size(shapes: Mapping[str, tuple[int, ...]], name: str, axis: int) -> int | None:
    shape = shapes.get(name, ())
    return int(shape[axis]) if len(shape) > axis else None


def _generator_arguments(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    strides = [s for s in _STRIDES if f"down_layers.x{s}.conv.bias" in shapes]
    codes = shapes.get("embeds", ())
    arguments: dict[str, Any] = {}
    if len(codes) == 2:
        arguments |= {"num_vertices": int(codes[0]), "num_codes": int(codes[1])}
    channels = _size(shapes, f"downsamples.x{strides[-1] if strides else 1}.weight", 0)
    if channels is not None:
        with_flow = channels - (int(codes[1]) if len(codes) == 2 else 0) == _FLOW
        arguments["guidance"] = _GUIDANCES.get((len(codes) == 2, with_flow), "codes")
    widths = [_size(shapes, f"down_layers.x{s}.conv.bias", 0) for s in strides]
    if widths and None not in widths:
        arguments["generator"] = {
            "num_levels": len(widths),
            "block_expansion": widths[0],
            "max_features": max(widths),
        }
    return arguments


def _discriminator_arguments(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    strides = [s for s in _STRIDES if f"discs.x{s}.out_convs.0.bias" in shapes]
    prefix = f"discs.x{strides[0] if strides else 1}.layers."
    widths = []
    while (width := _size(shapes, f"{prefix}{len(widths)}.conv.bias", 0)) is not None:
        widths.append(width)
    if not widths:
        return {}
    return {
        "strides": strides,
        "num_blocks": len(widths),
        "block_expansion": widths[0],
        "max_features": max(widths),
    }


def infer_arguments(state_dicts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """As `arguments_of_shapes`, from the tensors.

    Args:
      state_dicts: network name -> official state dict.
    """
    shapes = {
        name: {key: np.shape(array) for key, array in state.items()}
        for name, state in state_dicts.items()
    }
    return arguments_of_shapes(shapes.get("generator", {}), shapes.get("discriminator", {}))


def fold_spectral_norm(
    arguments: Mapping[str, Any], state: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """`weight_orig`, `_u`, `_v` → `weight`, where the model is asked for without spectral norm.

    Args:
      arguments: constructor arguments of the model.
      state: official state dict of a network.

    Returns:
      The state dict, with the kernels divided by their stored singular value uᵀWv, in float64.
    """
    if arguments.get("spectral_norm", True):
        return dict(state)
    folded = {}
    for name, array in state.items():
        module, _, kind = name.rpartition(".")
        parts = [state.get(f"{module}.weight_{part}") for part in ("orig", "u", "v")]
        complete = all(isinstance(part, np.ndarray) for part in parts)
        if kind not in ("weight_orig", "weight_u", "weight_v") or not complete:
            folded[name] = array
        elif kind == "weight_orig":
            kernel, u, v = (np.asarray(part, np.float64) for part in parts)
            if kernel.size != u.size * v.size:
                return dict(state)  # the audit reports the clash
            sigma = u @ kernel.reshape(len(u), -1) @ v
            folded[f"{module}.weight"] = (kernel / sigma).astype(np.float32)
    return folded


def check_way_back(arguments: Mapping[str, Any]) -> None:
    """Refuses systems that the official code would read as another one, without a word.

    Args:
      arguments: constructor arguments of the model.

    Raises:
      ConversionError: names the options.
    """
    own = dict(arguments.get("generator") or {})
    guidance = arguments.get("guidance", "codes")
    generator = ProgressiveGenerator(mesh=None, guidance=guidance, **own)
    released = ProgressiveGenerator(mesh=None)
    other = [name for name in _ONE_WAY if getattr(generator, name) != getattr(released, name)]
    if not generator.warps_bottleneck:
        other.append("bottleneck_warp")
    if (arguments.get("discriminator") or {}).get("spectral_heads", False):
        other.append("discriminator.spectral_heads")
    if arguments.get("single_scale", False):
        other.append("single_scale")
    if guidance not in _GUIDANCES.values():
        other.append("guidance")
    if other:
        raise ConversionError(
            requirement(
                "a model with an official form",
                "be one that the official code can run",
                f"its own way of {', '.join(sorted(other))}",
                "Keep it as a checkpoint of this package.",
            )
        )


TABLE = ModelTable(
    networks={"generator": GENERATOR, "discriminator": DISCRIMINATOR},
    required=("generator",),
    ignored=(r"global_step",),
    infer_arguments=infer_arguments,
    prepare=fold_spectral_norm,
    check_way_back=check_way_back,
)
