"""Batches for training and clips for evaluation, from the `data` section of a config.

A batch is a pure function of its step: nothing is stored to resume, and a run may continue on
another number of threads or processes with the same samples in the same order. Grain's `MapDataset`
reads ahead with threads; on hosts whose many cores threads of one interpreter cannot use, worker
processes do it (`num_workers`): they compute nothing with jax.
Letters: b batch, h w image.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from data_pipeline.options import FIELD_OF_OPTION, DataOptions
from data_pipeline.pairs import PairSampler
from data_pipeline.records import Record
from data_pipeline.schema import read_clip_table
from data_pipeline.sources import FrameSource
from data_pipeline.transforms import Augmentation, augment_pair, draw_augmentation
from talking_heads_jax.batch import BYTE_LEVEL, FaceInputs, FramePair
from talking_heads_jax.errors import ArgumentError, ConfigError, DataError, requirement

# A length beyond any training: `MapDataset` wants one, the samples go on without end.
_ENDLESS = 1 << 48


class TrainLoader:
    """Endless batches of frame pairs by step.

    Attributes:
      num_samples: identities (or clips): samples of one pass over the data.
      epoch_samples: samples of an epoch, over all processes: `num_samples` times the repeats.
      batch_size: samples of a step, over all processes.
      local_batch_size: samples of a step in this process.
      fingerprint: of everything that decides what sample number n is.
      description: where the samples are from, in a few words.
    """

    def __init__(
        self,
        options: DataOptions,
        *,
        batch_size: int,
        seed: int,
        rows: Sequence[int] | None,
    ) -> None:
        """Opens the data set; use `make_train_loader`."""
        rows = tuple(range(batch_size)) if rows is None else tuple(rows)
        if batch_size < 1 or not rows or not all(0 <= row < batch_size for row in rows):
            raise ArgumentError(
                requirement(
                    "rows",
                    f"lie within the batch of {batch_size}",
                    rows,
                    "Give the rows that this process reads.",
                )
            )
        self._reader = _PairReader(options, seed)
        self.num_samples = self._reader.sampler.num_items
        self.epoch_samples = self._reader.sampler.num_samples
        self.batch_size = batch_size
        self.local_batch_size = len(rows)
        self.fingerprint = self._reader.fingerprint()
        self.description = (
            "the built-in synthetic talking heads, rendered on the fly"
            if options.rendered
            else f"split '{options.split}' of {options.folder}"
        )
        _mark_flags_parsed()
        # The order is global, and a process takes its rows of every batch: whatever their number,
        # the same sample lies in the same row of the global batch, whose random draws it gets.
        share = _Share(batch_size, rows)
        self._samples = grain.MapDataset.range(_ENDLESS).map(share).map(self._reader)
        self._read_options = grain.ReadOptions(
            num_threads=options.num_threads,
            prefetch_buffer_size=options.prefetch
            or max(2 * self.local_batch_size, options.num_threads),
        )
        self._num_workers = options.num_workers
        self._running: list[Any] = []

    def steps_per_epoch(self) -> int:
        """Returns the whole steps of an epoch, at least 1."""
        return max(self.epoch_samples // self.batch_size, 1)

    def batch(self, step: int) -> FramePair:
        """Returns the batch of a step, computed here and now.

        Args:
          step: from 0.
        """
        first = step * self.local_batch_size
        return _stack([self._samples[first + i] for i in range(self.local_batch_size)])

    def iterate(self, start_step: int = 0) -> Iterator[FramePair]:
        """Yields the batches of `start_step` and all steps after it, read ahead by threads.

        Args:
          start_step: from 0.

        Yields:
          `FramePair` of numpy arrays: images float32 RGB in [0, 1], `record_ids` int64 (b 2) within
          the split.

        Raises:
          DataError: while iterating: a record is damaged.
        """
        samples = self._samples[start_step * self.local_batch_size :]
        dataset = samples.to_iter_dataset(self._read_options)
        if self._num_workers:
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=self._num_workers,
                    per_worker_buffer_size=max(1, 2 * self.local_batch_size // self._num_workers),
                ),
                worker_init_fn=_begin_worker,
            )
        iterator = iter(dataset)
        self._running.append(iterator)
        try:
            while True:
                yield _stack([next(iterator) for _ in range(self.local_batch_size)])
        finally:
            iterator.close()
            with contextlib.suppress(ValueError):
                self._running.remove(iterator)

    def close(self) -> None:
        """Ends the iterations that are under way, with their threads."""
        for iterator in self._running:
            iterator.close()
        self._running.clear()

    def __enter__(self) -> "TrainLoader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sample(NamedTuple):
    source: FaceInputs
    driving: FaceInputs
    record_ids: np.ndarray


class _Share(NamedTuple):
    """Number of a sample among those of one process -> its number among all."""

    batch_size: int
    rows: tuple[int, ...]

    def __call__(self, index: int) -> int:
        step, position = divmod(index, len(self.rows))
        return step * self.batch_size + self.rows[position]


class _PairReader:
    """Sample number -> pair of frames; a copy in another process opens the files anew there."""

    def __init__(self, options: DataOptions, seed: int) -> None:
        self._arguments = (options, seed)
        self._options = options
        wanted = [name for name in FIELD_OF_OPTION if getattr(options, name)]
        self._source = open_frames(options, [FIELD_OF_OPTION[name] for name in wanted])
        for name in wanted:
            _check_field(options, name, self._source.fields)
        self._vertex_mirror = self._source.mesh().mirror if options.vertices else None
        self.sampler = PairSampler(
            self._source.clips,
            seed=seed,
            balance=options.balance,
            repeats=options.repeats,
            max_distance=options.max_distance or None,
            distinct=options.distinct,
        )
        self._augmentation = Augmentation.from_config(options.augmentation)

    def __reduce__(self) -> tuple:
        return type(self), self._arguments

    def fingerprint(self) -> str:
        """Digest of the clip table, the seed, and the options that choose and change samples."""
        options, seed = self._arguments
        free = {"folder", "source", "synthetic", "batch_size", "num_threads", "num_workers"}
        free |= {"prefetch"}
        # Options added later count where they are set: a run continues under a newer version.
        free |= {name for name in ("masks", "vertices") if not getattr(options, name)}
        chosen = {key: value for key, value in vars(options).items() if key not in free}
        chosen["augmentation"] = dataclasses.asdict(self._augmentation)
        content = [seed, chosen, [dataclasses.asdict(clip) for clip in self._source.clips]]
        if self._source.recipe is not None:  # two sets may differ in nothing but the seed
            content.append(self._source.recipe)
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def __call__(self, sample: int) -> _Sample:
        pair = self.sampler(sample)
        draw = draw_augmentation(self._augmentation, self.sampler.augmentation_rng(sample))
        records = self._source[pair.source], self._source[pair.driving]
        source, driving = augment_pair(*records, draw, vertex_mirror=self._vertex_mirror)
        ids = (pair.source, pair.driving)
        ids = np.array(ids[::-1] if draw.time_flip else ids, np.int64)
        return _Sample(self._inputs(source), self._inputs(driving), ids)

    def _inputs(self, record: Record) -> FaceInputs:
        options = self._options
        return FaceInputs(
            image=to_float(record.image),
            mask=record.mask[..., None] if options.masks else None,
            vertices=record.vertices if options.vertices else None,
            angles=record.angles if options.angles else None,
        )


def open_frames(options: DataOptions, optional: Collection[str] | None = None) -> Any:
    """Opens what a config names: a data set on disk, or the built-in set to be rendered.

    Args:
      options: the `data` section.
      optional: the optional fields that are wanted; None for all that are there.

    Returns:
      A `FrameSource`, or an object with its attributes and indexing.

    Raises:
      ConfigError: the built-in set does not have what is asked for.
      DataError: the data set is missing, damaged, or of another version.
    """
    if options.rendered:  # jax only where something is rendered
        from data_pipeline.synthetic.on_the_fly import RenderedFrames

        return RenderedFrames(
            options.synthetic, options.split, resolution=options.resolution, optional=optional
        )
    return FrameSource(
        options.folder, options.split, resolution=options.resolution, optional=optional
    )


def count_vertices(data_config: Mapping[str, Any]) -> int:
    """Returns the number of vertices that a data set's frames have, without reading any.

    Args:
      data_config: see `DataOptions`.

    Raises:
      ConfigError: an unknown key or value.
      DataError: the data set is missing or damaged, or has no vertices.
    """
    options = DataOptions.from_config(data_config)
    if options.rendered:
        from data_pipeline.synthetic import on_the_fly

        return on_the_fly.count_vertices(options.synthetic)
    table = read_clip_table(Path(options.folder))
    _check_field(options, "vertices", table.fields)
    return table.shapes["vertices"][0]


def _check_field(options: DataOptions, name: str, fields: Collection[str]) -> None:
    """Raises where an option asks for a field that the data set lacks."""
    if FIELD_OF_OPTION[name] in fields:
        return
    remedy = {
        "angles": "prepare it with landmark files that have angles",
        "masks": "take a set that `talking-heads synthesize` wrote",
        "vertices": "take a set that `talking-heads synthesize` wrote with vertices",
    }[name]
    raise DataError(
        requirement(
            f"{options.folder}",
            f"hold {FIELD_OF_OPTION[name]} for data.{name}",
            sorted(fields),
            f"Set data.{name}=False, or {remedy}.",
        )
    )


def make_train_loader(
    data_config: Mapping[str, Any],
    *,
    batch_size: int | None = None,
    seed: int,
    rows: Sequence[int] | None = None,
) -> TrainLoader:
    """Opens a data set for training.

    Args:
      data_config: see `DataOptions`.
      batch_size: samples of a step over all processes; None takes the config's.
      seed: of the order, the pairs and the augmentation.
      rows: of every batch that this process reads; None for all.

    Returns:
      The loader; close it, or use it as a context manager.

    Raises:
      ArgumentError: rows outside the batch.
      ConfigError: an unknown key or value.
      DataError: the data set is missing, damaged, too small or of another version.
    """
    options = DataOptions.from_config(data_config)
    batch_size = batch_size or options.batch_size
    if not batch_size:
        raise ConfigError(
            requirement("data.batch_size", "be given", batch_size, "Set it in the config.")
        )
    return TrainLoader(
        options,
        batch_size=batch_size,
        seed=seed,
        rows=rows,
    )


class EvalFrames:
    """The frames of one clip: may be iterated again, and read at random.

    Attributes:
      clip_id: the clip.
      identity_id: who is shown.
      fps: frames per second.
      first_record: record number of frame 0 within the split.
    """

    def __init__(self, source: FrameSource, clip: int, limit: int | None = None) -> None:
        """Names the frames; nothing is read yet.

        Args:
          source: the split.
          clip: number of the clip in its table.
          limit: at most so many frames.
        """
        entry = source.clips[clip]
        self._source = source
        self._length = min(entry.length, limit or entry.length)
        self.clip_id, self.identity_id = entry.clip_id, entry.identity_id
        self.fps, self.first_record = entry.fps, entry.first_record
        self._last: tuple[int, Record] | None = None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns frame `index`: float32 (h w 3) RGB in [0, 1]."""
        return to_float(self.record(index).image)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the frames in time: float32 (h w 3) RGB in [0, 1]."""
        for index in range(len(self)):
            yield self[index]

    def record(self, index: int) -> Record:
        """Returns everything known about frame `index`; the one asked for last is kept."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        last = self._last
        if last is None or last[0] != index:
            last = self._last = index, self._source[self.first_record + index]
        return last[1]

    def column(self, field: str) -> "FrameColumn | None":
        """One field of all frames, read when it is asked for; None where the data set lacks it.

        Args:
          field: of `records.Record`: 'image' as stored bytes, 'landmarks68_px', ...
        """
        known = field in self._source.fields and field in Record._fields
        return FrameColumn(self, field) if known else None


class FrameColumn(Sequence[Any]):
    """One field of the frames of a clip."""

    def __init__(self, frames: EvalFrames, field: str) -> None:
        """Reads nothing yet.

        Args:
          frames: the clip.
          field: of `records.Record`.
        """
        self._frames, self._field = frames, field

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Any:
        """Returns the field of frame `index`; negative numbers and slices are refused."""
        return getattr(self._frames.record(index), self._field)


def make_eval_pairs(
    data_config: Mapping[str, Any],
    *,
    split: str = "test",
    max_clips: int | None = None,
    max_frames: int | None = None,
    optional: Collection[str] | None = None,
) -> Iterator[tuple[str, EvalFrames]]:
    """Yields the clips of a split, in the order of the clip table, without augmentation.

    Frame 0 is the source of a same-identity protocol, the frames after it are driving.

    Args:
      data_config: see `DataOptions`; where the frames are from, and the resolution, are used.
      split: which clips.
      max_clips: at most so many, spread evenly over the table.
      max_frames: at most so many frames of a clip, from its start.
      optional: the optional fields to read, of those that are there; None for all.

    Returns:
      An iterator over (clip_id, frames).

    Raises:
      ConfigError: an unknown key or value.
      DataError: the split is missing or damaged.
    """
    options = DataOptions.from_config({**data_config, "split": split})
    source = open_frames(options, optional)
    count = len(source.clips)
    chosen = range(count)
    if max_clips is not None and max_clips < count:
        chosen = [index * count // max_clips for index in range(max_clips)]
    clips = (EvalFrames(source, number, max_frames) for number in chosen)
    return ((frames.clip_id, frames) for frames in clips)


def to_float(image: np.ndarray) -> np.ndarray:
    """Returns uint8 values as float32 in [0, 1]."""
    return np.multiply(image, np.float32(BYTE_LEVEL), dtype=np.float32)


def _stack(samples: Sequence[_Sample]) -> FramePair:
    def inputs(frames: Sequence[FaceInputs]) -> FaceInputs:
        columns = (
            None if values[0] is None else np.stack(values) for values in zip(*frames, strict=True)
        )
        return FaceInputs(*columns)

    return FramePair(
        source=inputs([sample.source for sample in samples]),
        driving=inputs([sample.driving for sample in samples]),
        record_ids=np.stack([sample.record_ids for sample in samples]),
    )


def _begin_worker(index: int, count: int) -> None:
    """Ties a worker's life to its parent's, and to nothing else.

    A cluster sends SIGTERM to all processes of a job: the parent still needs batches for the step
    after which it saves, and stops its workers itself. A parent that was killed cannot.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _mark_flags_parsed() -> None:
    """Lets Grain read its flags' defaults in a program that does not use `absl.app.run`.

    Nothing is parsed: a program that parses its arguments later still can.
    """
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


__all__ = [
    "DataOptions",
    "EvalFrames",
    "FrameColumn",
    "TrainLoader",
    "count_vertices",
    "make_eval_pairs",
    "make_train_loader",
    "open_frames",
    "to_float",
]
