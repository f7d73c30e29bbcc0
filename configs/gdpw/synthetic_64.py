"""A small GDPW at 64 px, trained on the synthetic set on two CPU cores.

Paper: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation, BMVC 2022;
  `:geometry`, `:codes`, `:nmfc` are the other guidances of its Table 1 (the config has both
  displacement and codes), `:single_scale` the control without progressive warping, `:alpha`
  blends with the warped source, `:ict` takes the ICT face model (its file has to be registered)
  in place of the built-in head: the second topology, as BFM in the paper. Variants join with a
  comma.
Command: talking-heads synthesize --output DATA --size 64, then
  python run_train.py --config configs/gdpw/synthetic_64.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time: about 10 minutes; numbers in docs/results.md, row gdpw-64.
Departs from the paper: losses on pixels in place of VGG19 features, no GAN, fewer levels and
channels, and meshes drawn where the picture shows them.
"""

from ml_collections import ConfigDict

from configs.gdpw import vox_256
from configs.synthetic import make_small

VARIANTS = (*vox_256.VARIANTS, "ict")
STEPS = 2000


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = vox_256.base()
    config.name = "gdpw_synthetic_64"
    make_small(config, size=64, steps=STEPS)
    objectives = config.objectives
    objectives.pixel_l1 = 0.0
    objectives.warped_perceptual = 0.0
    objectives.warped_gan = 0.0
    config.data.source = "synthetic"
    config.data.distinct = False
    config.data.augmentation.time_flip = 0.5

    model = config.model
    model.guidance = "both"
    model.num_codes = 8
    # There are more vertices than pixels here: codes that start far apart are noise that changes
    # with every pose, and the training is too short to make something of it.
    model.generator.code_start = 0.1
    model.morphable = "procedural"
    model.generator.num_levels = 5  # the coarsest has 4 px, a third of a face
    model.generator.block_expansion = 12
    model.generator.max_features = 80
    # Records hold exact meshes and nothing is converted into this model: corner rules may agree.
    model.generator.vertex_shift_px = 0.0
    model.generator.align_corners = True
    # What is synthesised is added to the warped source: there is little time to learn to paint, and
    # a blend (`:alpha`) can leave everything to the warp.
    model.generator.residual = True
    # The finest level of the released model sees half of the picture's size, where lips are 2 px.
    model.generator.finest_block = True
    # The drawn displacements are exact; what they cannot know (hair, background) is learned.
    model.generator.flow_correction = True
    # Built where a GAN is asked for.
    model.discriminator.block_expansion = 8
    model.discriminator.max_features = 64
    model.discriminator.num_blocks = 3
    return config


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold one guidance, `alpha`, `single_scale`, `ict` and `debug`."""
    return without_correction(vox_256.apply_variants(base(), arg, VARIANTS))


def without_correction(config: ConfigDict) -> ConfigDict:
    """Lets variants predict their flows alone that have no displacement field to correct."""
    model = config.model
    if model.single_scale or model.guidance in ("codes", "nmfc"):
        model.generator.flow_correction = False
    return config
