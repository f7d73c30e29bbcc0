"""What of a face can be set by name: the quantities of a morphable model, their units and ranges.

Names come from the model itself. Angles are degrees with the signs of every user interface here:
yaw > 0 turns to the right edge of the image, pitch > 0 up, roll > 0 clockwise; left and right are
the subject's. `jaw.open` > 0 opens the mouth.
"""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.procedural_parts import GLASSES, HAIR_STYLES
from talking_heads_jax.tracking.fit_priors import (
    BLENDSHAPE_MODELS,
    JAW_HIGHEST,
    JAW_LOWEST,
    expression_range,
)

#: What edits change of a face; the first word of a `Target`.
SHAPE, EXPRESSION, JOINT, HEAD, CAMERA = "shape", "expression", "joint", "head", "camera"
ANGLES = ("yaw", "pitch", "roll")
CAMERA_NAMES = ("scale", "x", "y")

#: (what, row, axis): a coefficient (row), an angle of a joint (row, axis), of the head or a number
#: of the camera (axis).
Target = tuple[str, int, int]

# Ranges outside of which a picture is not to be trusted, degrees: about what people can do.
_HEAD_DEG = {"yaw": 60.0, "pitch": 40.0, "roll": 45.0}
_NECK_DEG = {"yaw": 45.0, "pitch": 30.0, "roll": 30.0}
_EYE_DEG = {"yaw": 35.0, "pitch": 25.0, "roll": 10.0}
_OTHER_JOINT_DEG = 30.0
_COEFFICIENT_SD = 3.0
_CAMERA_RANGES = {"scale": (0.5, 2.0), "x": (-0.5, 0.5), "y": (-0.5, 0.5)}
# What no face has: refused. The bounds of a motion file are of the same kind.
_MOST_DEG, _MOST_COEFFICIENT = 180.0, 100.0
_CAMERA_LIMITS = {"scale": (0.05, 20.0), "x": (-10.0, 10.0), "y": (-10.0, 10.0)}

_SPOKEN_JOINTS = {"eye_L": "left_eye", "eye_R": "right_eye"}
_BOTH_EYES = "eyes"
_ROOT, _JAW = "root", "jaw"
_SWITCHES = frozenset((*HAIR_STYLES, *GLASSES))
_MOST_SUGGESTIONS, _MOST_LISTED, _LONGEST_NAME = 3, 40, 100


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One thing that can be set.

    Attributes:
      name: as it is typed.
      targets: what it sets; more than one for both eyes.
      unit: of its values.
      lowest: of the range in which a result makes sense; beyond it there is a warning.
      highest: likewise.
      least: of the range that is accepted at all.
      most: likewise.
      sign: factor from the value to the target's own: −1 for the jaw, whose opening is a negative
        pitch.
      other_names: that mean the same.
    """

    name: str
    targets: tuple[Target, ...]
    unit: str
    lowest: float
    highest: float
    least: float
    most: float
    sign: float = 1.0
    other_names: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """Which part of a face: 'shape', 'expression', 'joint', 'head' or 'camera'."""
        return self.targets[0][0]


def quantities_of(model: MorphableModel) -> Mapping[str, Quantity]:
    """Everything that can be set of a morphable model, by name, in the order of a listing.

    Args:
      model: any.
    """
    found = [*_head(), *_joints(model), *_camera(), *_expressions(model), *_shapes(model)]
    return {quantity.name: quantity for quantity in found}


def find_quantity(
    quantities: Mapping[str, Quantity], name: str, *, what: str = "the quantity"
) -> Quantity:
    """The quantity of a name, or of another name of it.

    Args:
      quantities: of `quantities_of`.
      name: as typed.
      what: the thing that is named, for the message.

    Raises:
      ArgumentError: there is none; suggests the most similar names.
    """
    if name in quantities:
        return quantities[name]
    others = {other: known for known in quantities.values() for other in known.other_names}
    if name in others:
        return others[name]
    words = [*quantities, *(other for other in others if not other.rpartition(".")[2].isdigit())]
    typed = name[:_LONGEST_NAME]  # a file may hold any text
    close = difflib.get_close_matches(typed, words, _MOST_SUGGESTIONS, cutoff=0.5)
    # `smile_L` alone, or `expression` for the whole group.
    close += [word for word in words if name and name in word.split(".") and word not in close]
    if close:
        remedy = f"Did you mean {', '.join(close[:_MOST_LISTED])}? --list shows all names."
    else:
        remedy = f"Known: {', '.join(_groups(quantities))}. --list shows all names."
    raise ArgumentError(requirement(what, "be a known quantity", name or "nothing", remedy))


def quantity_lines(model: MorphableModel) -> Iterator[str]:
    """What can be set, for a person to read: name, range, unit.

    Args:
      model: whose.

    Yields:
      One line each.
    """
    quantities = quantities_of(model)
    width = max(map(len, quantities))
    yield f"{'name':{width}}  {'lowest':>7} {'highest':>7}  unit ({model.name})"
    for known in quantities.values():
        also = f" (also {', '.join(known.other_names)})" if known.other_names else ""
        yield f"{known.name:{width}}  {known.lowest:7.4g} {known.highest:7.4g}  {known.unit}{also}"


def range_notes(known: Quantity, values: np.ndarray) -> Iterator[str]:
    """What a user should know of values that a quantity takes.

    Args:
      known: the quantity.
      values: finite, in its unit.

    Yields:
      A line if they leave the range in which a result makes sense.
    """
    low, high = float(values.min()), float(values.max())
    if low < known.lowest - 1e-4 or high > known.highest + 1e-4:
        worst = high if high - known.highest > known.lowest - low else low
        yield (
            f"{known.name}: {worst:.4g} is outside {known.lowest:.4g} to {known.highest:.4g} "
            f"({known.unit}): the model was not made for it"
        )


def check_values(known: Quantity, values: np.ndarray) -> None:
    """Raises for values that mean nothing; NaN, "not stated", passes.

    Args:
      known: the quantity.
      values: in its unit.

    Raises:
      ArgumentError: one is infinite, or beyond what is accepted.
    """
    stated = values[~np.isnan(values)]
    wrong = stated[~((stated >= known.least) & (stated <= known.most))]
    if len(wrong):
        raise ArgumentError(
            requirement(
                known.name,
                f"lie within {known.least:g} to {known.most:g} ({known.unit})",
                f"{wrong[0]:g}",
                f"Sensible values are {known.lowest:.4g} to {known.highest:.4g}.",
            )
        )


def _degrees(
    name: str, targets: tuple[Target, ...], low: float, high: float, **more: Any
) -> Quantity:
    return Quantity(name, targets, "degrees", low, high, -_MOST_DEG, _MOST_DEG, **more)


def _head() -> Iterator[Quantity]:
    for axis, angle in enumerate(ANGLES):
        far = _HEAD_DEG[angle]
        yield _degrees(f"head.{angle}", ((HEAD, 0, axis),), -far, far)


def _joints(model: MorphableModel) -> Iterator[Quantity]:
    rows = {name: row for row, name in enumerate(model.joint_names) if name != _ROOT}
    eyes = [rows[name] for name in _SPOKEN_JOINTS if name in rows]
    if _JAW in rows:
        yield from _jaw(model, rows.pop(_JAW))
    if len(eyes) == len(_SPOKEN_JOINTS):
        for axis, angle in enumerate(ANGLES):
            far, targets = _EYE_DEG[angle], tuple((JOINT, row, axis) for row in eyes)
            yield _degrees(f"{_BOTH_EYES}.{angle}", targets, -far, far)
    for name, row in rows.items():
        ranges = {"neck": _NECK_DEG, "eye_L": _EYE_DEG, "eye_R": _EYE_DEG}.get(name, {})
        for axis, angle in enumerate(ANGLES):
            far = ranges.get(angle, _OTHER_JOINT_DEG)
            spoken = f"{_SPOKEN_JOINTS.get(name, name)}.{angle}"
            yield _degrees(spoken, ((JOINT, row, axis),), -far, far)


def _jaw(model: MorphableModel, row: int) -> Iterator[Quantity]:
    """Opening, and the sideways turns it hardly makes; as far as a fit of the model goes."""
    description = getattr(model, "description", None)
    opened = getattr(description, "jaw_open_angle", None) or JAW_HIGHEST[0]
    yield _degrees(
        "jaw.open",
        ((JOINT, row, 1),),
        float(np.rad2deg(JAW_LOWEST[0])),
        float(np.rad2deg(opened)),
        sign=-1.0,
        other_names=("jaw",),
    )
    for axis, angle in ((0, "yaw"), (2, "roll")):
        low, high = (float(np.rad2deg(bound[1 + axis // 2])) for bound in (JAW_LOWEST, JAW_HIGHEST))
        yield _degrees(f"jaw.{angle}", ((JOINT, row, axis),), low, high)


def _camera() -> Iterator[Quantity]:
    # Under a perspective camera what is nearer than the model's origin moves further.
    shift = "share of the crop that the model's origin moves, from the source's place"
    units = ("factor of the source's", shift, shift)
    for axis, (name, unit) in enumerate(zip(CAMERA_NAMES, units, strict=True)):
        yield Quantity(
            f"camera.{name}",
            ((CAMERA, 0, axis),),
            unit,
            *_CAMERA_RANGES[name],
            *_CAMERA_LIMITS[name],
        )


def _expressions(model: MorphableModel) -> Iterator[Quantity]:
    low, high = expression_range(model.name)
    blend = model.name in BLENDSHAPE_MODELS
    if not blend:
        low, high = -_COEFFICIENT_SD, _COEFFICIENT_SD
    unit = "share of full strength" if blend else "standard deviations"
    yield from _coefficients(EXPRESSION, model.expression_names, {}, (unit, low, high))


def _shapes(model: MorphableModel) -> Iterator[Quantity]:
    far = _COEFFICIENT_SD
    worn = {}
    if model.name == "procedural":
        worn = dict.fromkeys(_SWITCHES, ("share: 0 off, 1 worn", 0.0, 1.0))
    scale = ("standard deviations", -far, far)
    yield from _coefficients(SHAPE, model.shape_names, worn, scale)


def _coefficients(
    group: str,
    names: tuple[str, ...],
    special: Mapping[str, tuple[str, float, float]],
    usual: tuple[str, float, float],
) -> Iterator[Quantity]:
    """One quantity for each coefficient, also known by its number from 0."""
    known = set(names)
    for row, name in enumerate(names):
        unit, low, high = special.get(name, usual)
        number = (f"{group}.{row}",) if str(row) not in known else ()
        yield Quantity(
            f"{group}.{name}",
            ((group, row, 0),),
            unit,
            low,
            high,
            -_MOST_COEFFICIENT,
            _MOST_COEFFICIENT,
            other_names=number,
        )


def _groups(quantities: Mapping[str, Quantity]) -> list[str]:
    """The names without the coefficients', which are many."""
    few = [name for name, known in quantities.items() if known.kind not in (SHAPE, EXPRESSION)]
    return [*few, "expression.NAME", "shape.NAME"]
