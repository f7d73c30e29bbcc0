"""The grid behind the procedural head's skin: rows, columns, slits and landmarks.

Rows follow the face down, columns run around the head; both are dense at the eyes and the mouth,
whose lines are rows. Within a slit the points of its line exist twice, once for each edge.
"""

import functools
from collections.abc import Callable

import numpy as np

from talking_heads_jax.morphable.procedural_skin import (
    CHIN_DOWN,
    EYE_ACROSS,
    EYE_DOWN,
    EYE_HALF_WIDTH,
    MOUTH_CORNER,
    MOUTH_DOWN,
    REFERENCE_HALF_WIDTH,
)

# fmt: off
ROWS = np.array([
    15.0, 14.95, 14.75, 14.3, 13.6, 12.7, 11.7, 10.7, 9.8, 9.0, 8.2, 7.5, 6.9, 6.4, 6.0, 5.65,
    5.35, 5.1, 4.88, 4.68, 4.48, 4.28, 4.1, 3.92, 3.74, 3.6, EYE_DOWN, 3.4, 3.26, 3.08, 2.9, 2.7,
    2.45, 2.15, 1.8, 1.45, 1.1, 0.78, 0.48, 0.2, -0.05, -0.28, -0.5, -0.7, -0.88, -1.05, -1.22,
    -1.4, -1.6, -1.82, -2.05, -2.26, -2.44, -2.6, -2.75, -2.9, -3.05, -3.18, -3.29, MOUTH_DOWN,
    -3.5, -3.62, -3.76, -3.92, -4.08, -4.26, -4.48, -4.75, -5.05, -5.4, -5.8, -6.2, -6.6, -6.95,
    -7.25, CHIN_DOWN, -7.7, -8.0, -8.3, -8.7, -9.2, -9.8, -10.6, -11.6, -12.6,
])
_FRONT = np.array([
    0.0, 0.22, 0.44, 0.66, 0.9, 1.14, 1.4, EYE_ACROSS - EYE_HALF_WIDTH, 1.93, 2.2, 2.5,
    MOUTH_CORNER, 3.1, 3.4, 3.7, 3.98, 4.25, EYE_ACROSS + EYE_HALF_WIDTH, 4.8, 5.15, 5.5, 5.85,
    6.2, 6.55, 6.85, 7.1, 7.3, REFERENCE_HALF_WIDTH,
])
# fmt: on
_BACK = np.array([8.0, 8.7, 9.5, 10.4, 11.4, 12.5, 13.7, 15.0])
COLUMNS = np.concatenate([-_BACK[::-1], -_FRONT[:0:-1], _FRONT, _BACK])


class SkinGrid:
    """Index tables of the skin's grid: which vertex a row and a column name above and below it.

    Attributes:
      above: (rows columns) vertex of each point of the grid; within a slit that of its upper edge.
      below: the same, within a slit that of its lower edge.
      count: number of vertices.
      across: (count,) see `procedural_skin`.
      down: (count,) row with shut lids.
      eye_side: (count,) 1 above the eye line, -1 below it.
      mouth_side: (count,) 1 above the mouth line, -1 below it.
      slit: 'eye_L', 'eye_R', 'mouth' -> vertices of its upper and its lower edge.
    """

    def __init__(self) -> None:
        """Numbers the vertices."""
        rows, columns = len(ROWS), len(COLUMNS)
        self.eye_row = int(np.argmin(np.abs(ROWS - EYE_DOWN)))
        self.mouth_row = int(np.argmin(np.abs(ROWS - MOUTH_DOWN)))
        # The seam at the back of the head is one column of vertices: last = first.
        ids = np.arange(rows * (columns - 1)).reshape(rows, columns - 1)
        ids[0] = ids[0, 0]  # the crown is one point
        used, ids = np.unique(ids, return_inverse=True)
        ids = ids.reshape(rows, columns - 1)
        count = len(used)
        self.above = np.concatenate([ids, ids[:, :1]], axis=1)
        self.below = self.above.copy()
        # Within a slit the points below the line are vertices of their own.
        offset = np.abs(np.abs(COLUMNS) - EYE_ACROSS)
        in_eye = offset < EYE_HALF_WIDTH - 1e-6
        in_mouth = np.abs(COLUMNS) < MOUTH_CORNER - 1e-6
        for row, inside in ((self.eye_row, in_eye), (self.mouth_row, in_mouth)):
            self.below[row, inside] = count + np.arange(inside.sum())
            count += int(inside.sum())
        self.count = count
        self.across = np.zeros(count)
        self.down = np.zeros(count)
        grid_down, grid_across = np.meshgrid(ROWS, COLUMNS, indexing="ij")
        for table in (self.below, self.above):
            self.across[table] = grid_across
            self.down[table] = grid_down
        self.across[self.above[0]] = 0.0
        # Rows between the eye line and the mouth line lie below the first, above the second.
        self.eye_side = np.where(self.down < EYE_DOWN, -1.0, 1.0)
        fresh = self.below[self.eye_row] != self.above[self.eye_row]
        self.eye_side[self.below[self.eye_row][fresh]] = -1.0
        self.mouth_side = np.where(self.down < MOUTH_DOWN, -1.0, 1.0)
        fresh = self.below[self.mouth_row] != self.above[self.mouth_row]
        self.mouth_side[self.below[self.mouth_row][fresh]] = -1.0
        self.slit = {
            "eye_L": self._edge(self.eye_row, lambda x: np.abs(x - EYE_ACROSS) <= 1.43),
            "eye_R": self._edge(self.eye_row, lambda x: np.abs(x + EYE_ACROSS) <= 1.43),
            "mouth": self._edge(self.mouth_row, lambda x: np.abs(x) <= MOUTH_CORNER + 1e-6),
        }

    def _edge(self, row: int, chosen: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, ...]:
        """Vertices of the upper and the lower edge of a slit, corners included in both."""
        columns = np.flatnonzero(chosen(COLUMNS))
        return self.above[row, columns], self.below[row, columns]

    def quads(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners (n 4) of the grid's cells, rows and columns of the cells."""
        row, column = np.meshgrid(
            np.arange(len(ROWS) - 1), np.arange(len(COLUMNS) - 1), indexing="ij"
        )
        row, column = row.ravel(), column.ravel()
        corners = [
            self.below[row, column],
            self.below[row, column + 1],
            self.above[row + 1, column + 1],
            self.above[row + 1, column],
        ]
        return np.stack(corners, axis=-1), row, column


@functools.cache
def skin_grid() -> SkinGrid:
    """The one grid of all procedural heads."""
    return SkinGrid()


def landmark_vertices() -> np.ndarray:
    """(68,) vertices in Multi-PIE order: the image's left (the subject's right) first."""
    grid = skin_grid()

    def nearest(across: float, down: float, side: int = 1) -> int:
        table = grid.above if side > 0 else grid.below
        column = int(np.argmin(np.abs(COLUMNS - across)))
        row = int(np.argmin(np.abs(ROWS - down)))
        return int(table[row, column])

    jaw = [(-7.5, 3.6), (-7.4, 1.6), (-7.2, -0.4), (-6.9, -2.4), (-6.2, -4.4), (-5.0, -6.2)]
    jaw += [(-3.7, -7.2), (-2.0, CHIN_DOWN)]
    contour = [*jaw, (0.0, CHIN_DOWN), *[(-x, y) for x, y in jaw[::-1]]]
    brow = [(-5.2, 5.4), (-4.5, 5.9), (-3.5, 6.1), (-2.4, 6.0), (-1.2, 5.7)]
    nose = [(0.0, 3.6), (0.0, 2.4), (0.0, 1.3), (0.0, 0.2)]
    base = [(-1.3, -0.95), (-0.66, -1.15), (0.0, -1.3), (0.66, -1.15), (1.3, -0.95)]
    points = [nearest(x, y) for x, y in contour]
    points += [nearest(x, y) for x, y in brow]
    points += [nearest(-x, y) for x, y in brow[::-1]]
    points += [nearest(x, y) for x, y in (*nose, *base)]
    inner, outer = EYE_ACROSS - EYE_HALF_WIDTH, EYE_ACROSS + EYE_HALF_WIDTH
    for middle in (-1, 1):
        corners = (outer, inner) if middle < 0 else (inner, outer)
        lids = (3.7, 2.5) if middle < 0 else (2.5, 3.7)
        points.append(nearest(middle * corners[0], EYE_DOWN))
        points += [nearest(middle * x, EYE_DOWN, 1) for x in lids]
        points.append(nearest(middle * corners[1], EYE_DOWN))
        points += [nearest(middle * x, EYE_DOWN, -1) for x in lids[::-1]]
    upper = [(-1.93, -2.9), (-0.66, -2.6), (0.0, -2.75), (0.66, -2.6), (1.93, -2.9)]
    lower = [(1.93, -4.08), (0.66, -4.48), (0.0, -4.48), (-0.66, -4.48), (-1.93, -4.08)]
    points.append(nearest(-MOUTH_CORNER, MOUTH_DOWN))
    points += [nearest(x, y) for x, y in upper]
    points.append(nearest(MOUTH_CORNER, MOUTH_DOWN))
    points += [nearest(x, y) for x, y in lower]
    points.append(nearest(-2.5, MOUTH_DOWN))
    points += [nearest(x, MOUTH_DOWN, 1) for x in (-0.9, 0.0, 0.9)]
    points.append(nearest(2.5, MOUTH_DOWN))
    points += [nearest(x, MOUTH_DOWN, -1) for x in (0.9, 0.0, -0.9)]
    return np.array(points, np.int32)
