"""The smallest FOMM, at 32 px: the first row of FNeVR's Table 4 beside its others.

Paper: Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019.
Command: talking-heads synthesize --output DATA --size 32, then
  python run_train.py --config configs/fomm/synthetic_32.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time: 3 minutes beside other programs (`make results ROW=fomm-32`),
  with idle cores not yet measured. docs/results.md has the rows and their numbers.
"""

from ml_collections import ConfigDict

from configs.common import make_debug, parse_variants
from configs.fomm import synthetic_64

STEPS = 2000


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may be `debug`."""
    config = synthetic_64.base()
    config.name = "fomm_synthetic_32"
    config.data.resolution = config.model.resolution = 32
    config.model.keypoint_detector.scale_factor = 1.0
    config.model.generator.dense_motion_options.scale_factor = 1.0
    config.model.generator.num_down_blocks = 1
    config.schedule.duration = float(STEPS)
    if "debug" in parse_variants(arg, synthetic_64.VARIANTS):
        make_debug(config)
    return config.lock()
