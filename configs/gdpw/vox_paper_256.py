"""GDPW on VoxCeleb at 256 px, by the text of the paper.

Paper: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation, BMVC 2022,
  section 3.4: VGG19 perceptual, hinge and feature matching losses, nothing else, and spectral norm
  in all convolutions. The supplement, which describes losses and networks, was not available:
  weights, widths and batch are the released code's (configs/gdpw/vox_256.py), as are the variants,
  and where its pixels begin (`vertex_shift_px`, `align_corners`).
Command: python run_train.py --config configs/gdpw/vox_paper_256.py --workdir W
  --config.data.folder DATA
Hardware: the paper is silent; ours not yet measured. Wall time: not yet measured.
Expect: what configs/gdpw/vox_256.py quotes; ours not yet measured.
"""

from ml_collections import ConfigDict

from configs.gdpw import vox_256

VARIANTS = vox_256.VARIANTS


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = vox_256.base()
    config.name = "gdpw_vox_paper_256"
    objectives = config.objectives
    objectives.adversarial = "hinge"
    objectives.pixel_l1 = 0.0
    objectives.warped_perceptual = 0.0
    objectives.warped_gan = 0.0
    objectives.perceptual.scales = (1.0,)  # the paper speaks of no pyramid
    config.model.generator.spectral_heads = True
    config.model.generator.cull = "back"
    # Without a displacement field there is nothing to warp the coarsest features by.
    config.model.generator.bottleneck_warp = None
    config.model.discriminator.spectral_heads = True
    # The paper tells of no augmentation; a pair is any two frames, in either order.
    for name in config.data.augmentation:
        config.data.augmentation[name] = 0.0
    config.data.augmentation.time_flip = 0.5
    return config


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold one guidance, `alpha`, `single_scale` and `debug`."""
    return vox_256.apply_variants(base(), arg)
