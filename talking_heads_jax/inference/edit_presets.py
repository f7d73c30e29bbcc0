"""Edits with a name: frontalisation, a face at rest, the animation of the released demo."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from talking_heads_jax.errors import check_choice
from talking_heads_jax.inference.edit_changes import PRESET, Change, in_turn
from talking_heads_jax.inference.edit_quantities import (
    ANGLES,
    EXPRESSION,
    HEAD,
    SHAPE,
    Quantity,
)

#: The released demo: steps of each way, how far coefficients and angles go.
DEMO_STEPS, DEMO_COEFFICIENT_SD = 40, -2.0
DEMO_JAW_DEG, DEMO_HEAD_DEG = 8.0, 15.0
# Steps of each way of one blend shape; they are shown one by one.
_BLEND_STEPS = 10

_Quantities = Mapping[str, Quantity]


def preset_changes(names: Sequence[str], quantities: _Quantities) -> list[Change]:
    """The changes of some presets, in whose order later ones win where they state a value.

    Args:
      names: of `PRESETS`.
      quantities: of the model, of `quantities_of`.

    Returns:
      The changes, in the order of their names.

    Raises:
      ArgumentError: an unknown name.
    """
    for name in names:
        check_choice("the preset", name, tuple(PRESETS))
    return [change for name in names for change in PRESETS[name](quantities)]


def _frontal(quantities: _Quantities) -> list[Change]:
    """The head faces the camera, where it is and as large as it is."""
    del quantities
    return [_still(f"head.{angle}") for angle in ANGLES]


def _neutral(quantities: _Quantities) -> list[Change]:
    """No expression: all coefficients and the jaw at rest."""
    resting = [name for name, known in quantities.items() if known.kind == EXPRESSION]
    resting += [name for name in quantities if name.startswith("jaw.")]
    return [_still(name) for name in resting]


def _demo(quantities: _Quantities) -> list[Change]:
    parts = (_demo_shape, _demo_expression, _demo_jaw, _demo_head)
    return _one_after_another([list(part(quantities)) for part in parts])


def _one_part(
    part: Callable[[_Quantities], Iterator[list[Change]]],
) -> Callable[[_Quantities], list[Change]]:
    return lambda quantities: _one_after_another([list(part(quantities))])


def _demo_shape(quantities: _Quantities) -> Iterator[list[Change]]:
    yield from _even_then_odd(quantities, SHAPE)


def _demo_expression(quantities: _Quantities) -> Iterator[list[Change]]:
    """Gaussian modes as the released demo has them; blend shapes one by one, 0 to 1 and back."""
    blend = [
        name
        for name, known in quantities.items()
        if known.kind == EXPRESSION and (known.lowest, known.highest) == (0.0, 1.0)
    ]
    if not blend:
        yield from _even_then_odd(quantities, EXPRESSION)
    for name in blend:
        yield [Change(name, _there_and_back(1.0, _BLEND_STEPS), layer=PRESET)]


def _demo_jaw(quantities: _Quantities) -> Iterator[list[Change]]:
    for name, known in quantities.items():
        if name == "jaw.open":
            yield [_added(name, _there_and_back(DEMO_JAW_DEG))]
        elif name.startswith("jaw."):
            yield [_added(name, _swing(min(DEMO_JAW_DEG, known.highest)))]


def _demo_head(quantities: _Quantities) -> Iterator[list[Change]]:
    for name, known in quantities.items():
        if known.kind == HEAD:
            yield [_added(name, _swing(DEMO_HEAD_DEG))]


def _even_then_odd(quantities: _Quantities, kind: str) -> Iterator[list[Change]]:
    """All coefficients of even number together, then the others; not hair and glasses."""
    modes = [
        name for name, known in quantities.items() if known.kind == kind and known.lowest < 0.0
    ]
    for first in (0, 1):
        if modes[first::2]:
            values = _there_and_back(DEMO_COEFFICIENT_SD)
            yield [_added(name, values) for name in modes[first::2]]


def _one_after_another(parts: Sequence[Sequence[list[Change]]]) -> list[Change]:
    """Groups of changes, those of a group at once."""
    groups = [group for part in parts for group in part if group]
    starts = in_turn([group[0] for group in groups])
    placed = []
    for group, first in zip(groups, starts, strict=True):
        before = len(first.values) - len(group[0].values)
        for change in group:
            values = np.concatenate([np.full(before, np.nan), change.values])
            placed.append(
                Change(change.name, values, change.offset, held=False, layer=change.layer)
            )
    return placed


def _still(name: str) -> Change:
    return Change(name, np.zeros(1), layer=PRESET)


def _added(name: str, values: np.ndarray) -> Change:
    return Change(name, values, offset=True, layer=PRESET)


def _there_and_back(peak: float, steps: int = DEMO_STEPS) -> np.ndarray:
    """0 to the peak and back, 2 · steps frames; the last one is a step before 0."""
    way = np.linspace(0.0, peak, steps + 1)
    return np.concatenate([way[:-1], way[:0:-1]])


def _swing(far: float) -> np.ndarray:
    """0, far, −far, 0 at the speed of −far to far in `DEMO_STEPS`."""
    half, whole = DEMO_STEPS // 2, DEMO_STEPS
    corners = ((0.0, far, half), (far, -far, whole), (-far, 0.0, half))
    return np.concatenate([np.linspace(a, b, steps + 1)[:-1] for a, b, steps in corners])


#: Every preset by name.
PRESETS: Mapping[str, Callable[[_Quantities], list[Change]]] = MappingProxyType(
    {
        "frontal": _frontal,
        "neutral": _neutral,
        "demo": _demo,
        "demo-shape": _one_part(_demo_shape),
        "demo-expression": _one_part(_demo_expression),
        "demo-jaw": _one_part(_demo_jaw),
        "demo-head": _one_part(_demo_head),
    }
)
