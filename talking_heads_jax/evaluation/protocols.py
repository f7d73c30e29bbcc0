"""Protocols: which frame of a clip is the source, and which frames drive it.

Source: FNeVR (NeurIPS 2022) supplement C: "same identity" takes a video's first frame as source and
all other frames as driving (FOMM's script also scores frame 0 against itself).
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from talking_heads_jax.errors import check_choice


class Clip(NamedTuple):
    """One video to evaluate on.

    Attributes:
      clip_id: its name in reports.
      frames: yields (h w 3) uint8, or float in [0, 1]; read once, never held as a whole.
      identity_id: who is shown; clips of one person are not independent. Empty: nobody else's.
    """

    clip_id: str
    frames: Iterable[np.ndarray]
    identity_id: str = ""


class ClipTask(NamedTuple):
    """What a protocol makes of a clip.

    Attributes:
      clip_id: its name in reports.
      source: (h w 3) float32 in [0, 1].
      driving: yields (h w 3) float32 in [0, 1], each also the target of its prediction.
      identity_id: who is shown; the clip's name where that is not known.
    """

    clip_id: str
    source: np.ndarray
    driving: Iterator[np.ndarray]
    identity_id: str


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named way to evaluate.

    Attributes:
      name: as on the command line.
      description: for reports.
      include_source: also score the source frame driven by itself, as FOMM's script does.
    """

    name: str
    description: str
    include_source: bool = False

    def tasks(self, clips: Iterable[Clip]) -> Iterator[ClipTask]:
        """Turns clips into tasks; clips too short to have a driving frame are left out.

        Args:
          clips: in the order of the report.
        """
        for clip in clips:
            frames = iter(clip.frames)
            first = next(frames, None)
            if first is None:
                continue
            source = as_unit_float(first)
            driving = map(as_unit_float, frames)
            following = next(driving, None)
            if following is None and not self.include_source:
                continue
            start = [source] if self.include_source else []
            if following is not None:
                start.append(following)
            frames_left = itertools.chain(start, driving)
            identity = clip.identity_id or clip.clip_id
            yield ClipTask(str(clip.clip_id), source, frames_left, str(identity))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "reconstruction",
            "same identity: the first frame of a clip is driven by all other frames",
        ),
        Protocol(
            "reconstruction-fomm",
            "same identity as FOMM's script: the first frame is driven by all frames, itself too",
            include_source=True,
        ),
    )
}


def find_protocol(name: str) -> Protocol:
    """A protocol by name.

    Args:
      name: key of `PROTOCOLS`.

    Raises:
      ArgumentError: for an unknown name; lists the known ones.
    """
    check_choice("protocol", name, tuple(PROTOCOLS))
    return PROTOCOLS[name]


def as_unit_float(frame: np.ndarray) -> np.ndarray:
    """A frame as float32 in [0, 1]; bytes are divided by 255.

    Args:
      frame: (h w 3) uint8, or float in [0, 1].
    """
    frame = np.asarray(frame)
    if frame.dtype == np.uint8:
        return frame.astype(np.float32) / np.float32(255)
    return frame.astype(np.float32)
