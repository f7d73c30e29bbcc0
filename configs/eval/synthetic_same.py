"""Synthetic set, same identity: the first frame of a test clip is driven by three of its others.

Learning is claimed by these columns, on at least 20 unseen people (docs/evaluation.md): errors
within the face, the mouth and the eyes, retrieval among the clip's three driving frames (chance
one third), and what the evaluation probe sees.
Command: python run_eval.py --protocol synthetic_same --checkpoint DIR --data DATA --output OUT
Hardware and wall time: not yet measured.
"""

from ml_collections import ConfigDict

from configs.eval import reconstruction


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; there are no variants."""
    config = reconstruction.get_config(arg)
    with config.unlocked():
        config.protocol.name = "synthetic_same"
        config.protocol.description = (
            "synthetic set, same identity: the first frame of a clip is driven by three others"
        )
        config.protocol.driving_per_clip = 3
    config.metrics = (
        *("l1/masked-face", "l1/masked-mouth", "l1/masked-eyes"),
        *("psnr/masked-face", "ssim/masked-face", "l1/unit"),
        *("retrieval_mouth", "retrieval_eyes"),
        *("probe_landmarks_px", "probe_angles_deg", "probe_expression", "probe_identity"),
    )
    return config
