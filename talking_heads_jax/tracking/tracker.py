"""Photo or video → `ClipTrack`: what is seen, smoothed over time, and a face model fitted to it.

    track = track_file(Path("clip.mp4"), TrackOptions(landmarks=Path("clip_landmarks.npz")))

Nothing a clip may hold is fatal: no face, two faces, a face that leaves the frame, a cut, a turned
or unevenly timed video end as marks and notes in the track. Jax is only imported by a fit or by the
landmark network. Letters: t frames.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talking_heads_jax.errors import AssetNotFoundError, check_choice
from talking_heads_jax.media.image import IMAGE_SUFFIXES, read_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits, check_side
from talking_heads_jax.tracking import smoothing
from talking_heads_jax.tracking.detection import FanLandmarker, Landmarker
from talking_heads_jax.tracking.fit_input import FEWEST_POINTS
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.landmarks import INNER_51, Landmarks, outer_eye_distance
from talking_heads_jax.tracking.observation import ObserveOptions, landmark_boxes, observe
from talking_heads_jax.tracking.track import CAMERAS, WEAK_PERSPECTIVE, ClipTrack

if TYPE_CHECKING:
    from talking_heads_jax.morphable.base import MorphableModel
    from talking_heads_jax.tracking.fitting import FaceFit, FitOptions

SMOOTHINGS = ("none", "one_euro", "gaussian")
LANDMARKERS = ("auto", "fan", "none")
NO_MODEL = "none"
STILL_FPS = 25.0  # of a photograph: it has no rate, and one frame needs none
#: A clip whose fit misses the landmarks by more than this share of the outer eye corners' distance
#: is noted: the landmarks or the model do not suit it.
POOR_FIT = 0.1
#: Pixels that the points of a frame must be apart: degenerate frames would fail a whole batch.
_SMALLEST_SPREAD_PX = 1.0
_HOW_TO_GET_LANDMARKS = (
    "no landmarks, so no pose and no coefficients: give --landmarks FILE (npz, MediaPipe's or "
    "OpenFace's csv), or register FAN's weights"
)


@dataclasses.dataclass(frozen=True)
class TrackOptions:
    """How a clip is tracked.

    Attributes:
      detector: what finds boxes, see `detection.DETECTORS`.
      box: x0 y0 x1 y1 in pixels of the face in every frame, or None.
      detect_every: the detector looks at every n-th frame and after a cut.
      landmarks: a landmark file of the clip, or None.
      landmarker: what finds landmarks where no file is given: 'fan', 'none', or 'auto' for FAN if
        its weights are registered.
      morphable: the face model to fit; 'none' for landmarks only.
      camera: 'weak_perspective' or 'perspective'.
      fit: `fitting.FitOptions`; their camera and rate are replaced. None for the defaults.
      smooth: of the landmarks before the fit: 'none', 'one_euro' (both ways, without lag) or
        'gaussian'.
      min_cutoff_hz: see `smoothing.one_euro`.
      speed_coefficient: likewise; speeds are in outer-eye-corner distances a second.
      sigma_frames: see `smoothing.gaussian`.
    """

    detector: str = "auto"
    box: tuple[float, float, float, float] | None = None
    detect_every: int = 5
    landmarks: Path | None = None
    landmarker: str = "auto"
    morphable: str = "procedural"
    camera: str = WEAK_PERSPECTIVE
    fit: "FitOptions | None" = None
    smooth: str = "none"
    min_cutoff_hz: float = smoothing.MIN_CUTOFF_HZ
    speed_coefficient: float = smoothing.SPEED_COEFFICIENT
    sigma_frames: float = 1.0

    def __post_init__(self) -> None:
        """Checks the words and numbers: a clip is not read in vain.

        Raises:
          ArgumentError: a word that is not known, or a number out of its range.
        """
        check_choice("the landmarker", self.landmarker, LANDMARKERS)
        check_choice("the camera", self.camera, CAMERAS)
        check_choice("the smoothing", self.smooth, SMOOTHINGS)
        smoothing.check_number("min_cutoff_hz", self.min_cutoff_hz, positive=True)
        smoothing.check_number("speed_coefficient", self.speed_coefficient, positive=False)
        smoothing.check_number("sigma_frames", self.sigma_frames, positive=False)
        self.observing()

    def observing(self) -> ObserveOptions:
        """The options of the first pass."""
        return ObserveOptions(self.detector, self.box, self.detect_every)


def track_file(
    path: Path,
    options: TrackOptions | None = None,
    *,
    limits: MediaLimits = DEFAULT_LIMITS,
    model: "MorphableModel | None" = None,
    landmarker: Landmarker | None = None,
) -> ClipTrack:
    """Tracks one photograph or video.

    Args:
      path: an image by its ending, else a video.
      options: see `TrackOptions`.
      limits: what is refused.
      model: the morphable model, if it is loaded already; its name must be that of the options.
      landmarker: the landmark network, if it is loaded already.

    Returns:
      The track.

    Raises:
      MediaError: the file cannot be read.
      DataError: the landmark file cannot be used.
      AssetNotFoundError: a model, detector or network asked for by name is not there.
    """
    path = Path(path)
    options = options or TrackOptions()
    with open_clip(path, limits) as clip:
        track = track_frames(
            clip.frames(),
            fps=clip.fps,
            time_s=clip.times,
            options=options,
            landmarks=_read_landmarks(options, clip.size),
            model=model,
            landmarker=landmarker,
        )
    return add_notes(track, *clip.notes)


def track_frames(
    frames: Iterable[np.ndarray],
    *,
    fps: float,
    time_s: Sequence[float | None] | None = None,
    options: TrackOptions | None = None,
    landmarks: Landmarks | None = None,
    model: "MorphableModel | None" = None,
    landmarker: Landmarker | None = None,
) -> ClipTrack:
    """Tracks the frames of one clip.

    Args:
      frames: (h w 3) uint8 RGB, all of one size, read once.
      fps: average frames per second.
      time_s: seconds at which they are shown, see `observation.observe`; None for evenly spaced.
      options: see `TrackOptions`.
      landmarks: instead of the options' file; None reads that.
      model: the morphable model, if it is loaded already.
      landmarker: the landmark network, if it is loaded already.

    Returns:
      The track: landmarks smoothed as asked for, and the fit to them.

    Raises:
      MediaError: there is no frame, or they differ in size.
      DataError: the landmark file cannot be used.
      AssetNotFoundError: a model, detector or network asked for by name is not there.
    """
    options = options or TrackOptions()
    if landmarks is None and options.landmarks is not None:
        landmarks = read_landmarks(options.landmarks)
    if landmarks is None and landmarker is None:
        landmarker = find_landmarker(options.landmarker)
    if landmarks is not None or landmarker is not None:  # a missing model is told at once
        model = _model(options, model)
    track = observe(
        frames,
        fps=fps,
        time_s=time_s,
        options=options.observing(),
        landmarks=landmarks,
        landmarker=landmarker,
    )
    if not track.has_landmarks:
        return add_notes(track, *([_HOW_TO_GET_LANDMARKS] if landmarker is None else []))
    return fit_track(smooth_track(track, options), options, model=model)


def find_landmarker(name: str = "auto") -> Landmarker | None:
    """The landmark network.

    Args:
      name: 'fan', 'none', or 'auto' for FAN if its weights are registered.

    Returns:
      None for 'none', and for 'auto' without weights.

    Raises:
      AssetNotFoundError: 'fan' without weights; says how to get them.
    """
    check_choice("the landmarker", name, LANDMARKERS)
    if name == "none":
        return None
    try:
        return FanLandmarker()
    except AssetNotFoundError:
        if name == "fan":
            raise
        return None


def smooth_track(track: ClipTrack, options: TrackOptions) -> ClipTrack:
    """The track with landmarks smoothed over time, within each segment; boxes follow them.

    Args:
      track: not fitted yet.
      options: which smoothing.

    Returns:
      The track; `raw_jitter` stays that of the landmarks as they were found.

    Raises:
      ArgumentError: a number of the smoothing is out of its range.
    """
    if options.smooth == "none" or len(track) < 2:
        return track
    points = track.landmarks68_px.astype(np.float64)
    for start, stop in track.segments:
        part, times = points[start:stop], track.time_s[start:stop]
        if options.smooth == "gaussian":
            points[start:stop] = smoothing.gaussian(
                part, options.sigma_frames, fps=track.fps, time_s=times
            )
            continue
        length = outer_eye_distance(part)
        points[start:stop] = smoothing.one_euro(
            part,
            time_s=times,
            scale=length if np.isfinite(length) and length > 0 else 1.0,
            min_cutoff_hz=options.min_cutoff_hz,
            speed_coefficient=options.speed_coefficient,
            both_ways=True,
        )
    points = points.astype(np.float32)
    around = landmark_boxes(points)
    boxes = np.where(np.isfinite(around), around, track.box_px)
    return dataclasses.replace(track, landmarks68_px=points, box_px=boxes)


def fit_track(
    track: ClipTrack, options: TrackOptions, *, model: "MorphableModel | None" = None
) -> ClipTrack:
    """The track with a morphable model fitted to its landmarks; see `fit_tracks`.

    Args:
      track: with landmarks or without.
      options: which model and camera.
      model: if it is loaded already.
    """
    return fit_tracks([track], options, model=model)[0]


def fit_tracks(
    tracks: Sequence[ClipTrack],
    options: TrackOptions,
    *,
    model: "MorphableModel | None" = None,
) -> list[ClipTrack]:
    """Fits a morphable model to many clips, one identity each; those of one rate at once.

    Points that are not visible have no weight, nothing is smooth across a cut, and a clip without
    a frame that can be fitted stays as it is.

    Args:
      tracks: the clips; of similar lengths, since shorter ones are padded.
      options: which model and camera.
      model: if it is loaded already.

    Returns:
      The tracks, in order.

    Raises:
      ArgumentError: an unknown model.
      AssetNotFoundError: the model's file is not registered.
    """
    if options.morphable == NO_MODEL:
        return list(tracks)
    from talking_heads_jax.tracking.fitting import FitOptions, fit_clips

    finished = list(tracks)
    fittable = [_fittable(track) for track in tracks]
    rates: dict[float, list[int]] = {}
    for index, track in enumerate(tracks):
        if fittable[index].any():
            rates.setdefault(track.fps, []).append(index)
    if rates:
        model = _model(options, model)
    for fps, members in rates.items():
        group = [tracks[index] for index in members]
        fits = fit_clips(
            model,
            [track.landmarks68_px for track in group],
            image_sizes=[track.frame_size for track in group],
            weights=[tracks[i].visible * fittable[i][:, None].astype(np.float32) for i in members],
            segments=[track.segments for track in group],
            options=dataclasses.replace(
                options.fit or FitOptions(), camera=options.camera, fps=fps
            ),
        )
        for index, fit in zip(members, fits, strict=True):
            finished[index] = _with_fit(tracks[index], fit, model.name)
    return finished


def fit_of(track: ClipTrack) -> "FaceFit":
    """A track's fit as `fitting` has it, for `fit_vertices_px` and `fit_landmarks_px`.

    Args:
      track: that was fitted, here or in a motion file, in any crop's pixels.
    """
    from talking_heads_jax.tracking.fitting import FaceFit

    values: dict[str, Any] = {
        name: getattr(track, name) for name in FaceFit._fields if hasattr(track, name)
    }
    values["principal_px"] = np.asarray(track.principal_px, np.float32)
    return FaceFit(**values, landmark_bias_cm=np.zeros((68, 3), np.float32), iterations=0)


def add_notes(track: ClipTrack, *notes: str) -> ClipTrack:
    """The track with more notes.

    Args:
      track: any.
      *notes: one sentence each.
    """
    return dataclasses.replace(track, notes=(*track.notes, *notes)) if notes else track


class open_clip:
    """Context manager: a photograph or video as frames with their times.

    Attributes:
      fps: average frames per second.
      size: height, width.
      times: filled while `frames` is iterated: seconds, None where the file states none.
      notes: what a user should know about the file.
      is_still: whether it is a photograph.
    """

    def __init__(self, path: Path, limits: MediaLimits = DEFAULT_LIMITS) -> None:
        """Reads a photograph, or a video's header.

        Args:
          path: an image by its ending, else a video.
          limits: what is refused.

        Raises:
          MediaError: it cannot be read.
        """
        self.times: list[float | None] = []
        self.notes: tuple[str, ...] = ()
        self.is_still = path.suffix.lower() in IMAGE_SUFFIXES
        self._still = self._reader = None
        if self.is_still:
            self._still = read_image(path, limits)
            self.fps, self.size = STILL_FPS, self._still.shape[:2]
            check_side(f"{path}", *self.size)
            return
        from talking_heads_jax.media.video import VideoReader

        self._reader = VideoReader(path, limits)
        self.fps, self.size = float(self._reader.fps), self._reader.size
        check_side(f"{path}", *self.size)
        if self._reader.rotation:
            self.notes = (
                f"the file says its frames are to be turned by {self._reader.rotation} degrees "
                "counter-clockwise: they are, and pixels are those of the upright frame",
            )

    def __enter__(self) -> "open_clip":
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def frames(self) -> Iterator[np.ndarray]:
        """Iterates over the frames (h w 3) uint8 RGB, and notes their times.

        Raises:
          MediaError: while iterating: a frame cannot be decoded.
        """
        self.times.clear()
        if self._still is not None:
            self.times.append(0.0)
            yield self._still
            return
        for moment, frame in self._reader.timed_frames():
            self.times.append(moment)
            yield frame


def _model(options: TrackOptions, model: "MorphableModel | None") -> "MorphableModel | None":
    """The face model to fit, loaded unless it is; None if there is nothing to fit."""
    if model is not None or options.morphable == NO_MODEL:
        return model
    from talking_heads_jax.morphable.registry import load_morphable

    return load_morphable(options.morphable)


def _read_landmarks(options: TrackOptions, size: tuple[int, int]) -> Landmarks | None:
    if options.landmarks is None:
        return None
    return read_landmarks(options.landmarks, frame_size=size)


def _fittable(track: ClipTrack) -> np.ndarray:
    """(t,) bool: frames with enough visible points, not all in one place."""
    points = track.landmarks68_px[:, INNER_51]
    seen = (track.visible[:, INNER_51] > 0) & np.isfinite(points).all(-1)
    known = {"axis": 1, "where": seen[..., None]}
    spread = points.max(**known, initial=-np.inf) - points.min(**known, initial=np.inf)
    return (seen.sum(1) >= FEWEST_POINTS) & (spread.max(1) > _SMALLEST_SPREAD_PX)


def _with_fit(track: ClipTrack, fit: "FaceFit", name: str) -> ClipTrack:
    fitted = dataclasses.replace(
        track,
        morphable=name,
        camera=fit.camera,
        focal_px=float(fit.focal_px),
        principal_px=(float(fit.principal_px[0]), float(fit.principal_px[1])),
        **{
            field: np.asarray(getattr(fit, field), np.float32)
            for field in (
                *("shape_coeffs", "expression_coeffs", "joint_pose", "angles", "scale_px"),
                *("offset_px", "depth_cm", "reprojection_px"),
            )
        },
    )
    share = fitted.quality()["reprojection_share"]
    if share is not None and share > POOR_FIT:
        return add_notes(
            fitted,
            f"the fit misses the landmarks by {100 * share:.0f} % of the outer eye corners' "
            "distance: are they of this clip?",
        )
    return fitted
