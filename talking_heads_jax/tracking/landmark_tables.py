"""Landmarks in csv tables: MediaPipe's 478 points, and what OpenFace writes.

A table is read line by line and nothing in it is trusted: sizes, frame numbers and cells are
checked before memory is spent on them. Letters: t frames, n points.

MediaPipe: columns `frame` (from 0), `x_0` … `x_477`, `y_0` … `y_477` in any order; others, for
instance `z_0`, are left out. A first line `# unit: px` or `# unit: normalised` says what the
coordinates are; without it they are shares of the frame if all lie within -1 and 2 (no face is two
pixels wide). An empty cell is a missing point, a missing frame has no face.

OpenFace: columns `frame` (from 1), `face_id`, `confidence`, `success`, `x_0` … `x_67`, `y_0` …
`y_67` in pixels; spaces around the names are left out. success 0 is a frame without a face. A table
without `frame` is of one picture, a row per `face`.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from talking_heads_jax.errors import DataError, requirement
from talking_heads_jax.tracking.landmarks import (
    MAX_FRAMES,
    NUM_LANDMARKS,
    NUM_MEDIAPIPE,
    SOURCE_OPENFACE,
    Landmarks,
    from_mediapipe,
)

_MAX_LINE = 2**18  # characters; a thousand columns of numbers are less than a tenth
_MAX_ROWS = 2 * MAX_FRAMES  # of several faces; OpenFace's are 5 kB each
_MAX_COLUMNS = 8192  # OpenFace writes up to about 700, MediaPipe 1434
_UNITS = {"px": False, "normalised": True, "normalized": True}
_NORMALISED = (-1.0, 2.0)  # shares of the frame; a face may lie partly outside it
_REMEDY = "See docs/tracking.md for the tables that are read."


def read_table(path: Path, frame_size: tuple[int, int] | None) -> Landmarks:
    """Reads a csv table of landmarks.

    Args:
      path: an ordinary file.
      frame_size: height, width of the frames; only needed for shares of the frame.

    Returns:
      The landmarks; `landmark_files.check_landmarks` has still to be asked.

    Raises:
      DataError: with the line, if it is no such table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _Lines(path, file)
            unit = lines.unit()
            header = [name.strip() for name in next(csv.reader(lines), [])]
            if len(header) > _MAX_COLUMNS or len(set(header)) != len(header):
                raise _unlike(path, "name each column once", f"{len(header)} columns")
            if f"x_{NUM_MEDIAPIPE - 1}" in header:
                return _mediapipe(path, lines, header, unit, frame_size)
            if f"x_{NUM_LANDMARKS - 1}" in header:
                return _openface(path, lines, header)
            shown = ", ".join(header[:8]) or "nothing"
            raise _unlike(path, "have the columns of MediaPipe or OpenFace", shown)
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unlike(path, "be a table of comma-separated text", error) from error


class _Lines:
    """The lines of a file, none of which may be endless."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path, self._file = path, file
        self._first: str | None = None
        self.number = 0

    def unit(self) -> bool | None:
        """Whether a leading comment says that coordinates are shares; None if there is none."""
        self._first = self._read()
        if not self._first.startswith("#"):
            return None
        name, _, unit = self._first.lstrip("#").partition(":")
        self._first = None
        if name.strip().lower() != "unit" or unit.strip().lower() not in _UNITS:
            raise _unlike(self._path, "say '# unit: px' or '# unit: normalised'", f"{name}:{unit}")
        return _UNITS[unit.strip().lower()]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, self._first = self._first if self._first is not None else self._read(), None
        if not line:
            raise StopIteration
        return line

    def _read(self) -> str:
        line = self._file.readline(_MAX_LINE)
        self.number += 1
        if len(line) == _MAX_LINE:
            raise _unlike(self._path, "have short lines", f"line {self.number} without an end")
        return line


def _rows(
    path: Path, lines: _Lines, header: list[str], count: int, names: tuple[str, ...]
) -> Iterator[tuple[dict[str, float], np.ndarray]]:
    """(named columns, points (count 2)) of each row; a cell that is empty is NaN."""
    places = {name: index for index, name in enumerate(header)}
    wanted = [f"{axis}_{index}" for index in range(count) for axis in "xy"]
    missing = [name for name in (*names, *wanted) if name not in places]
    if missing:
        raise _unlike(path, f"have a column {missing[0]}", ", ".join(header[:8]))
    columns = np.array([places[name] for name in wanted])
    for number, row in enumerate(csv.reader(lines)):
        if number >= _MAX_ROWS:
            raise _unlike(path, f"have at most {_MAX_ROWS} rows", "more")
        if not row:
            continue
        if len(row) != len(header):
            raise _unlike(path, f"have {len(header)} cells in line {lines.number}", len(row))
        try:
            points = [float(row[column].strip() or "nan") for column in columns]
            values = {name: float(row[places[name]].strip() or "nan") for name in names}
        except ValueError as error:
            raise _unlike(path, f"hold numbers in line {lines.number}", error) from error
        yield values, np.array(points, np.float32).reshape(count, 2)


def _frame_number(path: Path, lines: _Lines, value: float, first: int) -> int:
    if not (first <= value < MAX_FRAMES + first and value == int(value)):
        raise _unlike(
            path, f"number frames from {first} to {MAX_FRAMES} (line {lines.number})", value
        )
    return int(value) - first


def _in_order(frames: dict[int, np.ndarray], count: int) -> np.ndarray:
    points = np.full((max(frames, default=-1) + 1, count, 2), np.nan, np.float32)
    for index, values in frames.items():
        points[index] = values
    return points


def _mediapipe(
    path: Path,
    lines: _Lines,
    header: list[str],
    normalised: bool | None,
    frame_size: tuple[int, int] | None,
) -> Landmarks:
    frames: dict[int, np.ndarray] = {}
    for values, points in _rows(path, lines, header, NUM_MEDIAPIPE, ("frame",)):
        index = _frame_number(path, lines, values["frame"], 0)
        if index in frames:
            raise _unlike(path, "hold each frame once", f"frame {index} in line {lines.number}")
        frames[index] = from_mediapipe(points[None]).points_px[0]
    points = _in_order(frames, NUM_LANDMARKS)
    known = points[np.isfinite(points)]
    if normalised is None and len(known):
        normalised = bool(known.min() >= _NORMALISED[0] and known.max() <= _NORMALISED[1])
    if normalised:
        if frame_size is None:
            raise _unlike(path, "hold pixels where no frame size is known", "shares of the frame")
        points *= np.array(frame_size[::-1], np.float32)
    note = f"{path.name}: coordinates are {'shares of the frame' if normalised else 'pixels'}"
    marks = from_mediapipe(np.zeros((0, NUM_MEDIAPIPE, 2)))
    return Landmarks(
        points, np.ones(points.shape[:2], np.uint8), source=marks.source, notes=(note,)
    )


def _openface(path: Path, lines: _Lines, header: list[str]) -> Landmarks:
    still = "frame" not in header  # FaceLandmarkImg's table: one picture, a row per face
    names = tuple(name for name in ("frame", "face_id", "face", "success") if name in header)
    faces: dict[float, dict[int, np.ndarray]] = {}
    for values, points in _rows(path, lines, header, NUM_LANDMARKS, names):
        index = 0 if still else _frame_number(path, lines, values["frame"], 1)
        found = values.get("success", 1.0) == 1.0
        face = faces.setdefault(values.get("face_id", values.get("face", 0.0)), {})
        if index in face:
            got = f"frame {index} twice (line {lines.number})"
            raise _unlike(path, "hold each face once in a frame", got)
        face[index] = points if found else np.full_like(points, np.nan)
    notes: tuple[str, ...] = ()
    if len(faces) > 1:
        chosen = max(faces, key=lambda face: _presence(faces[face]))
        notes = (
            f"{path.name}: {len(faces)} faces; face_id {chosen:g} is taken, which is in most "
            f"frames ({_presence(faces[chosen])[0]})",
        )
        last = max(max(frames) for frames in faces.values())
        chosen_frames = faces[chosen]
        chosen_frames.setdefault(last, np.full((NUM_LANDMARKS, 2), np.nan, np.float32))
    else:
        chosen_frames = next(iter(faces.values()), {})
    points = _in_order(chosen_frames, NUM_LANDMARKS)
    visible = np.ones(points.shape[:2], np.uint8)
    return Landmarks(points, visible, source=SOURCE_OPENFACE, notes=notes)


def _presence(frames: dict[int, np.ndarray]) -> tuple[int, float]:
    """In how many frames a face is, and how large it is."""
    found = [points for points in frames.values() if np.isfinite(points).all()]
    return len(found), float(np.mean([np.ptp(points, axis=0).max() for points in found] or [0.0]))


def _unlike(path: Path, constraint: str, got: object) -> DataError:
    return DataError(requirement(f"{path}", constraint, got, _REMEDY))
