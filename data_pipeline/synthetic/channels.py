"""Writes motion channels in the words of a morphable model: expressions by name, joints by name.

Both vocabularies are listed, the built-in head's and ICT-FaceKit's; a name that a model does not
have is skipped, so that a model with other or fewer expressions still moves. Letters: t frames,
e expressions, j joints.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic.motion import SHOULDERS_FOLLOW
from talking_heads_jax.morphable.procedural_motion import EXPRESSION_NAMES

#: Jaw rotation at channel value 1, radians.
LARGEST_JAW_ANGLE = 0.36

# Expression -> what drives it. A tuple holds (channel, gain) pairs that add up.
_PROCEDURAL: Mapping[str, tuple[tuple[str, float], ...]] = {
    name: ((name, 1.0),) for name in EXPRESSION_NAMES
}
_ICT: Mapping[str, tuple[tuple[str, float], ...]] = {
    "mouthFunnel": (("funnel", 0.9),),
    "mouthPucker": (("pucker", 0.9),),
    "mouthLeft": (("mouth_left", 0.9),),
    "mouthRight": (("mouth_right", 0.9),),
    **{
        name.format(side=side): ((channel.format(side=side), gain),)
        for side in "LR"
        for name, channel, gain in (
            ("mouthSmile_{side}", "smile_{side}", 1.0),
            ("cheekSquint_{side}", "smile_{side}", 0.4),
            ("mouthFrown_{side}", "frown_{side}", 1.0),
            ("mouthUpperUp_{side}", "lip_upper_up", 0.8),
            ("mouthLowerDown_{side}", "lip_lower_down", 0.8),
            ("cheekPuff_{side}", "cheek_puff", 1.0),
            ("browInnerUp_{side}", "brow_inner_up", 1.0),
            ("browOuterUp_{side}", "brow_outer_up_{side}", 1.0),
            ("browDown_{side}", "brow_down_{side}", 1.0),
            ("eyeBlink_{side}", "blink_{side}", 1.0),
            ("eyeSquint_{side}", "squint", 1.0),
        )
    },
}
# ICT's lids follow the eye by expressions: (expression, channel, sign); 1 at 30 degrees.
_ICT_LIDS = (
    ("eyeLookOut_L", "gaze_yaw", 1.0),
    ("eyeLookIn_R", "gaze_yaw", 1.0),
    ("eyeLookIn_L", "gaze_yaw", -1.0),
    ("eyeLookOut_R", "gaze_yaw", -1.0),
    ("eyeLookUp_L", "gaze_pitch", 1.0),
    ("eyeLookUp_R", "gaze_pitch", 1.0),
    ("eyeLookDown_L", "gaze_pitch", -1.0),
    ("eyeLookDown_R", "gaze_pitch", -1.0),
)
_FULL_LID_ANGLE = np.deg2rad(30.0)
_DRIVEN = {**_PROCEDURAL, **_ICT}


def expression_coeffs(curves: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Coefficients of the expressions that a model has.

    Args:
      curves: a (t) curve per channel.
      names: the model's expressions, in order.

    Returns:
      (t e) float32.
    """
    count = len(curves["jaw"])
    lids = {
        name: np.maximum(sign * curves[channel] / _FULL_LID_ANGLE, 0)
        for name, channel, sign in _ICT_LIDS
    }
    columns = []
    for name in names:
        if name in lids:
            columns.append(lids[name])
        else:
            driven = [gain * curves[channel] for channel, gain in _DRIVEN.get(name, ())]
            columns.append(sum(driven, np.zeros(count)))
    return np.stack(columns, axis=-1).astype(np.float32) if columns else np.zeros((count, 0), "f4")


def world_rotation(angles: np.ndarray) -> Rotation:
    """Rotation, in world axes (y up, z to the viewer), of a head.

    The numpy twin of `talking_heads_jax.geometry.cameras.head_rotation_from_angles`.

    Args:
      angles: (t 3) yaw, pitch, roll in radians.
    """
    return Rotation.from_euler("ZYX", np.asarray(angles)[..., [2, 0, 1]] * [-1.0, 1.0, -1.0])


def joint_pose(
    angles: np.ndarray,
    curves: Mapping[str, np.ndarray],
    names: Sequence[str],
    *,
    rigid_bust: bool,
) -> np.ndarray:
    """Axis-angle vectors of the joints that a model has; root and neck together turn by `angles`.

    Args:
      angles: (t 3) yaw, pitch, roll of the head in radians.
      curves: a (t) curve per channel.
      names: the model's joints, in order.
      rigid_bust: whether the root carries the whole turn; otherwise the neck does most of it.

    Returns:
      (t j 3) float32 radians.
    """
    total = world_rotation(angles)
    if rigid_bust or "neck" not in names:
        root, neck = total, Rotation.identity(len(angles))
    else:
        root = world_rotation(angles * SHOULDERS_FOLLOW)
        neck = root.inv() * total
    gaze = np.stack([curves["gaze_yaw"], curves["gaze_pitch"], np.zeros(len(angles))], axis=-1)
    eyes = world_rotation(gaze).as_rotvec()
    jaw = np.zeros((len(angles), 3))
    jaw[:, 0] = LARGEST_JAW_ANGLE * curves["jaw"]
    known = {
        "root": root.as_rotvec(),
        "neck": neck.as_rotvec(),
        "jaw": jaw,
        "eye_L": eyes,
        "eye_R": eyes,
    }
    still = np.zeros((len(angles), 3))
    return np.stack([known.get(name, still) for name in names], axis=1).astype(np.float32)
