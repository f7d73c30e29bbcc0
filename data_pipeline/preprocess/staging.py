"""One clip: decode, crop, encode, or say why not. What spawned workers run, free of jax at import.

A clip whose staged folder carries the right fingerprint (source bytes, options, box, landmarks, how
it is tracked) is not decoded again; see `staged_clips`.
"""

import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np

from data_pipeline.preprocess.crops import (
    RULE_BOX,
    RULE_CENTRE,
    RULE_LANDMARKS,
    crop_matrix,
    file_hash,
    transform_points,
)
from data_pipeline.preprocess.stage_jobs import (
    StageJob,
    check_landmark_count,
    open_frames,
    source_hash,
    source_state,
)
from data_pipeline.preprocess.staged_clips import (
    MIN_FRAMES,
    PRESENT,
    SKIPPED,
    ClipStage,
    staged_report,
)
from data_pipeline.preprocess.tracked_clips import stage_tracked
from data_pipeline.schema import SCHEMA_VERSION
from talking_heads_jax.errors import (
    DataError,
    MediaError,
    TalkingHeadsError,
    check_file,
    requirement,
)
from talking_heads_jax.media.image import encode_image
from talking_heads_jax.media.limits import check_side
from talking_heads_jax.media.resize import crop_and_resize
from talking_heads_jax.tracking.clip_boxes import Box, centre_box, landmark_box, square_box
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.landmarks import Landmarks


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
        if job.track is None:
            return _stage(job, row)
        return stage_tracked(job, row)
    except TalkingHeadsError as error:
        row |= {"status": SKIPPED, "reason": str(error)}
        with ClipStage(job.staging, source.clip_id) as stage:
            stage.finish(row, {})
        return row


def _fingerprint(job: StageJob, sha256: str) -> str:
    content = {
        "schema_version": SCHEMA_VERSION,
        "source": sha256,
        "options": dataclasses.asdict(job.options),
        "limits": dataclasses.asdict(job.limits),
        "box": job.box,
        "landmarks": file_hash(job.landmarks) if job.landmarks else None,
        "track": job.track and dataclasses.asdict(job.track),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _stage(job: StageJob, row: dict[str, Any]) -> dict[str, Any]:
    options, warnings = job.options, []
    frames, height, width, fps, stated = open_frames(job, warnings)
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
        if landmarks is not None and not job.source.images:
            check_landmark_count(job, landmarks, decoded)
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


def _landmarks(job: StageJob, stated: int | None, warnings: list[str]) -> Landmarks | None:
    if job.landmarks is None:
        return None
    try:
        landmarks = read_landmarks(job.landmarks)
    except DataError as error:
        warnings.append(f"landmarks left out: {error}")
        return None
    if stated is not None and stated != len(landmarks.points_px):
        check_landmark_count(job, landmarks, stated)
    return landmarks


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
