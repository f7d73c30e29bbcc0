"""FOMM fine-tuned with a keypoint-aware GAN at 256 px: the first-order-model repository's vox-adv.

Paper: Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019.
Command: python run_train.py --config configs/fomm/vox_adv_256.py --workdir W
  --config.data.folder DATA, started from a run V of configs/fomm/vox_256.py by
  --config.checkpoint.init_from.kp_detector V --config.checkpoint.init_from.generator V
  `:debug` is two steps at 64 px on a CPU.
Hardware and wall time: not yet measured. Expect: not yet measured.
"""

from ml_collections import ConfigDict

from configs.common import make_debug, parse_variants
from configs.fomm import vox_256

VARIANTS = ("debug",)


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = vox_256.base()
    config.name = "fomm_vox_adv_256"
    config.data.batch_size = 36
    config.objectives.generator_gan = 1.0
    # The discriminator sees Gaussians at the driving keypoints, and has no spectral norm.
    config.model.discriminator.num_keypoints = 10
    config.model.discriminator.spectral_norm = False
    # The released file says 150 epochs without milestones; its author describes 100 of vox-256
    # followed by about 50 of these (issues #127 and #426 of the repository).
    config.schedule.duration = 50.0
    config.schedule.milestones = ()
    config.checkpoint.init_from = ConfigDict({"kp_detector": "", "generator": ""})
    return config


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may be `debug`."""
    config = base()
    if "debug" in parse_variants(arg, VARIANTS):
        make_debug(config)
        config.model.discriminator.num_keypoints = config.model.num_keypoints
    return config.lock()
