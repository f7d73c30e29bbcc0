"""Which two frames make sample number n: a pure function of the clip table, the seed and n.

Nothing is consumed and nothing remembered, so a run continues at any sample, on any number of
processes. An epoch visits every item (identity or clip) `repeats` times, in an order of its own;
an item of several clips draws one; a clip gives two frames, drawn with replacement and sorted: the
earlier is the source.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipeline.schema import ClipEntry
from talking_heads_jax.errors import ArgumentError, check_choice, requirement

BALANCES = ("identity", "clip")

# Names of the random streams: they keep a pair's choice and its augmentation independent.
_ORDER, _FRAMES, _AUGMENTATION = 0, 1, 2


class Pair(NamedTuple):
    """A sample by record numbers.

    Attributes:
      source: record of the identity image.
      driving: record of the motion image.
      clip: number of the clip both are from.
    """

    source: int
    driving: int
    clip: int


class PairSampler:
    """Sample number to `Pair`.

    Attributes:
      num_items: identities or clips.
      num_samples: samples of an epoch: items times repeats.
    """

    def __init__(
        self,
        clips: Sequence[ClipEntry],
        *,
        seed: int,
        balance: str = "identity",
        repeats: int = 1,
        max_distance: int | None = None,
        distinct: bool = False,
    ) -> None:
        """Groups the clips.

        Args:
          clips: the clip table.
          seed: of everything random.
          balance: 'identity' visits identities equally often and then draws one of their clips;
            'clip' visits clips equally often.
          repeats: visits of an item per epoch.
          max_distance: largest number of frames between the two; None for any.
          distinct: draws two different frames; by default they may be the same, as in FOMM.

        Raises:
          ArgumentError: an unknown balance, or a number below 1, or no clips.
        """
        check_choice("pairs", balance, BALANCES)
        smallest = min([repeats, len(clips), 1 if max_distance is None else max_distance])
        if smallest < 1 or seed < 0:
            raise ArgumentError(
                requirement(
                    "Pair sampling",
                    "have clips, repeats >= 1, max_distance >= 1 and seed >= 0",
                    (len(clips), repeats, max_distance, seed),
                    "Correct the data section of the config.",
                )
            )
        groups: dict[str, list[int]] = {}
        for number, clip in enumerate(clips):
            key = clip.identity_id if balance == "identity" else clip.clip_id
            groups.setdefault(key, []).append(number)
        self._groups = [groups[key] for key in sorted(groups)]
        self._clips = clips
        self._seed = seed
        self._max_distance, self._distinct = max_distance, distinct
        self.num_items = len(self._groups)
        self.num_samples = self.num_items * repeats
        # An epoch's order is computed once; two epochs overlap where threads cross the border.
        self._order = functools.lru_cache(maxsize=3)(self._compute_order)

    def __call__(self, sample: int) -> Pair:
        """Returns the pair of a sample.

        Args:
          sample: from 0, without end.
        """
        epoch, place = divmod(int(sample), self.num_samples)
        group = self._groups[self._order(epoch)[place] % self.num_items]
        rng = np.random.default_rng((self._seed, _FRAMES, int(sample)))
        number = group[int(rng.integers(len(group)))]
        clip = self._clips[number]
        first, second = self._draw_frames(rng, clip.length)
        start = clip.first_record
        return Pair(start + min(first, second), start + max(first, second), number)

    def augmentation_rng(self, sample: int) -> np.random.Generator:
        """Returns the random numbers for the augmentation of a sample: its own stream."""
        return np.random.default_rng((self._seed, _AUGMENTATION, int(sample)))

    def _draw_frames(self, rng: np.random.Generator, length: int) -> tuple[int, int]:
        first = int(rng.integers(length))
        reach = length if self._max_distance is None else self._max_distance
        low, high = max(first - reach, 0), min(first + reach, length - 1)
        if not self._distinct or low == high:
            return first, int(rng.integers(low, high + 1))
        second = int(rng.integers(low, high))
        return first, second + (second >= first)

    def _compute_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, _ORDER, epoch)).permutation(self.num_samples)
