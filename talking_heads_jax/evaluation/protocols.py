"""Protocols as data: how pairs are chosen, and whose motion is taken.

The protocols themselves are files, `configs/eval/<name>.py`; their section `protocol` has the
fields of `Protocol`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from talking_heads_jax.errors import ConfigError, requirement

FIRST_FRAME, RANDOM_FRAMES = "first_frame", "random_frames"
ACROSS_CLIPS, NEXT_PERSON = "across_clips", "next_person"
PAIRINGS = (FIRST_FRAME, RANDOM_FRAMES, ACROSS_CLIPS, NEXT_PERSON)
ABSOLUTE, RELATIVE = "absolute", "relative_best_frame"
MOTIONS = (ABSOLUTE, RELATIVE)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A named way to evaluate.

    Attributes:
      name: as on the command line.
      description: one line for reports.
      pairing: 'first_frame' (frame 0 of a clip is driven by the others), 'random_frames' (random
        pairs within a clip), 'across_clips' (sources driven by clips of other people) or
        'next_person' (frame 0 of every clip is driven by one clip of somebody else).
      motion: 'absolute', or 'relative_best_frame': movement since the driving frame that is most
        like the source, not scaled.
      version: raised when the same seed would give other pairs.
      seed: of what is drawn.
      include_source: 'first_frame': also score the source frame driven by itself, as FOMM's script.
      pairs_per_clip: 'random_frames': pairs drawn per clip, fewer when it has not as many.
      both_directions: 'random_frames': each pair also with its frames exchanged.
      num_sources: 'across_clips': source images.
      num_driving: 'across_clips': driving clips.
      driving_per_clip: only so many driving frames of a clip, spread evenly over it; 0 for all. Not
        for 'random_frames'.
      exact_truth: across identities: the data set renders what a perfect system would return.
    """

    name: str
    description: str
    pairing: str
    motion: str = ABSOLUTE
    version: int = 1
    seed: int = 0
    include_source: bool = False
    pairs_per_clip: int = 10
    both_directions: bool = True
    num_sources: int = 10
    num_driving: int = 14
    driving_per_clip: int = 0
    exact_truth: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Protocol":
        """Checks the section `protocol` of a config, or of a pair list.

        Args:
          config: any of the attributes; name, description and pairing are required.

        Raises:
          ConfigError: an unknown or missing key, a wrong type, or a value that makes no sense.
        """
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(config.keys()) - set(fields), key=str)
        if unknown:
            raise ConfigError(
                requirement("protocol", "have known keys", unknown, f"Use {sorted(fields)}.")
            )
        missing = [name for name in ("name", "description", "pairing") if name not in config]
        if missing:
            raise ConfigError(
                requirement("protocol", f"have {missing}", "less", "See configs/eval.")
            )
        values = {key: config[key] for key in config.keys()}  # noqa: SIM118 ConfigDict
        for name, value in values.items():
            if type(value) is not fields[name].type:
                raise ConfigError(
                    requirement(
                        f"protocol.{name}", f"be a {fields[name].type.__name__}", value, "Correct."
                    )
                )
        for name, choices in (("pairing", PAIRINGS), ("motion", MOTIONS)):
            if values.get(name, ABSOLUTE if name == "motion" else None) not in choices:
                raise ConfigError(
                    requirement(f"protocol.{name}", f"be one of {choices}", values[name], "Choose.")
                )
        smallest = {"seed": 0, "version": 1, "pairs_per_clip": 1, "num_sources": 1}
        smallest |= {"num_driving": 1, "driving_per_clip": 0}
        for name, bound in smallest.items():
            if values.get(name, bound) < bound:
                raise ConfigError(
                    requirement(
                        f"protocol.{name}", f"be at least {bound}", values[name], "Raise it."
                    )
                )
        protocol = cls(**values)
        if protocol.exact_truth and protocol.same_identity:
            raise ConfigError(
                requirement(
                    "protocol.exact_truth",
                    "be asked for across identities only",
                    protocol.pairing,
                    "Omit it: the driving frame is the truth.",
                )
            )
        return protocol

    @property
    def same_identity(self) -> bool:
        """Whether the driving frame is the truth: it shows the source's own person and clip."""
        return self.pairing in (FIRST_FRAME, RANDOM_FRAMES)

    @property
    def relative(self) -> bool:
        """Whether motion is relative to a rest frame of the driving clip."""
        return self.motion == RELATIVE
