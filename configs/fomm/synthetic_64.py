"""A small FOMM at 64 px, trained on the synthetic set on two CPU cores: the baseline of Table 4.

Paper: Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019.
Command: talking-heads synthesize --output DATA --size 64, then
  python run_train.py --config configs/fomm/synthetic_64.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time: 9 minutes beside other programs (`make results ROW=fomm-64`),
  with idle cores not yet measured.
Expect, on unseen people: face L1 58 % below the copied source, mouth 13 % and eyes 40 % below the
  best blurred one, retrieval .83 and .92; docs/results.md has the rows.
Departs from the paper as configs/fnevr/synthetic_64.py does, which differs from it in its decoder.
"""

from ml_collections import ConfigDict

from configs.common import make_debug, parse_variants
from configs.fomm import vox_256
from configs.synthetic import make_synthetic

VARIANTS = ("debug",)
STEPS = 3000


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = vox_256.base()
    config.name = "fomm_synthetic_64"
    make_synthetic(config, size=64, steps=STEPS)
    config.model.generator.num_down_blocks = 2
    return config


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may be `debug`."""
    config = base()
    if "debug" in parse_variants(arg, VARIANTS):
        make_debug(config)
    return config.lock()
