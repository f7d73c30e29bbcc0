"""The verb `animate`: a portrait and a driving video, motion file or image → a video."""

import argparse
from pathlib import Path

from talking_heads_jax.cli_options import (
    DETECTORS,
    add_crop,
    add_limits,
    media_limits,
    positive,
    use_compile_cache,
)

_EXIT_OK = 0


def add_animate(verbs: argparse._SubParsersAction) -> None:
    """Adds the verb.

    Args:
      verbs: of the program's parser.
    """
    verb = verbs.add_parser("animate", help="move a portrait by the motion of a video")
    verb.set_defaults(run=_animate)
    verb.add_argument(
        "--checkpoint", type=Path, required=True, help="a converted model or a training folder"
    )
    verb.add_argument(
        "--source",
        type=Path,
        required=True,
        help="portrait: an image; with models that see keypoints also a video",
    )
    verb.add_argument(
        "--driving",
        type=Path,
        required=True,
        help="what gives the motion: a video, or a motion file of track; with mesh-driven models "
        "also an image",
    )
    verb.add_argument(
        "--output",
        type=Path,
        required=True,
        help="video to write, or a new folder for pictures; driven by an image also a picture",
    )
    motion = verb.add_mutually_exclusive_group()
    motion.add_argument(
        "--relative",
        action="store_true",
        help="add the driver's movement to the source (default, but for mesh-driven models)",
    )
    motion.add_argument(
        "--absolute",
        action="store_true",
        help="take the driver's pose and proportions as they are; with mesh-driven models the only "
        "kind, with the source's own proportions",
    )
    verb.add_argument(
        "--adapt-scale", action="store_true", help="scale movement by the size of the source's face"
    )
    verb.add_argument(
        "--best-frame",
        type=_best_frame,
        default="auto",
        metavar="N|auto|off",
        help="driving frame that counts as rest: a number, the one most like the source by "
        "landmarks (auto, the default), or the first (off)",
    )
    verb.add_argument("--side-by-side", action="store_true", help="show source and driving too")
    verb.add_argument("--keypoints", action="store_true", help="draw the keypoints")
    verb.add_argument("--no-audio", action="store_true", help="leave the driving sound out")
    verb.add_argument(
        "--pose",
        type=float,
        nargs=3,
        metavar=("YAW", "PITCH", "ROLL"),
        help="turn the head by these degrees; needs a model with a trained pose editor",
    )
    verb.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="arithmetic of the networks (default: the checkpoint's)",
    )
    verb.add_argument(
        "--batch-size", type=positive, default=1, help="frames computed together (default 1)"
    )
    verb.add_argument("--plain", action="store_true", help="the reference path without savings")
    _add_framing(verb)
    _add_meshes(verb)
    add_limits(verb, "--max-clip-frames", "--max-frames")


def _add_framing(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("framing", "from raw photographs and videos, and back")
    add_crop(group)
    group.add_argument(
        "--detector",
        choices=DETECTORS,
        default="auto",
        help="what finds faces without landmarks (auto: the first that is installed)",
    )
    for name in ("source", "driving"):
        group.add_argument(
            f"--{name}-landmarks",
            type=Path,
            metavar="FILE",
            help="for the crop; for --best-frame auto if both are given; for the fit of meshes",
        )
        group.add_argument(
            f"--{name}-box",
            type=float,
            nargs=4,
            metavar=("X0", "Y0", "X1", "Y1"),
            help="instead: the crop itself, pixels",
        )
    group.add_argument(
        "--paste-back", action="store_true", help="put the result back into the whole source"
    )


def _add_meshes(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group(
        "mesh-driven models",
        "gdpw: source and driver are tracked; expression and pose are the driver's, absolute, the "
        "shape is the source's. --relative, --adapt-scale, --best-frame, --keypoints and --pose "
        "are of the other models",
    )
    for name in ("source", "driving"):
        group.add_argument(
            f"--{name}-motion",
            type=Path,
            metavar="NPZ",
            help=f"motion file of the {name}, of track --save: it is not tracked again",
        )
    group.add_argument(
        "--smooth",
        choices=("official", "none", "one-euro", "gaussian"),
        help="of the driver's coefficients over time (official: the released demo's exponential "
        "average, the default)",
    )
    group.add_argument(
        "--placement",
        choices=("source", "driving"),
        help="size and place of the head: the source's (default), or as in the driver's crop (the "
        "released way)",
    )
    group.add_argument(
        "--shoulders",
        choices=("turn", "stay"),
        help="of face models that have them: they turn with a fitted head (the default), or stay "
        "turned as the source's, so that the neck bends",
    )


def _animate(arguments: argparse.Namespace) -> int:
    use_compile_cache()
    from talking_heads_jax.inference.animate import AnimateOptions, animate_files

    animate_files(
        arguments.checkpoint,
        arguments.source,
        arguments.driving,
        arguments.output,
        options=AnimateOptions(
            relative=_relative(arguments),
            adapt_scale=arguments.adapt_scale,
            best_frame=arguments.best_frame,
            source_landmarks=arguments.source_landmarks,
            driving_landmarks=arguments.driving_landmarks,
            side_by_side=arguments.side_by_side,
            keypoints=arguments.keypoints,
            audio=not arguments.no_audio,
            pose=tuple(arguments.pose) if arguments.pose else None,
            batch_size=arguments.batch_size,
            precision=arguments.precision,
            plain=arguments.plain,
            crop=arguments.crop,
            recipe=arguments.recipe,
            detector=arguments.detector,
            source_box=tuple(arguments.source_box) if arguments.source_box else None,
            driving_box=tuple(arguments.driving_box) if arguments.driving_box else None,
            paste_back=arguments.paste_back,
            source_motion=arguments.source_motion,
            driving_motion=arguments.driving_motion,
            smooth=arguments.smooth and arguments.smooth.replace("-", "_"),
            placement=arguments.placement,
            shoulders=arguments.shoulders,
            limits=media_limits(arguments),
        ),
    )
    return _EXIT_OK


def _relative(arguments: argparse.Namespace) -> bool | None:
    """As asked for; None where nothing was said."""
    return True if arguments.relative else False if arguments.absolute else None


def _best_frame(text: str) -> int | str:
    """`auto`, `off` or a frame number."""
    if text in ("auto", "off"):
        return text
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(
            f"must be auto, off or a frame number from 0, got {text!r}"
        )
    return number
