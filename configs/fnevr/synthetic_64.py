"""A small FNeVR at 64 px, trained on the synthetic set on two CPU cores.

Paper: Zeng et al., FNeVR, NeurIPS 2022; `:fomm_spade`, `:fomm_fvr`, `:without_fw` and
  `:without_lsigma` are the rows of its Table 4 (one of them at a time; plain FOMM is
  configs/fomm/synthetic_64.py).
Command: talking-heads synthesize --output DATA --size 64, then
  python run_train.py --config configs/fnevr/synthetic_64.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time: 13 minutes beside other programs (`make results
  ROW=fnevr-64`), with idle cores not yet measured.
Expect, on unseen people: face L1 59 % below the copied source, mouth 20 % and eyes 35 % below the
  best blurred one, retrieval .88 and .90; another seed differs by points. docs/results.md has the
  rows.
Departs from the paper: losses on pixels in place of VGG19 features, no GAN, and a decoder that sees
the warped source image (`image_skip`).
"""

from ml_collections import ConfigDict

from configs.common import make_debug, parse_variants
from configs.fnevr import vox_256
from configs.synthetic import make_synthetic

ABLATIONS = ("fomm_spade", "fomm_fvr", "without_fw", "without_lsigma")
VARIANTS = (*ABLATIONS, "debug")
STEPS = 3000


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = vox_256.base()
    config.name = "fnevr_synthetic_64"
    make_synthetic(config, size=64, steps=STEPS)
    generator = config.model.generator
    generator.num_down_blocks = 2
    generator.image_head_features = 16
    # Motion is what these trainings are short of: the decoder is narrower than the rest.
    generator.spade_options.segmentation_features = 6
    generator.spade_options.block_features = (24, 12, 8)
    generator.volume_options.channels = 8
    generator.volume_options.depth = 4
    generator.volume_options.hidden_features = 24
    config.model.pose_editor.hidden_features = (128, 128)
    config.model.vertex_weights.num_vertices = 512
    config.model.vertex_weights.features = (8, 16, 32)
    config.objectives.render_perceptual = 0.0
    config.objectives.density.weight = 0.2
    # Of a volume this shallow the norm over channels has a cosine of 0.6 with any face from the
    # start, where exp(-10 cos) is flat: there would be nothing to learn. The mean is signed.
    config.objectives.density.channel_reduction = "mean"
    config.objectives.pose_edit.weight = 1.0
    config.data.vertices = config.data.angles = True
    config.optim.ema.networks = ("kp_detector", "generator", "pose_editor")
    return config


def apply_variants(config: ConfigDict, arg: str | None) -> ConfigDict:
    """Applies the variants of `arg` and locks the config.

    Args:
      config: changed in place.
      arg: of `get_config`.

    Raises:
      ValueError: for an unknown variant, or two rows of the table at once.
    """
    variants = parse_variants(arg, VARIANTS)
    rows = sorted(variants & set(ABLATIONS))
    if len(rows) > 1:
        raise ValueError(f"config variants must name one row of the table, got {rows}. Use one.")
    for row in rows:
        config.name += f"_{row}"
        _ablate(config, row)
    if "debug" in variants:
        make_debug(config)
        vox_256.shrink_fnevr(config)
    return config.lock()


def _ablate(config: ConfigDict, row: str) -> None:
    generator, density = config.model.generator, config.objectives.density
    if row == "fomm_spade":
        generator.volume_rendering = False
        generator.decoder_inputs = ("warped",)
        density.weight = 0.0
    elif row == "fomm_fvr":
        generator.decoder_type = "residual"
    elif row == "without_fw":
        generator.decoder_inputs = ("rendered",)
    else:
        density.weight = 0.0
    if not density.weight:
        config.data.vertices = False


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold one row of the table, and `debug`."""
    return apply_variants(base(), arg)
