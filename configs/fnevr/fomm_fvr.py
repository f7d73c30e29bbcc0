"""FNeVR with FOMM's residual decoder in place of SPADE.

Paper: Zeng et al., FNeVR, NeurIPS 2022, Table 4, row 'FOMM + FVR'.
Command: python run_train.py --config configs/fnevr/fomm_fvr.py --workdir W
  --config.data.folder DATA; `:mesh` and `:debug` as in vox_256.py.
Hardware, wall time and numbers: not yet measured.
"""

from ml_collections import ConfigDict

from configs.fnevr import vox_256


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold `mesh` and `debug`."""
    config = vox_256.base()
    config.name = "fnevr_fomm_fvr"
    config.model.generator.decoder_type = "residual"
    return vox_256.apply_variants(config, arg)
