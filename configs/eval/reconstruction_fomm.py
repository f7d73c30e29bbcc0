"""Same identity as FOMM's script scores it: frame 0 drives itself too.

FOMM (NeurIPS 2019), reconstruction mode of the released code. Its number is the mean over all
frames: a line of its own in the table, `mean_over_frames` in metrics.json.
Command: python run_eval.py --protocol reconstruction_fomm --checkpoint DIR --data DATA --output OUT
Hardware and wall time on VoxCeleb: not yet measured.
"""

from ml_collections import ConfigDict

from configs.eval import reconstruction


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    config = reconstruction.get_config(arg)
    config.protocol.name = "reconstruction_fomm"
    config.protocol.description = (
        "same identity as FOMM's script: the first frame is driven by all frames, itself too"
    )
    config.protocol.include_source = True
    return config
