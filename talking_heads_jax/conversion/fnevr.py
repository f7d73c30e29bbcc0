"""Names of FNeVR's released checkpoints (FNeVR repository, vox-256)."""

from collections.abc import Iterator

from talking_heads_jax.conversion.fomm import (
    DISCRIMINATOR,
    KEYPOINT_DETECTOR,
    conv_block,
    encoder_and_motion,
    infer_arguments,
    residual_block,
)
from talking_heads_jax.conversion.rules import (
    ModelTable,
    Recreated,
    Rule,
    batch_norm,
    convolution,
    network_table,
)

_FIELD = {
    "layer1": "shape_0",
    "layer2": "shape_1",
    "layer3_1": "density",
    "layer3_2": "shape_features",
    "layer3_3": "color_0",
    "layer4": "fuse_0",
    "layer5": "fuse_1",
    "layer6": "features",
}


def _volume_renderer() -> Iterator[Rule | Recreated]:
    yield from convolution("Render_model.rgb_predict.down_conv", "volume_renderer/color_extractor")
    theirs, ours = "Render_model.sigma_predict", "volume_renderer/shape_extractor"
    yield from convolution(f"{theirs}.down_conv", f"{ours}/conv")
    for i in range(3):  # block, norm, block, norm, block, norm in one list
        block, norm = f"{theirs}.res_conv3d.{2 * i}", f"{theirs}.res_conv3d.{2 * i + 1}"
        yield from residual_block(block, f"{ours}/blocks_{i}", "conv3d")
        yield from batch_norm(norm, f"{ours}/norms_{i}")
    for layer, name in _FIELD.items():
        yield from convolution(
            f"Render_model.nerf_module.{layer}", f"volume_renderer/field/{name}", "linear"
        )


def _image_head() -> Iterator[Rule | Recreated]:
    for i in range(2):  # an activation without parameters lies between the two
        yield from conv_block(f"Render_model.mini_decoder.{2 * i}", f"image_head/up_blocks_{i}")


def _decoder() -> Iterator[Rule]:
    yield from convolution("decoder.seg_conv.0", "decoder/segmentation")
    for n in range(2):
        theirs, ours = f"decoder.SPADE_{{i}}.SPADE_{n}", f"decoder/blocks_{{i}}/spade_{n}"
        yield from convolution(f"{theirs}.mlp_shared.0", f"{ours}/shared")
        yield from convolution(f"{theirs}.mlp_gamma", f"{ours}/gamma")
        yield from convolution(f"{theirs}.mlp_beta", f"{ours}/beta")
        yield from convolution(f"decoder.SPADE_{{i}}.conv_{n}", f"decoder/blocks_{{i}}/conv_{n}")
    yield from convolution("decoder.final.0", "decoder/final")


GENERATOR = network_table(encoder_and_motion(), _volume_renderer(), _image_head(), _decoder())

TABLE = ModelTable(
    networks={
        "kp_detector": KEYPOINT_DETECTOR,
        "generator": GENERATOR,
        "discriminator": DISCRIMINATOR,
    },
    required=("kp_detector", "generator"),
    ignored=(r"optimizer_\w+", r"epoch\w*"),
    # The pose editor and the CNN behind w_i: named by the released logger, their classes are not
    # public, so their tensors have no place to go.
    not_convertible=("kp_delta_predictor", "sigma_weight_predictor"),
    infer_arguments=infer_arguments,
)
