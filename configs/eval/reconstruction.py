"""Same identity: the first frame of every clip is driven by all its other frames.

FNeVR (NeurIPS 2022) Table 1 and supplement C, there on all VoxCeleb test videos.
Command: python run_eval.py --protocol reconstruction --checkpoint DIR --data DATA --output OUT
Hardware and wall time on VoxCeleb: not yet measured.
"""

from ml_collections import ConfigDict

from configs.common import parse_variants


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    parse_variants(arg, ())
    config = ConfigDict()
    config.protocol = ConfigDict()
    config.protocol.name = "reconstruction"
    config.protocol.version = 1  # raised when the same seed would give other pairs
    config.protocol.description = (
        "same identity: the first frame of a clip is driven by all its other frames"
    )
    config.protocol.pairing = "first_frame"
    config.protocol.include_source = False
    config.protocol.motion = "absolute"
    config.protocol.seed = 0  # nothing is drawn here

    config.data = ConfigDict()
    config.data.split = "test"
    config.data.num_clips = 0  # 0: all
    config.data.max_frames = 0  # of a clip, from its start; 0: all
    # Names of recipes; empty: the reconstruction set, and the masked ones where the data has masks.
    config.metrics = ()
    config.lock()
    return config
