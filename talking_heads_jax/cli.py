"""The console script `talking-heads VERB`: options in, one library call out.

Nothing heavy is imported before a verb runs, so `--help` and `version` answer at once. A mistake of
the user ends as one line, `error: <what is wrong and how to mend it>`, with exit status 2; every
other exception is a bug and keeps its traceback. Who stops reading what is printed stops no work.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from talking_heads_jax.cli_animate import add_animate
from talking_heads_jax.cli_edit import add_edit
from talking_heads_jax.cli_options import (
    add_limits,
    count,
    media_limits,
    positive,
    use_compile_cache,
)
from talking_heads_jax.cli_prepare import add_prepare
from talking_heads_jax.cli_tracking import add_track
from talking_heads_jax.errors import (
    ArgumentError,
    TalkingHeadsError,
    check_file,
    one_line,
    requirement,
)

_EXIT_OK = 0
_EXIT_USER_ERROR = 2
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_MAX_ARGUMENTS_BYTES = 1 << 20  # of the json of constructor arguments


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints look like every other error of the program."""

    def error(self, message: str) -> NoReturn:
        text = one_line(f"{message}. Run '{self.prog} --help' for the options.")
        print(f"error: {text}", file=sys.stderr)
        raise SystemExit(_EXIT_USER_ERROR)


class _Speech:
    """Standard output that may lose its reader: `... | head` ends, the work goes on in silence."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Says it, or, when nobody listens, says it to nobody."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._silence()
            return len(text)

    def flush(self) -> None:
        """Likewise for what waits in the buffer."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._silence()

    def _silence(self) -> None:
        """The buffer keeps what it could not write, and the interpreter flushes it at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def _synthesize(arguments: argparse.Namespace) -> int:
    if arguments.ict is not None and arguments.morphable != "ict":
        raise ArgumentError(
            requirement("--ict", "come with --morphable ict", arguments.morphable, "Add it.")
        )
    use_compile_cache()
    from data_pipeline.synthetic.writing import write_talking_heads

    splits = ("val", "test", "probe", "extrapolation")
    names = ("size", "num_frames", "stride", "takes", "seed", "motion", "poses", "image_format")
    morphable: Any = arguments.morphable
    if arguments.ict is not None:
        from talking_heads_jax.morphable.registry import model_from_file

        check_file(arguments.ict, ArgumentError)
        morphable = model_from_file("ict", arguments.ict)
    write_talking_heads(
        arguments.output,
        identities={
            "train": arguments.identities,
            **{split: getattr(arguments, f"{split}_identities") for split in splits},
        },
        morphable=morphable,
        extras=arguments.fields,
        **{name: getattr(arguments, name) for name in names},
    )
    return _EXIT_OK


def _sweep_pose(arguments: argparse.Namespace) -> int:
    use_compile_cache()
    from talking_heads_jax.inference.pose_sweep import SweepOptions, sweep_files

    options = SweepOptions(
        arguments.range, arguments.steps, tuple(arguments.source_angles), media_limits(arguments)
    )
    files = (arguments.checkpoint, arguments.source, arguments.output)
    sweep_files(*files, options=options, video=arguments.video)
    return _EXIT_OK


def _convert(arguments: argparse.Namespace) -> int:
    from absl import logging

    logging.set_verbosity(logging.FATAL)  # Orbax logs a failed write before it raises it
    from talking_heads_jax.conversion.apply import convert_checkpoint, reverse_checkpoint

    if arguments.reverse:
        if arguments.output is None:
            raise ArgumentError(
                requirement("--output", "be given", "nothing", "Name a new .safetensors file.")
            )
        reverse_checkpoint(arguments.checkpoint, arguments.output)
        return _EXIT_OK
    certificate = convert_checkpoint(
        arguments.model,
        arguments.checkpoint,
        arguments.output,
        arguments=_read_arguments(arguments.arguments),
    )
    for name, network in certificate.networks.items():
        print(f"{name}: {json.dumps(network)}")
    return _EXIT_OK


def _read_arguments(path: Path | None) -> dict[str, Any] | None:
    """Constructor arguments of a model from a json file."""
    if path is None:
        return None
    check_file(path, ArgumentError, max_bytes=_MAX_ARGUMENTS_BYTES)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ArgumentError(
            requirement("--arguments", "be a json file with one object", path, "Mend the file.")
        )
    return values


def _parity(arguments: argparse.Namespace) -> int:
    use_compile_cache()
    from talking_heads_jax.parity.report import run_and_print

    return run_and_print(arguments.folder, arguments.case, pending=arguments.pending)


def _assets_list(arguments: argparse.Namespace) -> int:
    from talking_heads_jax.assets import describe_assets

    for line in describe_assets():
        print(line)
    return _EXIT_OK


def _assets_add(arguments: argparse.Namespace) -> int:
    from talking_heads_jax.morphable.asset_files import add_asset

    asset = add_asset(arguments.path, arguments.name)
    print(f"{asset.name}: {asset.bytes} bytes, sha256 {asset.sha256[:16]}… ({asset.licence})")
    return _EXIT_OK


def _version(arguments: argparse.Namespace) -> int:
    from talking_heads_jax import __version__

    print(f"talking_heads_jax {__version__}")
    return _EXIT_OK


def _add_synthesize(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("synthesize", help="render the built-in talking heads as a data set")
    verb.set_defaults(run=_synthesize)
    verb.add_argument("--output", type=Path, required=True, help="folder of the data set")
    verb.add_argument("--size", type=positive, default=64, help="side of the pictures, px (64)")
    people = verb.add_argument_group(
        "people", "how many each split shows; only extrapolation shows others'"
    )
    people.add_argument("--identities", type=count, default=300, help="to train on (300)")
    people.add_argument("--val-identities", type=count, default=0, metavar="N", help="(0)")
    people.add_argument("--test-identities", type=count, default=24, metavar="N", help="(24)")
    people.add_argument(
        "--probe-identities",
        type=count,
        default=0,
        metavar="N",
        help="for evaluation's probe (0)",
    )
    people.add_argument(
        "--extrapolation-identities",
        type=count,
        default=0,
        metavar="N",
        help="those of test, turned further than anybody in train: |yaw| > 45 degrees (0)",
    )
    clips = verb.add_argument_group("clips")
    clips.add_argument(
        "--frames", dest="num_frames", type=positive, default=8, help="of each clip (8)"
    )
    clips.add_argument(
        "--stride", type=positive, default=10, help="of 25 frames a second keep every n-th (10)"
    )
    clips.add_argument("--takes", type=positive, default=1, help="clips of each person (1)")
    clips.add_argument("--seed", type=count, default=0, help="another seed, other people (0)")
    clips.add_argument(
        "--motion",
        choices=("default", "rigid_bust"),
        default="default",
        help="rigid_bust: the shoulders turn with the head, so that a pose is a camera",
    )
    clips.add_argument("--poses", choices=("moderate", "wide"), default="moderate")
    clips.add_argument("--morphable", choices=("procedural", "ict"), default="procedural")
    clips.add_argument(
        "--ict", type=Path, metavar="FILE", help="the ICT model's npz (default: the asset 'ict')"
    )
    verb.add_argument(
        "--fields",
        nargs="*",
        choices=("vertices", "depth", "normals", "flow"),
        default=("vertices",),
        help="large fields to store besides masks, landmarks, pose and expression (vertices); "
        "without a name: none",
    )
    verb.add_argument("--image-format", choices=("png", "jpeg"), default="png")


def _add_sweep_pose(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("sweep-pose", help="turn a portrait: yaw, pitch and roll separately")
    verb.set_defaults(run=_sweep_pose)
    verb.add_argument(
        "--checkpoint", type=Path, required=True, help="with a trained pose editor (fnevr)"
    )
    verb.add_argument("--source", type=Path, required=True, help="portrait: image or video")
    verb.add_argument("--output", type=Path, required=True, help="picture: a row per angle")
    verb.add_argument("--video", type=Path, help="also an .mp4 in which the angles swing")
    verb.add_argument("--range", type=float, default=20.0, help="degrees to each side (20)")
    verb.add_argument("--steps", type=positive, default=7, help="pictures per angle (7)")
    verb.add_argument(
        "--source-angles",
        type=float,
        nargs=3,
        default=(0.0, 0.0, 0.0),
        metavar=("YAW", "PITCH", "ROLL"),
        help="degrees the portrait is turned already: the sweep is then over the head's angles",
    )
    add_limits(verb, "--max-clip-frames", "--max-frames")


def _add_convert(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("convert", help="read a foreign checkpoint, or write one back")
    verb.set_defaults(run=_convert)
    verb.add_argument("checkpoint", type=Path, help="PyTorch, npz or safetensors file")
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--model",
        help="what the file holds: fnevr, fomm, gdpw; vgg19, fan, face_parsing, deca or deep3d",
    )
    what.add_argument(
        "--reverse",
        action="store_true",
        help="CHECKPOINT is ours: write a .safetensors with the official names and layouts",
    )
    verb.add_argument(
        "--output",
        type=Path,
        help="new folder (--reverse: new file); fixed networks such as vgg19 need none",
    )
    verb.add_argument(
        "--arguments",
        type=Path,
        metavar="JSON",
        help="constructor arguments, where they differ from the released model's",
    )


def _add_parity(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("parity", help="compare with the reference implementations' numbers")
    verb.set_defaults(run=_parity)
    verb.add_argument("folder", type=Path, help="folder of golden cases")
    verb.add_argument(
        "--case", nargs="+", action="extend", metavar="GLOB", help="only cases that match"
    )
    verb.add_argument(
        "--pending", action="store_true", help="list cases of systems to come, do not fail on them"
    )


def _add_assets(verbs: argparse._SubParsersAction) -> None:
    verb = verbs.add_parser("assets", help="files the user supplies, such as face models")
    actions = verb.add_subparsers(dest="action", required=True, metavar="list|add")
    listing = actions.add_parser("list", help="what is registered and what could be, licences")
    listing.set_defaults(run=_assets_list)
    adding = actions.add_parser("add", help="check, convert and register a file")
    adding.set_defaults(run=_assets_add)
    adding.add_argument("path", type=Path, metavar="FILE", help="file, or ICT-FaceKit's folder")
    adding.add_argument("--name", help="what it must be, for instance flame2020 (by its content)")


def build_parser() -> argparse.ArgumentParser:
    """The program's options, verb by verb; the chosen verb's function is left in `run`."""
    parser = _Parser(
        prog="talking-heads", description="Train, convert and animate one-shot talking heads."
    )
    verbs = parser.add_subparsers(
        dest="verb", required=True, metavar="VERB", parser_class=_Parser, title="verbs"
    )
    add_prepare(verbs)
    add_track(verbs)
    _add_synthesize(verbs)
    add_animate(verbs)
    add_edit(verbs)
    _add_sweep_pose(verbs)
    _add_convert(verbs)
    _add_parity(verbs)
    _add_assets(verbs)
    version = verbs.add_parser("version", help="print the version")
    version.set_defaults(run=_version)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
      argv: the arguments after the program's name; None takes the process's own.

    Returns:
      The exit status: 0 done, 1 the answer is no, 2 a mistake of the user, 130 interrupted.
    """
    speech = _Speech(sys.stdout)
    with contextlib.redirect_stdout(speech):
        try:
            return _run(build_parser().parse_args(argv))
        finally:  # also after --help; another trouble than a lost reader has been told
            with contextlib.suppress(OSError):
                speech.flush()


def _run(arguments: argparse.Namespace) -> int:
    """Runs the chosen verb; mistakes become a line and a status."""
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except TalkingHeadsError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return _EXIT_USER_ERROR
    except OSError as error:
        # A missing file, a full disk, a folder without permission: nothing a traceback explains.
        text = f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
        print(f"error: {one_line(text)}. Check the path, its rights and space.", file=sys.stderr)
        return _EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
