"""Edits as data: which quantity goes where over the frames of a clip, from text.

`head.yaw=20` sets, `head.yaw+=20` adds to what the source has, `head.yaw=-30:30:25` sweeps in 25
frames. Letters: t frames.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement

#: Who wins where several state the same quantity: the last. Offsets are added to the winner.
PRESET, SET, TIMELINE, SWEEP = range(4)
LAYER_NAMES = ("a preset", "--set", "a timeline", "--sweep")

#: Frames of a clip made by edits: a bound on files and typing errors, an hour at 25 a second.
MOST_FRAMES = 90_000

_ASSIGNMENT = re.compile(r"\s*(?P<name>[^\s=+]+)\s*(?P<how>\+?=)\s*(?P<value>.*?)\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Change:
    """What becomes of one quantity.

    Attributes:
      name: of the quantity, as typed.
      values: (t,) float64 in its unit; NaN where nothing is said of that frame.
      offset: whether the values are added to the quantity (True), or are its values.
      held: whether the last value serves all further frames too.
      layer: PRESET, SET, TIMELINE or SWEEP.
    """

    name: str
    values: np.ndarray
    offset: bool = False
    held: bool = True
    layer: int = SET

    def over(self, count: int) -> np.ndarray:
        """The values of a clip of so many frames, at least as many as there are.

        Args:
          count: t.
        """
        more = count - len(self.values)
        last = self.values[-1] if self.held else np.nan
        return np.concatenate([self.values, np.full(more, last)])


def frame_count(changes: Iterable[Change]) -> int:
    """How many frames show all that is stated: 1 for a picture.

    Args:
      changes: any.

    Raises:
      ArgumentError: more than `MOST_FRAMES`.
    """
    count = max((len(change.values) for change in changes), default=1)
    if count > MOST_FRAMES:
        raise ArgumentError(
            requirement("the edits", f"take at most {MOST_FRAMES} frames", count, "Make parts.")
        )
    return count


def parse_setting(text: str) -> Change:
    """`name=value` or `name+=value`, for all frames.

    Args:
      text: as typed.

    Raises:
      ArgumentError: it is something else, or the value is no finite number.
    """
    name, offset, value = _parts("--set", text, "NAME=VALUE, e.g. head.yaw=20")
    number = _number(f"the value of {name}", value)
    return Change(name, np.array([number]), offset, layer=SET)


def parse_sweeps(
    texts: Sequence[str], *, there_and_back: bool = False, together: bool = False
) -> list[Change]:
    """Sweeps `name=start:stop:frames` or `name+=start:stop:frames`, both ends included.

    Args:
      texts: as typed.
      there_and_back: whether every sweep returns to its start, in one frame less.
      together: whether they all begin with the first frame, and the last value of a shorter one is
        held; otherwise each begins when the one before it has ended, and no longer holds.

    Returns:
      One change each.

    Raises:
      ArgumentError: a text is something else, or asks for fewer than 2 or too many frames.
    """
    curves = []
    for text in texts:
        name, offset, value = _parts("--sweep", text, "NAME=START:STOP:FRAMES")
        fields = value.split(":")
        if len(fields) != 3:
            raise _malformed("--sweep", "be NAME=START:STOP:FRAMES", text)
        start, stop = (_number(f"an end of the sweep of {name}", field) for field in fields[:2])
        count = _number(f"the frames of the sweep of {name}", fields[2])
        if not (count.is_integer() and 2 <= count <= MOST_FRAMES):
            raise _malformed(f"the sweep of {name}", f"have 2 to {MOST_FRAMES} frames", fields[2])
        values = np.linspace(start, stop, int(count))
        if there_and_back:
            values = np.concatenate([values, values[-2::-1]])
        curves.append(Change(name, values, offset, held=together, layer=SWEEP))
    return curves if together else in_turn(curves)


def in_turn(changes: Sequence[Change]) -> list[Change]:
    """The changes one after another: before and after its own frames each says nothing.

    Args:
      changes: each with its values from frame 0 on.
    """
    placed, start = [], 0
    for change in changes:
        before = np.full(start, np.nan)
        placed.append(dataclasses.replace(change, values=np.concatenate([before, change.values])))
        start += len(change.values)
        frame_count(placed[-1:])
    return [dataclasses.replace(change, held=False) for change in placed]


def parse_offset_name(text: str) -> tuple[str, bool]:
    """A column's name and whether its values are offsets: `head.yaw+` or `head.yaw+=`.

    Args:
      text: of a timeline.
    """
    name = text.strip().removesuffix("=").strip()
    return name.removesuffix("+").strip(), name.endswith("+")


def _parts(flag: str, text: str, wanted: str) -> tuple[str, bool, str]:
    match = _ASSIGNMENT.fullmatch(text)
    if match is None:
        raise _malformed(flag, f"be {wanted}", text or "nothing")
    return match["name"], match["how"] == "+=", match["value"]


def _number(what: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _malformed(what, "be a number", text or "nothing")
    return number


def _malformed(what: str, constraint: str, got: object) -> ArgumentError:
    remedy = "E.g. --set head.yaw=20 jaw.open+=5, --sweep head.yaw=-30:30:25."
    return ArgumentError(requirement(what, constraint, got, remedy))
