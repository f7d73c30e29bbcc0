"""Which clips are for training and which for testing."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence

import numpy as np

from talking_heads_jax.errors import ArgumentError, DataError, requirement


@dataclasses.dataclass(frozen=True)
class Split:
    """The outcome.

    Attributes:
      of_clip: clip to one of `schema.SPLITS`.
      rule: 'given', 'folders', 'stated', 'identity', 'clip' or 'none'.
      note: one sentence for the manifest.
    """

    of_clip: Mapping[str, str]
    rule: str
    note: str


def split_clips(
    identity_of_clip: Mapping[str, str],
    *,
    folder_of_clip: Mapping[str, str | None] | None = None,
    test_clips: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Split:
    """Divides clips into train and test.

    In turn: the clips named by the user; the folders train/ and test/ where every clip lies in
    one; whole identities at random; whole clips at random where there is one identity; and
    everything for training where there is one clip.

    Args:
      identity_of_clip: who each clip shows.
      folder_of_clip: 'train', 'test' or None.
      test_clips: names, or patterns with * and ?, of clip ids or file names.
      test_fraction: share of identities, or clips, for testing: at least one, never all. 0 puts
        everything into training.
      seed: of the random choice.

    Returns:
      The split.

    Raises:
      ArgumentError: a fraction outside [0, 1).
      DataError: a name matches no clip, or nothing is left for training.
    """
    check_test_fraction(test_fraction)
    clips = sorted(identity_of_clip)
    if test_clips is not None:
        chosen = _matching(clips, test_clips)
        return _made(clips, chosen, "given", f"the {len(chosen)} clips named by the user are test")
    folders = folder_of_clip or {}
    if clips and all(folders.get(clip) for clip in clips):
        chosen = {clip for clip in clips if folders[clip] == "test"}
        return _made(clips, chosen, "folders", "by the folders train/ and test/")
    identities = sorted(set(identity_of_clip.values()))
    if test_fraction == 0 or len(clips) < 2:
        why = "test_fraction is 0" if test_fraction == 0 else "there is one clip"
        return _made(clips, set(), "none", f"everything is train: {why}")
    if len(identities) > 1:
        test = _draw(identities, test_fraction, seed)
        chosen = {clip for clip in clips if identity_of_clip[clip] in test}
        note = f"{len(test)} of {len(identities)} identities are test (seed {seed})"
        return _made(clips, chosen, "identity", note)
    chosen = _draw(clips, test_fraction, seed)
    note = f"one identity only: {len(chosen)} of {len(clips)} clips are test (seed {seed})"
    return _made(clips, chosen, "clip", note)


def check_test_fraction(fraction: float) -> None:
    """Raises for a share that leaves nothing to train on, before hours are spent on the clips.

    Args:
      fraction: share for testing.

    Raises:
      ArgumentError: outside [0, 1).
    """
    if not 0.0 <= fraction < 1.0:
        raise ArgumentError(
            requirement("test_fraction", "lie in [0, 1)", fraction, "The default is 0.2.")
        )


def _draw(names: Sequence[str], fraction: float, seed: int) -> set[str]:
    count = min(max(round(fraction * len(names)), 1), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[index] for index in order[:count]}


def _matching(clips: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen = set()
    for pattern in patterns:
        hits = {
            clip
            for clip in clips
            for name in (clip, clip.rsplit("/", 1)[-1])
            if fnmatch.fnmatchcase(name, pattern) or name.rpartition(".")[0] == pattern
        }
        if not hits:
            raise DataError(
                requirement(
                    "A test clip",
                    "match a usable clip",
                    pattern,
                    "Give a file name below the source folder; see manifest.json for skipped ones.",
                )
            )
        chosen |= hits
    return chosen


def _made(clips: Sequence[str], test: set[str], rule: str, note: str) -> Split:
    if clips and len(test) == len(clips):
        raise DataError(
            requirement("The split", "leave clips for training", note, "Name fewer test clips.")
        )
    return Split({clip: "test" if clip in test else "train" for clip in clips}, rule, note)
