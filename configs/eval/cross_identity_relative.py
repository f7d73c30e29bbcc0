"""Cross identity with relative motion from the best frame.

FNeVR (NeurIPS 2022) supplement D.2, Figure 8: movement since the driving frame that is most like
the source is added to the source's own keypoints. The pairs are those of `cross_identity`.
Command: python run_eval.py --protocol cross_identity_relative --checkpoint DIR --data DATA
  --output OUT
Hardware and wall time on VoxCeleb: not yet measured.
"""

from ml_collections import ConfigDict

from configs.eval import cross_identity


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    config = cross_identity.get_config(arg)
    config.protocol.name = "cross_identity_relative"
    config.protocol.description = (
        "cross identity, relative motion: from the driving frame that is most like the source"
    )
    config.protocol.motion = "relative_best_frame"
    return config
