"""Edits one face by name: its state in a picture → the states and meshes of a clip.

Everything here is pure: a `ClipTrack` of one frame and `Change`s in, an `EditedClip` out. Rotations
are computed in numpy, double precision, by scipy: the twin of `geometry.cameras`, without a
compiler for a handful of angles. Letters: t frames, K shape and E expression coefficients, j
joints, v vertices.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.inference.edit_changes import LAYER_NAMES, PRESET, Change, frame_count
from talking_heads_jax.inference.edit_quantities import (
    CAMERA,
    EXPRESSION,
    HEAD,
    JOINT,
    SHAPE,
    Quantity,
    Target,
    check_values,
    find_quantity,
    quantities_of,
    range_notes,
)
from talking_heads_jax.inference.mesh_motion import check_track_model, track_vertices
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.tracking.track import FRAME_FIELDS, NO_LANDMARKS, PERSPECTIVE, ClipTrack

#: What the shoulders do when the head turns: turn with it, as the released code does, or stay, so
#: that the neck bends.
TURN, STAY = "turn", "stay"
SHOULDERS = (TURN, STAY)

# An expression that does what the jaw joint does, and what counts as open: a share, and radians.
_JAW_OPEN, _OPEN_BY = "jawOpen", 0.02
_ROOT, _NECK = "root", "neck"
_FRAMES_AT_ONCE = 16  # of vertices in memory
_UNCHANGED = np.array([1.0, 0.0, 0.0])  # camera.scale, camera.x, camera.y of the source


@dataclasses.dataclass(frozen=True)
class EditedClip:
    """A face as edits want it, frame by frame.

    Attributes:
      track: (t frames) expression, joints, angles and camera; its landmarks are unknown.
      shape_coeffs: (t K) float32, which a track holds once for a clip only.
      notes: what the user should know of it, one line each.
    """

    track: ClipTrack
    shape_coeffs: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.track)

    def meshes(self, model: MorphableModel) -> Iterator[np.ndarray]:
        """The mesh of every frame, some frames in memory at a time.

        Args:
          model: that was edited.

        Yields:
          (v 3) float32: x, y in the track's pixels, z in the same scale, smaller is nearer.
        """
        changes = np.flatnonzero((np.diff(self.shape_coeffs, axis=0) != 0).any(axis=1)) + 1
        edges = sorted({0, *changes.tolist(), *range(0, len(self), _FRAMES_AT_ONCE), len(self)})
        for start, stop in itertools.pairwise(edges):
            part = self.track.slice(start, stop)
            yield from track_vertices(part, model, shape_coeffs=self.shape_coeffs[start])


def edit_track(
    source: ClipTrack,
    model: MorphableModel,
    changes: Sequence[Change],
    *,
    fps: float = 25.0,
    shoulders: str = TURN,
) -> EditedClip:
    """Applies edits to the face of a picture.

    Of a quantity that several layers state (see `edit_changes`) the last one wins; then all offsets
    are added. What nobody states is the source's.

    Args:
      source: the state of one frame, fitted with `model`, in the pixels that `camera.x` and
        `camera.y` count: of the crop.
      model: the morphable model.
      changes: any; as many frames as the longest has.
      fps: frames a second of the result.
      shoulders: 'turn': `head.*` turns the whole mesh about the model's origin; 'stay': the root
        joint, and with it the shoulders, stays as in the source, and the neck joint takes the turn.

    Returns:
      The clip.

    Raises:
      ArgumentError: the source is of another model, several frames or none; an unknown quantity; a
        value beyond what is accepted; one quantity stated twice in a layer other than presets;
        shoulders that stay in a model without a neck.
    """
    check_choice("shoulders", shoulders, SHOULDERS)
    check_source(source, model)
    if shoulders == STAY:
        check_neck(model)
    quantities = quantities_of(model)
    named = [(find_quantity(quantities, change.name), change) for change in changes]
    count = frame_count(changes)
    _check_layers(named, count)
    state = _source_state(source, model)
    values = _final_values(state, named, count)
    notes = [note for known, change in named for note in _notes(known, change, values, count)]
    edited = {name: np.repeat(array[None], count, axis=0) for name, array in state.items()}
    for (kind, row, axis), curve in values.items():
        edited[kind][:, row, axis] = curve
    notes += _jaw_notes(model, edited)
    track = _with_state(source, model, edited, values, fps)
    if shoulders == STAY:
        track = keep_shoulders(track, source, model, edited[SHAPE][..., 0])
    shape = np.ascontiguousarray(edited[SHAPE][..., 0], np.float32)
    return EditedClip(track, shape, tuple(dict.fromkeys(notes)))


def check_source(source: ClipTrack, model: MorphableModel) -> None:
    """Raises unless a track is the fitted state of one picture.

    Args:
      source: any track.
      model: the morphable model it should be of.

    Raises:
      ArgumentError: it is of another model, of several frames, or found no face.
    """
    check_track_model("the source's motion", source, model.name)
    if len(source) != 1:
        raise ArgumentError(
            requirement("the source's state", "be of one frame", len(source), "Choose a frame.")
        )
    sizes = (
        len(source.shape_coeffs),
        source.expression_coeffs.shape[1],
        source.joint_pose.shape[1],
    )
    wanted = (model.num_shape, model.num_expression, 3 * len(model.joint_names))
    if sizes != wanted:
        raise ArgumentError(
            requirement(
                f"the source's state in '{model.name}'",
                f"have {wanted} shape, expression and pose numbers",
                sizes,
                "Track it with the model as it is registered.",
            )
        )
    known = (source.angles, source.scale_px, source.offset_px, source.expression_coeffs)
    if not all(np.isfinite(array).all() for array in (*known, source.joint_pose)):
        raise ArgumentError(
            requirement(
                "the source's state",
                "show a fitted face",
                "none in this frame",
                "Choose another frame or give landmarks.",
            )
        )


def check_neck(model: MorphableModel) -> None:
    """Raises for a model in which shoulders cannot stay while the head turns.

    Args:
      model: any.

    Raises:
      ArgumentError: it has no root and neck joint.
    """
    if not {_ROOT, _NECK} <= set(model.joint_names):
        raise ArgumentError(
            requirement(
                f"the model '{model.name}'",
                "have a neck joint for the shoulders to stay",
                ", ".join(model.joint_names),
                "Let them turn.",
            )
        )


def keep_shoulders(
    track: ClipTrack,
    source: ClipTrack,
    model: MorphableModel,
    shape: np.ndarray,
    *,
    keep_head: bool = False,
) -> ClipTrack:
    """The track with the root joint turned as the source has it; the head looks the same way.

    The head's rotation R turns the whole model, so the root is turned to R⁻¹ R_source Q_source
    within it, and the neck such that what it carries stays as it was.

    Args:
      track: (t frames) every frame with a pose.
      source: of one frame, of the same model.
      model: with a root and a neck joint, see `check_neck`.
      shape: (t K) or (K,) of the meshes that will be made.
      keep_head: True moves the model so that the neck joint, and with it the head, is seen where it
        was, and the shoulders go along; False so that the root joint is where it would be under the
        source's rotation: of an edited source, in its place.

    Returns:
      The track.
    """
    names, count = model.joint_names, len(track)
    root, neck = names.index(_ROOT), names.index(_NECK)
    pose = track.joint_pose.astype(np.float64).reshape(count, len(names), 3)
    before = rotation_of(np.rad2deg(np.repeat(source.angles, count, axis=0)))
    before_root = Rotation.from_rotvec(source.joint_pose[0].reshape(-1, 3)[root])
    after = rotation_of(np.rad2deg(track.angles))
    own_root, own_neck = (Rotation.from_rotvec(pose[:, row]) for row in (root, neck))
    new_root = after.inv() * before * before_root
    pose[:, root] = new_root.as_rotvec()
    pose[:, neck] = (new_root.inv() * own_root * own_neck).as_rotvec()
    shape = np.broadcast_to(shape, (count, model.num_shape))
    both = np.concatenate([shape, track.expression_coeffs], axis=1)
    places = [np.asarray(model.arrays["joints"], np.float64)[row] for row in (root, neck)]
    basis = np.asarray(model.arrays["joint_basis"], np.float64)
    places = [place + both @ basis[:, row] for place, row in zip(places, (root, neck), strict=True)]
    root_cm, neck_cm = (place * model.centimetres_per_unit for place in places)
    if keep_head:
        arm = neck_cm - root_cm
        moved = after.apply(own_root.apply(arm) - new_root.apply(arm))
    else:
        moved = before.apply(root_cm) - after.apply(root_cm)
    scale = track.scale_px.astype(np.float64)
    offset = track.offset_px.astype(np.float64)
    depth = track.depth_cm
    if track.camera == PERSPECTIVE:  # nearer by the shift's z: larger, and further from the middle
        depth = depth - moved[:, 2]
        nearer = track.depth_cm / depth
        scale = scale * nearer
        offset = track.principal_px + (offset - track.principal_px) * nearer[:, None]
    offset = offset + scale[:, None] * moved[:, :2] * (1.0, -1.0)
    return dataclasses.replace(
        track,
        joint_pose=pose.reshape(count, -1).astype(np.float32),
        scale_px=scale.astype(np.float32),
        offset_px=offset.astype(np.float32),
        depth_cm=depth.astype(np.float32),
    )


def angles_deg(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll in degrees (... 3) of axis-angle vectors in model axes.

    Args:
      rotation: (... 3) radians.
    """
    flat = Rotation.from_rotvec(np.asarray(rotation, np.float64).reshape(-1, 3))
    roll, yaw, pitch = flat.as_euler("ZYX", degrees=True).T
    return np.stack([yaw, -pitch, -roll], axis=-1).reshape(np.shape(rotation))


def rotation_of(angles: np.ndarray) -> Rotation:
    """The rotations, in model axes, of yaw, pitch and roll.

    The numpy twin of `geometry.cameras.head_rotation_from_angles`.

    Args:
      angles: (t 3) degrees.
    """
    yaw, pitch, roll = np.asarray(angles, np.float64).T
    return Rotation.from_euler("ZYX", np.stack([-roll, yaw, -pitch], axis=-1), degrees=True)


def _source_state(source: ClipTrack, model: MorphableModel) -> dict[str, np.ndarray]:
    """What can be edited of the source: kind -> (rows, axes), as `Target`s count them."""
    pose = source.joint_pose[0].reshape(len(model.joint_names), 3)
    return {
        SHAPE: source.shape_coeffs.astype(np.float64)[:, None],
        EXPRESSION: source.expression_coeffs[0].astype(np.float64)[:, None],
        JOINT: angles_deg(pose),
        HEAD: np.rad2deg(source.angles.astype(np.float64)),
        CAMERA: _UNCHANGED[None],
    }


def _check_layers(named: Sequence[tuple[Quantity, Change]], count: int) -> None:
    """Raises if a layer states a quantity twice in a frame; offsets add up, later presets win."""
    said: dict[tuple[int, Target], tuple[str, np.ndarray]] = {}
    for known, change in named:
        if change.offset or change.layer == PRESET:
            continue
        stated = np.isfinite(change.over(count))
        for target in known.targets:
            before, frames = said.get((change.layer, target), (known.name, np.zeros(count, bool)))
            if (frames & stated).any():
                both = known.name if before == known.name else f"{before} and {known.name}"
                raise ArgumentError(
                    requirement(
                        both,
                        f"be stated once by {LAYER_NAMES[change.layer]}",
                        "two values",
                        "Use += to add to a value.",
                    )
                )
            said[change.layer, target] = (known.name, frames | stated)


def _final_values(
    state: Mapping[str, np.ndarray], named: Sequence[tuple[Quantity, Change]], count: int
) -> dict[Target, np.ndarray]:
    """The (t,) values, in the targets' own sign, of everything that some change states."""
    values: dict[Target, np.ndarray] = {}
    ordered = sorted(named, key=lambda pair: (pair[1].offset, pair[1].layer))
    for known, change in ordered:
        curve = change.over(count)
        if not change.offset:  # of offsets the sum is checked, see `_notes`
            check_values(known, curve)
        for kind, row, axis in known.targets:
            own = np.full(count, state[kind][row, axis])
            value = values.get((kind, row, axis), own)
            new = known.sign * curve + (value if change.offset else 0.0)
            values[kind, row, axis] = np.where(np.isnan(curve), value, new)
    return values


def _notes(
    known: Quantity, change: Change, values: Mapping[Target, np.ndarray], count: int
) -> Iterator[str]:
    """Lines about values of a changed quantity that are out of range; refuses impossible ones."""
    stated = np.isfinite(change.over(count))
    for target in known.targets:
        final = known.sign * values[target]
        check_values(known, final)
        if stated.any():
            yield from range_notes(known, final[stated])


def _jaw_notes(model: MorphableModel, edited: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A line if joint and blend shape open the mouth at once, see `SkinnedFaceModel`."""
    if _JAW_OPEN not in model.expression_names or "jaw" not in model.joint_names:
        return
    shape = edited[EXPRESSION][:, model.expression_names.index(_JAW_OPEN), 0]
    pitch = edited[JOINT][:, model.joint_names.index("jaw"), 1]
    if ((shape > _OPEN_BY) & (pitch < -np.rad2deg(_OPEN_BY))).any():
        yield f"expression.{_JAW_OPEN} and jaw.open both open the mouth: use one of them"


def _with_state(
    source: ClipTrack,
    model: MorphableModel,
    edited: Mapping[str, np.ndarray],
    touched: Mapping[Target, np.ndarray],
    fps: float,
) -> ClipTrack:
    """The source's track over the frames of a clip, with edited numbers in it."""
    count = len(edited[HEAD])
    rows = {name: np.repeat(getattr(source, name), count, axis=0) for name in FRAME_FIELDS}
    pose = rows["joint_pose"].reshape(count, len(model.joint_names), 3).astype(np.float64)
    for row in {target[1] for target in touched if target[0] == JOINT}:
        pose[:, row] = rotation_of(edited[JOINT][:, row]).as_rotvec()
    angles = rows["angles"]
    for axis in {target[2] for target in touched if target[0] == HEAD}:
        angles[:, axis] = np.deg2rad(edited[HEAD][:, 0, axis])
    factor, shift = edited[CAMERA][:, 0, 0], edited[CAMERA][:, 0, 1:]
    height, width = source.frame_size
    rows |= {
        "time_s": np.arange(count) / fps,
        "landmarks68_px": np.full((count, 68, 2), np.nan, np.float32),
        "visible": np.zeros((count, 68), np.uint8),
        "reprojection_px": np.full(count, np.nan, np.float32),
        "expression_coeffs": edited[EXPRESSION][..., 0].astype(np.float32),
        "joint_pose": pose.reshape(count, -1).astype(np.float32),
        "angles": angles,
        "scale_px": (rows["scale_px"] * factor).astype(np.float32),
        "offset_px": (rows["offset_px"] + shift * (width, height)).astype(np.float32),
    }
    return dataclasses.replace(
        source,
        **rows,
        fps=float(fps),
        segments=((0, count),),
        landmark_source=NO_LANDMARKS,
        shape_coeffs=edited[SHAPE][0, :, 0].astype(np.float32),
    )
