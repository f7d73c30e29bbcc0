"""The built-in talking heads as a source of frames: rendered when asked for, and kept for a while.

It stands in for a data set on disk: the same clip table, the same records, so that sample number n
of a training is a pure function of the options, the seed and n. Letters: h w image, v vertices.
"""

import collections
import functools
import threading
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from data_pipeline.options import SyntheticOptions
from data_pipeline.records import Record
from data_pipeline.schema import FIELDS, ClipEntry
from data_pipeline.synthetic.clip_plan import plan_clips
from data_pipeline.synthetic.head_set import EXTRA_FIELDS, HeadSet

DEFAULT_SIZE = 256
_KEPT_CLIPS = 256  # states of clips in memory: a few kB each


class RenderedFrames:
    """The frames of one split; may be read by many threads at once.

    Attributes:
      split: its split.
      clips: the clip table.
      size: height and width of the images.
      fields: names of the fields every record has.
      recipe: what decides the pictures, as JSON values.
    """

    def __init__(
        self,
        options: SyntheticOptions,
        split: str = "train",
        *,
        resolution: int | None = None,
        optional: Collection[str] | None = None,
    ) -> None:
        """Lists the clips; nothing is rendered yet.

        Args:
          options: which heads.
          split: one of `schema.SPLITS`.
          resolution: height and width of the images; None for `DEFAULT_SIZE`.
          optional: the optional fields that are wanted; None for all.

        Raises:
          ArgumentError: an option that makes no sense.
        """
        self.split, self.size = split, resolution or DEFAULT_SIZE
        extras = [
            name for name, field in EXTRA_FIELDS.items() if optional is None or field in optional
        ]
        self._heads = HeadSet(
            size=self.size,
            seed=options.seed,
            motion=options.motion,
            poses=options.poses,
            morphable=options.morphable,
            extras=extras,
        )
        self.mesh = self._heads.mesh
        self.fields = tuple(
            name
            for name, field in FIELDS.items()
            if name in self._heads.fields or not field.optional
        )
        self.recipe = self._heads.recipe | {"extras": None}  # they change no picture
        self._plans = plan_clips(
            {split: options.identities},
            num_frames=options.frames,
            stride=options.stride,
            takes=options.takes,
        )
        self._length = options.frames
        self.clips = tuple(
            ClipEntry(plan.clip_id, plan.identity_id, i * self._length, self._length, plan.fps)
            for i, plan in enumerate(self._plans)
        )
        self._states = functools.lru_cache(maxsize=_KEPT_CLIPS)(self._compute_states)
        # Half for people, who take longer to paint than a few frames to render.
        self._people, self._records = (_Cache(options.cache_mb << 19) for _ in range(2))

    def __len__(self) -> int:
        return len(self._plans) * self._length

    def __getitem__(self, index: int) -> Record:
        """Renders one record, unless it is in memory.

        Args:
          index: from 0.

        Raises:
          IndexError: there is no such record.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self._records(index, self._render)

    def _render(self, index: int) -> Record:
        clip, frame = divmod(index, self._length)
        plan = self._plans[clip]
        person = self._people(plan.identity, functools.partial(self._heads.identity, plan.split))
        fields = self._heads.render(plan, frame, self._states(clip), person)
        return Record(
            clip_id=plan.clip_id,
            identity_id=plan.identity_id,
            frame_index=frame * plan.stride,
            source_box_px=np.array([0, 0, self.size, self.size], np.float32),
            crop_matrix=np.eye(2, 3, dtype=np.float32),
            **fields,
        )

    def _compute_states(self, clip: int) -> list[Any]:
        return self._heads.states(self._plans[clip])


class _Cache:
    """What was used last, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._entries: collections.OrderedDict[int, tuple] = collections.OrderedDict()
        self._left = max_bytes
        self._lock = threading.Lock()

    def __call__(self, key: int, compute: Callable[[int], tuple]) -> Any:
        """Returns what is kept under a key, or computes it; two threads may do so at a time."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        entry = compute(key)
        with self._lock:
            if key not in self._entries:
                self._entries[key] = entry
                self._left -= _bytes_of(entry)
            while self._left < 0:
                _, oldest = self._entries.popitem(last=False)
                self._left += _bytes_of(oldest)
        return entry


def _bytes_of(entry: tuple) -> int:
    return sum(value.nbytes for value in entry if isinstance(value, np.ndarray))


def count_vertices(options: SyntheticOptions) -> int:
    """Returns the number of vertices of the heads, without rendering any.

    Args:
      options: which heads.
    """
    heads = HeadSet(size=DEFAULT_SIZE, morphable=options.morphable, extras=("vertices",))
    return heads.shapes()["vertices"][0]
