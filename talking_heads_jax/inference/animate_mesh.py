"""Animating with a mesh-driven system: expression, pose and camera of the driver, source's shape.

Source and driver are tracked (`face_tracks`), both faces in the model's own morphable model; the
driver's coefficients are smoothed, posed with the source's shape, and laid into the source's crop
(`mesh_placement`). The driving pictures are read once, for tracking, and once more where they are
shown; frames are never kept. Letters: t frames, v vertices, r the model's side.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.inference.animate_options import (
    AnimateOptions,
    AnimateResult,
    refuse_options,
    refuse_unused_framing,
)
from talking_heads_jax.inference.clips import is_video, open_sink
from talking_heads_jax.inference.driven_pose import is_motion_file
from talking_heads_jax.inference.editing import (
    SHOULDERS,
    STAY,
    TURN,
    check_neck,
    keep_shoulders,
)
from talking_heads_jax.inference.face_tracks import load_landmarker, read_track
from talking_heads_jax.inference.framing import Framing, find_framing
from talking_heads_jax.inference.mesh_animator import MeshAnimator
from talking_heads_jax.inference.mesh_motion import (
    OFFICIAL,
    SMOOTHINGS,
    hold_pose,
    load_driver_model,
    motion_filter,
    smooth_motion,
    track_vertices,
)
from talking_heads_jax.inference.mesh_placement import (
    AT_SOURCE,
    PLACEMENTS,
    crop_meshes,
    find_placement,
    placed_meshes,
)
from talking_heads_jax.inference.overlay import side_by_side
from talking_heads_jax.inference.scene import Scene
from talking_heads_jax.media.limits import MediaLimits
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.tracking.track import ClipTrack
from talking_heads_jax.tracking.tracker import open_clip

Note = Callable[[str | None], None]


def animate_by_meshes(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    source: Path,
    driving: Path,
    output: Path,
    options: AnimateOptions,
    note: Note,
) -> AnimateResult:
    """Animates an image by a video, a motion file or another image.

    Args:
      model: a system that needs an image and vertices.
      variables: network name -> linen variables.
      source: an image.
      driving: a video, an image, or a motion file.
      output: an .mp4 file, or a new folder; driven by an image also a picture.
      options: how.
      note: takes what was done.

    Returns:
      What was done, without notes.

    Raises:
      ArgumentError: options or files that do not fit together, a motion file of another face model,
        or a file without landmarks where no network finds them.
      AssetNotFoundError: the face model's file is not registered.
      CheckpointError: a network is missing.
      DataError: a landmark or motion file cannot be used.
      MediaError: a file cannot be read or written.
    """
    _check_options(options, source, driving)
    morphable = load_driver_model(model)
    if options.shoulders == STAY:
        check_neck(morphable)
    animator = MeshAnimator(model, variables, batch_size=options.batch_size)
    face, track = _read_tracks(source, driving, morphable, options)
    for what, notes in (("source", face.notes), ("driving", track.notes)):
        for text in notes:
            note(f"{what}: {text}")
    if track.variable_frame_rate:
        note(f"driving: frames at uneven times, written evenly at {track.fps:g} a second")
    face, track = (dataclasses.replace(each, notes=()) for each in (face, track))
    # A batch is filled up by copies: no more of them than there are frames.
    animator.batch_size = min(animator.batch_size, len(track))
    scene = Scene(source, model.resolution, options, note, track=face)
    framing = _driving_framing(driving, track, model.resolution, options, note)

    motion = hold_pose(track)
    for text in motion.notes:
        note(f"driving: {text}")
    method = options.smooth or OFFICIAL
    smooth = motion_filter(motion, method)
    motion = smooth_motion(motion, method)
    if options.shoulders == STAY:
        motion = keep_shoulders(motion, face, morphable, face.shape_coeffs, keep_head=True)
    # Crops that follow the face move as the camera does, so they are smoothed alike.
    framing = framing.smoothed(lambda boxes: smooth(boxes, "box_px"))
    placement = find_placement(
        options.placement or AT_SOURCE, morphable, face, scene.framing, motion, framing
    )
    note(
        f"motion: absolute, {method.replace('_', '-')} smoothing; heads are drawn "
        f"{placement.scale:.2f} times as large as in the driving crop"
    )

    portrait = scene.framing.crop(scene.portrait)
    mesh = crop_meshes(track_vertices(face, morphable), [scene.framing.alignment()])[0]
    animator.set_source(portrait, mesh)
    meshes = placed_meshes(motion, morphable, framing, placement, shape_coeffs=face.shape_coeffs)
    shown = _driving_crops(driving, framing, options.limits) if options.side_by_side else None
    sound = driving if options.audio and _is_driving_video(driving) else None
    count, size = 0, scene.output_size(model.resolution)
    with open_sink(output, fps=track.fps, size=size, audio_from=sound) as sink:
        for prediction in animator.frames(meshes):
            if shown is not None:
                sink.write(side_by_side([portrait, _next(shown, driving), prediction]))
            else:
                sink.write(scene.finished(prediction) if options.paste_back else prediction)
            count += 1
    return AnimateResult(output, count, track.fps, None, placement.scale, ())


def _check_options(options: AnimateOptions, source: Path, driving: Path) -> None:
    """Raises for what has no meaning here: before anything is tracked."""
    check_choice("the smoothing of the motion", options.smooth or OFFICIAL, SMOOTHINGS)
    check_choice("the placement", options.placement or AT_SOURCE, PLACEMENTS)
    check_choice("shoulders", options.shoulders or TURN, SHOULDERS)
    absolute = (
        "Leave it out: meshes carry the driver's expression and pose as they are, as in the "
        "released code, which has no other motion."
    )
    wanted = "a model that sees keypoints"
    if options.relative:
        raise ArgumentError(
            requirement("relative motion", f"be used with {wanted}", "a mesh-driven one", absolute)
        )
    refuse_options(options, ("adapt_scale", "best_frame", "keypoints"), wanted, absolute)
    remedy = "Leave it out; talking-heads edit turns heads by their face model."
    refuse_options(options, ("pose",), "a model with a pose editor", remedy)
    if is_video(source):
        raise ArgumentError(
            requirement(
                "source", "be an image with a mesh-driven model", source.name, "Give one frame."
            )
        )
    if is_motion_file(driving):
        refuse_options(
            options,
            ("side_by_side", "driving_landmarks", "driving_motion"),
            "a driving video or image",
            "Leave it out: the motion file has its landmarks and fit, and no pictures.",
        )
    for what in ("source", "driving"):
        if getattr(options, f"{what}_motion") and getattr(options, f"{what}_landmarks"):
            raise ArgumentError(
                requirement(
                    f"{what}_motion",
                    f"stand in place of {what}_landmarks",
                    "both",
                    "A motion file holds landmarks and the fit to them: give one of the two.",
                )
            )
    untracked = ("source",) if is_motion_file(driving) else ("source", "driving")
    looked_for = [
        what
        for what in untracked
        if not getattr(options, f"{what}_motion") and not getattr(options, f"{what}_landmarks")
    ]
    refuse_unused_framing(options, ("source", "driving"), looked_for)


def _read_tracks(
    source: Path, driving: Path, morphable: MorphableModel, options: AnimateOptions
) -> tuple[ClipTrack, ClipTrack]:
    """Of the source and of the driver; what is missing is told before the long clip is read."""
    motions = {
        "source": options.source_motion,
        "driving": driving if is_motion_file(driving) else options.driving_motion,
    }
    landmarks = {"source": options.source_landmarks, "driving": options.driving_landmarks}
    lacking = [name for name in motions if motions[name] is None and landmarks[name] is None]
    landmarker = load_landmarker(lacking[0]) if lacking else None
    source_track, driving_track = (
        read_track(
            what,
            path,
            morphable,
            motion=motions[what],
            landmarks=landmarks[what],
            detector=options.detector,
            landmarker=landmarker if what in lacking else None,
            limits=options.limits,
        )
        for what, path in (("source", source), ("driving", driving))
    )
    return source_track, driving_track


def _driving_framing(
    driving: Path, track: ClipTrack, resolution: int, options: AnimateOptions, note: Note
) -> Framing:
    framing = find_framing(
        "driving",
        driving,
        track.frame_size,
        resolution,
        options.framing("driving"),
        options.limits,
        track=track,
    )
    for text in framing.notes:
        note(text)
    return framing


def _is_driving_video(driving: Path) -> bool:
    return is_video(driving) and not is_motion_file(driving)


def _driving_crops(driving: Path, framing: Framing, limits: MediaLimits) -> Iterator[np.ndarray]:
    """What the model would see of the driving frames, (r r 3) uint8."""
    with open_clip(driving, limits) as clip:
        for index, frame in enumerate(clip.frames()):
            yield framing.crop(frame, index)


def _next(crops: Iterator[np.ndarray], driving: Path) -> np.ndarray:
    """The next crop; a video that ends before its track is not the one that was tracked."""
    crop = next(crops, None)
    if crop is None:
        raise ArgumentError(
            requirement(
                "the driving motion file",
                f"be of {driving.name}",
                "more frames than it has",
                "Track the video again.",
            )
        )
    return crop
