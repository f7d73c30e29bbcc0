"""Timelines: a csv or json file that says where quantities go, frame by frame or by key frames.

csv: a first line with `frame` or `time_s` and names of quantities, then numbers; an empty cell says
nothing. json: an object with `rows`, a list of objects with the same names; null or a missing name
says nothing; `fps` and `interpolate` may be given too. Files are data from anybody: sizes are
bounded before anything is computed, and nothing but finite numbers is taken.
"""

import csv
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from talking_heads_jax.errors import DataError, check_file, requirement
from talking_heads_jax.inference.edit_changes import (
    MOST_FRAMES,
    TIMELINE,
    Change,
    parse_offset_name,
)
from talking_heads_jax.inference.edit_quantities import Quantity, find_quantity

INTERPOLATIONS = ("linear", "hold")
DEFAULT_FPS = 25.0
#: Frames a second that a file or an option may ask for.
LEAST_FPS, MOST_FPS = 0.1, 1000.0
SUFFIXES = (".csv", ".json")

_MAX_BYTES = 16 << 20
_MAX_ROWS = MOST_FRAMES
_MAX_CELLS = 5_000_000  # of the file, and of what it becomes
_FRAME, _TIME = "frame", "time_s"
_KEYS = ("rows", "fps", "interpolate")
_REMEDY = "docs/editing.md shows both formats."


@dataclasses.dataclass(frozen=True)
class Timeline:
    """What a file says.

    Attributes:
      changes: one per column.
      fps: frames a second, the file's own or the caller's.
      in_seconds: whether its rows are at times; otherwise at numbers of frames.
    """

    changes: tuple[Change, ...]
    fps: float
    in_seconds: bool


def read_timeline(
    path: Path,
    quantities: Mapping[str, Quantity],
    *,
    fps: float | None = None,
    interpolate: str | None = None,
) -> Timeline:
    """Reads a timeline.

    Args:
      path: ends in .csv or .json.
      quantities: that exist, of `quantities_of`.
      fps: frames a second; None: what a json file says, or `DEFAULT_FPS`.
      interpolate: between rows: 'linear' or 'hold' (the last row's value); None: what a json file
        says, or 'linear'. Before the first and after the last value of a column those are held.

    Returns:
      The changes.

    Raises:
      ArgumentError: a column is no known quantity.
      DataError: the file is missing, too large, of another format, or holds what is no finite
        number, or a value beyond what its quantity may be.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            requirement("a timeline", f"end in {' or '.join(SUFFIXES)}", path.name, _REMEDY)
        )
    check_file(path, DataError, max_bytes=_MAX_BYTES)
    where = f"{path}"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(requirement(where, "be text in UTF-8", error, _REMEDY)) from error
    options: dict[str, Any] = {}
    if suffix == ".csv":
        header, table = _csv_table(text, where)
    else:
        header, table, options = _json_table(text, where)
    rate = check_fps(options.get("fps", DEFAULT_FPS) if fps is None else fps)
    how = interpolate or options.get("interpolate", INTERPOLATIONS[0])
    if how not in INTERPOLATIONS:
        _refuse(where, f"interpolate by {' or '.join(INTERPOLATIONS)}", how)
    changes = _changes(header, table, where, quantities, rate, how)
    return Timeline(tuple(changes), rate, in_seconds=_TIME in header)


def check_fps(fps: float) -> float:
    """Frames a second as a number in its range.

    Args:
      fps: of an option or file.

    Raises:
      DataError: it is something else.
    """
    number = isinstance(fps, int | float) and not isinstance(fps, bool)
    if not number or not LEAST_FPS <= fps <= MOST_FPS:
        remedy = f"{DEFAULT_FPS:g} is the default."
        raise DataError(requirement("fps", f"be {LEAST_FPS:g} to {MOST_FPS:g}", fps, remedy))
    return float(fps)


def _csv_table(text: str, where: str) -> tuple[list[str], np.ndarray]:
    try:
        lines = [row for row in csv.reader(text.splitlines(), strict=True) if any(row)]
    except csv.Error as error:
        raise DataError(requirement(where, "be a csv table", error, _REMEDY)) from error
    if not lines:
        _refuse(where, "have a line of names and a line of numbers", "an empty file")
    header = [name.strip() for name in lines[0]]
    _check_size(where, len(lines) - 1, len(header))
    table = np.full((len(lines) - 1, len(header)), np.nan)
    for number, row in enumerate(lines[1:]):
        if len(row) != len(header):
            _refuse(where, f"have {len(header)} cells in each row", f"{len(row)} in row {number}")
        for column, cell in enumerate(row):
            if cell.strip():
                table[number, column] = _number(cell, where, number, header[column])
    return header, table


def _json_table(text: str, where: str) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    def refuse_constant(word: str) -> NoReturn:
        raise ValueError(word)

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object of the file, whose first of two equal keys json would drop."""
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            _refuse(where, "have each key once in an object", f"{twice!r} twice")
        return found

    try:
        content = json.loads(text, parse_constant=refuse_constant, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        raise DataError(requirement(where, "be readable json", error, _REMEDY)) from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        _refuse(where, "hold an object with a list of rows", type(content).__name__)
    unknown = sorted(set(content) - set(_KEYS))
    if unknown:
        _refuse(where, f"have no other keys than {', '.join(_KEYS)}", ", ".join(unknown))
    rows = content.pop("rows")
    _check_size(where, len(rows), 2)
    columns: dict[str, int] = {}
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            _refuse(where, "have objects as rows", f"{type(row).__name__} as row {number}")
        for name in row:
            columns.setdefault(name, len(columns))
    _check_size(where, len(rows), len(columns))
    table = np.full((len(rows), len(columns)), np.nan)
    for number, row in enumerate(rows):
        for name, value in row.items():
            if value is not None:
                table[number, columns[name]] = _number(value, where, number, name)
    return list(columns), table, content


def _number(value: object, where: str, row: int, name: str) -> float:
    """A cell as a finite number; text only from csv cells, which are all text."""
    number = math.nan
    from_csv = isinstance(value, str) and where.lower().endswith(".csv")
    if from_csv or (isinstance(value, int | float) and not isinstance(value, bool)):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
    if not math.isfinite(number):
        _refuse(where, "hold numbers", f"{value!r} as {name} of row {row}")
    return number


def _check_size(where: str, rows: int, columns: int) -> None:
    if not 1 <= rows <= _MAX_ROWS:
        _refuse(where, f"have 1 to {_MAX_ROWS} rows of numbers", rows)
    if columns < 2:
        _refuse(where, f"have a column {_FRAME} or {_TIME} and a quantity", f"{columns} columns")
    if rows * columns > _MAX_CELLS:
        _refuse(where, f"have at most {_MAX_CELLS} cells", rows * columns)


def _changes(
    header: Sequence[str],
    table: np.ndarray,
    where: str,
    quantities: Mapping[str, Quantity],
    fps: float,
    how: str,
) -> list[Change]:
    """One change per column."""
    clocks = [name for name in header if name in (_FRAME, _TIME)]
    if len(clocks) != 1:
        _refuse(where, f"have one column {_FRAME} or {_TIME}", ", ".join(clocks) or header[:8])
    times = _frame_numbers(table[:, list(header).index(clocks[0])], where, clocks[0], fps)
    # Rounded, so that row 12 of a clip is frame 12 whatever 12 / fps * fps comes to.
    count = int(np.floor(times[-1] + 0.5)) + 1
    if count > MOST_FRAMES or count * len(header) > _MAX_CELLS:
        _refuse(where, f"take at most {MOST_FRAMES} frames, fewer if of many columns", count)
    changes: list[Change] = []
    seen: dict[tuple[str, bool], str] = {}
    for column, text in enumerate(header):
        if text == clocks[0]:
            continue
        name, offset = parse_offset_name(text)
        known = find_quantity(quantities, name, what=f"a column of {where}")
        if seen.setdefault((known.name, offset), text) != text or header.count(text) > 1:
            _refuse(where, "have each quantity once", text)
        stated = np.flatnonzero(np.isfinite(table[:, column]))
        if len(stated):
            _check_range(known, table[:, column], stated, where, text, offset)
            values = _sampled(times[stated], table[stated, column], count, how)
            changes.append(Change(known.name, values, offset, layer=TIMELINE))
    if not changes:
        _refuse(where, "state a quantity", "no number at all")
    return changes


def _check_range(
    known: Quantity, cells: np.ndarray, stated: np.ndarray, where: str, text: str, offset: bool
) -> None:
    """Raises for a row beyond what is accepted, before interpolation makes other numbers of it."""
    low, high = known.least, known.most
    if offset:  # what it is added to is not known here, but lies within the same range
        low, high = low - high, high - low
    wrong = [row for row in stated if not low <= cells[row] <= high]
    if wrong:
        got = f"{cells[wrong[0]]:g} as {text} of row {wrong[0]}"
        _refuse(where, f"hold {low:g} to {high:g} ({known.unit})", got)


def _frame_numbers(clock: np.ndarray, where: str, name: str, fps: float) -> np.ndarray:
    """(rows,) frame numbers, fractions for times between frames."""
    if not np.isfinite(clock).all() or clock[0] < 0 or (np.diff(clock) <= 0).any():
        _refuse(where, f"have {name} in every row, from 0 on and increasing", clock[:6].tolist())
    if name == _TIME:
        if float(clock[-1]) * fps > MOST_FRAMES:  # before numbers overflow
            _refuse(where, f"take at most {MOST_FRAMES} frames", f"{clock[-1]:g} seconds")
        return clock * fps
    if (clock != np.floor(clock)).any():
        _refuse(where, "have whole numbers as frame", clock[:6].tolist())
    return clock


def _sampled(times: np.ndarray, values: np.ndarray, count: int, how: str) -> np.ndarray:
    """(count,) the values at frames 0, 1, ..."""
    frames = np.arange(count, dtype=np.float64)
    if how == "linear":
        return np.interp(frames, times, values)
    # A time written in decimal digits may come out a hair after its frame.
    before = np.searchsorted(times, frames + 1e-6, side="right") - 1
    return values[np.maximum(before, 0)]


def _refuse(where: str, constraint: str, got: object) -> NoReturn:
    raise DataError(requirement(where, constraint, got, _REMEDY))
