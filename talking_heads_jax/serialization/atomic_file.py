"""Writing a file so that nobody ever sees half of it, and a failure leaves what was there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a name beside `path` to write to; the file takes its place when the block ends well.

    Args:
      path: the file; replaced if it exists, untouched if the block raises.

    Yields:
      A path in the same folder, with the same suffix; the process's own.

    Raises:
      OSError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes text in UTF-8, whole or not at all.

    Args:
      path: the file; replaced if it exists.
      text: its content.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
