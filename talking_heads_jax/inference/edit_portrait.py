"""A portrait, its state and edits in; an edited picture or video out.

The state of the face in the portrait, a `ClipTrack` of one frame, comes from a motion file, from
tracking the portrait here, or is exact for rendered people. What is written is streamed. Letters:
h w image, t frames, v vertices.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.inference.clips import check_output, is_picture, is_video, open_sink
from talking_heads_jax.inference.edit_changes import (
    Change,
    frame_count,
    parse_setting,
    parse_sweeps,
)
from talking_heads_jax.inference.edit_presets import PRESETS, preset_changes
from talking_heads_jax.inference.edit_quantities import find_quantity, quantities_of
from talking_heads_jax.inference.edit_sheet import check_sheet, frame_labels, mesh_panel, sheet
from talking_heads_jax.inference.edit_timeline import (
    DEFAULT_FPS,
    INTERPOLATIONS,
    check_fps,
    read_timeline,
)
from talking_heads_jax.inference.editing import (
    SHOULDERS,
    TURN,
    EditedClip,
    check_source,
    edit_track,
)
from talking_heads_jax.inference.face_tracks import read_track
from talking_heads_jax.inference.framing import Framing, FramingOptions, find_framing
from talking_heads_jax.inference.mesh_animator import MeshAnimator
from talking_heads_jax.inference.mesh_motion import load_driver_model
from talking_heads_jax.inference.overlay import side_by_side
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits, check_side
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.tracking.paste import paste_back
from talking_heads_jax.tracking.track import ClipTrack


@dataclasses.dataclass(frozen=True)
class EditOptions:
    """What is edited, and how the result looks.

    Attributes:
      presets: names of `edit_presets.PRESETS`.
      settings: texts `name=value` or `name+=value`, for all frames.
      timeline: a csv or json file, or None.
      sweeps: texts `name=start:stop:frames` or `name+=start:stop:frames`.
      there_and_back: whether every sweep returns to its start.
      together: whether sweeps run at the same time instead of one after another.
      interpolate: between a timeline's rows, of `edit_timeline.INTERPOLATIONS`; None: as it says.
      fps: frames a second; None: as a json timeline says, or 25.
      shoulders: of `editing.SHOULDERS`: what they do when the head turns.
      side_by_side: source, mesh and result next to each other.
      paste_back: put the result back into the whole portrait.
      batch_size: frames computed together.
      framing: how the portrait becomes the model's square; its landmarks are the state's.
      limits: what is refused of the portrait.
    """

    presets: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    timeline: Path | None = None
    sweeps: tuple[str, ...] = ()
    there_and_back: bool = False
    together: bool = False
    interpolate: str | None = None
    fps: float | None = None
    shoulders: str = TURN
    side_by_side: bool = False
    paste_back: bool = False
    batch_size: int = 1
    framing: FramingOptions = dataclasses.field(default_factory=FramingOptions)
    limits: MediaLimits = DEFAULT_LIMITS

    def __post_init__(self) -> None:
        """Checks what can be checked before anything is loaded.

        Raises:
          ArgumentError: a text, word or number that is not understood, nothing to edit, or options
            that exclude each other.
          DataError: a rate out of its range.
        """
        check_choice("shoulders", self.shoulders, SHOULDERS)
        if self.interpolate is not None:
            check_choice("interpolate", self.interpolate, INTERPOLATIONS)
        if self.fps is not None:
            check_fps(self.fps)
        for name in self.presets:
            check_choice("the preset", name, tuple(PRESETS))
        self.typed()
        if not (self.presets or self.settings or self.sweeps or self.timeline):
            remedy = "E.g. --set head.yaw=20, --sweep jaw.open=0:20:12 or --preset frontal."
            raise ArgumentError(requirement("an edit", "change something", "nothing", remedy))
        if self.paste_back and self.side_by_side:
            raise ArgumentError(
                requirement("paste back", "stand alone", "side by side too", "Leave one out.")
            )

    def typed(self) -> list[Change]:
        """The changes of `settings` and `sweeps`, whose names are not looked up yet."""
        sweeps = parse_sweeps(
            self.sweeps, there_and_back=self.there_and_back, together=self.together
        )
        return [*map(parse_setting, self.settings), *sweeps]


@dataclasses.dataclass(frozen=True)
class Portrait:
    """A picture and the state of the face in it.

    Attributes:
      image: (h w 3) uint8 RGB.
      track: of one frame, in the picture's pixels.
    """

    image: np.ndarray
    track: ClipTrack


@dataclasses.dataclass(frozen=True)
class EditResult:
    """What was done.

    Attributes:
      output: the picture, video or folder.
      frames: how many were computed.
      notes: what the user should know.
    """

    output: Path
    frames: int
    notes: tuple[str, ...]


def edit_portrait(
    model: TalkingHead,
    variables: Mapping[str, Variables],
    portrait: Portrait,
    output: Path,
    *,
    options: EditOptions,
    driver: MorphableModel | None = None,
    log: Callable[[str], None] = print,
) -> EditResult:
    """Edits a portrait whose state is known, with a model in memory.

    Args:
      model: a mesh-driven system.
      variables: network name -> linen variables.
      portrait: the picture and its state.
      output: a picture: the edited portrait, or a sheet if there are several frames; an .mp4; or a
        name without suffix for a folder of png files.
      options: what and how.
      driver: the morphable model, if it is loaded already.
      log: takes notes, one line each.

    Returns:
      What was done.

    Raises:
      ArgumentError: for options, names or files that do not fit together.
      AssetNotFoundError: the morphable model's file is not registered.
      CheckpointError: if a network is missing.
      DataError: if the timeline cannot be used.
      MediaError: if a file cannot be written.
    """
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        log(text)

    output = Path(output)
    check_output(output, (), pictures=True)
    still = is_picture(output)
    animator = MeshAnimator(model, variables, batch_size=options.batch_size)
    driver = load_driver_model(model) if driver is None else driver
    changes, fps = planned_changes(driver, options, still=still)
    # A batch is filled up by copies: no more of them than there are frames.
    animator.batch_size = min(animator.batch_size, frame_count(changes))
    if still:
        check_sheet(frame_count(changes))
    check_source(portrait.track, driver)
    framing = _framing(portrait, animator.resolution, options)
    for text in (*portrait.track.notes, *framing.notes):
        note(text)
    side = animator.resolution
    source = portrait.track.to_crop(framing.alignment().matrix, (side, side))
    clip = edit_track(source, driver, changes, fps=fps, shoulders=options.shoulders)
    for text in clip.notes:
        note(text)
    frames = _composed(animator, driver, portrait, source, clip, framing, options)
    if not still:
        size = portrait.image.shape[:2] if options.paste_back else (side, side * _panels(options))
        with open_sink(output, fps=fps, size=size, audio_from=None) as sink:
            for frame in frames:
                sink.write(frame)
    elif len(clip) == 1:
        write_image(output, next(frames))
    else:
        write_image(output, sheet(list(frames), frame_labels(changes, len(clip))))
    log(f"{output}: {len(clip)} frame{'s' if len(clip) > 1 else ''}")
    return EditResult(output, len(clip), tuple(notes))


def planned_changes(
    driver: MorphableModel, options: EditOptions, *, still: bool = False
) -> tuple[Sequence[Change], float]:
    """Everything that the options state of a model's face.

    Args:
      driver: the morphable model.
      options: presets, settings, timeline and sweeps.
      still: whether the result is a picture, of which a rate says nothing unless a timeline is in
        seconds.

    Returns:
      The changes, and frames a second.

    Raises:
      ArgumentError: an unknown quantity, too many frames, or a rate that has no effect.
      DataError: the timeline cannot be used.
    """
    quantities = quantities_of(driver)
    typed = options.typed()
    for change in typed:
        find_quantity(quantities, change.name)
    changes = preset_changes(options.presets, quantities)
    fps, in_seconds = options.fps, False
    if options.timeline is not None:
        timeline = read_timeline(
            options.timeline, quantities, fps=fps, interpolate=options.interpolate
        )
        changes, fps = [*changes, *timeline.changes], timeline.fps
        in_seconds = timeline.in_seconds
    if still and options.fps is not None and not in_seconds:
        got = "a picture, and no timeline in time_s"
        raise ArgumentError(requirement("fps", "have an effect", got, "Leave it out."))
    changes = [*changes, *typed]
    frame_count(changes)
    return changes, DEFAULT_FPS if fps is None else fps


def portrait_from_files(
    source: Path,
    driver: MorphableModel,
    *,
    motion: Path | None = None,
    landmarks: Path | None = None,
    detector: str = "auto",
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Portrait:
    """Reads a portrait and finds the state of its face.

    Args:
      source: an image.
      driver: the morphable model.
      motion: a motion file of it, fitted with that model; None tracks the image here.
      landmarks: its landmark file, to track it with; None finds landmarks by FAN.
      detector: what finds its box for FAN.
      limits: what is refused.

    Returns:
      The portrait.

    Raises:
      ArgumentError: the source is a video, has no landmarks, or the motion file is of another
        model, or of other pictures.
      DataError: a motion or landmark file cannot be used.
      MediaError: the image cannot be read.
    """
    if is_video(source):
        raise ArgumentError(
            requirement("source", "be an image", source.name, "Give one frame of it.")
        )
    image = read_image(source, limits)
    check_side(f"{source}", *image.shape[:2])
    track = read_track(
        "source",
        source,
        driver,
        motion=motion,
        landmarks=landmarks,
        detector=detector,
        limits=limits,
    )
    return Portrait(image, track)


def _framing(portrait: Portrait, resolution: int, options: EditOptions) -> Framing:
    size = portrait.image.shape[:2]
    return find_framing(
        "source",
        Path("the source"),
        (int(size[0]), int(size[1])),
        resolution,
        options.framing,
        options.limits,
        track=dataclasses.replace(portrait.track, notes=()),  # they are told already
    )


def _panels(options: EditOptions) -> int:
    return 3 if options.side_by_side else 1


def _composed(
    animator: MeshAnimator,
    driver: MorphableModel,
    portrait: Portrait,
    source: ClipTrack,
    clip: EditedClip,
    framing: Framing,
    options: EditOptions,
) -> Iterator[np.ndarray]:
    """The frames as they are written."""
    crop = framing.crop(portrait.image)
    own = EditedClip(source, source.shape_coeffs[None])
    animator.set_source(crop, next(own.meshes(driver)))
    # Drawn meshes are computed again for the panels: keeping them would hold batches of meshes.
    drawn = clip.meshes(driver) if options.side_by_side else None
    for prediction in animator.frames(clip.meshes(driver)):
        if options.paste_back:
            yield paste_back(portrait.image, prediction, framing.alignment())
        elif drawn is not None:
            mesh = mesh_panel(next(drawn), driver.faces, animator.resolution)
            yield side_by_side([crop, mesh, prediction])
        else:
            yield prediction
