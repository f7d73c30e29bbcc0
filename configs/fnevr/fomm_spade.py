"""FNeVR without volume rendering: FOMM's warp and the SPADE decoder.

Paper: Zeng et al., FNeVR, NeurIPS 2022, Table 4, row 'FOMM + SPADE'.
Command: python run_train.py --config configs/fnevr/fomm_spade.py --workdir W
  --config.data.folder DATA; `:mesh` and `:debug` as in vox_256.py.
Hardware, wall time and numbers: not yet measured.
"""

from ml_collections import ConfigDict

from configs.fnevr import vox_256


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold `mesh` and `debug`."""
    config = vox_256.base()
    config.name = "fnevr_fomm_spade"
    config.model.generator.volume_rendering = False
    config.model.generator.decoder_inputs = ("warped",)
    config.objectives.render_perceptual = 0.0
    config = vox_256.apply_variants(config, arg).unlock()
    config.objectives.density.weight = 0.0  # there is no volume, with or without a mesh
    return config.lock()
