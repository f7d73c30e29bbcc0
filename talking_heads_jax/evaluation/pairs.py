"""Pair lists: which frame is the source and which frames drive it, drawn once and written down.

A list is a function of the protocol (its seed), and of the clips' names, identities and lengths,
whatever their order; no frame is decoded for it. It is written beside the results, so that another
system can be scored on the same pairs.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from talking_heads_jax.errors import ArgumentError, DataError, requirement
from talking_heads_jax.evaluation.clips import Clip
from talking_heads_jax.evaluation.protocols import (
    FIRST_FRAME,
    NEXT_PERSON,
    RANDOM_FRAMES,
    Protocol,
)
from talking_heads_jax.inference.motion_transfer import best_frame

# A pair's name is a folder's name on any system; so many characters leave room for the numbers.
_LONGEST_PART = 80
_VIDEO_ENDING = re.compile(r"\.(mp4|mov|mkv|webm|avi|gif)$", re.IGNORECASE)
_NAME = re.compile(r"[\w#=+][\w.#=+-]{0,239}")


@dataclasses.dataclass(frozen=True)
class Pair:
    """One source and the frames that drive it.

    Attributes:
      name: unique in its list; the folder that holds someone's predictions of it.
      source_clip: where the source is from.
      source_identity: whom it shows.
      source_frame: its number in the clip.
      driving_clip: where the motion is from.
      driving_identity: whom it shows.
      driving_frames: their numbers, increasing.
      driving_length: frames of the driving clip.
      initial_frame: the driving frame that counts as rest for relative motion; None where it is
        left to the system (no landmarks), or where motion is absolute.
    """

    name: str
    source_clip: str
    source_identity: str
    source_frame: int
    driving_clip: str
    driving_identity: str
    driving_frames: tuple[int, ...]
    driving_length: int
    initial_frame: int | None = None


@dataclasses.dataclass(frozen=True)
class PairList:
    """The pairs of an evaluation.

    Attributes:
      protocol: what they were drawn by.
      pairs: in the order of the report.
    """

    protocol: Protocol
    pairs: tuple[Pair, ...]


def build_pairs(protocol: Protocol, clips: Iterable[Clip]) -> PairList:
    """Draws the pairs of a protocol.

    Args:
      protocol: what drives what.
      clips: of the data set, in any order; those too short to have a driving frame are left out.

    Raises:
      DataError: no pair can be made, or two clips have one name.
    """
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    for one, other in itertools.pairwise(clips):
        if one.clip_id == other.clip_id:
            raise DataError(
                requirement("clip names", "be unique", one.clip_id, "Prepare the data again.")
            )
    if protocol.pairing == FIRST_FRAME:
        drawn = _first_frames(protocol, clips)
    elif protocol.pairing == RANDOM_FRAMES:
        drawn = _random_frames(protocol, clips)
    elif protocol.pairing == NEXT_PERSON:
        drawn = _next_person(protocol, clips)
    else:
        drawn = _across_clips(protocol, clips)
    pairs = tuple(_with_unique_names(drawn))
    if not pairs:
        need = "one of at least 2 frames"
        if not protocol.same_identity:
            need = "clips of at least 2 people"
        raise DataError(
            requirement(
                "the evaluation clips", f"hold {need}", f"{len(clips)} clips", "Give more data."
            )
        )
    if protocol.relative:
        pairs = tuple(_with_initial_frames(pairs, {clip.clip_id: clip for clip in clips}))
    return PairList(protocol, pairs)


def check_pairs(pairs: Sequence[Pair], clips: Mapping[str, Clip]) -> None:
    """Raises unless the clips hold all frames that a pair list names.

    Args:
      pairs: of a list, for example of a file.
      clips: by name.

    Raises:
      DataError: names the pair, and what it lacks.
    """
    for pair in pairs:
        last = max(pair.driving_frames[-1], pair.initial_frame or 0)
        for clip_id, frame in ((pair.source_clip, pair.source_frame), (pair.driving_clip, last)):
            if clip_id in clips and frame < len(clips[clip_id].frames):
                continue
            got = "no such clip"
            if clip_id in clips:
                got = f"{len(clips[clip_id].frames)} frames"
            raise DataError(
                requirement(
                    f"the data set, for pair '{pair.name}',",
                    f"hold frame {frame} of clip '{clip_id}'",
                    got,
                    "Use the data set and split that the pairs were drawn from.",
                )
            )


def is_pair_name(name: object) -> bool:
    """Whether a name may be a pair's: a plain folder name on any system."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None and len(name.encode()) <= 240


def _pair(name: str, source: Clip, source_frame: int, driving: Clip, frames: Iterable[int]) -> Pair:
    return Pair(
        name,
        str(source.clip_id),
        source.person,
        int(source_frame),
        str(driving.clip_id),
        driving.person,
        tuple(int(frame) for frame in frames),
        len(driving.frames),
    )


def _first_frames(protocol: Protocol, clips: Sequence[Clip]) -> Iterator[Pair]:
    start = 0 if protocol.include_source else 1
    for clip in clips:
        if len(clip.frames) > start:
            frames = spread_frames(start, len(clip.frames), protocol.driving_per_clip)
            yield _pair(_plain(clip.clip_id), clip, 0, clip, frames)


def _random_frames(protocol: Protocol, clips: Sequence[Clip]) -> Iterator[Pair]:
    for clip in clips:
        # Each clip has its own stream: what is drawn of it does not depend on the others.
        rng = _generator(protocol.seed, clip.clip_id)
        count = len(clip.frames)
        wanted = min(protocol.pairs_per_clip, count * (count - 1) // 2)
        drawn: dict[frozenset[int], tuple[int, int]] = {}
        while len(drawn) < wanted:
            first, second = (int(number) for number in rng.random(2) * count)
            if first != second:
                drawn.setdefault(frozenset((first, second)), (first, second))
        for first, second in drawn.values():
            for source, driving in ((first, second), (second, first)):
                name = f"{_plain(clip.clip_id)}--{source:06d}-{driving:06d}"
                yield _pair(name, clip, source, clip, (driving,))
                if not protocol.both_directions:
                    break


def _across_clips(protocol: Protocol, clips: Sequence[Clip]) -> Iterator[Pair]:
    clips = [clip for clip in clips if len(clip.frames)]
    rng = _generator(protocol.seed, "across clips")
    driving = [clips[i] for i in np.argsort(rng.random(len(clips)))][: protocol.num_driving]
    people = {clip.person for clip in driving}
    shuffled = [clips[i] for i in np.argsort(rng.random(len(clips)))]
    # People who drive nobody come first: with them no pair has to be left out.
    shuffled.sort(key=lambda clip: clip.person in people)
    for source in shuffled[: protocol.num_sources]:
        frame = int(rng.random() * len(source.frames))
        for clip in driving:
            if clip.person != source.person:
                name = f"{_plain(source.clip_id)}-{frame:06d}--{_plain(clip.clip_id)}"
                frames = spread_frames(0, len(clip.frames), protocol.driving_per_clip)
                yield _pair(name, source, frame, clip, frames)


def _next_person(protocol: Protocol, clips: Sequence[Clip]) -> Iterator[Pair]:
    """A ring of clips in random order: each is driven by the next that shows somebody else."""
    clips = [clip for clip in clips if len(clip.frames)]
    rng = _generator(protocol.seed, "next person")
    ring = [clips[i] for i in np.argsort(rng.random(len(clips)))]
    for number, source in enumerate(ring):
        others = [*ring[number + 1 :], *ring[:number]]
        driving = next((clip for clip in others if clip.person != source.person), None)
        if driving is not None:
            name = f"{_plain(source.clip_id)}--{_plain(driving.clip_id)}"
            # Frame 0 of a clip is its source elsewhere: the frames after it drive here too.
            start = min(1, len(driving.frames) - 1)
            frames = spread_frames(start, len(driving.frames), protocol.driving_per_clip)
            yield _pair(name, source, 0, driving, frames)


def spread_frames(start: int, stop: int, count: int) -> Sequence[int]:
    """Numbers in the middle of equal parts of a range.

    Args:
      start: the first of the range.
      stop: behind its last.
      count: how many parts; 0, or as many as there are numbers or more, takes them all.

    Returns:
      Increasing numbers.
    """
    length = stop - start
    if not 0 < count < length:
        return range(start, stop)
    return [start + ((2 * part + 1) * length) // (2 * count) for part in range(count)]


def _with_initial_frames(pairs: Sequence[Pair], clips: Mapping[str, Clip]) -> Iterator[Pair]:
    """Adds the best frame by landmarks where source and driving clip have them."""
    known: dict[str, np.ndarray] = {}
    for pair in pairs:
        source, driving = clips[pair.source_clip], clips[pair.driving_clip]
        initial = None
        if source.landmarks is not None and driving.landmarks is not None:
            if pair.driving_clip not in known:
                rows = [np.asarray(driving.landmarks[i]) for i in range(len(driving.frames))]
                known[pair.driving_clip] = np.stack(rows)
            try:
                initial = best_frame(
                    np.asarray(source.landmarks[pair.source_frame]), known[pair.driving_clip]
                )
            except ArgumentError:  # no face is known in the source, or in any driving frame
                initial = None
        yield dataclasses.replace(pair, initial_frame=initial)


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], "<u4").tolist()])


def _plain(clip_id: str) -> str:
    """A clip's name as part of a folder's name: without a video's ending, and without dots."""
    name = _VIDEO_ENDING.sub("", str(clip_id))
    return re.sub(r"[^\w#=+-]", "_", name)[-_LONGEST_PART:].lstrip("-") or "clip"


def _with_unique_names(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Numbers names that differ only in case, or in characters that folders cannot have."""
    seen: set[str] = set()
    for pair in pairs:
        name = pair.name if is_pair_name(pair.name) else re.sub(r"\W", "_", ascii(pair.name))
        tries = (name, *(f"{name}+{number}" for number in range(2, len(seen) + 3)))
        name = next(candidate for candidate in tries if candidate.lower() not in seen)
        seen.add(name.lower())
        yield dataclasses.replace(pair, name=name)
