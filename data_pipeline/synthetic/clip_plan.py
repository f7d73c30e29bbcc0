"""Which clips the built-in set consists of, by split and identity.

Shared by the writer of data sets, the TFDS builder and the source that renders while training.
"""

from collections.abc import Mapping
from typing import NamedTuple

from data_pipeline.schema import SPLITS
from data_pipeline.synthetic.identities import IDENTITY_RANGES
from data_pipeline.synthetic.motion import FRAMES_PER_SECOND, LONGEST_CLIP
from talking_heads_jax.errors import ArgumentError, check_choice, requirement


class PlannedClip(NamedTuple):
    """A clip before it is rendered.

    Attributes:
      clip_id: its name.
      split: one of `schema.SPLITS`.
      identity: number of the person in the set.
      take: number of the person's clip.
      num_frames: its length.
      stride: every how many frames of the motion one is taken.
    """

    clip_id: str
    split: str
    identity: int
    take: int
    num_frames: int
    stride: int

    @property
    def identity_id(self) -> str:
        """Who is shown, as records and clip tables name them."""
        return f"{self.identity:05d}"

    @property
    def fps(self) -> float:
        """Frames per second."""
        return FRAMES_PER_SECOND / self.stride


def plan_clips(
    identities: Mapping[str, int], *, num_frames: int, stride: int = 1, takes: int = 1
) -> list[PlannedClip]:
    """Lists the clips of a set, in the order of its records.

    Args:
      identities: split to number of people.
      num_frames: of each clip, at least 2.
      stride: every how many frames of the motion, at 25 per second, one is taken.
      takes: clips of each person.

    Raises:
      ArgumentError: an unknown split, no people at all, or numbers that make no sense.
    """
    for split, count in identities.items():
        check_choice("split", split, SPLITS)
        if not 0 <= count <= len(IDENTITY_RANGES[split]):
            raise ArgumentError(
                requirement(
                    f"The identities of {split}",
                    f"number 0 to {len(IDENTITY_RANGES[split])}",
                    count,
                    "Another seed shows other people.",
                )
            )
    for what, value, lowest in (
        ("The number of identities", sum(identities.values()), 1),
        ("The number of frames of a clip", num_frames, 2),
        ("stride", stride, 1),
        ("takes", takes, 1),
    ):
        if value < lowest:
            raise ArgumentError(requirement(what, f"be at least {lowest}", value, "Ask for more."))
    if num_frames * stride > LONGEST_CLIP:
        raise ArgumentError(
            requirement(
                "The frames of a clip times the stride",
                f"be at most {LONGEST_CLIP}",
                num_frames * stride,
                "Draw several takes instead of one long clip.",
            )
        )
    return [
        PlannedClip(f"{split}/{number:05d}-{take}", split, number, take, num_frames, stride)
        for split in SPLITS
        for number in IDENTITY_RANGES[split][: identities.get(split, 0)]
        for take in range(takes)
    ]
