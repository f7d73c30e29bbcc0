"""One clip through `prepare --track`: follow the face, choose frames, crop, write what was found.

The track itself is kept beside the staged clips, so that an interruption between tracking and
cropping costs nothing. jax is imported when a clip needs it, never at the top: workers that do not
track stay free of it. Letters: t frames that are kept, v vertices.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.preprocess.crops import RULE_BOX
from data_pipeline.preprocess.discovery import VIDEO
from data_pipeline.preprocess.overlays import draw_overlay, overlay_frames
from data_pipeline.preprocess.stage_jobs import (
    StageJob,
    StageOptions,
    check_landmark_count,
    open_frames,
)
from data_pipeline.preprocess.staged_clips import (
    MIN_FRAMES,
    PRESENT,
    SKIPPED,
    ClipStage,
    staged_folder,
)
from data_pipeline.preprocess.track_request import ALL, TrackRequest
from data_pipeline.preprocess.tracked_fields import (
    FieldMaker,
    clip_alignments,
    load_landmarker,
    load_model,
    rows_of,
)
from talking_heads_jax.errors import DataError, requirement
from talking_heads_jax.media.image import encode_image
from talking_heads_jax.media.limits import check_side
from talking_heads_jax.tracking.alignment import Alignment, warp_to_crop
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.landmarks import Landmarks
from talking_heads_jax.tracking.motion_file import load_motion, save_motion
from talking_heads_jax.tracking.track import ClipTrack
from talking_heads_jax.tracking.tracker import (
    NO_MODEL,
    add_notes,
    fit_track,
    open_clip,
    track_frames,
)

PICTURES = 4  # of a clip in the quality report


class _Choice(NamedTuple):
    """Which frames of a track become records, and what to say about the others."""

    kept: np.ndarray
    notes: tuple[str, ...]


def stage_tracked(job: StageJob, row: dict[str, Any]) -> dict[str, Any]:
    """Tracks, crops and encodes one clip.

    Args:
      job: the clip, with `track`.
      row: its row of the manifest so far, with `fingerprint`.

    Returns:
      The row; `quality` says how well the face was followed. A clip without enough usable frames is
      skipped, with the reason.

    Raises:
      TalkingHeadsError: the clip cannot be decoded, or tracked at all.
      OSError: the staging folder cannot be written to.
    """
    options, warnings = job.options, []
    _, height, width, fps, _ = open_frames(job, [])
    check_side("The frames of a clip", height, width)
    track = _track(job, row["fingerprint"])
    row["quality"] = track.quality()
    kept, alignments, notes = _cropped_frames(job, track)
    warnings += [*track.notes, *notes]
    with ClipStage(job.staging, job.source.clip_id) as stage:
        if len(kept) < MIN_FRAMES:
            row |= {"status": SKIPPED, "reason": _too_few(track, kept), "warnings": warnings}
            _show_without_face(job, track, stage)
            stage.finish(row, {})
            return row
        chosen = rows_of(track, kept)
        fields = FieldMaker(job.track, chosen, alignments)
        shown = overlay_frames(kept, chosen.reprojection_px, PICTURES)
        fitted = dict(zip(shown, _fitted(fields, np.searchsorted(kept, shown)), strict=True))
        place = 0
        for position, (index, frame) in enumerate(open_frames(job, warnings)[0]):
            if place == len(kept):
                break
            if position != kept[place]:
                continue
            crop = warp_to_crop(frame, alignments[place])
            image = encode_image(crop, options.image_format, quality=options.quality)
            stage.add(image, index, **fields.large(crop, place))
            if position in fitted:
                stage.add_picture(
                    *_picture(frame, index, chosen, place, fitted[position], alignments[place])
                )
            place += 1
        arrays = fields.arrays()
        fixed = alignments[0] is alignments[-1]
        if not fixed:
            arrays["source_box_px"] = np.array([a.box_px for a in alignments], np.float32)
            arrays["crop_matrix"] = np.array([a.matrix for a in alignments], np.float32)
        row |= {
            "status": PRESENT,
            "frames": len(kept),
            "fps": fps / options.frame_stride,
            "original_size": [height, width],
            "crop_rule": RULE_BOX if job.box is not None else alignments[0].label,
            "box_px": [float(value) for value in alignments[0].box_px] if fixed else None,
            "crop_size": options.size,
            "fields": sorted(fields.names),
            "shapes": fields.shapes,
            "warnings": warnings,
        }
        stage.finish(row, arrays)
    return row


def _cropped_frames(
    job: StageJob, track: ClipTrack
) -> tuple[np.ndarray, tuple[Alignment, ...], tuple[str, ...]]:
    """Which frames of a track become records, their crops, and notes about the others."""
    kept, notes = choose_frames(track, job.options, job.track)
    if len(kept) < MIN_FRAMES:
        return kept, (), notes
    recipe = job.track.recipe
    crops = clip_alignments(rows_of(track, kept), recipe, job.options.size, job.box)
    possible = np.array([crop is not None for crop in crops])
    if not possible.all():
        refused = len(kept) - int(possible.sum())
        notes = (
            *notes,
            f"{refused} of {len(kept)} frames have landmarks that allow no crop by recipe "
            f"{recipe} (all in one place, or on one line) and are left out",
        )
    return kept[possible], tuple(crop for crop in crops if crop is not None), notes


def choose_frames(track: ClipTrack, options: StageOptions, request: TrackRequest) -> _Choice:
    """Which frames of a clip become records: those with a face, and a pose if one is wanted.

    Args:
      track: of the whole clip.
      options: stride and largest number.
      request: which shots are kept, and whether a face model is fitted.

    Returns:
      Frame numbers, increasing, and notes about what was left out.
    """
    usable = _with_landmarks(track)
    if request.morphable != NO_MODEL:
        usable &= np.isfinite(track.angles).all(-1) & track.fitted
    notes = []
    start, stop = main_shot(track, request.shots)
    if stop - start < len(track):
        notes.append(
            f"{len(track.segments)} shots: frames {start} to {stop - 1} are kept, the shot with "
            "most faces; split the clip to keep the others, or keep all shots"
        )
    inside = np.zeros(len(track), bool)
    inside[start:stop] = True
    left_out = int((inside & ~usable).sum())
    if left_out and usable.any():
        notes.append(f"{left_out} of {stop - start} frames have no face and are left out")
    frames = np.flatnonzero(usable & inside)
    frames = frames[frames % options.frame_stride == 0][: options.max_frames]
    return _Choice(frames, tuple(notes))


def main_shot(track: ClipTrack, shots: str) -> tuple[int, int]:
    """The stretch of a clip that is kept, (start, stop): all of it, or its richest shot.

    Args:
      track: of the whole clip.
      shots: 'longest' or 'all'.
    """
    if shots == ALL:
        return 0, len(track)
    usable = _with_landmarks(track)
    return max(track.segments, key=lambda segment: int(usable[slice(*segment)].sum()))


def _with_landmarks(track: ClipTrack) -> np.ndarray:
    """(t,) bool: frames with a face and all its landmarks."""
    return track.face & np.isfinite(track.landmarks68_px).all((1, 2))


def _track(job: StageJob, fingerprint: str) -> ClipTrack:
    """The clip's track, from an earlier run of the same options if there is one."""
    path = _track_file(job, fingerprint)
    with contextlib.suppress(DataError):  # absent, or damaged: tracked again
        return load_motion(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_motion(path, _tracked(job))
    # What is read back is what every later run reads.
    return load_motion(path)


def _tracked(job: StageJob) -> ClipTrack:
    """Reads the clip once and follows the face; stops behind the last frame that can be kept."""
    if job.landmarks is None and load_landmarker() is None:  # decoding would be in vain
        raise DataError(
            requirement(
                f"the landmarks of {job.source.clip_id}",
                "be in a file beside it, or be found by FAN",
                "neither file nor weights",
                "Give --landmarks FOLDER (npz, MediaPipe's or OpenFace's csv), or register FAN: "
                "talking-heads convert --model fan FILE.",
            )
        )
    options, last = job.options, None
    if options.max_frames is not None:
        last = (options.max_frames - 1) * options.frame_stride + 1
    if job.source.kind == VIDEO:
        with open_clip(job.source.path, job.limits) as clip:
            frames, fps, times = clip.frames(), clip.fps, clip.times
            track = _followed(job, itertools.islice(frames, last), last, clip.size, fps, times)
            return add_notes(track, *clip.notes)
    frames, height, width, fps, _ = open_frames(job, [])
    images = (frame for _, frame in frames)
    return _followed(job, itertools.islice(images, last), last, (height, width), fps, None)


def _followed(
    job: StageJob,
    frames: Iterator[np.ndarray],
    last: int | None,
    size: tuple[int, int],
    fps: float,
    times: Sequence[float | None] | None,
) -> ClipTrack:
    landmarks = None
    if job.landmarks is not None:
        landmarks = read_landmarks(job.landmarks, frame_size=size)
        if job.source.images:  # a row per image, also for those that cannot be read
            check_landmark_count(job, landmarks, len(job.source.images))
            readable = [index for index, _ in open_frames(job, [])[0]]
            landmarks = _rows(landmarks, np.array(readable))
        if last is not None:
            if not job.source.images:
                _check_stated_count(job, landmarks)
            landmarks = _rows(landmarks, np.arange(min(last, len(landmarks.points_px))))
    track = track_frames(
        frames,
        fps=fps,
        time_s=times,
        options=dataclasses.replace(job.track.options(), morphable=NO_MODEL),
        landmarks=landmarks,
        landmarker=None if landmarks is not None else load_landmarker(),
    )
    if landmarks is not None and last is None:
        check_landmark_count(job, landmarks, len(track))
    if job.track.morphable == NO_MODEL or not track.has_landmarks:
        return track
    return _fitted_shot(track, job.track)


def _check_stated_count(job: StageJob, landmarks: Landmarks) -> None:
    """Raises for landmarks of another clip where only a video's beginning is decoded."""
    *_, stated = open_frames(job, [])
    if stated is not None:
        check_landmark_count(job, landmarks, stated)


def _fitted_shot(track: ClipTrack, request: TrackRequest) -> ClipTrack:
    """The track with its face model fitted to the frames that are kept: a clip has one identity."""
    start, stop = main_shot(track, request.shots)
    inside = np.zeros(len(track), bool)
    inside[start:stop] = True
    seen = dataclasses.replace(
        track,
        landmarks68_px=np.where(inside[:, None, None], track.landmarks68_px, np.float32(np.nan)),
        visible=np.where(inside[:, None], track.visible, np.uint8(0)),
    )
    fitted = fit_track(seen, request.options(), model=load_model(request.morphable))
    return dataclasses.replace(fitted, landmarks68_px=track.landmarks68_px, visible=track.visible)


def _rows(landmarks: Landmarks, rows: np.ndarray) -> Landmarks:
    angles = None if landmarks.angles is None else landmarks.angles[rows]
    return dataclasses.replace(
        landmarks,
        points_px=landmarks.points_px[rows],
        visible=landmarks.visible[rows],
        angles=angles,
    )


def _track_file(job: StageJob, fingerprint: str) -> Path:
    folder = staged_folder(job.staging, job.source.clip_id)
    return folder.with_name(f"{folder.name}.{fingerprint[:16]}.npz")


def _too_few(track: ClipTrack, kept: np.ndarray) -> str:
    """Why a clip without enough usable frames is left out."""
    if not track.face.any():
        reason = f"no face was found in its {len(track)} frames"
    elif not track.has_landmarks:
        reason = f"a face, but no landmarks in its {len(track)} frames"
    else:
        reason = f"{len(kept)} of its {len(track)} frames can be used, and a pair needs two"
    return " ".join([reason, *(f"({note})" for note in track.notes[:2])])


def _show_without_face(job: StageJob, track: ClipTrack, stage: ClipStage) -> None:
    """Pictures of a clip that is left out: first, middle and last frame, with what was found."""
    shown = {0, (len(track) - 1) // 2, len(track) - 1}
    for position, (index, frame) in enumerate(open_frames(job, [])[0]):
        if position > max(shown):
            break
        if position in shown:
            jpeg = draw_overlay(
                frame,
                box_px=track.box_px[position],
                landmarks_px=track.landmarks68_px[position],
                visible=track.visible[position],
            )
            stage.add_picture(jpeg, f"frame {index}")


def _fitted(fields: FieldMaker, places: np.ndarray) -> list[np.ndarray | None]:
    """The fitted landmarks of the frames that are shown, computed for `PICTURES` at a time."""
    padded = np.resize(places, PICTURES)
    points = fields.fitted_px(padded)
    return [None if points is None else points[i] for i in range(len(places))]


def _picture(
    frame: np.ndarray,
    index: int,
    track: ClipTrack,
    place: int,
    fitted_px: np.ndarray | None,
    alignment: Alignment,
) -> tuple[bytes, str]:
    """A frame with everything that was found in it, and its caption."""
    jpeg = draw_overlay(
        frame,
        box_px=track.box_px[place],
        landmarks_px=track.landmarks68_px[place],
        visible=track.visible[place],
        fitted_px=fitted_px,
        crop_matrix=alignment.matrix,
        crop_size=alignment.size,
    )
    caption = f"frame {index}"
    if np.isfinite(track.angles[place]).all():
        yaw, pitch, roll = np.rad2deg(track.angles[place])
        caption += f": yaw {yaw:+.0f}, pitch {pitch:+.0f}, roll {roll:+.0f} degrees"
    if np.isfinite(track.reprojection_px[place]):
        caption += f", error {track.reprojection_px[place]:.1f} px"
    return jpeg, caption
