"""FNeVR whose decoder sees the rendered features only.

Paper: Zeng et al., FNeVR, NeurIPS 2022, Table 4, row 'w/o F_w'.
Command: python run_train.py --config configs/fnevr/without_fw.py --workdir W
  --config.data.folder DATA; `:mesh` and `:debug` as in vox_256.py.
Hardware, wall time and numbers: not yet measured.
"""

from ml_collections import ConfigDict

from configs.fnevr import vox_256


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold `mesh` and `debug`."""
    config = vox_256.base()
    config.name = "fnevr_without_fw"
    config.model.generator.decoder_inputs = ("rendered",)
    return vox_256.apply_variants(config, arg)
