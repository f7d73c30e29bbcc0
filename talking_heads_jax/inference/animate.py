"""A portrait and a driving clip in, an animated video out; streamed, so memory does not grow.

The order of things: where faces must be looked for, each file is read through once and what is
found is kept as a box per frame; then the driving frame that counts as rest is found (decoding only
up to it); then the clip is read once from its start. Every frame is computed from itself, the
source and that rest frame alone, which gives what the official demos get by animating backwards and
forwards from the rest frame and joining the two halves.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.animator import (
    AnimatedFrames,
    FrameAnimator,
    StreamFrame,
    check_pose_editor,
)
from talking_heads_jax.inference.clips import (
    check_output,
    frame_at,
    held_frames,
    is_video,
    open_sink,
    still_or_first_frame,
)
from talking_heads_jax.inference.driven_pose import (
    check_motion_model,
    is_motion_file,
    pose_motion,
)
from talking_heads_jax.inference.framing import FramingOptions, find_framing
from talking_heads_jax.inference.motion_transfer import SMALLEST_AREA, best_frame, hull_area
from talking_heads_jax.inference.overlay import draw_keypoints, side_by_side
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits, check_side
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.tracking.clip_boxes import Box
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.motion_file import load_motion
from talking_heads_jax.tracking.paste import paste_back

__all__ = [
    "AnimateOptions",
    "AnimateResult",
    "AnimatedFrames",
    "FrameAnimator",
    "StreamFrame",
    "animate_clip",
    "animate_files",
]

AUTO, OFF = "auto", "off"


@dataclasses.dataclass(frozen=True)
class AnimateOptions:
    """How to animate.

    Attributes:
      relative: add the driver's movement since the rest frame to the source's keypoints (True), or
        take the driver's keypoints as they are (then rest frame and scale have no effect).
      adapt_scale: multiply relative movement by the ratio of the face sizes.
      best_frame: the driving frame that counts as rest: its number; 'auto', the one most like the
        source by landmarks, or the first, saying so, when no landmarks are given; 'off', the first.
      source_landmarks: landmark file of the source, see `tracking.landmark_files`.
      driving_landmarks: the same of the driving clip, one row per frame.
      side_by_side: source, driving frame and prediction next to each other.
      keypoints: draw the keypoints, on every panel its own.
      audio: carry the driving clip's sound over.
      pose: yaw, pitch, roll in degrees by which the trained pose editor turns the source; relative
        motion is added on top.
      batch_size: frames computed together; the result is that of 1 up to rounding.
      precision: compute dtype, 'float32' or 'bfloat16'; None for the checkpoint's own.
      plain: the reference path, without the exact savings.
      crop: what the model sees of frames that have not its size: 'auto', about the face; 'centre',
        the middle square; 'none', the whole, which must be square. See `framing.find_framing`.
      recipe: how crops lie about the face, of `tracking.alignment.RECIPES`.
      detector: what finds faces where there are no landmarks, of `tracking.detection.DETECTORS`.
      source_box: x0 y0 x1 y1, pixels of the source: its crop; None finds it.
      driving_box: the same of the driving clip.
      paste_back: put the result back into the whole source frame.
      limits: what is refused of the source and the driving clip.
    """

    relative: bool = True
    adapt_scale: bool = False
    best_frame: int | str = AUTO
    source_landmarks: Path | None = None
    driving_landmarks: Path | None = None
    side_by_side: bool = False
    keypoints: bool = False
    audio: bool = True
    pose: tuple[float, float, float] | None = None
    batch_size: int = 1
    precision: str | None = None
    plain: bool = False
    crop: str = "auto"
    recipe: str = "prepare"
    detector: str = "auto"
    source_box: Box | None = None
    driving_box: Box | None = None
    paste_back: bool = False
    limits: MediaLimits = DEFAULT_LIMITS

    def framing(self, what: str) -> FramingOptions:
        """How the frames of one of the two files become the model's squares.

        Args:
          what: "source" or "driving".

        Raises:
          ArgumentError: an unknown word, or an empty box.
        """
        return FramingOptions(
            crop=self.crop,
            recipe=self.recipe,
            detector=self.detector,
            box=getattr(self, f"{what}_box"),
            landmarks=getattr(self, f"{what}_landmarks"),
        )


@dataclasses.dataclass(frozen=True)
class AnimateResult:
    """What was done.

    Attributes:
      output: the video, or the folder of pictures.
      frames: how many were written.
      fps: frames per second, the driving clip's.
      best_frame: the driving frame that counted as rest; None for absolute motion.
      scale: factor of relative movement.
      notes: what the user should know: cropping, resizing, missing landmarks.
    """

    output: Path
    frames: int
    fps: float
    best_frame: int | None
    scale: float
    notes: tuple[str, ...]


def animate_files(
    checkpoint: Path,
    source: Path,
    driving: Path,
    output: Path,
    *,
    options: AnimateOptions | None = None,
    log: Callable[[str], None] = print,
) -> AnimateResult:
    """Animates a portrait with the motion of a clip.

    Args:
      checkpoint: a folder that `convert` or training wrote.
      source: portrait: an image; or a video, whose frame i is then the source of output frame i
        (its last frame is held when it is the shorter one).
      driving: a video, or a motion file of `talking-heads track --save` for models with a pose
        editor.
      output: an .mp4 file (replaced when all went well), or a name without suffix for a new folder
        of png files.
      options: how; the defaults when None.
      log: takes notes, one line each.

    Returns:
      What was done.

    Raises:
      ArgumentError: for options or files that do not fit together.
      CheckpointError: if the checkpoint cannot be read, or has no trained pose editor for `pose`.
      DataError: if a landmark or motion file cannot be used.
      MediaError: if a file cannot be read or written.
    """
    from talking_heads_jax.checkpoints import load_model

    options = options or AnimateOptions()
    source, driving, output = Path(source), Path(driving), Path(output)
    _check_options(options)
    check_output(output, (source, driving))
    loaded = load_model(Path(checkpoint))
    model = _with_settings(loaded.model, options)
    return animate_clip(model, loaded.variables, source, driving, output, options=options, log=log)


def animate_clip(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    source: Path,
    driving: Path,
    output: Path,
    *,
    options: AnimateOptions,
    log: Callable[[str], None] = print,
) -> AnimateResult:
    """As `animate_files`, with a model in memory (`precision` and `plain` are the model's).

    Args:
      model: a system that needs only images.
      variables: network name -> linen variables.
      source: image or video.
      driving: a video, or a motion file.
      output: an .mp4 file, or a new folder.
      options: how.
      log: takes notes, one line each.

    Returns:
      What was done.

    Raises:
      ArgumentError: for options or files that do not fit together.
      CheckpointError: if a network is missing.
      DataError: if a landmark or motion file cannot be used.
      MediaError: if a file cannot be read or written.
    """
    _check_options(options)
    check_output(output, (source, driving))
    notes: list[str] = []

    def note(text: str | None) -> None:
        if text is not None:
            notes.append(text)
            log(text)

    by_motion_file = is_motion_file(driving)
    if by_motion_file:
        check_motion_model(model, variables)
    animator = FrameAnimator(
        model, variables, batch_size=options.batch_size, relative=options.relative
    )
    if options.pose is not None:
        check_pose_editor(model, variables)
    if (options.pose is not None or by_motion_file) and is_video(source):
        what = "pose" if options.pose is not None else "a motion file"
        raise ArgumentError(
            requirement("source", f"be an image with {what}", source.name, "Give one frame of it.")
        )
    scene = _Scene(source, model.resolution, options, note)
    if by_motion_file:
        result = _animate_by_motion(animator, scene, driving, output, options, note)
    else:
        result = _animate_by_video(animator, scene, driving, output, options, note)
    log(f"{output}: {result.frames} frames at {result.fps:g} frames/s")
    return dataclasses.replace(result, notes=tuple(notes))


class _Scene:
    """The source: its picture, what the model sees of it, and the way back."""

    def __init__(
        self,
        path: Path,
        resolution: int,
        options: AnimateOptions,
        note: Callable[[str | None], None],
    ) -> None:
        self.portrait = still_or_first_frame(path, options.limits)
        check_side(f"{path}", *self.portrait.shape[:2])
        self.framing = find_framing(
            "source",
            path,
            self.portrait.shape[:2],
            resolution,
            options.framing("source"),
            options.limits,
        )
        for text in self.framing.notes:
            note(text)
        self._path, self._options = path, options
        # Frames on their way through the network: two batches at most.
        self._under_way: collections.deque[tuple[int, np.ndarray]] = collections.deque()

    def sources(self) -> Iterator[np.ndarray] | None:
        """The model's squares of a source video, without end; None for a still."""
        return self._crops() if is_video(self._path) else None

    def _crops(self) -> Iterator[np.ndarray]:
        for index, frame in held_frames(self._path, self._options.limits):
            if self._options.paste_back:
                self._under_way.append((index, frame))
            yield self.framing.crop(frame, index)

    def output_size(self, resolution: int) -> tuple[int, int]:
        """Height and width of what is written."""
        if self._options.paste_back:
            return self.portrait.shape[:2]
        return resolution, resolution * (3 if self._options.side_by_side else 1)

    def finished(self, prediction: np.ndarray) -> np.ndarray:
        """The next source frame with the prediction in its place."""
        index, frame = self._under_way.popleft() if self._under_way else (0, self.portrait)
        return paste_back(frame, prediction, self.framing.alignment(index))


def _animate_by_video(
    animator: FrameAnimator,
    scene: _Scene,
    driving: Path,
    output: Path,
    options: AnimateOptions,
    note: Callable[[str | None], None],
) -> AnimateResult:
    limits, side = options.limits, animator.model.resolution
    reader = VideoReader(driving, limits)
    check_side(f"{driving}", *reader.size)
    framing = find_framing(
        "driving", driving, reader.size, side, options.framing("driving"), limits
    )
    for text in framing.notes:
        note(text)
    animator.set_source(scene.framing.crop(scene.portrait), pose_deg=options.pose)
    rest = None
    if options.relative:
        sizes = scene.portrait.shape[:2], reader.size
        rest = _rest_frame(options, *sizes, reader.frame_count, note)
        first = framing.crop(frame_at(driving, rest, limits), rest)
        animator.set_initial(first, adapt_scale=options.adapt_scale)
        note(_scale_note(animator) if options.adapt_scale else None)
    crops = (framing.crop(frame, index) for index, frame in enumerate(reader))
    count = 0
    sound = driving if options.audio else None
    size = scene.output_size(side)
    with open_sink(output, fps=reader.fps, size=size, audio_from=sound) as sink:
        for frame in animator.stream(crops, scene.sources()):
            if options.paste_back:
                sink.write(scene.finished(frame.prediction))
            else:
                sink.write(compose_frame(frame, options))
            count += 1
    return AnimateResult(output, count, float(reader.fps), rest, animator.scale, ())


def _animate_by_motion(
    animator: FrameAnimator,
    scene: _Scene,
    driving: Path,
    output: Path,
    options: AnimateOptions,
    note: Callable[[str | None], None],
) -> AnimateResult:
    for name in ("side_by_side", "keypoints", "adapt_scale", "driving_landmarks", "driving_box"):
        if getattr(options, name):
            raise ArgumentError(
                requirement(name, "be used with a driving video", driving.name, "Leave it out.")
            )
    if not options.relative:
        raise ArgumentError(
            requirement(
                "absolute motion",
                "have a driving video",
                driving.name,
                "A motion file turns the source's head from where it is: leave it out.",
            )
        )
    rest = options.best_frame if isinstance(options.best_frame, int) else None
    motion = pose_motion(load_motion(driving), rest=rest, pose_deg=options.pose)
    for text in motion.notes:
        note(text)
    note("motion: the file's angles turn the head by the pose editor; its expressions are not used")
    animator.set_source(scene.framing.crop(scene.portrait))
    count, size = 0, scene.output_size(animator.model.resolution)
    with open_sink(output, fps=motion.fps, size=size, audio_from=None) as sink:
        for prediction in animator.turned(motion.offsets_rad):
            sink.write(scene.finished(prediction) if options.paste_back else prediction)
            count += 1
    return AnimateResult(output, count, motion.fps, motion.rest, animator.scale, ())


def compose_frame(frame: StreamFrame, options: AnimateOptions) -> np.ndarray:
    """The picture to write for one frame: the prediction, or the three panels.

    Args:
      frame: of `FrameAnimator.stream`, uint8 images.
      options: `side_by_side` and `keypoints` are read.

    Returns:
      (h w 3) or (h 3w 3) uint8.

    Raises:
      ArgumentError: if keypoints are to be drawn and the model has none.
    """
    panels = [(frame.prediction, frame.motion)]
    if options.side_by_side:
        panels = [
            (frame.source, frame.source_motion),
            (frame.driving, frame.driving_motion),
            *panels,
        ]
    if not options.keypoints:
        return side_by_side([image for image, _ in panels])
    if not all(isinstance(motion, Keypoints) for _, motion in panels):
        raise ArgumentError(
            requirement("keypoints", "exist to be drawn", "none", "Leave --keypoints out.")
        )
    return side_by_side([draw_keypoints(image, motion.value) for image, motion in panels])


def _check_options(options: AnimateOptions) -> None:
    """Raises for values and combinations that make no sense, before anything is loaded."""
    chosen = options.best_frame
    is_number = isinstance(chosen, int) and not isinstance(chosen, bool) and chosen >= 0
    if chosen not in (AUTO, OFF) and not is_number:
        raise ArgumentError(
            requirement("best frame", "be auto, off or a frame number from 0", chosen, "E.g. auto.")
        )
    for what in ("source", "driving"):
        options.framing(what)
    one_only = (options.source_landmarks is None) != (options.driving_landmarks is None)
    if one_only and options.crop != "auto":
        raise ArgumentError(
            requirement(
                "landmarks",
                "be given of both source and driving clip, or of neither",
                "one of them",
                "Give the other file too, or crop by them with crop='auto'.",
            )
        )
    if options.paste_back and (options.side_by_side or options.keypoints):
        raise ArgumentError(
            requirement(
                "paste back",
                "stand alone",
                "panels or keypoints as well",
                "Make two videos: the crops with panels, and the whole.",
            )
        )
    if options.pose is not None and not options.relative:
        raise ArgumentError(
            requirement(
                "pose",
                "be combined with relative motion",
                "absolute motion",
                "Absolute motion sets the pose itself: leave one of the two out.",
            )
        )


def _with_settings(model: TalkingHead, options: AnimateOptions) -> TalkingHead:
    """The model with the wanted precision and path; the parameters are the same."""
    wanted = {}
    if options.precision is not None:
        wanted["dtype"] = options.precision
    if options.plain:
        wanted["implementation"] = "plain"
    arguments = model.arguments()
    unknown = sorted(set(wanted) - set(arguments))
    if unknown:
        raise ArgumentError(
            requirement(
                f"model {model.name}",
                f"have {' and '.join(unknown)} to choose",
                "a fixed one",
                "Leave precision and plain out.",
            )
        )
    changed = {**arguments, **wanted} != arguments
    return build_model(model.name, **{**arguments, **wanted}) if changed else model


def _rest_frame(
    options: AnimateOptions,
    source_size: tuple[int, int],
    driving_size: tuple[int, int],
    frame_count: int | None,
    note: Callable[[str], None],
) -> int:
    """Number of the driving frame that counts as rest."""
    if options.best_frame == OFF:
        return 0
    if options.best_frame != AUTO:
        return int(options.best_frame)
    given = {"the source": options.source_landmarks, "the driving clip": options.driving_landmarks}
    missing = " and ".join(name for name, path in given.items() if path is None)
    if missing:
        note(
            f"best frame: no landmarks of {missing}, so motion is relative to the first driving "
            "frame (give both files' landmarks, or the number of a frame with a similar pose)"
        )
        return 0
    landmarks = read_landmarks(options.driving_landmarks, frame_size=driving_size).points_px
    if frame_count is not None and frame_count != len(landmarks):
        note(f"best frame: {len(landmarks)} rows of landmarks for a clip of {frame_count} frames")
    face = read_landmarks(options.source_landmarks, frame_size=source_size).points_px[0]
    chosen = best_frame(face, landmarks)
    note(f"best frame: driving frame {chosen} is most like the source")
    return chosen


def _scale_note(animator: FrameAnimator) -> str:
    """How much movement is scaled, or why it is not."""
    areas = [
        hull_area(np.asarray(motion.value[0]))
        for motion in (animator.source_motion, animator.initial_motion)
    ]
    if animator.scale == 1.0 and min(areas) < SMALLEST_AREA:
        return "scale: the keypoints enclose no area, so movement is not adapted"
    return f"scale: movement is multiplied by {animator.scale:.3f}"
