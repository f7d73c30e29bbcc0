"""From a folder of videos to a data set on disk: resumable and parallel.

The order of writing makes every state on disk safe to continue from: `manifest.json` (state
'preparing'), the clips in `staging/`, the quality report of tracking, `records/` (whole or absent),
`clips.json`, `manifest.json` (state 'complete'), and only then `staging/` is removed.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipeline.preprocess.crops import file_hash, find_landmarks
from data_pipeline.preprocess.discovery import (
    Source,
    find_sources,
    identity_of,
    match_clip,
    read_boxes,
    read_identities,
)
from data_pipeline.preprocess.finishing import (
    PrepareSummary,
    announce,
    finish,
    split_rows,
    stage_options,
)
from data_pipeline.preprocess.output import OutputFolder
from data_pipeline.preprocess.quality_report import write_quality
from data_pipeline.preprocess.splitting import check_test_fraction
from data_pipeline.preprocess.stage_jobs import StageJob, source_hash, source_state
from data_pipeline.preprocess.staged_clips import SKIPPED
from data_pipeline.preprocess.staging import stage_clip, usable_workers
from data_pipeline.preprocess.track_request import (
    TrackRequest,
    checked_request,
    mesh_of,
    not_written,
    single_threaded_cpu,
)
from talking_heads_jax.errors import (
    ArgumentError,
    DataError,
    TalkingHeadsError,
    check_file,
    requirement,
)
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits


def prepare_dataset(
    videos: Path,
    output: Path,
    *,
    size: int = 256,
    boxes: Path | None = None,
    landmarks: Path | None = None,
    identities: Path | None = None,
    image_format: str = "jpeg",
    quality: int = 95,
    frame_stride: int = 1,
    max_frames: int | None = None,
    folder_fps: float = 25.0,
    test_fraction: float = 0.2,
    test_clips: Sequence[str] | None = None,
    split_seed: int = 0,
    workers: int | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    track: TrackRequest | None = None,
    progress: bool = True,
) -> PrepareSummary:
    """Prepares a folder of videos, or of folders of images, for training.

    Every clip gets one crop for all its frames: the given box, the enlarged box of its stored
    landmarks, or the centre square (with a warning). Run it again after an interruption: clips
    that were finished are not decoded again.

    Args:
      videos: the source folder; see `find_sources`.
      output: the data set; new, empty, or begun by the same call.
      size: height and width of the crops.
      boxes: csv or json of boxes per clip in original pixels; see `read_boxes`.
      landmarks: folder of `<clip>_landmarks.npz`; None looks beside each clip.
      identities: csv or json of who each clip shows; None takes names, see `identity_of`.
      image_format: 'jpeg' or 'png'.
      quality: of jpeg.
      frame_stride: every how many frames one is kept.
      max_frames: at most so many frames are kept of a clip.
      folder_fps: frames per second of folders of images.
      test_fraction: share of identities (or clips) for testing.
      test_clips: names or patterns of the test clips, in place of a random choice.
      split_seed: of the random choice.
      workers: processes; None takes one per CPU, 0 works in this process.
      limits: what is refused in a video.
      track: follows the face through every clip and writes what is found into the records, with a
        report of its quality (see docs/data.md); None takes what the landmark files hold.
      progress: shows a progress bar and prints the outcome.

    Returns:
      What was done.

    Raises:
      ArgumentError: an option that makes no sense.
      AssetNotFoundError: the face model to fit is not registered.
      DataError: no usable clip, an output of other options, or a full disk.
    """
    started = time.monotonic()
    videos, output = Path(videos), Path(output)
    check_test_fraction(test_fraction)
    if workers is not None and workers < 0:
        raise ArgumentError(requirement("workers", "be at least 0", workers, "0 uses no process."))
    options = stage_options(size, image_format, quality, frame_stride, max_frames, folder_fps)
    recorded = {
        **dataclasses.asdict(options),
        "boxes": _table_hash(boxes),
        "landmarks": str(Path(landmarks).resolve()) if landmarks else None,
        "identities": _table_hash(identities),
        "test_fraction": test_fraction,
        "test_clips": sorted(test_clips) if test_clips is not None else None,
        "split_seed": split_seed,
        "limits": dataclasses.asdict(limits),
    }
    if track is not None:  # a key that data sets without tracking never had
        track = checked_request(track)
        recorded["track"] = dataclasses.asdict(track)
    sources, ignored = find_sources(videos, exclude=output)
    if landmarks is not None and not Path(landmarks).is_dir():
        raise DataError(
            requirement("landmarks", "be a folder of npz files", landmarks, "Check the path.")
        )
    box_table = read_boxes(Path(boxes)) if boxes else {}
    who_table = read_identities(Path(identities)) if identities else {}
    _check_used("boxes", boxes, box_table, sources)
    _check_used("identities", identities, who_table, sources)
    with OutputFolder(output, {"made_by": "prepare", **recorded}) as folder:
        if folder.complete:
            _check_unchanged(folder, sources)
            return announce(folder.summary_of_complete(PrepareSummary), progress)
        jobs = [
            StageJob(
                source=source,
                staging=folder.staging,
                options=options,
                box=_looked_up(box_table, source.clip_id),
                landmarks=_landmark_file(source, landmarks, tables=track is not None),
                limits=limits,
                track=track,
            )
            for source in sources
        ]
        rows = _stage_all(jobs, usable_workers() if workers is None else workers, progress)
        for row in rows:
            given = _looked_up(who_table, row["clip_id"])
            row["identity_id"] = given or identity_of(row["clip_id"])
        split = split_rows(
            rows,
            {source.clip_id: source.split for source in sources},
            test_clips,
            test_fraction,
            split_seed,
            folder,
            ignored,
        )
        if track is None:
            return finish(folder, rows, split, options, ignored, started, progress)
        quality = write_quality(
            folder.path, folder.staging, rows, recorded["track"], not_written(track)
        )
        mesh = mesh_of(track) if track.vertices else None
        return finish(
            folder, rows, split, options, ignored, started, progress, mesh, quality=quality
        )


def _stage_all(jobs: Sequence[StageJob], workers: int, progress: bool) -> list[dict[str, Any]]:
    """Stages every clip; rows come back in the order of the jobs, whoever was first."""
    rows: list[dict[str, Any] | None] = [None] * len(jobs)
    with tqdm(total=len(jobs), desc="clips", unit="clip", disable=not progress) as bar:
        try:
            for index, row in _run(jobs, min(workers, len(jobs))):
                rows[index] = row
                bar.update()
        except BrokenProcessPool as error:
            raise DataError(
                requirement(
                    "A worker process",
                    "survive",
                    "a dead one (out of memory?)",
                    "Run the same command again with fewer --workers: finished clips are kept.",
                )
            ) from error
        except OSError as error:
            raise DataError(
                requirement(
                    "The output folder",
                    "be writable",
                    error.strerror or error,
                    "Free some space, then run the same command again: finished clips are kept.",
                )
            ) from error
    return [row for row in rows if row is not None]


def _run(jobs: Sequence[StageJob], workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if workers < 2:
        for index, job in enumerate(jobs):
            yield index, _guarded(functools.partial(stage_clip, job), job)
        return
    # spawn: a fork would copy the threads and locks of a process that may run jax.
    context = multiprocessing.get_context("spawn")
    track = jobs[0].track is not None
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=single_threaded_cpu if track else None
    )
    try:
        futures = {pool.submit(stage_clip, job): index for index, job in enumerate(jobs)}
        for future in concurrent.futures.as_completed(futures):
            index = futures[future]
            yield index, _guarded(future.result, jobs[index])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _guarded(result: Callable[[], dict[str, Any]], job: StageJob) -> dict[str, Any]:
    """A clip that trips over a bug of ours is reported like a damaged one, and named as such."""
    try:
        return result()
    except (OSError, BrokenProcessPool, TalkingHeadsError):
        raise
    except Exception as error:
        reason = f"internal error: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return {
            "clip_id": job.source.clip_id,
            "kind": job.source.kind,
            "status": SKIPPED,
            "reason": reason,
        }


def _looked_up(table: Mapping[str, Any], clip_id: str) -> Any:
    key = match_clip(table, clip_id)
    return None if key is None else table[key]


def _check_used(
    what: str, path: Path | None, table: Mapping[str, Any], sources: Sequence[Source]
) -> None:
    used = {match_clip(table, source.clip_id) for source in sources}
    unknown = [key for key in table if key not in used]
    if path is not None and unknown:
        raise DataError(
            requirement(
                f"{what} in {path}",
                "name clips of the source folder",
                ", ".join(unknown[:5]),
                "Use file names as they are below the folder, or remove the rows.",
            )
        )


def _landmark_file(source: Source, folder: Path | None, *, tables: bool) -> Path | None:
    name = source.path.name
    stem = source.path.stem if source.kind == "video" or "." in name else name
    return find_landmarks(Path(folder) if folder else source.path.parent, stem, tables=tables)


def _table_hash(path: Path | None) -> str | None:
    if path is None:
        return None
    check_file(Path(path), DataError)
    try:
        return file_hash(Path(path))
    except OSError as error:
        raise DataError(
            requirement(f"{path}", "be a readable file", error.strerror, "Check the path.")
        ) from error


def _check_unchanged(folder: OutputFolder, sources: Sequence[Source]) -> None:
    """A complete data set is left alone; sources that changed since are an error."""
    known = {row["clip_id"]: row for row in folder.manifest["clips"]}
    changed = sorted(known.keys() ^ {source.clip_id for source in sources})
    for source in sources:
        row = known.get(source.clip_id)
        if row is None or "sha256" not in row:
            continue
        with contextlib.suppress(OSError):
            state = source_state(source)
            same = all(row[key] == value for key, value in state.items())
            if not same and row["sha256"] != source_hash(source):
                changed.append(source.clip_id)
    if changed:
        raise DataError(
            requirement(
                f"{folder.path}",
                "hold a data set of the same clips",
                f"other clips ({', '.join(changed[:3])})",
                "Choose another --output, or remove this one first.",
            )
        )
