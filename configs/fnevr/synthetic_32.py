"""The smallest FNeVR, at 32 px: the rows of Table 4 side by side in little time.

Paper: Zeng et al., FNeVR, NeurIPS 2022, Table 4; variants as in configs/fnevr/synthetic_64.py.
Command: talking-heads synthesize --output DATA --size 32, then
  python run_train.py --config configs/fnevr/synthetic_32.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time: 4 to 7 minutes beside other programs (`make results
  ROW=fnevr-32`), with idle cores not yet measured. docs/results.md has the rows and their numbers.
"""

from ml_collections import ConfigDict

from configs.fnevr import synthetic_64

STEPS = 2000


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold one row of the table, and `debug`."""
    config = synthetic_64.base()
    config.name = "fnevr_synthetic_32"
    config.data.resolution = config.model.resolution = 32
    # Features stay at 16 px and motion at 32: as fine as at 64 px.
    config.model.keypoint_detector.scale_factor = 1.0
    config.model.generator.dense_motion_options.scale_factor = 1.0
    config.model.generator.num_down_blocks = 1
    config.model.generator.spade_options.block_features = (24, 12)
    config.schedule.duration = float(STEPS)
    return synthetic_64.apply_variants(config, arg)
