"""FNeVR without the density loss: to be compared with `vox_256.py:mesh`.

Paper: Zeng et al., FNeVR, NeurIPS 2022, Table 4, row 'w/o L_sigma'.
Command: python run_train.py --config configs/fnevr/without_lsigma.py --workdir W
  --config.data.folder DATA; `:mesh` and `:debug` as in vox_256.py.
Hardware, wall time and numbers: not yet measured.
"""

from ml_collections import ConfigDict

from configs.fnevr import vox_256


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold `mesh` and `debug`."""
    config = vox_256.base()
    config.name = "fnevr_without_lsigma"
    config = vox_256.apply_variants(config, arg).unlock()
    config.objectives.density.weight = 0.0
    return config.lock()
