"""Clips that come as arrays, written as `prepare_dataset` writes. Letters: t time, h w image."""

import dataclasses
import itertools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline.preprocess.crops import (
    RULE_CENTRE,
    Box,
    centre_box,
    crop_matrix,
    transform_points,
)
from data_pipeline.preprocess.discovery import identity_of, natural_key
from data_pipeline.preprocess.finishing import (
    PrepareSummary,
    announce,
    finish,
    split_rows,
    stage_options,
)
from data_pipeline.preprocess.output import OutputFolder
from data_pipeline.preprocess.staging import (
    MIN_FRAMES,
    PRESENT,
    SKIPPED,
    ClipStage,
    StageOptions,
)
from data_pipeline.schema import FIELDS, OPTIONAL_FIELDS, SPLITS
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.media.image import encode_image
from talking_heads_jax.media.resize import crop_and_resize


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """A clip given as arrays.

    Attributes:
      clip_id: unique.
      frames: uint8 (t h w 3) RGB, or an iterable of (h w 3) of one size.
      identity_id: who is shown; None takes the text before the first '#' of `clip_id`.
      fps: frames per second.
      split: 'train', 'test', or None; all clips of a data set state it, or none does.
      landmarks68_px: (t 68 2) in pixels of `frames`, or None.
      landmarks68_visible: (t 68), or None.
      angles: (t 3) yaw, pitch, roll in radians, or None.
      mask: (t size size) uint8 classes, 0 for background, at the data set's size; or None.
    """

    clip_id: str
    frames: np.ndarray | Iterable[np.ndarray]
    identity_id: str | None = None
    fps: float = 25.0
    split: str | None = None
    landmarks68_px: np.ndarray | None = None
    landmarks68_visible: np.ndarray | None = None
    angles: np.ndarray | None = None
    mask: np.ndarray | None = None


def write_clips(
    output: Path,
    clips: Iterable[ClipFrames],
    *,
    size: int,
    recipe: Mapping[str, Any],
    image_format: str = "png",
    quality: int = 95,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    progress: bool = True,
) -> PrepareSummary:
    """Writes clips given as arrays in the form `prepare_dataset` writes.

    Frames of another size are cropped to the centre square and resized.

    Args:
      output: the data set; new, empty, or begun by the same call.
      clips: consumed one by one; left alone when the data set is already complete.
      size: height and width of the images.
      recipe: how the clips are made, as JSON values; another recipe in the same folder is refused.
      image_format: 'png' (exact) or 'jpeg'.
      quality: of jpeg.
      test_fraction: as `prepare_dataset`, for clips that state no split.
      split_seed: as `prepare_dataset`.
      progress: shows a progress bar and prints the outcome.

    Returns:
      What was done.

    Raises:
      ArgumentError: clips whose arrays do not fit.
      DataError: no usable clip, an output of another recipe, or a full disk.
    """
    started = time.monotonic()
    options = stage_options(size, image_format, quality, 1, None, 25.0)
    recorded = {
        **dataclasses.asdict(options),
        "recipe": dict(recipe),
        "test_fraction": test_fraction,
        "split_seed": split_seed,
    }
    with OutputFolder(Path(output), {"made_by": "write_clips", **recorded}) as folder:
        if folder.complete:
            return announce(folder.summary_of_complete(PrepareSummary), progress)
        rows, folders = [], {}
        for clip in tqdm(clips, desc="clips", unit="clip", disable=not progress):
            if clip.clip_id in folders:
                raise ArgumentError(
                    requirement("clip_id", "be unique", clip.clip_id, "Rename one of the clips.")
                )
            folders[clip.clip_id] = clip.split
            rows.append(_stage_arrays(folder.staging, clip, options))
        rows.sort(key=lambda row: natural_key(row["clip_id"]))
        split = split_rows(rows, folders, None, test_fraction, split_seed, folder, [])
        return finish(folder, rows, split, options, [], started, progress)


def _stage_arrays(staging: Path, clip: ClipFrames, options: StageOptions) -> dict[str, Any]:
    if clip.split not in (None, *SPLITS):
        raise ArgumentError(
            requirement("split", f"be one of {SPLITS} or None", clip.split, "Correct it.")
        )
    row: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "identity_id": clip.identity_id or identity_of(clip.clip_id),
        "kind": "arrays",
    }
    frames = iter(clip.frames)
    first = next(frames, None)
    with ClipStage(staging, clip.clip_id) as stage:
        box = (0.0, 0.0, 1.0, 1.0)
        if first is not None:
            box = centre_box(*first.shape[:2])
            for index, frame in enumerate(itertools.chain([first], frames)):
                if frame.shape != first.shape or frame.dtype != np.uint8:
                    raise ArgumentError(
                        requirement(
                            f"Frame {index} of {clip.clip_id}",
                            f"be uint8 {first.shape}",
                            f"{frame.dtype} {frame.shape}",
                            "Give frames of one size.",
                        )
                    )
                crop = crop_and_resize(frame, box, options.size)
                stage.add(encode_image(crop, options.image_format, quality=options.quality), index)
        count = len(stage.frame_indices)
        arrays = _given_arrays(clip, count, box, options.size)
        if count < MIN_FRAMES:
            row |= {"status": SKIPPED, "reason": f"{count} frames: a pair needs {MIN_FRAMES}"}
            arrays = {}
        else:
            row |= {
                "status": PRESENT,
                "frames": count,
                "fps": clip.fps,
                "original_size": list(first.shape[:2]),
                "crop_rule": RULE_CENTRE,
                "box_px": list(box),
                "crop_size": options.size,
                "fields": sorted(arrays),
                "warnings": [],
            }
        stage.finish(row, arrays)
    return row


def _given_arrays(clip: ClipFrames, count: int, box: Box, size: int) -> dict[str, np.ndarray]:
    arrays = {}
    for name in OPTIONAL_FIELDS:
        value = getattr(clip, name)
        if value is None:
            continue
        dtype, shape = FIELDS[name].dtype, FIELDS[name].shape
        if dtype == "mask":
            dtype, shape = "uint8", (size, size)
        array = np.asarray(value, np.dtype(dtype))
        if array.shape != (count, *shape):
            raise ArgumentError(
                requirement(
                    f"{name} of {clip.clip_id}",
                    f"have shape {(count, *shape)}",
                    array.shape,
                    "One row per frame.",
                )
            )
        arrays[name] = array
    if "landmarks68_px" in arrays:
        arrays["landmarks68_px"] = transform_points(
            crop_matrix(box, size), arrays["landmarks68_px"]
        )
        arrays.setdefault("landmarks68_visible", np.ones((count, 68), np.uint8))
    return arrays
