"""Clips that come as arrays, written as `prepare_dataset` writes.

Letters: t time, h w image, v vertices, d coefficients, j joints.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipeline.mesh import Mesh
from data_pipeline.preprocess.crops import RULE_CENTRE, crop_matrix, transform_points
from data_pipeline.preprocess.discovery import identity_of, natural_key
from data_pipeline.preprocess.finishing import (
    PrepareSummary,
    announce,
    finish,
    split_rows,
    stage_options,
)
from data_pipeline.preprocess.output import OutputFolder
from data_pipeline.preprocess.splitting import Split, check_test_fraction
from data_pipeline.preprocess.stage_jobs import StageOptions
from data_pipeline.preprocess.staged_clips import (
    MIN_FRAMES,
    PRESENT,
    SKIPPED,
    ClipStage,
    staged_row,
)
from data_pipeline.schema import FIELDS, OPTIONAL_FIELDS, SPLITS
from talking_heads_jax.errors import ArgumentError, check_shape, requirement
from talking_heads_jax.media.image import encode_image
from talking_heads_jax.media.resize import crop_and_resize
from talking_heads_jax.tracking.clip_boxes import Box, centre_box


@dataclasses.dataclass(frozen=True)
class ClipFrames:
    """A clip given as arrays.

    Attributes:
      clip_id: unique.
      frames: uint8 (t h w 3) RGB, or an iterable of (h w 3) of one size.
      identity_id: who is shown; None takes the text before the first '#' of `clip_id`.
      fps: frames per second.
      frame_stride: every how many frames of the original clip these are; numbers the records.
      split: one of `schema.SPLITS`, or None; all clips of a data set state it, or none does.
      landmarks68_px: (t 68 2) in pixels of `frames`, or None.
      landmarks68_visible: (t 68), or None.
      angles: (t 3) yaw, pitch, roll in radians, or None.
      mask: (t size size) uint8 classes, 0 for background, at the data set's size; or None.
      morphable: name of the face model of the next four fields, or None.
      shape_coeffs: (t d) of the face model, or None.
      expression_coeffs: (t d) of the face model, or None.
      joint_pose: (t 3 j) axis-angle of the joints, one after another, radians; or None.
      vertices: (t v 3) x, y in pixels of `frames`, z in the same scale (smaller is nearer); None.
      camera25: (t 25) EG3D's camera of the data set's crop, or None.
      depth: (t size size) along the camera's axis, at the data set's size; or None.
      normals: (t size size 3) unit vectors, first component to the right; or None.
      flow_to_next_px: (t size size 2) to the next frame of the clip, px; or None.
    """

    clip_id: str
    frames: np.ndarray | Iterable[np.ndarray]
    identity_id: str | None = None
    fps: float = 25.0
    frame_stride: int = 1
    split: str | None = None
    landmarks68_px: np.ndarray | None = None
    landmarks68_visible: np.ndarray | None = None
    angles: np.ndarray | None = None
    mask: np.ndarray | None = None
    morphable: str | None = None
    shape_coeffs: np.ndarray | None = None
    expression_coeffs: np.ndarray | None = None
    joint_pose: np.ndarray | None = None
    vertices: np.ndarray | None = None
    camera25: np.ndarray | None = None
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None
    flow_to_next_px: np.ndarray | None = None


#: Yields the clips that are not staged yet, given the names of those that are.
RemainingClips = Callable[[frozenset[str]], Iterable[ClipFrames]]


def write_clips(
    output: Path,
    clips: Iterable[ClipFrames] | RemainingClips,
    *,
    size: int,
    recipe: Mapping[str, Any],
    image_format: str = "png",
    quality: int = 95,
    test_fraction: float = 0.2,
    split_seed: int = 0,
    mesh: Mesh | None = None,
    total: int | None = None,
    notes: Sequence[str] = (),
    progress: bool = True,
) -> PrepareSummary:
    """Writes clips given as arrays in the form `prepare_dataset` writes.

    Frames of another size are cropped to the centre square and resized.

    Args:
      output: the data set; new, empty, or begun by the same call.
      clips: consumed one by one; left alone when the data set is already complete. A function is
        asked for the clips that an interrupted run has not staged yet.
      size: height and width of the images.
      recipe: how the clips are made, as JSON values; another recipe in the same folder is refused.
      image_format: 'png' (exact) or 'jpeg'.
      quality: of jpeg.
      test_fraction: as `prepare_dataset`, for clips that state no split.
      split_seed: as `prepare_dataset`.
      mesh: what the vertices are corners of; needed by clips that have them.
      total: number of clips, for the progress bar; None if unknown.
      notes: warnings for the user, of the data set as a whole.
      progress: shows a progress bar and prints the outcome.

    Returns:
      What was done.

    Raises:
      ArgumentError: clips whose arrays do not fit, or only some of which state a split.
      DataError: no usable clip, an output of another recipe, or a full disk.
    """
    started = time.monotonic()
    check_test_fraction(test_fraction)
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
        rows, stated = _staged_rows(folder.staging) if callable(clips) else [], {}
        stated |= {row["clip_id"]: row["split"] for row in rows}
        remaining = clips(frozenset(stated)) if callable(clips) else clips
        bar = {"desc": "clips", "unit": "clip", "total": total, "initial": len(rows)}
        for clip in tqdm(remaining, **bar, disable=not progress):
            if clip.clip_id in stated:
                raise ArgumentError(
                    requirement("clip_id", "be unique", clip.clip_id, "Rename one of the clips.")
                )
            stated[clip.clip_id] = clip.split
            rows.append(_stage_arrays(folder.staging, clip, options, mesh))
        rows.sort(key=lambda row: natural_key(row["clip_id"]))
        split = _stated_split(rows, stated) or split_rows(
            rows, {}, None, test_fraction, split_seed, folder, []
        )
        return finish(folder, rows, split, options, [], started, progress, mesh, notes=notes)


def _stated_split(
    rows: Sequence[Mapping[str, Any]], stated: Mapping[str, str | None]
) -> Split | None:
    """The split the clips state; None where they state none, or none is usable."""
    silent = [clip_id for clip_id, split in stated.items() if split is None]
    if silent and len(silent) < len(stated):
        raise ArgumentError(
            requirement(
                "split",
                "be stated by all clips of a data set or by none",
                f"none for {silent[0]}",
                "Give every clip its split.",
            )
        )
    usable = [row["clip_id"] for row in rows if row["status"] == PRESENT]
    if silent or not usable:
        return None
    return Split({clip: stated[clip] for clip in usable}, "stated", "as stated with the clips")


def _staged_rows(staging: Path) -> list[dict[str, Any]]:
    """The rows of the clips that an earlier run of the same call has staged."""
    rows = (staged_row(path) for path in sorted(staging.glob("*")))
    return [{**row, "reused": True} for row in rows if row is not None]


def _stage_arrays(
    staging: Path, clip: ClipFrames, options: StageOptions, mesh: Mesh | None
) -> dict[str, Any]:
    if clip.split not in (None, *SPLITS):
        raise ArgumentError(
            requirement("split", f"be one of {SPLITS} or None", clip.split, "Correct it.")
        )
    row: dict[str, Any] = {
        "clip_id": clip.clip_id,
        "identity_id": clip.identity_id or identity_of(clip.clip_id),
        "kind": "arrays",
        "split": clip.split,
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
                image = encode_image(crop, options.image_format, quality=options.quality)
                stage.add(image, index * clip.frame_stride)
        count = len(stage.frame_indices)
        arrays = _given_arrays(clip, count, box, options.size, mesh)
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
                "shapes": {
                    name: list(array.shape[1:])
                    for name, array in arrays.items()
                    if None in FIELDS[name].shape
                },
                "warnings": [],
            }
        stage.finish(row, arrays)
    return row


def _given_arrays(
    clip: ClipFrames, count: int, box: Box, size: int, mesh: Mesh | None
) -> dict[str, np.ndarray]:
    arrays = {}
    for name in OPTIONAL_FIELDS:
        value = getattr(clip, name)
        if value is None:
            continue
        dtype, shape = FIELDS[name].dtype, FIELDS[name].shape
        if dtype == "str":
            arrays[name] = np.full(count, value)
            continue
        if dtype == "mask":
            dtype, shape = "uint8", ("size", "size")
        array = np.asarray(value, np.dtype(dtype))
        wanted = (count, *(size if extent == "size" else extent for extent in shape))
        check_shape(f"{name} of {clip.clip_id}", array.shape, wanted)
        arrays[name] = array
    matrix = crop_matrix(box, size)
    if "landmarks68_px" in arrays:
        arrays["landmarks68_px"] = transform_points(matrix, arrays["landmarks68_px"])
        arrays.setdefault("landmarks68_visible", np.ones((count, 68), np.uint8))
    if "vertices" in arrays:
        _check_mesh(clip, arrays["vertices"].shape[1], mesh)
        points = transform_points(matrix, arrays["vertices"][..., :2])
        depth = arrays["vertices"][..., 2:] * np.float32(matrix[0, 0])
        arrays["vertices"] = np.concatenate([points, depth], axis=-1)
    return arrays


def _check_mesh(clip: ClipFrames, vertices: int, mesh: Mesh | None) -> None:
    """Raises unless the vertices of a clip are those of the mesh."""
    wanted = mesh and (mesh.morphable, len(mesh.mirror))
    if wanted != (clip.morphable, vertices):
        raise ArgumentError(
            requirement(
                f"The face model and number of vertices of {clip.clip_id}",
                f"be those of the mesh, {wanted}",
                (clip.morphable, vertices),
                "Give write_clips the mesh of all clips, and each clip its model's name.",
            )
        )
