"""The pose editor alone: a portrait turned by yaw, pitch and roll, each swept separately.

This is FNeVR's Figure 5. Angles are degrees with the signs of the user interface: yaw > 0 turns the
nose to the right edge, pitch > 0 raises it, roll > 0 turns the head clockwise. Letters: b batch,
n steps of a sweep, h w image.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import BYTE_LEVEL, FaceInputs
from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.animator import check_pose_editor
from talking_heads_jax.inference.clips import (
    VIDEO_SUFFIX,
    fit_frame,
    framing_note,
    still_or_first_frame,
)
from talking_heads_jax.inference.overlay import label_rows
from talking_heads_jax.media.image import write_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits, check_side
from talking_heads_jax.media.video import VideoWriter
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.typing import Array, Float

ANGLES = ("yaw", "pitch", "roll")
_LARGEST_DEG = 90.0  # beyond, the Euler angles of the editor are not unique
_MOST_STEPS = 99
_BATCH = 8
_VIDEO_FRAMES, _FPS = 75, 25


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """What to sweep.

    Attributes:
      range_deg: each angle goes from minus this to this.
      steps: pictures per angle, odd so that the middle one is 0.
      source_angles_deg: the source's own yaw, pitch and roll. With them the sweep is over the
        head's angles; without (zeros) over the change of them.
      limits: what is refused of the source.
    """

    range_deg: float = 20.0
    steps: int = 7
    source_angles_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    limits: MediaLimits = DEFAULT_LIMITS


@functools.partial(jax.jit, static_argnames="model")
def turn_heads(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    images: Float[Array, "b h w 3"],
    offsets: Float[Array, "b 3"],
) -> Float[Array, "b h w 3"]:
    """Each source turned by its own change of yaw, pitch and roll.

    Args:
      model: a system with a pose editor.
      variables: of the networks of inference and `pose_editor`.
      images: float32 RGB in [0, 1].
      offsets: radians, wanted − the source's.

    Returns:
      float32 RGB in [0, 1].
    """
    encoding = model.encode_source(variables, FaceInputs(image=images))
    motion = model.edit_pose(variables, encoding, offsets)
    return model.animate_frame(variables, encoding, motion).prediction


def sweep_pose(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    source: np.ndarray,
    values_deg: Sequence[float],
    *,
    source_angles_deg: Sequence[float] = (0.0, 0.0, 0.0),
) -> np.ndarray:
    """The source with each of the three angles at each value, the other two as they are.

    Args:
      model: a system with a pose editor.
      variables: of the networks of inference and a trained `pose_editor`.
      source: (h w 3) uint8 RGB, `model.resolution` a side.
      values_deg: n degrees.
      source_angles_deg: yaw, pitch, roll of the source.

    Returns:
      (3 n h w 3) uint8: yaw, pitch, roll.

    Raises:
      ArgumentError: for angles that are not finite or beyond 90°, or a model without an editor.
      CheckpointError: if the editor was not trained.
    """
    check_pose_editor(model, variables)
    _check_angles(values_deg, source_angles_deg)
    count = len(values_deg)
    offsets = np.zeros((3, count, 3), np.float32)
    for angle in range(3):
        offsets[angle, :, angle] = np.asarray(values_deg) - source_angles_deg[angle]
    offsets = np.deg2rad(offsets).reshape(3 * count, 3)
    offsets = np.concatenate([offsets, np.zeros((-len(offsets) % _BATCH, 3), np.float32)])
    image = np.repeat(source[None].astype(np.float32) * np.float32(BYTE_LEVEL), _BATCH, axis=0)
    images = jax.device_put(image)
    turned = [
        np.asarray(turn_heads(model, variables, images, jnp.asarray(offsets[i : i + _BATCH])))
        for i in range(0, len(offsets), _BATCH)
    ]
    frames = np.round(np.clip(np.concatenate(turned)[: 3 * count], 0, 1) * 255).astype(np.uint8)
    return frames.reshape(3, count, *source.shape)


def sweep_files(
    checkpoint: Path,
    source: Path,
    output: Path,
    *,
    options: SweepOptions | None = None,
    video: Path | None = None,
    log: Callable[[str], None] = print,
) -> None:
    """Writes the picture grid of a sweep, and a video of it if wanted.

    Args:
      checkpoint: a training folder, or a saved model, with a trained pose editor.
      source: portrait: an image, or a video, whose first frame is taken.
      output: the picture: a row per angle, a column per value.
      options: what to sweep; the defaults when None.
      video: an .mp4: three panels in which yaw, pitch and roll swing, each alone.
      log: takes notes, one line each.

    Raises:
      ArgumentError: for options or files that do not fit.
      CheckpointError: if the checkpoint cannot be read, or has no trained pose editor.
      MediaError: if a file cannot be read or written.
    """
    from talking_heads_jax.checkpoints import load_model

    options = options or SweepOptions()
    _check_options(options, source, output, video)
    loaded = load_model(Path(checkpoint))
    model = loaded.model
    check_pose_editor(model, loaded.variables)
    portrait = still_or_first_frame(source, options.limits)
    check_side(f"{source}", *portrait.shape[:2])
    note = framing_note("source", portrait.shape[:2], model.resolution)
    if note is not None:
        log(note)
    image = fit_frame(portrait, model.resolution)
    own = options.source_angles_deg
    values = np.linspace(-options.range_deg, options.range_deg, options.steps)
    frames = sweep_pose(model, loaded.variables, image, values, source_angles_deg=own)
    labels = [[f"{name} {value:+.0f}" for value in values] for name in ANGLES]
    write_image(output, label_rows(frames, labels))
    log(f"{output}: yaw, pitch and roll from {-options.range_deg:g} to {options.range_deg:g} deg")
    if video is None:
        return
    phase = np.linspace(0, 2 * math.pi, _VIDEO_FRAMES, endpoint=False)
    swing = options.range_deg * np.sin(phase)
    panels = sweep_pose(model, loaded.variables, image, swing, source_angles_deg=own)
    with VideoWriter(video, _FPS, (model.resolution, 3 * model.resolution)) as writer:
        for panel in np.concatenate(list(panels), axis=2):
            writer.write(panel)
    log(f"{video}: {_VIDEO_FRAMES} frames")


def _check_angles(values_deg: Sequence[float], source_angles_deg: Sequence[float]) -> None:
    angles = [*values_deg, *source_angles_deg]
    if len(source_angles_deg) != 3 or not all(abs(angle) <= _LARGEST_DEG for angle in angles):
        raise ArgumentError(
            requirement(
                "angles of a sweep",
                f"be degrees within ±{_LARGEST_DEG:g}, three of the source",
                [round(float(angle), 3) for angle in angles[:4]],
                "E.g. --range 20 --source-angles 10 -5 0.",
            )
        )


def _check_options(options: SweepOptions, source: Path, output: Path, video: Path | None) -> None:
    if not 0 < options.range_deg <= _LARGEST_DEG:
        got = options.range_deg
        raise ArgumentError(
            requirement(
                "range", f"be above 0 and at most {_LARGEST_DEG:g} degrees", got, "E.g. 20."
            )
        )
    if not 2 <= options.steps <= _MOST_STEPS:
        raise ArgumentError(
            requirement("steps", f"be 2 to {_MOST_STEPS}", options.steps, "The default is 7.")
        )
    _check_angles((), options.source_angles_deg)
    if video is not None and video.suffix.lower() != VIDEO_SUFFIX:
        raise ArgumentError(
            requirement("the video", f"end in {VIDEO_SUFFIX}", video.name, "Rename it.")
        )
    for path in filter(None, (output, video)):
        if path.exists() and source.exists() and path.samefile(source):
            raise ArgumentError(
                requirement("output", "differ from the source", path, "Give another file name.")
            )
