"""Frames → what is seen in them: one face's box and landmarks in every frame, and the cuts.

One pass, one frame in memory. No morphable model and no smoothing yet; that is `tracker`. Free of
jax unless landmarks are found by the network. Letters: t frames, h w image.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from talking_heads_jax.errors import ArgumentError, MediaError, check_choice, requirement
from talking_heads_jax.tracking.cuts import CutFinder
from talking_heads_jax.tracking.detection import (
    DETECTORS,
    FaceBox,
    FixedBox,
    Landmarker,
    find_detector,
)
from talking_heads_jax.tracking.following import PATIENCE, FaceFollower, fill_boxes
from talking_heads_jax.tracking.landmarks import INNER_51, NUM_LANDMARKS, Landmarks
from talking_heads_jax.tracking.track import (
    NO_LANDMARKS,
    ClipTrack,
    empty_track,
    landmark_jitter,
)

#: A frame with a smaller share of its inner landmarks inside it is one without a face.
LEAST_INSIDE = 0.5
# Landmarks reach from the brows to the chin, a detector's box takes in some of the forehead.
_FOREHEAD = 0.2
# After a look in vain the next frames are looked at too: detectors miss a face now and then.
_SECOND_LOOKS = 2
_FEWEST_STEADY = 10  # landmarks that say how large a face is: one eye's six are no measure
_SHOWN = 8  # frame numbers in a note
_FARTHEST_LOOKS = 1000  # frames apart


@dataclasses.dataclass(frozen=True)
class ObserveOptions:
    """How faces are found.

    Attributes:
      detector: see `detection.DETECTORS`; not asked where landmarks or a box are given.
      box: x0 y0 x1 y1 in pixels of the face in every frame, or None.
      detect_every: the detector looks at every n-th frame, after a cut, and at two more frames when
        it finds nothing; between, the box is interpolated, or follows the landmarks.
    """

    detector: str = "auto"
    box: tuple[float, float, float, float] | None = None
    detect_every: int = 5

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          ArgumentError: a detector that is not known, an empty box, a distance out of range.
        """
        check_choice("the detector", self.detector, DETECTORS)
        if self.box is not None:
            FixedBox(self.box)
        if not 1 <= self.detect_every <= _FARTHEST_LOOKS:
            constraint = f"be 1 to {_FARTHEST_LOOKS} frames"
            raise ArgumentError(
                requirement("detect_every", constraint, self.detect_every, "Look more often.")
            )


def observe(
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    time_s: Sequence[float | None] | None = None,
    options: ObserveOptions | None = None,
    landmarks: Landmarks | None = None,
    landmarker: Landmarker | None = None,
) -> ClipTrack:
    """Follows one face through a clip.

    Boxes come from the landmarks, else from the user's box, else from a detector. Of several faces
    the largest and most central is followed. Nothing that a clip may hold is an error: frames
    without a face are marked, cuts divide the clip, both are noted.

    Args:
      frames: (h w 3) uint8 RGB, all of one size; at least one.
      fps: average frames per second.
      time_s: seconds at which the frames are shown, read when the frames are at an end (so that it
        may be filled meanwhile); None for evenly spaced ones.
      options: see `ObserveOptions`.
      landmarks: made elsewhere, one row per frame; None if there are none.
      landmarker: finds landmarks in boxes where none are given; None leaves them unknown.

    Returns:
      The track, without a fit. Boxes are those around the landmarks where there are landmarks,
      else the detector's; a guess (the detector 'centre') is a box in a frame without a face.

    Raises:
      MediaError: there is no frame, or one is of another size.
      AssetNotFoundError: the detector asked for is not installed.
    """
    options = options or ObserveOptions()
    cuts = CutFinder()
    search = _Search(options, landmarker) if landmarks is None else None
    count = 0
    size: tuple[int, int] | None = None
    for frame in frames:
        size = _checked_size(frame, size, count)
        new_shot = cuts.add(frame)
        if search is not None:
            search.look(count, frame, new_shot=new_shot)
        count += 1
    if size is None:
        raise MediaError(requirement("a clip", "have a frame", "none", "Give another file."))
    notes: list[str] = []
    if search is None:
        points_px, visible_here = _given(landmarks, count, notes)
        source = landmarks.source
        notes += landmarks.notes
    else:
        points_px, visible_here = search.landmarks(count)
        source = NO_LANDMARKS if landmarker is None else landmarker.source
    points_px, visible_here = _inside(points_px, visible_here, size, notes)
    boxes = landmark_boxes(points_px)
    measured = _steady_boxes(points_px)
    if search is not None and landmarker is None:
        measured = search.boxes(count)
    segments = cuts.segments(measured)
    face = np.isfinite(boxes).all(1)
    if search is not None:
        boxes = np.where(face[:, None], boxes, fill_boxes(search.looks, count, segments))
        if landmarker is None:
            face = np.isfinite(boxes).all(1) & (not search.guesses)
        notes += search.notes()
    notes += _clip_notes(face, segments, looked=search is None or not search.guesses)
    times, time_note = presentation_times(time_s, count, fps)
    track = empty_track(
        count,
        fps=fps,
        frame_size=size,
        time_s=times,
        face=face,
        box_px=boxes,
        landmarks68_px=points_px,
        visible=visible_here,
        landmark_source=source if np.isfinite(points_px).any() else NO_LANDMARKS,
        segments=segments,
        notes=(*notes, *time_note),
    )
    if landmarks is not None and landmarks.angles is not None:
        angles = np.full((count, 3), np.nan, np.float32)
        kept = min(count, len(landmarks.angles))
        angles[:kept] = np.where(face[:kept, None], landmarks.angles[:kept], np.nan)
        track = dataclasses.replace(track, angles=angles)
    raw = landmark_jitter(points_px, time_s=track.time_s, segments=segments)
    return dataclasses.replace(track, raw_jitter=raw)


def landmark_boxes(points_px: np.ndarray) -> np.ndarray:
    """The boxes around landmarks.

    Args:
      points_px: (t 68 2); points that are not finite are left out.

    Returns:
      (t 4) float32 x0 y0 x1 y1; NaN for a frame without a point.
    """
    known = np.isfinite(points_px).all(-1, keepdims=True)
    low = np.where(known, points_px, np.inf).min(1)
    high = np.where(known, points_px, -np.inf).max(1)
    boxes = np.concatenate([low, high], axis=-1).astype(np.float32)
    return np.where(known.any(1), boxes, np.float32(np.nan))


def presentation_times(
    time_s: Sequence[float | None] | None, count: int, fps: float
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The times of a clip's frames, if a container's are usable.

    Args:
      time_s: seconds, with None where the container states none; or None.
      count: of frames.
      fps: average frames per second.

    Returns:
      (count,) seconds from the first frame, or None to space them evenly; and notes.
    """
    if time_s is None:
        return None, ()
    if len(time_s) != count or any(moment is None for moment in time_s):
        return None, (f"the file gives no times for its frames: {fps:g} a second are assumed",)
    times = np.array(time_s, np.float64) - (time_s[0] if count else 0.0)
    steps = np.diff(times)
    if not np.isfinite(times).all() or (steps <= 0).any():
        return None, (f"the frames' times do not increase: {fps:g} a second are assumed",)
    if len(steps) > 1 and np.ptp(steps) > 0.1 * np.median(steps):
        shown = f"{1000 * steps.min():.0f} to {1000 * steps.max():.0f} ms from frame to frame"
        return times, (f"variable frame rate: {shown}; smoothing goes by the real times",)
    return times, ()


class _Search:
    """Looks for the face frame by frame, where no landmarks are given."""

    def __init__(self, options: ObserveOptions, landmarker: Landmarker | None) -> None:
        box = options.box
        self._detector = find_detector(options.detector) if box is None else FixedBox(box)
        self._landmarker, self._every = landmarker, options.detect_every
        self._follower = FaceFollower()
        self._current: FaceBox | None = None
        self._missed = 0  # looks in vain since the last with success
        self._last_seen = -1  # in this shot; else the frame before it
        self._points: list[np.ndarray] = []
        self._visible: list[np.ndarray] = []
        self.looks: dict[int, FaceBox | None] = {}

    @property
    def guesses(self) -> bool:
        """Whether the detector only points at the middle."""
        return any(box is not None and box.score == 0 for box in self.looks.values())

    def look(self, index: int, frame: np.ndarray, *, new_shot: bool) -> None:
        """Takes the next frame."""
        if new_shot:
            self._give_up_doubtful()
            self._follower.forget()
            self._current, self._missed, self._last_seen = None, 0, index - 1
        if index % self._every == 0 or new_shot or 0 < self._missed <= _SECOND_LOOKS:
            self._detect(index, frame)
        if self._landmarker is None:
            return
        points, visible = _landmarks_in(self._landmarker, frame, self._current)
        self._points.append(points)
        self._visible.append(visible)
        if self._current is not None:
            # Where the landmarks are, the face will be in the next frame.
            self._current = _box_for_landmarker(points) or self._current
            self._follower.moved(self._current)

    def landmarks(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(count 68 2) points and (count 68) visibility; the clip is at its end."""
        self._give_up_doubtful()
        if self._landmarker is None:
            points = np.full((count, NUM_LANDMARKS, 2), np.nan, np.float32)
            return points, np.zeros((count, NUM_LANDMARKS), np.uint8)
        return np.array(self._points, np.float32), np.array(self._visible, np.uint8)

    def boxes(self, count: int) -> np.ndarray:
        """(count 4) what the detector said; NaN in frames that it did not look at."""
        boxes = np.full((count, 4), np.nan, np.float32)
        for index, box in self.looks.items():
            if box is not None:
                boxes[index] = box[:4]
        return boxes

    def notes(self) -> list[str]:
        """What a user should know."""
        notes = [self._detector.note] if self._detector.note else []
        follower = self._follower
        if follower.crowded:
            notes.append(
                f"more than one face, or what the detector takes for one, in {follower.crowded} of "
                f"{follower.looks} frames looked at: the largest and most central is followed"
            )
        if follower.changes:
            notes.append(f"the face was lost and another one taken, {follower.changes} times")
        return notes

    def _detect(self, index: int, frame: np.ndarray) -> None:
        found = self._follower.choose(self._detector.detect(frame), frame.shape[:2])
        self.looks[index] = found
        if found is not None:
            if self._missed <= _SECOND_LOOKS:
                for earlier in range(index - self._missed, index):
                    self.looks.pop(earlier, None)  # the detector blinked, the face was there
            self._current, self._missed, self._last_seen = found, 0, index
            return
        self._missed += 1
        if self._landmarker is None:
            self._current = None
        elif self._missed > PATIENCE and self._current is not None:
            self._give_up_doubtful()
            self._current = None

    def _give_up_doubtful(self) -> None:
        """Takes back landmarks that were found where no detector saw the face any more."""
        if self._missed <= _SECOND_LOOKS:
            return
        for index in range(self._last_seen + 1, len(self._points)):
            self._points[index] = np.full_like(self._points[index], np.nan)
            self._visible[index] = np.zeros_like(self._visible[index])


def _checked_size(frame: np.ndarray, size: tuple[int, int] | None, index: int) -> tuple[int, int]:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or not frame.size:
        got = f"{frame.dtype} {frame.shape}"
        raise MediaError(requirement(f"frame {index}", "be uint8 (h w 3)", got, "Give RGB bytes."))
    here = (frame.shape[0], frame.shape[1])
    if size is not None and here != size:
        remedy = "Track clips of one size."
        raise MediaError(requirement(f"frame {index}", f"have the size {size}", here, remedy))
    return here


def _landmarks_in(
    landmarker: Landmarker, frame: np.ndarray, box: FaceBox | None
) -> tuple[np.ndarray, np.ndarray]:
    height, width = frame.shape[:2]
    outside = box is None or box.x1 <= 0 or box.y1 <= 0 or box.x0 >= width or box.y0 >= height
    if outside:
        return np.full((NUM_LANDMARKS, 2), np.nan, np.float32), np.zeros(NUM_LANDMARKS, np.uint8)
    return landmarker.landmarks(frame, box)


def _box_for_landmarker(points_px: np.ndarray) -> FaceBox | None:
    known = points_px[np.isfinite(points_px).all(-1)]
    if len(known) < 2:
        return None
    (x0, y0), (x1, y1) = known.min(0), known.max(0)
    if x0 >= x1 or y0 >= y1:
        return None
    return FaceBox(float(x0), float(y0 - _FOREHEAD * (y1 - y0)), float(x1), float(y1))


def _given(landmarks: Landmarks, count: int, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The landmarks of a file, one row per frame of the clip."""
    points = np.full((count, NUM_LANDMARKS, 2), np.nan, np.float32)
    visible = np.zeros((count, NUM_LANDMARKS), np.uint8)
    kept = min(count, len(landmarks.points_px))
    points[:kept], visible[:kept] = landmarks.points_px[:kept], landmarks.visible[:kept]
    if len(landmarks.points_px) != count:
        notes.append(
            f"the landmarks are of {len(landmarks.points_px)} frames, the clip has {count}: "
            "row n is taken for frame n; check that they are of this clip"
        )
    return points, visible


def _inside(
    points_px: np.ndarray, visible: np.ndarray, size: tuple[int, int], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Points outside the frame are not visible; a face that is mostly outside is none."""
    height, width = size
    known = np.isfinite(points_px).all(-1)
    with np.errstate(invalid="ignore"):
        inside = known & (points_px >= 0).all(-1) & (points_px <= (width, height)).all(-1)
    visible = (visible.astype(bool) & inside).astype(np.uint8)
    share = inside[:, INNER_51].sum(1) / np.maximum(known[:, INNER_51].sum(1), 1)
    gone = known.any(1) & (share < LEAST_INSIDE)
    partly = np.flatnonzero(known.any(1) & ~gone & (share < 1))
    if gone.any():
        shown = _listed(np.flatnonzero(gone))
        notes.append(f"the face has left {int(gone.sum())} frames ({shown}): no face there")
    if len(partly):
        notes.append(f"the face reaches out of {len(partly)} frames ({_listed(partly)})")
    points_px = np.where(gone[:, None, None], np.float32(np.nan), points_px)
    return points_px, np.where(gone[:, None], np.uint8(0), visible)


def _steady_boxes(points_px: np.ndarray) -> np.ndarray:
    """(t 4) boxes around the points that every face has: one that comes and goes is no jump."""
    known = np.isfinite(points_px).all(-1)
    always = known[known.any(1)].all(0)
    always &= always.sum() >= _FEWEST_STEADY
    return landmark_boxes(np.where(always[:, None], points_px, np.float32(np.nan)))


def _clip_notes(
    face: np.ndarray, segments: tuple[tuple[int, int], ...], *, looked: bool
) -> list[str]:
    notes = []
    missing = np.flatnonzero(~face)
    if len(missing) and (looked or face.any()):
        notes.append(f"no face in {len(missing)} of {len(face)} frames ({_listed(missing)})")
    if len(segments) > 1:
        starts = np.array([start for start, _ in segments[1:]])
        notes.append(
            f"{len(starts)} {'cuts, before frames' if len(starts) > 1 else 'cut, before frame'} "
            f"{_listed(starts)}: nothing is smoothed across"
        )
    return notes


def _listed(frames: np.ndarray) -> str:
    """Frame numbers as a person reads them, runs as first-last."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    texts = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ", ".join(texts[:_SHOWN]) + (", …" if len(texts) > _SHOWN else "")
