"""The exact state of a rendered head as a track: what fitting would find if it made no error.

    portrait, track = exact_portrait(20_000, size=256)
    save_motion(Path("motion.npz"), track)

A record of the set has the numbers that `exact_track` needs, too. Letters: v vertices, j joints.
"""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic.channels import world_rotation
from data_pipeline.synthetic.motion import FRAMES_PER_SECOND
from data_pipeline.synthetic.scene import CAMERA_DISTANCE, FOCAL, PIVOT
from talking_heads_jax.errors import check_choice
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.tracking.observation import landmark_boxes
from talking_heads_jax.tracking.track import PERSPECTIVE, ClipTrack, empty_track

#: Where the landmarks of such a track come from.
EXACT = "exact"


def exact_portrait(
    identity: int, *, size: int, frame: int = 0, seed: int = 0, morphable: Any = "procedural"
) -> tuple[np.ndarray, ClipTrack]:
    """Renders a person of the set and states how the head stands.

    Args:
      identity: number of the person; from 20,000 on nobody is in a set's training data.
      size: height and width of the picture.
      frame: of the person's first clip, at 25 frames a second.
      seed: of the set.
      morphable: the face model, see `SyntheticTalkingHeads`.

    Returns:
      (h w 3) uint8, and its state, one frame in the picture's pixels.

    Raises:
      ArgumentError: a number out of its range, or a model that cannot be painted.
    """
    from data_pipeline.synthetic.talking_heads import MODELS, SyntheticTalkingHeads

    check_choice(
        "the face model of a rendered person", getattr(morphable, "name", morphable), MODELS
    )
    heads = SyntheticTalkingHeads(size=size, seed=seed, morphable=morphable, num_threads=1)
    state = heads.clip(identity, num_frames=frame + 1)[frame]
    drawn = heads.render(identity, state)
    coefficients = drawn.coefficients
    return drawn.image, exact_track(
        heads.model,
        size=size,
        shape_coeffs=coefficients.shape_coeffs,
        expression_coeffs=coefficients.expression_coeffs,
        joint_pose=coefficients.pose,
        angles=drawn.angles,
        translation=coefficients.translation,
        landmarks68_px=drawn.landmarks68_px,
        landmarks68_visible=drawn.landmarks68_visible,
    )


def exact_track(
    model: SkinnedFaceModel,
    *,
    size: int,
    shape_coeffs: np.ndarray,
    expression_coeffs: np.ndarray,
    joint_pose: np.ndarray,
    angles: np.ndarray,
    landmarks68_px: np.ndarray,
    landmarks68_visible: np.ndarray,
    translation: np.ndarray | float = 0.0,
) -> ClipTrack:
    """The state of one frame from the numbers of its record.

    A track turns the whole model by the head's angles R, so that the root's own turn Q becomes
    R⁻¹ Q: the shoulders' part in it.

    Args:
      model: the face model.
      size: height and width of the picture.
      shape_coeffs: (K).
      expression_coeffs: (E).
      joint_pose: (j 3) or (3j) axis-angle, radians, root and neck together turned by the angles.
      angles: (3) yaw, pitch, roll in radians.
      landmarks68_px: (68 2).
      landmarks68_visible: (68).
      translation: (3) in the model's unit; of `rigid_bust` motion, else 0.

    Returns:
      A track of one frame under the set's perspective camera.
    """
    unit, root = model.centimetres_per_unit, model.joint_names.index("root")
    both = np.concatenate([shape_coeffs, expression_coeffs]).astype(np.float64)
    place = np.asarray(model.arrays["joints"], np.float64)[root]
    place = unit * (place + both @ np.asarray(model.arrays["joint_basis"], np.float64)[:, root])
    head = world_rotation(np.asarray(angles, np.float64))
    pose = np.array(joint_pose, np.float64).reshape(-1, 3)
    pose[root] = (head.inv() * Rotation.from_rotvec(pose[root])).as_rotvec()
    # Q (x - J) + J + t = R R⁻¹ (Q (x - J) + J) + t, and the model gives R⁻¹ Q (x - J) + J.
    moved = place - head.apply(place) + unit * np.asarray(translation, np.float64)
    moved = moved - PIVOT
    depth, focal = CAMERA_DISTANCE - moved[2], FOCAL * size
    points = np.asarray(landmarks68_px, np.float32)[None]

    def row(values: Any) -> np.ndarray:
        return np.asarray(values, np.float32)[None]

    return empty_track(
        1,
        fps=FRAMES_PER_SECOND,
        frame_size=(size, size),
        face=np.ones(1, bool),
        box_px=landmark_boxes(points).astype(np.float32),
        landmarks68_px=points,
        visible=np.asarray(landmarks68_visible, np.uint8)[None],
        landmark_source=EXACT,
        morphable=model.name,
        shape_coeffs=np.asarray(shape_coeffs, np.float32),
        expression_coeffs=row(expression_coeffs),
        joint_pose=row(pose.reshape(-1)),
        angles=row(angles),
        scale_px=row(focal / depth),
        offset_px=row(size / 2 + focal / depth * moved[:2] * (1.0, -1.0)),
        camera=PERSPECTIVE,
        focal_px=float(focal),
        depth_cm=row(depth),
        principal_px=(size / 2, size / 2),
        reprojection_px=row(0.0),
    )
