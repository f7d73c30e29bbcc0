"""The verb `edit`: a portrait and quantities by name → the edited picture or video."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_heads_jax.cli_options import (
    DETECTORS,
    add_crop,
    add_limits,
    count,
    media_limits,
    positive,
    use_compile_cache,
)
from talking_heads_jax.errors import ArgumentError, one_line, requirement

if TYPE_CHECKING:
    from talking_heads_jax.inference.edit_portrait import EditOptions, Portrait
    from talking_heads_jax.morphable.base import MorphableModel

_EXIT_OK = 0
#: `edit_presets.PRESETS`, `edit_timeline.INTERPOLATIONS` and `editing.SHOULDERS`, whose imports are
#: too heavy for `--help`.
PRESETS = ("frontal", "neutral", "demo", "demo-shape", "demo-expression", "demo-jaw", "demo-head")
INTERPOLATIONS = ("linear", "hold")
SHOULDERS = ("turn", "stay")


def add_edit(verbs: argparse._SubParsersAction) -> None:
    """Adds the verb.

    Args:
      verbs: of the program's parser.
    """
    verb = verbs.add_parser(
        "edit", help="set or sweep shape, expression, pose, gaze and camera of a portrait by name"
    )
    verb.set_defaults(run=_edit)
    verb.add_argument("--checkpoint", type=Path, required=True, help="a mesh-driven model (gdpw)")
    verb.add_argument("--source", type=Path, help="portrait: an image")
    verb.add_argument(
        "--person",
        type=count,
        metavar="N",
        help="instead: person N of the built-in set, rendered, whose state is exact; "
        "from 20000 on nobody was trained on",
    )
    verb.add_argument(
        "--output", type=Path, help="picture (a sheet of all frames), .mp4, or a new folder"
    )
    verb.add_argument(
        "--list", action="store_true", help="print what can be set, ranges and units, and stop"
    )
    _add_edits(verb)
    _add_state(verb)
    verb.add_argument(
        "--shoulders",
        choices=SHOULDERS,
        default="turn",
        help="what they do when the head turns: turn with it (the default), or stay, so that the "
        "neck bends",
    )
    verb.add_argument(
        "--side-by-side", action="store_true", help="show source and driving mesh too"
    )
    verb.add_argument(
        "--paste-back", action="store_true", help="put the result back into the whole source"
    )
    verb.add_argument(
        "--batch-size", type=positive, default=1, help="frames computed together (default 1)"
    )
    add_limits(verb)


def _add_edits(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group(
        "edits", "degrees: yaw > 0 to the image's right, pitch > 0 up, roll > 0 clockwise"
    )
    group.add_argument(
        "--set",
        dest="settings",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="in all frames, e.g. head.yaw=20; NAME+=VALUE adds to the source's value",
    )
    group.add_argument(
        "--sweep",
        dest="sweeps",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=START:STOP:FRAMES",
        help="one after another, e.g. jaw.open=0:20:12; += likewise",
    )
    group.add_argument(
        "--there-and-back", action="store_true", help="sweeps return to where they started"
    )
    group.add_argument("--together", action="store_true", help="sweeps run at the same time")
    group.add_argument(
        "--timeline", type=Path, metavar="FILE", help=".csv or .json, frame by frame"
    )
    group.add_argument(
        "--interpolate", choices=INTERPOLATIONS, help="between the timeline's rows (linear)"
    )
    group.add_argument(
        "--preset",
        dest="presets",
        nargs="+",
        action="extend",
        default=[],
        choices=PRESETS,
        help="frontal: the head faces the camera; neutral: no expression; demo: the released "
        "code's animation, demo-...: a part of it",
    )
    group.add_argument("--fps", type=float, help="frames a second (25)")


def _add_state(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("the source's face", "its state, and the crop about it")
    group.add_argument(
        "--source-motion",
        type=Path,
        metavar="NPZ",
        help="its state, of talking-heads track --save (without it the source is tracked here)",
    )
    group.add_argument(
        "--source-landmarks",
        type=Path,
        metavar="FILE",
        help="its landmarks, to track it with (without any file FAN finds them)",
    )
    group.add_argument(
        "--detector",
        choices=DETECTORS,
        default="auto",
        help="what finds its box where FAN finds the landmarks (auto: the first that is installed)",
    )
    group.add_argument(
        "--person-frame",
        type=count,
        default=0,
        metavar="N",
        help="of --person: frame of the first clip, at 25 a second (0)",
    )
    add_crop(group)
    group.add_argument(
        "--source-box",
        type=float,
        nargs=4,
        metavar=("X0", "Y0", "X1", "Y1"),
        help="instead: the crop itself, pixels",
    )


def _edit(arguments: argparse.Namespace) -> int:
    if not arguments.list:
        _check_combinations(arguments)
    use_compile_cache()
    from talking_heads_jax.checkpoints import load_model
    from talking_heads_jax.inference.mesh_motion import load_driver_model

    options = None if arguments.list else _options(arguments)
    loaded = load_model(arguments.checkpoint)
    driver = load_driver_model(loaded.model)
    if options is None:
        from talking_heads_jax.inference.edit_quantities import quantity_lines

        for line in quantity_lines(driver):
            print(one_line_kept(line))
        return _EXIT_OK
    from talking_heads_jax.inference.clips import is_picture
    from talking_heads_jax.inference.edit_portrait import edit_portrait, planned_changes

    # A wrong name is told before anything is tracked.
    planned_changes(driver, options, still=is_picture(arguments.output))
    portrait = _portrait(arguments, driver, loaded.model.resolution)
    edit_portrait(
        loaded.model,
        loaded.variables,
        portrait,
        arguments.output,
        options=options,
        driver=driver,
        log=lambda text: print(one_line(text)),
    )
    return _EXIT_OK


def one_line_kept(text: str) -> str:
    """A printable line whose columns stay where they are.

    Args:
      text: without line breaks.
    """
    return text if text.isprintable() else one_line(text)


def _options(arguments: argparse.Namespace) -> "EditOptions":
    from talking_heads_jax.inference.clips import check_output
    from talking_heads_jax.inference.edit_portrait import EditOptions
    from talking_heads_jax.inference.framing import FramingOptions

    options = EditOptions(
        presets=tuple(arguments.presets),
        settings=tuple(arguments.settings),
        timeline=arguments.timeline,
        sweeps=tuple(arguments.sweeps),
        there_and_back=arguments.there_and_back,
        together=arguments.together,
        interpolate=arguments.interpolate,
        fps=arguments.fps,
        shoulders=arguments.shoulders,
        side_by_side=arguments.side_by_side,
        paste_back=arguments.paste_back,
        batch_size=arguments.batch_size,
        framing=FramingOptions(
            crop=arguments.crop,
            recipe=arguments.recipe,
            detector=arguments.detector,
            box=tuple(arguments.source_box) if arguments.source_box else None,
        ),
        limits=media_limits(arguments),
    )
    given = (arguments.source, arguments.source_motion, arguments.source_landmarks)
    inputs = tuple(filter(None, (*given, arguments.timeline)))
    check_output(arguments.output, inputs, pictures=True)
    return options


def _portrait(
    arguments: argparse.Namespace, driver: "MorphableModel", resolution: int
) -> "Portrait":
    from talking_heads_jax.inference.edit_portrait import Portrait, portrait_from_files

    if arguments.person is not None:
        from data_pipeline.synthetic.exact_motion import exact_portrait

        return Portrait(
            *exact_portrait(
                arguments.person,
                size=resolution,
                frame=arguments.person_frame,
                morphable=driver,
            )
        )
    return portrait_from_files(
        arguments.source,
        driver,
        motion=arguments.source_motion,
        landmarks=arguments.source_landmarks,
        detector=arguments.detector,
        limits=media_limits(arguments),
    )


def _check_combinations(arguments: argparse.Namespace) -> None:
    """Raises for options that miss, exclude each other, or would have no effect."""
    if arguments.output is None:
        raise _wrong("--output", "be given", "nothing", "Name a .png, an .mp4 or a new folder.")
    if (arguments.source is None) == (arguments.person is None):
        got = "none" if arguments.source is None else "both"
        raise _wrong("--source or --person", "be given, one of them", got, "Choose one.")
    by_person = arguments.person is not None
    by_motion = arguments.source_motion is not None
    by_landmarks = arguments.source_landmarks is not None
    # A rendered person has the model's size: only --source-box takes a part of it.
    boxed = arguments.source_box is not None
    useless = {
        "--source-motion": by_motion and by_person,
        "--source-landmarks": by_landmarks and (by_person or by_motion),
        "--detector": arguments.detector != "auto" and (by_person or by_motion or by_landmarks),
        "--crop": arguments.crop != "auto" and (by_person or boxed),
        "--recipe": arguments.recipe != "prepare"
        and (by_person or boxed or arguments.crop != "auto"),
        "--paste-back": arguments.paste_back and by_person,
        "--person-frame": arguments.person_frame and not by_person,
        "--interpolate": arguments.interpolate is not None and arguments.timeline is None,
        "--there-and-back": arguments.there_and_back and not arguments.sweeps,
        "--together": arguments.together and not arguments.sweeps,
    }
    for flag, given in useless.items():
        if given:
            raise _wrong(flag, "have an effect", "options that leave it none", "Leave it out.")


def _wrong(what: str, constraint: str, got: Any, remedy: str) -> ArgumentError:
    return ArgumentError(requirement(what, constraint, got, remedy))
