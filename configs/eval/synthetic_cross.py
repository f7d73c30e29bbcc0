"""Synthetic set, across identities: everybody is driven by three frames of somebody else's clip.

The truth is exact: the source's person, rendered with the driving person's expression and pose.
The test people form a ring in random order, so that everybody is a source once and drives once.
Command: python run_eval.py --protocol synthetic_cross --checkpoint DIR --data DATA --output OUT
Hardware and wall time: not yet measured.
"""

from ml_collections import ConfigDict

from configs.eval import synthetic_same


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    config = synthetic_same.get_config(arg)
    with config.unlocked():
        protocol = config.protocol
        protocol.name = "synthetic_cross"
        protocol.description = (
            "synthetic set, cross identity: everybody is driven by three frames of somebody else"
        )
        protocol.pairing = "next_person"
        protocol.exact_truth = True
        del protocol.include_source
        config.metrics = (*config.metrics, "shape_kept")
    return config
