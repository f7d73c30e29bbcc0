"""One face through the boxes of a clip: which one, and where it is between the frames looked at.

Only numpy is imported here. Letters: t frames.
"""

import numpy as np

from talking_heads_jax.tracking.detection import FaceBox

#: Overlap (intersection over union) from which two boxes are of one face.
LEAST_OVERLAP = 0.15
#: Area of a box, as a share of the followed one's, from which it counts as another face.
SMALLEST_SECOND = 0.1
#: Looks without the face after which another one may take its place.
PATIENCE = 3


class FaceFollower:
    """Chooses a face and stays with it.

    The first is the one that is largest and most central; then the one that overlaps the last box
    most. After `PATIENCE` looks in vain, or a cut, it chooses anew.

    Attributes:
      looks: how often it was asked.
      crowded: how often there was another face beside the chosen one.
      changes: how often it took another face without a cut.
    """

    def __init__(self) -> None:
        """Has seen nothing yet."""
        self.looks = self.crowded = self.changes = 0
        self._last: FaceBox | None = None
        self._missed = 0

    def forget(self) -> None:
        """Tells that a new shot begins."""
        self._last, self._missed = None, 0

    def choose(self, boxes: list[FaceBox], frame_size: tuple[int, int]) -> FaceBox | None:
        """Returns the box of the followed face, None if it is not among them.

        Args:
          boxes: all that were found in a frame.
          frame_size: height, width.
        """
        self.looks += 1
        chosen = None
        if self._last is None:
            chosen = max(boxes, key=lambda box: prominence(box, frame_size), default=None)
        elif boxes:
            nearest = max(boxes, key=lambda box: overlap(box, self._last))
            if overlap(nearest, self._last) >= LEAST_OVERLAP:
                chosen = nearest
            elif self._missed >= PATIENCE:
                chosen = max(boxes, key=lambda box: prominence(box, frame_size))
                self.changes += 1
        if chosen is None:
            self._missed += 1
            return None
        self._last, self._missed = chosen, 0
        self.crowded += any(_is_another(box, chosen) for box in boxes)
        return chosen

    def moved(self, box: FaceBox) -> None:
        """Tells where the face is by better evidence than a detector's, its landmarks.

        Args:
          box: around them.
        """
        self._last = box


def _is_another(box: FaceBox, chosen: FaceBox) -> bool:
    """Whether a box is a second face, not one within the other or a speck."""
    (x, y), (u, v) = box.center, chosen.center
    apart = not (chosen.x0 < x < chosen.x1 and chosen.y0 < y < chosen.y1)
    apart = apart and not (box.x0 < u < box.x1 and box.y0 < v < box.y1)
    return apart and box.area > SMALLEST_SECOND * chosen.area


def overlap(first: FaceBox, second: FaceBox) -> float:
    """Intersection over union of two boxes.

    Args:
      first: a box.
      second: another.

    Returns:
      From 0 (apart) to 1 (equal).
    """
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first.area + second.area - shared)


def prominence(box: FaceBox, frame_size: tuple[int, int]) -> float:
    """How much a face looks like the one meant: large, and near the middle.

    Args:
      box: around it.
      frame_size: height, width.

    Returns:
      Its area in pixels, times 1 in the middle of the frame down to about 0.4 in a corner.
    """
    height, width = frame_size
    x, y = box.center
    away = ((x - width / 2) / (width / 2)) ** 2 + ((y - height / 2) / (height / 2)) ** 2
    return box.area * float(np.exp(-0.5 * away))


def fill_boxes(
    looks: dict[int, FaceBox | None], count: int, segments: tuple[tuple[int, int], ...]
) -> np.ndarray:
    """Boxes of all frames from those looked at: between two, on the straight line.

    Before the first and after the last look of a segment the box is held. A frame nearer to a look
    in vain than to one with success has none. Nothing crosses a cut.

    Args:
      looks: frame number → the box, or None where no face was found.
      count: t.
      segments: (start, stop) between cuts.

    Returns:
      (t 4) float32 x0 y0 x1 y1; NaN without a face.
    """
    boxes = np.full((count, 4), np.nan, np.float32)
    looked = np.array(sorted(looks), np.int64)
    for start, stop in segments:
        frames = looked[slice(*np.searchsorted(looked, (start, stop)))]
        found = np.array([looks[frame] is not None for frame in frames], bool)
        if not found.any():
            continue
        every = np.arange(start, stop)
        known = frames[found]
        sides = np.array([looks[frame][:4] for frame in known])
        filled = np.stack([np.interp(every, known, sides[:, side]) for side in range(4)], axis=1)
        after = np.searchsorted(frames, every).clip(max=len(frames) - 1)
        before = (after - 1).clip(0)
        nearer = np.abs(every - frames[before]) <= np.abs(frames[after] - every)
        nearest = np.where(nearer, before, after)
        boxes[start:stop] = np.where(found[nearest][:, None], filled, np.nan)
    return boxes
