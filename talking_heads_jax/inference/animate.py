"""A portrait and a driving clip in, an animated video out; streamed, so memory does not grow.

The order of things: the driving frame that counts as rest is found first (decoding only up to it);
then the clip is read once from its start. Every frame is computed from itself, the source and that
rest frame alone, which gives what the official demos get by animating backwards and forwards from
the rest frame and joining the two halves.
"""

import dataclasses
from collections.abc import Callable, Mapping
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
    fit_frame,
    frame_at,
    framing_note,
    held_frames,
    is_video,
    open_sink,
    read_landmarks,
    still_or_first_frame,
)
from talking_heads_jax.inference.motion_transfer import SMALLEST_AREA, best_frame, hull_area
from talking_heads_jax.inference.overlay import draw_keypoints, side_by_side
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits, check_side
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.registry import build_model

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
      source_landmarks: .npz file with `landmarks68_px` of the source.
      driving_landmarks: the same of the driving clip, one row per frame.
      side_by_side: source, driving frame and prediction next to each other.
      keypoints: draw the keypoints, on every panel its own.
      audio: carry the driving clip's sound over.
      pose: yaw, pitch, roll in degrees by which the trained pose editor turns the source; relative
        motion is added on top.
      batch_size: frames computed together; the result is that of 1 up to rounding.
      precision: compute dtype, 'float32' or 'bfloat16'; None for the checkpoint's own.
      plain: the reference path, without the exact savings.
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
    limits: MediaLimits = DEFAULT_LIMITS


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
      driving: a video.
      output: an .mp4 file (replaced when all went well), or a name without suffix for a new folder
        of png files.
      options: how; the defaults when None.
      log: takes notes, one line each.

    Returns:
      What was done.

    Raises:
      ArgumentError: for options or files that do not fit together.
      CheckpointError: if the checkpoint cannot be read, or has no trained pose editor for `pose`.
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
      driving: a video.
      output: an .mp4 file, or a new folder.
      options: how.
      log: takes notes, one line each.

    Returns:
      What was done.

    Raises:
      ArgumentError: for options or files that do not fit together.
      CheckpointError: if a network is missing.
      MediaError: if a file cannot be read or written.
    """
    _check_options(options)
    check_output(output, (source, driving))
    notes: list[str] = []

    def note(text: str | None) -> None:
        if text is not None:
            notes.append(text)
            log(text)

    animator = FrameAnimator(
        model, variables, batch_size=options.batch_size, relative=options.relative
    )
    if options.pose is not None:
        check_pose_editor(model, variables)
        if is_video(source):
            raise ArgumentError(
                requirement("source", "be an image with pose", source.name, "Give one frame of it.")
            )
    limits = options.limits
    reader = VideoReader(driving, limits)
    portrait = still_or_first_frame(source, limits)
    check_side(f"{driving}", *reader.size)
    check_side(f"{source}", *portrait.shape[:2])
    side = model.resolution
    note(framing_note("source", portrait.shape[:2], side))
    note(framing_note("driving", reader.size, side))
    animator.set_source(fit_frame(portrait, side), pose_deg=options.pose)
    rest = None
    if options.relative:
        rest = _rest_frame(options, reader.frame_count, note)
        animator.set_initial(
            fit_frame(frame_at(driving, rest, limits), side), adapt_scale=options.adapt_scale
        )
        note(_scale_note(animator) if options.adapt_scale else None)

    fps = reader.fps
    columns = 3 if options.side_by_side else 1
    stream = animator.stream(
        (fit_frame(frame, side) for frame in reader),
        held_frames(source, side, limits) if is_video(source) else None,
    )
    count = 0
    sound = driving if options.audio else None
    with open_sink(output, fps=fps, size=(side, side * columns), audio_from=sound) as sink:
        for frame in stream:
            sink.write(compose_frame(frame, options))
            count += 1
    log(f"{output}: {count} frames at {float(fps):g} frames/s")
    return AnimateResult(output, count, float(fps), rest, animator.scale, tuple(notes))


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
    if (options.source_landmarks is None) != (options.driving_landmarks is None):
        raise ArgumentError(
            requirement(
                "landmarks",
                "be given of both source and driving clip, or of neither",
                "one of them",
                "Give the other file too.",
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
    options: AnimateOptions, frame_count: int | None, note: Callable[[str], None]
) -> int:
    """Number of the driving frame that counts as rest."""
    if options.best_frame == OFF:
        return 0
    if options.best_frame != AUTO:
        return int(options.best_frame)
    if options.source_landmarks is None or options.driving_landmarks is None:
        note(
            "best frame: no landmarks given, so motion is relative to the first driving frame "
            "(give source and driving landmarks, or the number of a frame with a similar pose)"
        )
        return 0
    landmarks = read_landmarks(options.driving_landmarks)
    if frame_count is not None and frame_count != len(landmarks):
        note(f"best frame: {len(landmarks)} rows of landmarks for a clip of {frame_count} frames")
    chosen = best_frame(read_landmarks(options.source_landmarks)[0], landmarks)
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
