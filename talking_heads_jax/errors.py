"""Project exceptions, and helpers that phrase errors the same way everywhere.

A message reads `<what> must <constraint>, got <value>. <how to fix it, or the legal values>`: one
line, with the remedy. The command line prints a `TalkingHeadsError` without a traceback and exits
with status 2; every other exception is a bug and keeps its traceback.
"""

import stat
from collections.abc import Collection, Sequence
from pathlib import Path


class TalkingHeadsError(Exception):
    """Base of every error a user can cause and repair; the message is one line with the remedy."""


class ArgumentError(TalkingHeadsError, ValueError):
    """An argument, option or array does not meet its stated constraint."""


class ConfigError(TalkingHeadsError):
    """A config holds an unknown key, a wrong type or values that exclude each other."""


class AssetNotFoundError(TalkingHeadsError):
    """A user-supplied file (licensed weights, a face model) is not registered."""


class UnsafeFileError(TalkingHeadsError):
    """A file asks for something the restricted readers refuse: code, odd types, odd bounds."""


class ConversionError(TalkingHeadsError):
    """A foreign checkpoint does not match the model it is converted to."""


class CheckpointError(TalkingHeadsError):
    """A checkpoint directory is missing, incomplete, or of another model or version."""


class DamagedCheckpointError(CheckpointError):
    """Files of a checkpoint are missing, cut short or altered; another step may be intact."""


class MediaError(TalkingHeadsError):
    """An image or video cannot be read or written."""


class DataError(TalkingHeadsError):
    """A data set, manifest or record is missing, damaged or of an unknown version."""


class ParityError(TalkingHeadsError):
    """A golden case cannot be run: unreadable, inconsistent, or of an unknown kind."""


class NonFiniteError(TalkingHeadsError):
    """A loss or gradient is not finite; names the step and the term."""


def one_line(text: object) -> str:
    """Text that is safe to print on a terminal: one line, every other control character escaped.

    File names and messages of other libraries may hold newlines, terminal escapes, right-to-left
    marks and undecodable bytes.

    Args:
      text: anything with a `str`.
    """
    joined = " ".join(str(text).split())
    if joined.isprintable():
        return joined
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in joined
    )


def requirement(what: str, constraint: str, got: object, remedy: str) -> str:
    """Returns `<what> must <constraint>, got <got>. <remedy>` as one printable line.

    Args:
      what: the thing that is wrong, as the user knows it.
      constraint: what it must be or do, without the word "must".
      got: the offending value; its `str` is shown, cut at 200 characters.
      remedy: how to fix it, or the legal values.
    """
    shown = one_line(got)
    if len(shown) > 200:
        shown = shown[:197] + "..."
    return one_line(f"{what} must {constraint}, got {shown}. {remedy}")


def check_file(path: Path, kind: type[TalkingHeadsError], *, max_bytes: int | None = None) -> None:
    """Raises unless a path is an ordinary file: opening a pipe waits, a device never ends.

    Args:
      path: what a user named.
      kind: of the error.
      max_bytes: size above which it cannot be what it should be; None for any.

    Raises:
      TalkingHeadsError: of that kind.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = getattr(error, "strerror", None) or error
        raise kind(
            requirement(f"{path}", "be a readable file", reason, "Check the path.")
        ) from error
    if not stat.S_ISREG(state.st_mode):
        got = "a folder" if stat.S_ISDIR(state.st_mode) else "a pipe or device"
        raise kind(requirement(f"{path}", "be a readable file", got, "Give an ordinary file."))
    if max_bytes is not None and state.st_size > max_bytes:
        raise kind(
            requirement(
                f"{path}", f"have at most {max_bytes} bytes", state.st_size, "Check the path."
            )
        )


def check_config_flag(argv: Sequence[str]) -> None:
    """Raises for a `--config FILE[:VARIANT]` that is no file: its program would be read for ever.

    Args:
      argv: a command line.

    Raises:
      ConfigError: for a folder, pipe or device, a missing or a huge file.
    """
    for text, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = text.partition("=")
        if name in ("--config", "-config"):
            path = (value if equals else following).partition(":")[0]
            check_file(Path(path), ConfigError, max_bytes=1 << 20)


def check_choice(what: str, value: object, choices: Collection[object]) -> None:
    """Raises if `value` is none of `choices`.

    Raises:
      ArgumentError: lists the legal values.
    """
    if value not in choices:
        legal = ", ".join(repr(choice) for choice in choices)
        raise ArgumentError(
            requirement(what, "be one of the known values", repr(value), f"Use one of {legal}.")
        )


def check_shape(what: str, shape: Sequence[int], expected: Sequence[int | None]) -> None:
    """Raises if `shape` differs from `expected`; a `None` in `expected` matches any size.

    Raises:
      ArgumentError: shows both shapes.
    """
    fits = len(shape) == len(expected) and all(
        want is None or want == have for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("*" if size is None else str(size) for size in expected) + ")"
        raise ArgumentError(
            requirement(what, f"have shape {wanted}", tuple(shape), "A * stands for any size.")
        )
