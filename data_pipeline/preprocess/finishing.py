"""The last steps of every preparation: options, split, records, clip table, manifest, report."""

import dataclasses
import functools
import itertools
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipeline.mesh import Mesh, write_mesh
from data_pipeline.preprocess.crops import RULE_CENTRE
from data_pipeline.preprocess.output import OutputFolder
from data_pipeline.preprocess.splitting import Split, split_clips
from data_pipeline.preprocess.stage_jobs import StageOptions
from data_pipeline.preprocess.staged_clips import MIN_FRAMES, PRESENT, SKIPPED, staged_examples
from data_pipeline.schema import (
    FIELDS,
    IMAGE_FORMATS,
    LARGEST_SIZE,
    OPTIONAL_FIELDS,
    SMALLEST_SIZE,
    SPLITS,
    ClipEntry,
    ClipTable,
)
from talking_heads_jax.errors import (
    ArgumentError,
    DataError,
    check_choice,
    one_line,
    requirement,
)

#: A shard is closed once it holds so much; memory holds one shard while records are written.
SHARD_BYTES = 128 << 20


@dataclasses.dataclass(frozen=True)
class PrepareSummary:
    """What `prepare_dataset` and `write_clips` did.

    Attributes:
      output: the data set.
      clips: usable clips.
      skipped: clip to the reason why it is not in the data set.
      records: split to number of frames.
      reused: clips that were staged by an earlier run.
      split_note: how the clips were divided.
      warnings: one line each, for the user to read.
      seconds: wall time.
      quality: of tracking, over all clips; None for a data set that was not tracked just now.
    """

    output: Path
    clips: int
    skipped: Mapping[str, str]
    records: Mapping[str, int]
    reused: int
    split_note: str
    warnings: tuple[str, ...]
    seconds: float
    quality: Mapping[str, Any] | None = None


def stage_options(
    size: int,
    image_format: str,
    quality: int,
    frame_stride: int,
    max_frames: int | None,
    folder_fps: float,
) -> StageOptions:
    """Checks the options that decide the bytes of the records.

    Args:
      size: height and width of the crops.
      image_format: 'jpeg' or 'png'.
      quality: of jpeg.
      frame_stride: every how many frames one is kept.
      max_frames: at most so many frames are kept of a clip.
      folder_fps: frames per second of folders of images.

    Raises:
      ArgumentError: one of them makes no sense.
    """
    check_choice("image_format", image_format, IMAGE_FORMATS)
    for what, value, low, high in (
        ("size", size, SMALLEST_SIZE, LARGEST_SIZE),
        ("quality", quality, 1, 100),
        ("frame_stride", frame_stride, 1, 10_000),
        ("max_frames", MIN_FRAMES if max_frames is None else max_frames, MIN_FRAMES, 10**9),
        ("folder_fps", folder_fps, 0.01, 1000),
    ):
        if not low <= value <= high:
            raise ArgumentError(
                requirement(what, f"lie in [{low}, {high}]", value, "See docs/data.md.")
            )
    return StageOptions(size, image_format, quality, frame_stride, max_frames, folder_fps)


def split_rows(
    rows: Sequence[Mapping[str, Any]],
    folders: Mapping[str, str | None],
    test_clips: Sequence[str] | None,
    test_fraction: float,
    seed: int,
    folder: OutputFolder,
    ignored: Sequence[str],
) -> Split:
    """Divides the usable clips; without any, nothing stays on disk and the error says why.

    Args:
      rows: every clip's row of the manifest.
      folders: clip to 'train', 'test' or None, as it lies or as it states.
      test_clips: names or patterns, or None.
      test_fraction: share of identities, or clips, for testing.
      seed: of the random choice.
      folder: the data set.
      ignored: files that are no clips, for the manifest.

    Raises:
      DataError: no clip is usable, or the split leaves none for training.
    """
    usable = {row["clip_id"]: row["identity_id"] for row in rows if row["status"] == PRESENT}
    if not usable:
        folder.discard()
        reasons = "; ".join(f"{row['clip_id']}: {row['reason']}" for row in rows[:3])
        rest = f"; {len(rows) - 3} more." if len(rows) > 3 else ""
        raise DataError(
            requirement(
                "The data set",
                "have at least one usable clip",
                f"none of {len(rows)}",
                f"{reasons}{rest}",
            )
        )
    return split_clips(
        usable,
        folder_of_clip=folders,
        test_clips=test_clips,
        test_fraction=test_fraction,
        seed=seed,
    )


def finish(
    folder: OutputFolder,
    rows: Sequence[dict[str, Any]],
    split: Split,
    options: StageOptions,
    ignored: Sequence[str],
    started: float,
    progress: bool,
    mesh: Mesh | None = None,
    quality: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> PrepareSummary:
    """Writes records, clip table and manifest from the staged clips.

    Args:
      folder: the data set.
      rows: every clip's row of the manifest, in the order of the records.
      split: which clips go where.
      options: what decided the bytes.
      ignored: files that are no clips, for the manifest.
      started: `time.monotonic()` at the start.
      progress: shows a progress bar and prints the outcome.
      mesh: of the vertices, or None.
      quality: of tracking, over all clips; None where nothing was tracked.
      notes: further warnings, of no single clip.

    Returns:
      What was done.

    Raises:
      ArgumentError: clips of different face models, or of another than the mesh.
      DataError: the folder cannot be written to.
    """
    # TFDS takes a second to import: not before there is something to write.
    from data_pipeline.builders.video_clips.video_clips import write_records

    present = [row for row in rows if row["status"] == PRESENT]
    optional = [name for name in OPTIONAL_FIELDS if any(name in row["fields"] for row in present)]
    fields = tuple(name for name in FIELDS if name in optional or name not in OPTIONAL_FIELDS)
    shapes = _common_shapes(present)
    tables, shards = {}, {}
    total = sum(row["frames"] for row in present)
    with tqdm(total=total, desc="records", unit="frame", disable=not progress) as bar:

        def examples(part: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
            for row in part:
                for example in staged_examples(folder.staging, row, optional, shapes):
                    yield example
                    bar.update()

        for name in SPLITS:
            chosen = [row for row in present if split.of_clip[row["clip_id"]] == name]
            if not chosen and name not in ("train", "test"):
                continue
            tables[name] = _clip_entries(chosen)
            shards[name] = [functools.partial(examples, part) for part in _shards(chosen)]
        shutil.rmtree(folder.records, ignore_errors=True)
        try:
            write_records(
                folder.records,
                shards=shards,
                fields=fields,
                size=options.size,
                image_format=options.image_format,
                shapes=shapes,
            )
            mesh_sha256 = write_mesh(folder.path, mesh) if mesh else ""
        except OSError as error:
            raise DataError(
                requirement(
                    f"{folder.records}",
                    "be writable",
                    error.strerror or error,
                    "Free some space, then run the same command again: finished clips are kept.",
                )
            ) from error
    table = ClipTable(options.size, options.image_format, fields, tables, shapes, mesh_sha256)
    for row in present:
        row["split"] = split.of_clip[row["clip_id"]]
    centred = sum(row["crop_rule"] == RULE_CENTRE for row in present if row["kind"] != "arrays")
    warnings = [f"{row['clip_id']}: {text}" for row in present for text in row["warnings"]]
    warnings = [text for text in warnings if "centre square" not in text]
    if centred:
        warnings.insert(
            0,
            f"{centred} of {len(present)} clips have neither box nor landmarks: cropped to the"
            " centre square; give boxes or landmarks if the faces are not in the middle",
        )
    warnings = [*notes, *warnings]
    summary = PrepareSummary(
        output=folder.path,
        clips=len(present),
        skipped={row["clip_id"]: row["reason"] for row in rows if row["status"] == SKIPPED},
        records={name: table.num_records(name) for name in tables},
        reused=sum(bool(row.get("reused")) for row in rows),
        split_note=split.note,
        warnings=tuple(warnings),
        seconds=time.monotonic() - started,
        quality=quality,
    )
    folder.complete_with(
        table,
        split={"rule": split.rule, "note": split.note},
        clips=_public(rows),
        ignored=list(ignored),
        warnings=warnings,
    )
    return announce(summary, progress)


def _common_shapes(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, ...]]:
    """The one shape that each field of a face model has in all clips that hold it."""
    shapes: dict[str, tuple[int, ...]] = {}
    for row in rows:
        for name, shape in row.get("shapes", {}).items():
            if shapes.setdefault(name, tuple(shape)) != tuple(shape):
                raise ArgumentError(
                    requirement(
                        f"{name} of {row['clip_id']}",
                        f"have shape {shapes[name]} as in the clips before it",
                        tuple(shape),
                        "A data set is of one face model.",
                    )
                )
    return shapes


def _clip_entries(rows: Sequence[Mapping[str, Any]]) -> tuple[ClipEntry, ...]:
    entries, first = [], 0
    for row in rows:
        entries.append(
            ClipEntry(row["clip_id"], row["identity_id"], first, row["frames"], row["fps"])
        )
        first += row["frames"]
    return tuple(entries)


def _shards(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Whole clips in order, a new shard after every `SHARD_BYTES`."""
    shards: list[list[Mapping[str, Any]]] = []
    held = SHARD_BYTES
    for row in rows:
        if held >= SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(row)
        held += row["encoded_bytes"]
    return shards


def _public(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    inner = ("fingerprint", "reused", "encoded_bytes", "crop_size", "shapes")
    return [{key: value for key, value in row.items() if key not in inner} for row in rows]


def announce(summary: PrepareSummary, progress: bool) -> PrepareSummary:
    """Prints the outcome for the user, if `progress`, and returns it.

    Args:
      summary: what was done.
      progress: whether to print.
    """
    if progress:
        counts = ", ".join(f"{count} {name}" for name, count in summary.records.items())
        print(f"{summary.output}: {summary.clips} clips, frames: {counts}; {summary.split_note}")
        for clip, reason in itertools.islice(summary.skipped.items(), 10):
            print(one_line(f"skipped {clip}: {reason}"))
        if len(summary.skipped) > 10:
            print(f"skipped {len(summary.skipped) - 10} more: see manifest.json")
        for text in summary.warnings[:10]:
            print(one_line(f"warning: {text}"))
        if summary.quality is not None:
            error = summary.quality["median_reprojection_share"]
            shown = "nothing fitted" if error is None else f"median error {error:.1%} of the eyes'"
            print(
                f"tracking: {shown}{'' if error is None else ' distance'}, "
                f"{summary.quality['doubtful']} clips to look at: {summary.output}/quality.html"
            )
    return summary
