"""Cuts inside a clip: where one shot ends and the next begins.

Three signs: the picture changes far more than around that moment and its colours too; or the face
jumps. A flash (one odd frame between two alike) is no cut. Only numpy is imported here.
Letters: t frames, h w image.
"""

import itertools

import numpy as np

_SIDE = 16  # cells of a thumbnail
_SAMPLES = 8  # pixels of a cell along each axis: cheap at any size of frame
_BINS = 8  # of a channel's histogram
#: Mean change of a thumbnail, in levels of 1, below which no picture changes for a cut. A head that
#: moves before a still background stays under 0.05.
LEAST_CHANGE = 0.06
#: How often the change must exceed the median change around it.
TIMES_USUAL = 4.0
_USUAL_FRAMES = 12  # on each side
#: Share of the pixels whose colour bin changes; a moving camera keeps its colours.
LEAST_COLOR_CHANGE = 0.15
#: Distance of the face's boxes of two frames in box widths, above which it is not the same shot.
FACE_JUMP = 0.75
# A smaller jump is a cut if the picture changes unusually as well.
_SMALL_FACE_JUMP = 0.3
_LARGEST_ZOOM = np.log(1.5)  # of the box's size from one frame to the next


class CutFinder:
    """Watches frames go by and keeps a few numbers of each."""

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self._before: list[tuple[np.ndarray, np.ndarray]] = []  # the last two frames
        self._change: list[float] = []
        self._change_of_two: list[float] = []
        self._color_change: list[float] = []

    def add(self, frame: np.ndarray) -> bool:
        """Takes the next frame.

        Args:
          frame: (h w 3) uint8 RGB; all of one size.

        Returns:
          Whether this frame looks like the first of another shot, as far as one can tell now: a
          reason to detect faces anew. `segments` decides.
        """
        cells, histogram = _thumbnail(frame)
        change = change_of_two = color_change = 0.0
        if self._before:
            last_cells, last_histogram = self._before[-1]
            change = float(np.abs(cells - last_cells).mean())
            color_change = float(np.abs(histogram - last_histogram).sum() / 2)
        if len(self._before) == 2:
            change_of_two = float(np.abs(cells - self._before[0][0]).mean())
        self._change.append(change)
        self._change_of_two.append(change_of_two)
        self._color_change.append(color_change)
        self._before = [*self._before[-1:], (cells, histogram)]
        return change > LEAST_CHANGE and color_change > LEAST_COLOR_CHANGE

    def segments(self, boxes_px: np.ndarray) -> tuple[tuple[int, int], ...]:
        """The stretches between cuts.

        Args:
          boxes_px: (t 4) x0 y0 x1 y1 of the face, measured in each frame; NaN where it was not.

        Returns:
          (start, stop) in order; together all frames.
        """
        change = np.array(self._change)
        count = len(change)
        usual = np.array([_usual(change, index) for index in range(count)])
        unusual = change > np.maximum(TIMES_USUAL * usual, LEAST_CHANGE)
        cut = unusual & (np.array(self._color_change) > LEAST_COLOR_CHANGE)
        for index in np.flatnonzero(cut[:-1]):  # a flash: the frame after it is like that before it
            if cut[index + 1] and self._change_of_two[index + 1] < change[index] / TIMES_USUAL:
                cut[index] = cut[index + 1] = False
        jump, zoom = _jumps(boxes_px)
        cut |= (jump > FACE_JUMP) | (zoom > _LARGEST_ZOOM)
        cut |= (jump > _SMALL_FACE_JUMP) & (change > TIMES_USUAL * usual)
        edges = [0, *(int(frame) + 1 for frame in np.flatnonzero(cut[1:])), count]
        return tuple((a, b) for a, b in itertools.pairwise(edges) if a < b)


def _thumbnail(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colours of a grid of cells, in [0, 1], and the histogram of the samples, sum 1."""
    height, width = frame.shape[:2]
    rows = (np.arange(_SIDE * _SAMPLES) + 0.5) * height / (_SIDE * _SAMPLES)
    columns = (np.arange(_SIDE * _SAMPLES) + 0.5) * width / (_SIDE * _SAMPLES)
    samples = frame[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
    cells = samples.reshape(_SIDE, _SAMPLES, _SIDE, _SAMPLES, 3).mean((1, 3)) / 255.0
    bins = samples.reshape(-1, 3).astype(np.int64) // (256 // _BINS)
    bins += np.arange(3) * _BINS
    histogram = np.bincount(bins.ravel(), minlength=3 * _BINS) / bins.size
    return cells.astype(np.float32), histogram


def _usual(change: np.ndarray, index: int) -> float:
    """The median change around a frame, its own left out; the first frame has none."""
    first, last = max(index - _USUAL_FRAMES, 1), index + _USUAL_FRAMES + 1
    around = np.delete(change[first:last], index - first) if index else change[1:last]
    return float(np.median(around)) if len(around) else 0.0


def _jumps(boxes_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far each frame's box is from the one before, in box widths, and |log of the zoom|."""
    boxes = np.asarray(boxes_px, np.float64)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    sizes = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(-1), 1.0))
    jump, zoom = np.zeros(len(boxes)), np.zeros(len(boxes))
    if len(boxes) > 1:
        width = np.maximum(sizes[1:], sizes[:-1])
        jump[1:] = np.linalg.norm(np.diff(centers, axis=0), axis=-1) / width
        zoom[1:] = np.abs(np.diff(np.log(sizes)))
    # A comparison with NaN (no face in one of the two) is False, as it should be.
    return jump, zoom
