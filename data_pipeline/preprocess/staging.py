"""Finished clips on their way into records: one folder each, whole or absent.

`prepare` is resumable because of it: a clip whose folder carries the right fingerprint (source
bytes, options, box, landmarks) is not decoded again. This module and what it imports stay free of
jax: spawned workers run it.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from data_pipeline.preprocess.crops import (
    RULE_BOX,
    RULE_CENTRE,
    RULE_LANDMARKS,
    Box,
    Landmarks,
    centre_box,
    crop_matrix,
    file_hash,
    landmark_box,
    read_landmarks,
    square_box,
    transform_points,
)
from data_pipeline.preprocess.discovery import VIDEO, Source
from data_pipeline.records import round_for_storage
from data_pipeline.schema import FIELDS, SCHEMA_VERSION, field_shape, read_json, write_json
from talking_heads_jax.errors import (
    DataError,
    MediaError,
    TalkingHeadsError,
    check_file,
    requirement,
)
from talking_heads_jax.media.image import encode_image, read_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits, check_side
from talking_heads_jax.media.resize import crop_and_resize
from talking_heads_jax.media.video import VideoReader

PRESENT = "present"
SKIPPED = "skipped"
MIN_FRAMES = 2  # a pair needs two

_REPORT = "clip.json"
_FRAMES = "frames.bin"
_ARRAYS = "arrays.npz"


@dataclasses.dataclass(frozen=True)
class StageOptions:
    """What decides the bytes of a clip's records.

    Attributes:
      size: height and width of the crops.
      image_format: 'jpeg' or 'png'.
      quality: of jpeg.
      frame_stride: every how many frames one is kept.
      max_frames: at most so many frames are kept of a clip; None for all.
      folder_fps: frames per second of folders of images.
    """

    size: int
    image_format: str = "jpeg"
    quality: int = 95
    frame_stride: int = 1
    max_frames: int | None = None
    folder_fps: float = 25.0


@dataclasses.dataclass(frozen=True)
class StageJob:
    """One clip for a worker.

    Attributes:
      source: the clip.
      staging: the folder that holds all staged clips.
      options: what decides the bytes.
      box: the user's box, or None.
      landmarks: the clip's landmark file, or None.
      limits: what is refused.
    """

    source: Source
    staging: Path
    options: StageOptions
    box: Box | None = None
    landmarks: Path | None = None
    limits: MediaLimits = DEFAULT_LIMITS


class ClipStage:
    """Collects the encoded frames of one clip; context manager, whole or absent.

    The clip's folder appears by a rename when `finish` was called and the block ends.
    """

    def __init__(self, staging: Path, clip_id: str) -> None:
        """Names the folder after the clip.

        Args:
          staging: the folder that holds all staged clips.
          clip_id: the clip.
        """
        self.folder = staged_folder(staging, clip_id)
        self._partial = self.folder.with_name(f"{self.folder.name}.partial")

    def __enter__(self) -> "ClipStage":
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._file = (self._partial / _FRAMES).open("wb")
        self._lengths: list[int] = []
        self._indices: list[int] = []
        self._report: dict[str, Any] | None = None
        return self

    def add(self, image: bytes, frame_index: int) -> None:
        """Appends a frame.

        Args:
          image: encoded.
          frame_index: its number in the original clip.
        """
        self._file.write(image)
        self._lengths.append(len(image))
        self._indices.append(frame_index)

    @property
    def frame_indices(self) -> np.ndarray:
        """int64 (t): numbers of the frames added so far in the original clip."""
        return np.array(self._indices, np.int64)

    def finish(self, report: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """States what the clip is, and adds `encoded_bytes` to its report.

        Args:
          report: the clip's row of the manifest, and its fingerprint.
          arrays: fields of the record by name, one row per frame; none for a skipped clip.
        """
        report["encoded_bytes"] = sum(self._lengths) + sum(a.nbytes for a in arrays.values())
        self._report = report
        np.savez(
            self._partial / _ARRAYS,
            lengths=np.array(self._lengths, np.int64),
            frame_index=self.frame_indices,
            **arrays,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if kind is not None or self._report is None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        write_json(self._partial / _REPORT, self._report)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._partial.rename(self.folder)


def staged_folder(staging: Path, clip_id: str) -> Path:
    """Returns where a clip is staged: names may hold anything, so they are hashed."""
    return staging / hashlib.sha256(clip_id.encode("utf-8")).hexdigest()[:24]


def staged_report(staging: Path, clip_id: str, fingerprint: str | None = None) -> dict | None:
    """Returns the report of a staged clip, or None if there is none with this fingerprint.

    Args:
      staging: the folder that holds all staged clips.
      clip_id: the clip.
      fingerprint: what the report must carry; None takes any.
    """
    report = staged_row(staged_folder(staging, clip_id))
    if report is None or fingerprint not in (None, report.get("fingerprint")):
        return None
    return report


def staged_row(folder: Path) -> dict[str, Any] | None:
    """Returns the report of the clip in a folder of the staging area, or None.

    Args:
      folder: of one clip; a half-written one has another name than its clip would give it.
    """
    try:
        report = read_json(folder / _REPORT)
    except DataError:  # absent, or damaged: staged again
        return None
    clip_id = report.get("clip_id")
    named = isinstance(clip_id, str) and staged_folder(folder.parent, clip_id) == folder
    return report if named else None


def staged_examples(
    staging: Path,
    report: Mapping[str, Any],
    optional: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the records of a staged clip, in order.

    Args:
      staging: the folder that holds all staged clips.
      report: the clip's report.
      optional: the optional fields that every record of the data set has; those this clip lacks
        are filled: numbers with NaN, visibility and masks with 0, text with ''.
      shapes: of the fields whose shape depends on the face model.

    Yields:
      Field name to value; 'image' is encoded bytes.
    """
    folder = staged_folder(staging, report["clip_id"])
    with np.load(folder / _ARRAYS, allow_pickle=False) as content:
        arrays = dict(content)
    size = report["crop_size"]
    missing = {name: _nothing(name, size, shapes or {}) for name in optional if name not in arrays}
    box = np.array(report["box_px"], np.float32)
    matrix = crop_matrix(tuple(report["box_px"]), report["crop_size"])
    with (folder / _FRAMES).open("rb") as file:
        for row, length in enumerate(arrays["lengths"]):
            example = {
                "image": file.read(int(length)),
                "clip_id": report["clip_id"],
                "identity_id": report["identity_id"],
                "frame_index": int(arrays["frame_index"][row]),
                "source_box_px": box,
                "crop_matrix": matrix,
                "schema_version": SCHEMA_VERSION,
            }
            for name in optional:
                value = arrays[name][row] if name in arrays else missing[name]
                example[name] = storable(name, value, size)
            yield example


def storable(name: str, value: Any, size: int) -> Any:
    """Returns an optional field as TFDS takes it: text as `str`, masks as png, the rest rounded.

    Args:
      name: of the field.
      value: of one record.
      size: height and width of the images.
    """
    field = FIELDS[name]
    if field.dtype == "str":
        return str(value)
    if field.dtype == "mask":
        return encode_image(value, "png")
    return round_for_storage(name, value, size) if field.stored else value


def _nothing(name: str, size: int, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """What a record holds in an optional field that its clip lacks."""
    dtype = FIELDS[name].dtype
    if dtype == "str":
        return ""
    if dtype == "mask":
        return np.zeros((size, size), np.uint8)
    value = 0 if np.dtype(dtype).kind == "u" else np.nan
    return np.full(field_shape(name, size, shapes), value, np.dtype(dtype))


def stage_clip(job: StageJob) -> dict[str, Any]:
    """Decodes, crops and encodes one clip, unless that was done before.

    Args:
      job: the clip.

    Returns:
      Its row of the manifest: `status` is 'present', or 'skipped' with a `reason`. A damaged clip
      is a row, not an exception.

    Raises:
      OSError: the staging folder cannot be written to.
    """
    source = job.source
    try:
        row = {"clip_id": source.clip_id, "kind": source.kind, **source_state(source)}
        for path in source.images or (source.path,):
            check_file(path, MediaError)
        row["sha256"] = source_hash(source)
    except (OSError, MediaError) as error:
        return {
            "clip_id": source.clip_id,
            "kind": source.kind,
            "status": SKIPPED,
            "reason": f"cannot be read: {getattr(error, 'strerror', None) or error}",
        }
    fingerprint = _fingerprint(job, row["sha256"])
    done = staged_report(job.staging, source.clip_id, fingerprint)
    if done is not None:
        return {**done, **row, "reused": True}
    row["fingerprint"] = fingerprint
    try:
        return _stage(job, row)
    except TalkingHeadsError as error:
        row |= {"status": SKIPPED, "reason": str(error)}
        with ClipStage(job.staging, source.clip_id) as stage:
            stage.finish(row, {})
        return row


def source_state(source: Source) -> dict[str, int]:
    """Returns size and time stamp of a source, by which an unchanged one is known without reading.

    Args:
      source: the clip.
    """
    states = [path.stat() for path in (source.images or (source.path,))]
    return {
        "bytes": sum(state.st_size for state in states),
        "mtime_ns": max(state.st_mtime_ns for state in states),
    }


def source_hash(source: Source) -> str:
    """Returns the SHA-256 of a video, or of the names and hashes of a folder's images.

    Args:
      source: the clip.
    """
    if source.kind == VIDEO:
        return file_hash(source.path)
    total = hashlib.sha256()
    for path in source.images:
        total.update(f"{path.name} {file_hash(path)}\n".encode())
    return total.hexdigest()


def _fingerprint(job: StageJob, sha256: str) -> str:
    content = {
        "schema_version": SCHEMA_VERSION,
        "source": sha256,
        "options": dataclasses.asdict(job.options),
        "limits": dataclasses.asdict(job.limits),
        "box": job.box,
        "landmarks": file_hash(job.landmarks) if job.landmarks else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stage(job: StageJob, row: dict[str, Any]) -> dict[str, Any]:
    options, warnings = job.options, []
    frames, height, width, fps, stated = _open_frames(job, warnings)
    check_side("The frames of a clip", height, width)
    landmarks = _landmarks(job, stated, warnings)
    if job.box is not None:
        rule, box = RULE_BOX, square_box(job.box)
    elif landmarks is not None:
        rule, box = RULE_LANDMARKS, landmark_box(landmarks.points_px, height, width)
    else:
        rule, box = RULE_CENTRE, centre_box(height, width)
        warnings.append("no box and no landmarks: cropped to the centre square")
    with ClipStage(job.staging, job.source.clip_id) as stage:
        kept, decoded = 0, 0
        for index, frame in frames:
            decoded += 1
            if index % options.frame_stride or kept == options.max_frames:
                continue
            crop = crop_and_resize(frame, box, options.size)
            stage.add(encode_image(crop, options.image_format, quality=options.quality), index)
            kept += 1
        if kept < MIN_FRAMES:
            raise DataError(
                requirement(
                    "A clip",
                    f"have at least {MIN_FRAMES} frames",
                    kept,
                    "A pair needs two; leave single pictures out.",
                )
            )
        _check_landmark_count(job, landmarks, decoded, folder=bool(job.source.images))
        row |= {
            "status": PRESENT,
            "frames": kept,
            "fps": fps / options.frame_stride,
            "original_size": [height, width],
            "crop_rule": rule,
            "box_px": [float(value) for value in box],
            "crop_size": options.size,
            "fields": [],
            "warnings": warnings,
        }
        arrays = _arrays(landmarks, stage.frame_indices, box, options.size)
        row["fields"] = sorted(arrays)
        stage.finish(row, arrays)
    return row


def _open_frames(
    job: StageJob, warnings: list[str]
) -> tuple[Iterator[tuple[int, np.ndarray]], int, int, float, int | None]:
    """(index, frame) pairs, height, width, frames per second, and the number of frames if known."""
    if job.source.kind == VIDEO:
        reader = VideoReader(job.source.path, job.limits)
        return (
            enumerate(reader),
            reader.height,
            reader.width,
            float(reader.fps),
            reader.frame_count,
        )
    images = _read_images(job, warnings)
    first = next(images, None)
    if first is None:
        raise DataError(
            requirement(
                "A folder of images",
                "hold one that can be read",
                warnings[0] if warnings else "none",
                "Save the images again as png.",
            )
        )
    height, width = first[1].shape[:2]

    def same_size() -> Iterator[tuple[int, np.ndarray]]:
        yield first
        for index, image in images:
            if image.shape[:2] != (height, width):
                raise DataError(
                    requirement(
                        f"{job.source.images[index].name}",
                        f"have the size of the first image, {(width, height)}",
                        image.shape[1::-1],
                        "Put clips of different size into different folders.",
                    )
                )
            yield index, image

    return same_size(), height, width, job.options.folder_fps, len(job.source.images)


def _read_images(job: StageJob, warnings: list[str]) -> Iterator[tuple[int, np.ndarray]]:
    for index, path in enumerate(job.source.images):
        try:
            yield index, read_image(path, job.limits)
        except TalkingHeadsError as error:
            warnings.append(f"left out: {error}")


def _landmarks(job: StageJob, stated: int | None, warnings: list[str]) -> Landmarks | None:
    if job.landmarks is None:
        return None
    try:
        landmarks = read_landmarks(job.landmarks)
    except DataError as error:
        warnings.append(f"landmarks left out: {error}")
        return None
    if stated is not None and stated != len(landmarks.points_px):
        _check_landmark_count(job, landmarks, stated, folder=False)
    return landmarks


def _check_landmark_count(
    job: StageJob, landmarks: Landmarks | None, frames: int, *, folder: bool
) -> None:
    if landmarks is None or folder or len(landmarks.points_px) == frames:
        return
    raise DataError(
        requirement(
            f"{job.landmarks}",
            f"have one row for each of the {frames} frames",
            len(landmarks.points_px),
            "Make the landmarks again from this very video, or remove them.",
        )
    )


def _arrays(
    landmarks: Landmarks | None, indices: np.ndarray, box: Box, size: int
) -> dict[str, np.ndarray]:
    if landmarks is None:
        return {}
    points = transform_points(crop_matrix(box, size), landmarks.points_px[indices])
    arrays = {"landmarks68_px": points, "landmarks68_visible": landmarks.visible[indices]}
    if landmarks.angles is not None:
        arrays["angles"] = landmarks.angles[indices]
    return arrays


def usable_workers() -> int:
    """Returns how many processes this one may run at a time, at most 16."""
    if hasattr(os, "sched_getaffinity"):
        return min(len(os.sched_getaffinity(0)), 16)
    return min(os.cpu_count() or 1, 16)
