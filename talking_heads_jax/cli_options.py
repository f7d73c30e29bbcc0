"""What the command line's verbs share: types of options, and limits on media files."""

import argparse
import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from talking_heads_jax.media.limits import MediaLimits

N = TypeVar("N", int, float)

#: `tracking.alignment.RECIPES`, whose import is too heavy for `--help`.
RECIPES = ("prepare", "fomm_clip_box", "deca_224", "gdpw_256", "deep3d_224", "eg3d_512")
#: Likewise `tracking.detection.DETECTORS`, and `morphable.registry.MORPHABLE_NAMES` with 'none'.
DETECTORS = ("auto", "dlib", "cascade", "centre")
MORPHABLES = ("procedural", "ict", "flame2020", "flame2023", "bfm09", "none")


def positive(text: str) -> int:
    """A positive integer.

    Args:
      text: as typed.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    return _number(text, int, lambda number: number > 0, "a positive integer")


def count(text: str) -> int:
    """An integer from 0.

    Args:
      text: as typed.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    return _number(text, int, lambda number: number >= 0, "an integer from 0")


def seconds(text: str) -> float:
    """A positive number of seconds.

    Args:
      text: as typed.

    Raises:
      argparse.ArgumentTypeError: it is none.
    """
    return _number(
        text, float, lambda number: 0 < number < math.inf, "a positive number of seconds"
    )


def _number(text: str, kind: type[N], fits: Callable[[N], bool], what: str) -> N:
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not fits(number):
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
    return number


def add_crop(group: argparse._ArgumentGroup) -> None:
    """Adds what decides the model's squares of raw pictures: `--crop` and `--recipe`.

    Args:
      group: of a verb's options.
    """
    group.add_argument(
        "--crop",
        choices=("auto", "centre", "none"),
        default="auto",
        help="auto: about the face, where the picture has not the model's size; centre: the middle "
        "square; none: the whole picture, which must be square",
    )
    group.add_argument(
        "--recipe", choices=RECIPES, default="prepare", help="how crops lie about the face"
    )


def add_limits(verb: argparse.ArgumentParser, *frames_flags: str) -> None:
    """Adds the options that `media_limits` reads.

    Args:
      verb: the verb's parser.
      *frames_flags: the names of the limit on a clip's frames; none for a verb that reads no clip.
    """
    group = verb.add_argument_group("limits", "what is refused before it is decoded")
    group.add_argument(
        "--max-pixels", type=positive, metavar="N", help="pixels of a frame (64000000)"
    )
    verb.set_defaults(max_clip_frames=None, max_duration=None)
    if not frames_flags:
        return
    group.add_argument(
        *frames_flags,
        dest="max_clip_frames",
        type=positive,
        metavar="N",
        help="frames of a clip (432000)",
    )
    group.add_argument(
        "--max-duration", type=seconds, metavar="SECONDS", help="of a clip, as it states (7200)"
    )


def media_limits(arguments: argparse.Namespace) -> "MediaLimits":
    """What the options allow a picture or clip to be; the library's own limits for the others.

    Args:
      arguments: of a verb with `add_limits`.
    """
    from talking_heads_jax.media.limits import MediaLimits

    given = {
        "max_pixels": arguments.max_pixels,
        "max_frames": arguments.max_clip_frames,
        "max_duration_s": arguments.max_duration,
    }
    return MediaLimits(**{name: value for name, value in given.items() if value is not None})


def use_compile_cache() -> None:
    """Keeps compiled programs between runs; the environment's own choice wins."""
    from talking_heads_jax.assets import home_folder

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home_folder() / "xla"))
