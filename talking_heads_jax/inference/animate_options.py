"""What can be chosen when a portrait is animated, and what comes back."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.framing import FramingOptions
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.tracking.clip_boxes import Box

AUTO, OFF = "auto", "off"


@dataclasses.dataclass(frozen=True)
class AnimateOptions:
    """How to animate.

    Attributes:
      relative: add the driver's movement since the rest frame to the source's keypoints (True), or
        take the driver's keypoints as they are (False; then rest frame and scale have no effect).
        None is the system's own way: relative with keypoints, absolute with meshes, which have no
        other.
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
      source_motion: motion file of the source, in place of tracking it; of mesh-driven systems, as
        all that follow.
      driving_motion: the same of the driving video.
      smooth: of the driver's coefficients, of `mesh_motion.SMOOTHINGS`; None is 'official'.
      placement: where the head goes, of `mesh_placement.PLACEMENTS`; None is 'source'.
      shoulders: of `editing.SHOULDERS`: they turn with a fitted head ('turn', what None is), or
        stay turned as the source's, so that the neck bends.
      limits: what is refused of the source and the driving clip.
    """

    relative: bool | None = None
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
    source_motion: Path | None = None
    driving_motion: Path | None = None
    smooth: str | None = None
    placement: str | None = None
    shoulders: str | None = None
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
      scale: factor of relative movement; with meshes, how much larger than in the driver's own
        crop they are drawn.
      notes: what the user should know: cropping, resizing, missing landmarks.
    """

    output: Path
    frames: int
    fps: float
    best_frame: int | None
    scale: float
    notes: tuple[str, ...]


def check_options(options: AnimateOptions) -> None:
    """Raises for values that make no sense with any system, before anything is loaded.

    Args:
      options: what was chosen.

    Raises:
      ArgumentError: naming the option.
    """
    chosen = options.best_frame
    is_number = isinstance(chosen, int) and not isinstance(chosen, bool) and chosen >= 0
    if chosen not in (AUTO, OFF) and not is_number:
        raise ArgumentError(
            requirement("best frame", "be auto, off or a frame number from 0", chosen, "E.g. auto.")
        )
    for what in ("source", "driving"):
        options.framing(what)
    if options.paste_back and (options.side_by_side or options.keypoints):
        raise ArgumentError(
            requirement(
                "paste back",
                "stand alone",
                "panels or keypoints as well",
                "Make two videos: the crops with panels, and the whole.",
            )
        )
    if options.pose is not None and options.relative is False:
        raise ArgumentError(
            requirement(
                "pose",
                "be combined with relative motion",
                "absolute motion",
                "Absolute motion sets the pose itself: leave one of the two out.",
            )
        )


def refuse_options(options: AnimateOptions, names: tuple[str, ...], why: str, remedy: str) -> None:
    """Raises if one of some options was chosen.

    Args:
      options: what was chosen.
      names: fields of it.
      why: what the option must be used with.
      remedy: what to do instead.

    Raises:
      ArgumentError: naming the first one that differs from its default.
    """
    default = AnimateOptions()
    for name in names:
        value = getattr(options, name)
        if value != getattr(default, name):
            raise ArgumentError(requirement(name, f"be used with {why}", value, remedy))


def refuse_unused_framing(
    options: AnimateOptions, cropped: Sequence[str], looked_for: Sequence[str]
) -> None:
    """Raises for a crop, recipe or detector that nothing would use.

    Args:
      options: what was chosen.
      cropped: which of "source" and "driving" have pictures, or frames, to crop.
      looked_for: in which of them a detector looks for the face.

    Raises:
      ArgumentError: naming the first one that was chosen.
    """
    remedy = "Leave it out."
    free = [what for what in cropped if getattr(options, f"{what}_box") is None]
    if not free:
        refuse_options(options, ("crop", "recipe"), "a file without a box", remedy)
    if options.crop != AUTO:
        refuse_options(options, ("recipe",), "crop auto, which finds the face", remedy)
    if not looked_for:
        refuse_options(options, ("detector",), "a file whose face has to be found", remedy)


def with_settings(model: TalkingHead, options: AnimateOptions) -> TalkingHead:
    """The model with the wanted precision and path; the parameters are the same.

    Args:
      model: as a checkpoint has it.
      options: `precision` and `plain` are read.

    Returns:
      The same object where nothing changes.

    Raises:
      ArgumentError: the system has no such choice.
    """
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
