"""From raw photographs and videos to the square that a model wants, and back.

What part of a frame is shown to the model is an `Alignment` per frame: of the whole file at once
where the face keeps its place, otherwise following it smoothly, so that a moving camera does not
count as a moving head. Nothing here holds frames. Letters: t frames, h w image, r the model's side.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.inference.clips import fit_frame, framing_note
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.tracking import smoothing
from talking_heads_jax.tracking.alignment import (
    RECIPES,
    Alignment,
    Recipe,
    alignment_from_box,
    warp_to_crop,
)
from talking_heads_jax.tracking.clip_boxes import Box, centre_box, landmark_box, square_box
from talking_heads_jax.tracking.detection import Landmarker, find_detector
from talking_heads_jax.tracking.face_extents import detector_boxes, landmark_extents
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.observation import ObserveOptions, observe
from talking_heads_jax.tracking.track import ClipTrack
from talking_heads_jax.tracking.tracker import find_landmarker, open_clip

AUTO, CENTRE, NONE = "auto", "centre", "none"
CROPS = (AUTO, CENTRE, NONE)

#: Frames between two looks of the detector. Its boxes are unsteady: more of them average out.
DETECT_EVERY = 2
#: A crop follows the face where one crop for all frames would be larger by this factor.
FOLLOW_FROM = 1.3
#: Standard deviation in seconds of the smoothing of the path that a crop follows: slower than a
#: head that nods or shakes, faster than a camera that pans.
FOLLOW_SIGMA_S = 0.5


@dataclasses.dataclass(frozen=True)
class FramingOptions:
    """How the frames of one file become the model's squares.

    Attributes:
      crop: 'auto', 'centre' or 'none', see `find_framing`.
      recipe: of `tracking.alignment.RECIPES`, for 'auto'.
      detector: of `tracking.detection.DETECTORS`, where neither box nor landmarks are given.
      box: x0 y0 x1 y1 in pixels, the crop itself; or None.
      landmarks: a landmark file, or None.
    """

    crop: str = AUTO
    recipe: str = "prepare"
    detector: str = "auto"
    box: Box | None = None
    landmarks: Path | None = None

    def __post_init__(self) -> None:
        """Checks the words and the box.

        Raises:
          ArgumentError: one that is not known, or an empty box.
        """
        check_choice("crop", self.crop, CROPS)
        check_choice("recipe", self.recipe, tuple(RECIPES))
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (np.isfinite(self.box).all() and x0 < x1 and y0 < y1):
                raise ArgumentError(
                    requirement("a box", "have x0 < x1 and y0 < y1", self.box, "Give pixels.")
                )


class Framing:
    """Which part of each frame of a file the model sees.

    Attributes:
      resolution: r.
      notes: what was done, for the user to read.
    """

    def __init__(
        self,
        resolution: int,
        boxes_px: np.ndarray,
        *,
        recipe: str = "box",
        interpolation: str = "bilinear",
        outside: str = "edge",
        notes: tuple[str, ...] = (),
        middle: bool = False,
    ) -> None:
        """Keeps what `find_framing` found.

        Args:
          resolution: r.
          boxes_px: (n 4) the part of each frame, the last one serving all further frames.
          recipe: a name for the alignments.
          interpolation: see `Alignment`.
          outside: see `Alignment`.
          notes: what was done.
          middle: whether this is the centre square, whose pixels are cut, not resampled.
        """
        self.resolution = resolution
        self.notes = notes
        self._boxes = np.asarray(boxes_px, np.float64).reshape(-1, 4)
        self._recipe = recipe
        self._filter = {"interpolation": interpolation, "outside": outside}
        self._middle = middle

    def alignment(self, index: int = 0) -> Alignment:
        """The part of a frame.

        Args:
          index: of the frame; beyond the last one it is held.
        """
        box = self._boxes[min(index, len(self._boxes) - 1)]
        return alignment_from_box(self._recipe, 1, tuple(box), self.resolution, **self._filter)

    def smoothed(self, smooth: Callable[[np.ndarray], np.ndarray]) -> "Framing":
        """The same with a smoother path, where there is a crop for every frame.

        Args:
          smooth: (t 4) middles x, y and widths, heights in pixels → such; each column by itself, so
            that squares stay squares.
        """
        framing = copy.copy(self)
        if len(self._boxes) > 1:
            low, high = self._boxes[:, :2], self._boxes[:, 2:]
            path = np.concatenate([(low + high) / 2, high - low], axis=1)
            middles, sizes = np.split(np.asarray(smooth(path), np.float64), 2, axis=1)
            framing._boxes = np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1)
        return framing

    def crop(self, frame: np.ndarray, index: int = 0) -> np.ndarray:
        """The model's square of a frame, (r r 3) uint8.

        Args:
          frame: (h w 3) uint8 RGB.
          index: of the frame.
        """
        if self._middle:
            return fit_frame(frame, self.resolution)
        return warp_to_crop(frame, self.alignment(index))


def find_framing(
    what: str,
    path: Path,
    size: tuple[int, int],
    resolution: int,
    options: FramingOptions,
    limits: MediaLimits = DEFAULT_LIMITS,
    *,
    track: ClipTrack | None = None,
) -> Framing:
    """Decides what the model sees of a file; reads it through where a face must be found in it.

    'none' takes the whole frame, which must be square; 'centre' the middle square. 'auto' takes, in
    turn: the given box; frames of the model's own size as they are; the crop by the recipe about
    the face of the given landmarks, or about the one that a detector finds; the middle square where
    there is no face. What was done is in the notes.

    Args:
      what: "source" or "driving", for the notes.
      path: an image or video.
      size: height, width of its frames.
      resolution: r.
      options: see `FramingOptions`.
      limits: what is refused.
      track: what is known of the file already, in pixels of its frames: then no face is looked for,
        and the file is not read.

    Returns:
      The framing.

    Raises:
      ArgumentError: a frame that is not square with 'none', or a recipe that needs landmarks where
        there are none.
      DataError: the landmark file cannot be used.
      MediaError: the file cannot be read.
    """
    if options.box is not None:
        notes = (f"{what}: cropped to the given box",)
        return Framing(resolution, np.array(square_box(options.box)), notes=notes)
    if options.crop == NONE and size[0] != size[1]:
        raise ArgumentError(
            requirement(
                f"the {what}, taken whole,",
                "be square",
                f"{size[1]}x{size[0]}",
                "Choose crop auto or centre.",
            )
        )
    if options.crop != AUTO:
        return _middle(what, size, resolution)
    if size == (resolution, resolution):
        if options.landmarks is None:
            return _middle(what, size, resolution)
        if track is None:  # a wrong file is an error all the same
            read_landmarks(options.landmarks, frame_size=size)
        return _middle(what, size, resolution, "of the model's size, so not cropped by landmarks")
    if track is None:
        finder, track = _look(what, path, size, options, limits)
    else:
        known = np.isfinite(track.landmarks68_px).any()
        finder = "its landmarks" if known else "its boxes (its track has no landmarks)"
    if track is None or not track.face.any():
        why = "no face was found" if track is not None else finder
        return _middle(what, size, resolution, why)
    return _about_the_face(what, finder, track, resolution, options)


def _middle(what: str, size: tuple[int, int], resolution: int, why: str = "") -> Framing:
    """The centre square, which is the whole of a square frame."""
    note = framing_note(what, size, resolution)
    notes = (f"{what}: {why}",) if why else ()
    return Framing(
        resolution,
        np.array(centre_box(*size)),
        recipe="centre",
        notes=notes if note is None else (*notes, note),
        middle=True,
    )


def _look(
    what: str, path: Path, size: tuple[int, int], options: FramingOptions, limits: MediaLimits
) -> tuple[str, ClipTrack | None]:
    """Who found the face, or why nobody looked; and what is known of it in every frame."""
    landmarks = landmarker = None
    finder = "its landmarks"
    if options.landmarks is not None:
        landmarks = read_landmarks(options.landmarks, frame_size=size)
    else:
        detector = find_detector(options.detector)
        if detector.name == "centre":
            return "no face was looked for: no detector is installed or wanted", None
        finder = f"the detector '{detector.name}'"
        if not RECIPES[options.recipe].clip_wise:
            landmarker = find_landmarker("auto")
            _check_landmarker(landmarker, what, options.recipe)
    with open_clip(path, limits) as clip:
        track = observe(
            clip.frames(),
            fps=clip.fps,
            time_s=clip.times,
            options=ObserveOptions(options.detector, detect_every=DETECT_EVERY),
            landmarks=landmarks,
            landmarker=landmarker,
        )
    return finder, track


def _about_the_face(
    what: str, finder: str, track: ClipTrack, resolution: int, options: FramingOptions
) -> Framing:
    """The crops of a recipe: one, or one per frame that follows the face."""
    recipe = RECIPES[options.recipe]
    if not recipe.clip_wise:
        boxes, how = _frame_boxes(track, recipe), "a crop for every frame"
    else:
        boxes, how = _clip_boxes(track, options.recipe)
    template = alignment_from_box("box", 1, tuple(boxes[0]), resolution)
    if not recipe.clip_wise:
        first = np.isfinite(track.landmarks68_px).all((1, 2)).argmax()
        points = track.landmarks68_px[first]
        template = recipe.function(points, track.frame_size, size=resolution)
    seen = f"in {int(track.face.sum())} of {len(track)} frames " if len(track) > 1 else ""
    side = np.median(boxes[:, 2] - boxes[:, 0])
    note = (
        f"{what}: face found {seen}by {finder}; {how}, {side:.0f} pixels a side "
        f"(recipe {options.recipe})"
    )
    return Framing(
        resolution,
        boxes,
        recipe=options.recipe,
        interpolation=template.interpolation,
        outside=template.outside,
        notes=(note, *(f"{what}: {text}" for text in track.notes)),
    )


def _frame_boxes(track: ClipTrack, recipe: Recipe) -> np.ndarray:
    """(t 4) by a recipe for frames; frames without a face take the one before them."""
    boxes = np.full((len(track), 4), np.nan)
    for index in np.flatnonzero(np.isfinite(track.landmarks68_px).all((1, 2))):
        points = track.landmarks68_px[index]
        boxes[index] = recipe.function(points, track.frame_size, size=recipe.size).box_px
    known = np.flatnonzero(np.isfinite(boxes).all(1))
    if not len(known):
        raise ArgumentError(
            requirement(
                "a clip that is cropped by landmarks",
                "have a frame with all 68",
                "none",
                "Choose the recipe prepare.",
            )
        )
    last = np.maximum.accumulate(np.where(np.isfinite(boxes).all(1), np.arange(len(boxes)), 0))
    return boxes[np.maximum(last, known[0])]


def _clip_boxes(track: ClipTrack, name: str) -> tuple[np.ndarray, str]:
    """(1 4), or (t 4) where the face travels; and what was done."""
    extents = landmark_extents(track) if name == "prepare" else detector_boxes(track)
    fixed = _recipe_box(name, extents, track.frame_size)
    if len(track) == 1:
        return np.array([fixed]), "one crop"
    path = _path(extents, track)
    still = extents - np.tile(path, 2)
    if _union_side(extents) <= FOLLOW_FROM * _union_side(still):
        return np.array([fixed]), "one crop for all frames"
    # Recipes keep crops inside the frame; one that follows may leave it, so none is in its way.
    far = 4.0 * max(track.frame_size)
    box = np.array(_recipe_box(name, still + far, (int(2 * far), int(2 * far)))) - far
    return box + np.tile(path, 2), "the crop follows it"


def _recipe_box(name: str, extents: np.ndarray, frame_size: tuple[int, int]) -> Box:
    if name == "prepare":
        return landmark_box(extents.reshape(-1, 2), *frame_size)
    return RECIPES[name].function(extents, frame_size).box_px


def _path(extents: np.ndarray, track: ClipTrack) -> np.ndarray:
    """(t 2) the smoothed way of the boxes' middles, bridged or held where there is no face."""
    middles = (extents[:, :2] + extents[:, 2:]) / 2
    path = np.tile(np.nanmedian(middles, axis=0), (len(middles), 1))
    sigma = FOLLOW_SIGMA_S * track.fps
    for start, stop in track.segments:
        part = middles[start:stop]
        known = np.flatnonzero(np.isfinite(part).all(1))
        if not len(known):  # a whole shot without a face
            continue
        every = np.arange(len(part))
        part = np.stack([np.interp(every, known, part[known, axis]) for axis in (0, 1)], axis=1)
        # Both ends are carried on along the line of the frames beside them, so that a steady pan
        # is followed up to them.
        reach = int(np.ceil(smoothing.GAUSSIAN_REACH * sigma))
        around = np.concatenate([_carried_on(part[::-1], reach, sigma)[::-1], part])
        around = np.concatenate([around, _carried_on(part, reach, sigma)])
        smooth = smoothing.gaussian(around, sigma)
        path[start:stop] = smooth[reach : reach + len(part)]
    return path


def _carried_on(path: np.ndarray, count: int, sigma: float) -> np.ndarray:
    """(count 2) further points of a path, on the straight line through its last ones."""
    last = path[-max(int(np.ceil(2 * sigma)), 2) :]
    if len(last) < 2:
        return np.tile(last, (count, 1))
    slope, level = np.polyfit(np.arange(len(last)), last, 1)
    return level + slope * (len(last) + np.arange(count))[:, None]


def _union_side(extents: np.ndarray) -> float:
    """The longer side of the box around all boxes."""
    return float((np.nanmax(extents[:, 2:], axis=0) - np.nanmin(extents[:, :2], axis=0)).max())


def _check_landmarker(landmarker: Landmarker | None, what: str, recipe: str) -> None:
    if landmarker is None:
        raise ArgumentError(
            requirement(
                f"the recipe {recipe}",
                f"be given landmarks of the {what}",
                "none",
                "Give a landmark file, register FAN's weights, or choose the recipe prepare.",
            )
        )
