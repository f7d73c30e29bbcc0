"""From tracked coefficients to the meshes that drive a model: whose shape, how smooth, how held.

Motion is absolute, as in the released code of GDPW: expression, pose and camera are the driver's,
the shape is the source's. Letters: t frames, v vertices.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.registry import MORPHABLE_NAMES, load_morphable
from talking_heads_jax.tracking import smoothing
from talking_heads_jax.tracking.fit_result import fit_vertices_px
from talking_heads_jax.tracking.landmarks import outer_eye_distance
from talking_heads_jax.tracking.track import ClipTrack
from talking_heads_jax.tracking.tracker import add_notes, fit_of

OFFICIAL, NONE, ONE_EURO, GAUSSIAN = "official", "none", "one_euro", "gaussian"
SMOOTHINGS = (OFFICIAL, NONE, ONE_EURO, GAUSSIAN)

#: Weight of the new frame in the released demo: a one-euro filter of minimal cutoff 0.5 and beta 0
#: whose time is the frame number, so that 2π · 0.5 / (2π · 0.5 + 1) never changes.
OFFICIAL_WEIGHT = np.pi / (np.pi + 1.0)
#: Standard deviation in frames of 'gaussian'.
SIGMA_FRAMES = 1.0
# Outer eye corners of an adult, cm: what speeds in pixels are measured by without landmarks.
_EYE_DISTANCE_CM = 9.0

#: What `smooth_motion` filters.
MOTION_FIELDS = (
    *("expression_coeffs", "joint_pose", "angles"),
    *("scale_px", "offset_px", "depth_cm"),
)


def track_vertices(
    track: ClipTrack, model: MorphableModel, *, shape_coeffs: np.ndarray | None = None
) -> np.ndarray:
    """The meshes of a fitted clip.

    Args:
      track: fitted with `model`, in any picture's pixels.
      model: the morphable model.
      shape_coeffs: (K,) another person's shape instead of the track's own.

    Returns:
      (t v 3) float32: x, y in the track's pixels, z in the same scale from the model's origin,
      smaller is nearer, as in records. NaN in frames without a fit.

    Raises:
      ArgumentError: the track is of another model or none, or the shape has another length.
    """
    check_track_model("the track", track, model.name)
    if shape_coeffs is not None:
        shape = np.asarray(shape_coeffs, np.float32)
        if shape.shape != (model.num_shape,):
            raise ArgumentError(
                requirement(
                    "shape_coeffs",
                    f"be the {model.num_shape} of '{model.name}'",
                    f"shape {shape.shape}",
                    "Take them from a track of the same model.",
                )
            )
        track = dataclasses.replace(track, shape_coeffs=shape)
    return fit_vertices_px(model, fit_of(track))


def load_driver_model(model: TalkingHead) -> MorphableModel:
    """The morphable model whose coefficients drive a mesh-driven system.

    Args:
      model: the system; its constructor argument `morphable` names it.

    Returns:
      The morphable model.

    Raises:
      ArgumentError: the system is not driven by meshes, or its mesh is a file, which has triangles
        but no coefficients.
      AssetNotFoundError: the model's licensed file is not registered; says how to register it.
    """
    name = model.arguments().get("morphable")
    if name is None:
        raise ArgumentError(
            requirement(
                f"the model {model.name}",
                "be driven by the meshes of a morphable model",
                sorted(model.required_inputs),
                "Use a mesh-driven system, for instance gdpw.",
            )
        )
    if name not in MORPHABLE_NAMES:
        raise ArgumentError(
            requirement(
                "the mesh of the checkpoint",
                f"be a morphable model ({', '.join(MORPHABLE_NAMES)}) to be driven by coefficients",
                f"the file {name}",
                "A mesh file has triangles only: drive the checkpoint by arrays of vertices "
                "(inference.mesh_animator.MeshAnimator).",
            )
        )
    return load_morphable(name)


def check_track_model(what: str, track: ClipTrack, morphable: str) -> None:
    """Raises unless a track holds a fit of a morphable model.

    Args:
      what: whose track it is, for the message.
      track: any.
      morphable: the model's name.

    Raises:
      ArgumentError: it holds none, or another model's; names both.
    """
    if track.morphable != morphable:
        raise ArgumentError(
            requirement(
                what,
                f"be fitted with '{morphable}', the model's morphable",
                f"'{track.morphable}'" if track.fitted else "no fit",
                f"Track it again: talking-heads track FILE --morphable {morphable} --save NPZ.",
            )
        )


def hold_pose(track: ClipTrack, what: str = "driving") -> ClipTrack:
    """The track with its gaps filled: a frame without a fit repeats the one before it.

    Nothing crosses a cut, where a shot has a fit at all: frames before its first fitted one repeat
    that.

    Args:
      track: of a fitted clip.
      what: whose track it is, for the note.

    Returns:
      The track, every frame with a pose; a note says how many were held.

    Raises:
      ArgumentError: no frame has a fit.
    """
    known = np.isfinite(track.angles).all(-1) & np.isfinite(track.scale_px)
    if not known.any():
        raise ArgumentError(
            requirement(
                f"the {what} track", "have a frame with a fitted face", "none", "Track it again."
            )
        )
    if known.all():
        return track
    shown = np.where(known, np.arange(len(track)), -1)
    for start, stop in track.segments:
        if known[start:stop].any():
            first = start + known[start:stop].argmax()
            shown[start:first] = first
    shown = np.maximum.accumulate(np.where(shown < 0, known.argmax(), shown))
    held = {name: getattr(track, name)[shown] for name in MOTION_FIELDS}
    return add_notes(
        dataclasses.replace(track, **held),
        f"{int((~known).sum())} of {len(track)} frames have no face: the last pose is held",
    )


def official_smoothing(track: ClipTrack) -> ClipTrack:
    """The released demo's filter: an exponential average with `OFFICIAL_WEIGHT` on the new frame.

    On expression, pose (joints and the head's angles) and camera; the first frame is raw.

    Args:
      track: of a fitted clip; gaps stay gaps, and what comes after them goes on from before.

    Returns:
      The track.

    Source: face_reenact_demo.py of the official GDPW repository.
    Differs from source: after a cut the filter starts anew; angles are continued across ±180
      degrees.
    """
    return smooth_motion(track, OFFICIAL)


def smooth_motion(track: ClipTrack, method: str) -> ClipTrack:
    """The track with expression, pose and camera smoothed over time; nothing crosses a cut.

    Args:
      track: of a fitted clip.
      method: of `SMOOTHINGS`: 'official' (see `official_smoothing`); 'one_euro', both ways, and
        'gaussian' (`SIGMA_FRAMES`), which do not lag; 'none'.

    Returns:
      The track. Landmarks and boxes stay as they are.

    Raises:
      ArgumentError: an unknown method.
    """
    smooth = motion_filter(track, method)
    angles = _continued(track.angles.astype(np.float64), track.segments)
    changed = {
        name: smooth(angles if name == "angles" else getattr(track, name), name)
        for name in MOTION_FIELDS
    }
    return dataclasses.replace(track, **changed)


def motion_filter(track: ClipTrack, method: str) -> Callable[[np.ndarray, str], np.ndarray]:
    """The filter of a clip's motion, as a function of any (t ...) values and their field's name.

    Args:
      track: gives times, cuts and the scale of speeds.
      method: of `SMOOTHINGS`.

    Raises:
      ArgumentError: an unknown method.
    """
    check_choice("the smoothing of the motion", method, SMOOTHINGS)
    times = {"time_s": track.time_s, "segments": track.segments}

    def smooth(values: np.ndarray, name: str) -> np.ndarray:
        if method == NONE or not values.size:
            return np.asarray(values, np.float32)
        if method == OFFICIAL:
            smoothed = exponential_average(values, OFFICIAL_WEIGHT, segments=track.segments)
        elif method == GAUSSIAN:
            smoothed = smoothing.gaussian(values, SIGMA_FRAMES, fps=track.fps, **times)
        else:
            unit = _unit_of_speed(track, name, values)
            smoothed = smoothing.one_euro(values, scale=unit, both_ways=True, **times)
        return smoothed.astype(np.float32)

    return smooth


def exponential_average(
    values: np.ndarray, weight: float, *, segments: smoothing.Segments
) -> np.ndarray:
    """y[0] = x[0], y[t] = weight x[t] + (1 - weight) y[t-1], anew in every segment.

    Args:
      values: (t, ...) floats; what is not finite is a gap of that value alone, and stays one.
      weight: of the new value, in (0, 1].
      segments: (start, stop) between cuts.

    Returns:
      As `values`, float64.
    """
    result = np.array(values, np.float64)
    rows = result.reshape(len(result), -1)
    for start, stop in segments:
        state = np.full(rows.shape[1], np.nan)
        for row in rows[start:stop]:
            seen = np.isfinite(row)
            mixed = weight * row + (1.0 - weight) * state
            state = np.where(seen, np.where(np.isfinite(state), mixed, row), state)
            row[seen] = state[seen]
    return result


def _continued(angles: np.ndarray, segments: smoothing.Segments) -> np.ndarray:
    """Angles (t 3) without jumps of a whole turn, gaps left out; each segment by itself."""
    result = angles.copy()
    for start, stop in segments:
        known = start + np.flatnonzero(np.isfinite(angles[start:stop]).all(-1))
        result[known] = np.unwrap(angles[known], axis=0)
    return result


def _unit_of_speed(track: ClipTrack, name: str, values: np.ndarray) -> float:
    """What makes the speeds of a field comparable: see `smoothing.one_euro`."""
    if name in ("expression_coeffs", "joint_pose", "angles"):
        return 1.0
    unit = np.nanmedian(np.abs(values)) if np.isfinite(values).any() else 1.0
    if name in ("offset_px", "box_px"):
        unit = outer_eye_distance(track.landmarks68_px)
        if not np.isfinite(unit):
            unit = _EYE_DISTANCE_CM * np.nanmedian(track.scale_px)
    return float(unit) if np.isfinite(unit) and unit > 0 else 1.0
