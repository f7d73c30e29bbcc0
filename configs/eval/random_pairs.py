"""Same identity: random pairs of frames of each clip, each in both directions.

GDPW, section on same-identity results; neither the number of pairs nor their list is published, so
ours is a choice.
Command: python run_eval.py --protocol random_pairs --checkpoint DIR --data DATA --output OUT
Hardware and wall time on VoxCeleb: not yet measured.
"""

from ml_collections import ConfigDict

from configs.eval import reconstruction


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    config = reconstruction.get_config(arg)
    with config.unlocked():
        protocol = config.protocol
        protocol.name = "random_pairs"
        protocol.description = "same identity: random pairs of a clip's frames, in both directions"
        protocol.pairing = "random_frames"
        del protocol.include_source
        protocol.pairs_per_clip = 10  # our choice; each is scored in both directions
        protocol.both_directions = True
    return config
