"""The smallest GDPW, at 32 px: the guidances of Table 1 side by side in little time.

Paper: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation, BMVC 2022;
  variants as in configs/gdpw/synthetic_64.py.
Command: talking-heads synthesize --output DATA --size 32, then
  python run_train.py --config configs/gdpw/synthetic_32.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time: about 4 minutes; numbers in docs/results.md, GDPW's Table 1.
"""

from ml_collections import ConfigDict

from configs.gdpw import synthetic_64, vox_256

VARIANTS = synthetic_64.VARIANTS
STEPS = 2000


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = synthetic_64.base()
    config.name = "gdpw_synthetic_32"
    config.data.resolution = config.model.resolution = 32
    config.model.generator.num_levels = 4  # the coarsest has 4 px, as at 64 px
    # Table 1 compares guidances: none is given more than a map to look at.
    config.model.generator.flow_correction = False
    config.schedule.duration = float(STEPS)
    return config


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold one guidance, `alpha`, `single_scale`, `ict` and `debug`."""
    return vox_256.apply_variants(base(), arg, VARIANTS)
