"""Cross identity: random source images moved by random driving videos of other people.

FNeVR (NeurIPS 2022) Table 2: 10 sources x 14 videos, absolute motion; its lists are not published.
Command: python run_eval.py --protocol cross_identity --checkpoint DIR --data DATA --output OUT
Hardware and wall time on VoxCeleb: not yet measured.
"""

from ml_collections import ConfigDict

from configs.eval import reconstruction


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    config = reconstruction.get_config(arg)
    with config.unlocked():
        protocol = config.protocol
        protocol.name = "cross_identity"
        protocol.description = "cross identity: random sources driven by videos of other people"
        protocol.pairing = "across_clips"
        del protocol.include_source
        protocol.num_sources = 10
        protocol.num_driving = 14
    return config
