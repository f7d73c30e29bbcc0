"""A portrait and a driving clip in, an animated video out; streamed, so memory does not grow.

The order of things: where faces must be looked for, each file is read through once and what is
found is kept as a box per frame; then the driving frame that counts as rest is found (decoding only
up to it); then the clip is read once from its start. Every frame is computed from itself, the
source and that rest frame alone, which gives what the official demos get by animating backwards and
forwards from the rest frame and joining the two halves. Mesh-driven systems go another way: see
`animate_mesh`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.animate_mesh import animate_by_meshes
from talking_heads_jax.inference.animate_options import (
    AUTO,
    OFF,
    AnimateOptions,
    AnimateResult,
    check_options,
    refuse_options,
    refuse_unused_framing,
    with_settings,
)
from talking_heads_jax.inference.animator import (
    AnimatedFrames,
    FrameAnimator,
    StreamFrame,
    check_pose_editor,
)
from talking_heads_jax.inference.clips import (
    check_output,
    frame_at,
    is_picture,
    is_video,
    open_sink,
)
from talking_heads_jax.inference.driven_pose import (
    check_motion_model,
    is_motion_file,
    pose_motion,
)
from talking_heads_jax.inference.framing import find_framing
from talking_heads_jax.inference.mesh_animator import MeshAnimator, is_mesh_driven
from talking_heads_jax.inference.motion_transfer import SMALLEST_AREA, best_frame, hull_area
from talking_heads_jax.inference.overlay import draw_keypoints, side_by_side
from talking_heads_jax.inference.scene import Scene
from talking_heads_jax.media.limits import check_side
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.tracking.landmark_files import read_landmarks
from talking_heads_jax.tracking.motion_file import load_motion

__all__ = [
    "AnimateOptions",
    "AnimateResult",
    "AnimatedFrames",
    "FrameAnimator",
    "MeshAnimator",
    "StreamFrame",
    "animate_clip",
    "animate_files",
]


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
        editor and mesh-driven ones; for these also an image.
      output: an .mp4 file (replaced when all went well), or a name without suffix for a new folder
        of png files; driven by an image also a picture.
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
    check_options(options)
    check_output(output, (source, driving), pictures=not is_video(driving))
    loaded = load_model(Path(checkpoint))
    model = with_settings(loaded.model, options)
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
      model: a system that needs only images, or an image and vertices.
      variables: network name -> linen variables.
      source: image or video.
      driving: a video or a motion file; with meshes also an image.
      output: an .mp4 file, or a new folder; driven by an image also a picture.
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
    check_options(options)
    check_output(output, (source, driving), pictures=not is_video(driving))
    notes: list[str] = []

    def note(text: str | None) -> None:
        if text is not None:
            notes.append(text)
            log(text)

    animate = animate_by_meshes if is_mesh_driven(model) else _animate_by_keypoints
    result = animate(model, variables, source, driving, output, options, note)
    rate = "" if is_picture(output) else f" at {result.fps:g} frames/s"
    log(f"{output}: {result.frames} frame{'s' if result.frames > 1 else ''}{rate}")
    return dataclasses.replace(result, notes=tuple(notes))


def _animate_by_keypoints(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    source: Path,
    driving: Path,
    output: Path,
    options: AnimateOptions,
    note: Callable[[str | None], None],
) -> AnimateResult:
    """Systems that need only images: they see their motion in the driving pictures."""
    by_motion_file = is_motion_file(driving)
    _check_keypoint_options(options, by_motion_file)
    if by_motion_file:
        check_motion_model(model, variables)
    relative = options.relative is not False
    animator = FrameAnimator(model, variables, batch_size=options.batch_size, relative=relative)
    if options.pose is not None:
        check_pose_editor(model, variables)
    if (options.pose is not None or by_motion_file) and is_video(source):
        what = "pose" if options.pose is not None else "a motion file"
        raise ArgumentError(
            requirement("source", f"be an image with {what}", source.name, "Give one frame of it.")
        )
    scene = Scene(source, model.resolution, options, note)
    if by_motion_file:
        return _animate_by_motion(animator, scene, driving, output, options, note)
    return _animate_by_video(animator, scene, driving, output, options, note)


def _animate_by_video(
    animator: FrameAnimator,
    scene: Scene,
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
    if reader.frame_count:  # as the file states it
        animator.batch_size = min(animator.batch_size, reader.frame_count)
    animator.set_source(scene.framing.crop(scene.portrait), pose_deg=options.pose)
    rest = None
    if animator.relative:
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
    scene: Scene,
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
    if not animator.relative:
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
    animator.batch_size = min(animator.batch_size, len(motion.offsets_rad))
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


def _check_keypoint_options(options: AnimateOptions, by_motion_file: bool) -> None:
    """Raises for options that a system which sees its motion in pictures has no use for."""
    refuse_options(
        options,
        ("source_motion", "driving_motion", "smooth", "placement", "shoulders"),
        "a mesh-driven model",
        "Leave it out: this model sees its motion in the driving pictures.",
    )
    cropped = ("source",) if by_motion_file else ("source", "driving")
    looked_for = [
        what
        for what in cropped
        if options.crop == AUTO
        and getattr(options, f"{what}_box") is None
        and getattr(options, f"{what}_landmarks") is None
    ]
    refuse_unused_framing(options, cropped, looked_for)
    one_only = (options.source_landmarks is None) != (options.driving_landmarks is None)
    if one_only and options.crop != AUTO:
        raise ArgumentError(
            requirement(
                "landmarks",
                "be given of both source and driving clip, or of neither",
                "one of them",
                "Give the other file too, or crop by them with crop='auto'.",
            )
        )


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
