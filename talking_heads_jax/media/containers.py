"""Which video container a file really is, and whether it is whole, from its bytes alone.

The decoder is then told the format explicitly. That keeps libav from guessing, and so from ever
treating a file as a playlist or a concatenation script that opens other files or addresses.
"""

import os
import struct
from pathlib import Path
from typing import BinaryIO

from talking_heads_jax.errors import MediaError, check_file, requirement

#: File name endings that `prepare` takes for videos.
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".gif", ".avi")

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_REMEDY = "Use an mp4, mov, webm, mkv, gif or avi file; re-encode or download it again."


def sniff_container(path: str | os.PathLike[str]) -> str:
    """Returns libav's name of the container, judged by the first bytes and never by the name.

    Args:
      path: a file.

    Returns:
      'mov' (mp4 and QuickTime), 'matroska' (mkv and webm), 'gif' or 'avi'.

    Raises:
      MediaError: the file is missing, empty, or of any other kind (text, playlists, images, ...).
    """
    path = Path(path)
    check_file(path, MediaError)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise MediaError(
            requirement(f"{path}", "be a readable file", error.strerror or error, "Check the path.")
        ) from error
    if not head:
        raise MediaError(requirement(f"{path}", "hold a video", "an empty file", _REMEDY))
    if head[4:8] in _MP4_BOXES:
        return "mov"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    raise MediaError(
        requirement(f"{path}", "hold a video", f"a file that starts with {head[:8]!r}", _REMEDY)
    )


def check_complete(path: str | os.PathLike[str], container: str) -> None:
    """Raises if the file's own structure says that its end is missing.

    Decoders accept such files silently and deliver fewer frames, so the sizes that the container
    states are compared with the file: mp4 boxes, the RIFF chunk of avi, the trailer of gif, the
    segment of matroska (where a live recording may leave it unknown, which passes).

    Args:
      path: a file.
      container: as `sniff_container` named it.

    Raises:
      MediaError: the file is cut off.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        stated = _STATED_SIZE[container](file, size)
    if stated > size:
        raise MediaError(
            requirement(
                f"{path}",
                f"be complete ({stated} bytes by its own account)",
                f"{size} bytes: it is truncated",
                "Download or copy it again.",
            )
        )


def _mov_size(file: BinaryIO, size: int) -> int:
    position, seen_moov = 0, False
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = struct.unpack(">I4s", head[:8])
        seen_moov |= kind == b"moov"
        if length == 0:  # to the end of the file
            position = size
        elif length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:])[0]
        if position == size:
            break
        if length < 8:  # zero padding or garbage after the last box: nothing is missing
            break
        position += length
    # An index that never comes means that the file was cut where its last box ended.
    return position if seen_moov else max(position, size + 1)


def _avi_size(file: BinaryIO, size: int) -> int:
    head = file.read(8)
    # Recorders that cannot seek leave 0 or all ones.
    stated = struct.unpack("<I", head[4:8])[0]
    return size if stated in (0, 0xFFFFFFFF) else stated + 8


def _gif_size(file: BinaryIO, size: int) -> int:
    # The trailer byte, possibly followed by padding.
    file.seek(max(size - 64, 0))
    return size if b"\x3b" in file.read() else size + 1


def _matroska_size(file: BinaryIO, size: int) -> int:
    file.seek(4)
    length, width = _ebml_number(file)
    if length is None:
        return size
    segment = 4 + width + length
    file.seek(segment)
    if file.read(4) != b"\x18\x53\x80\x67":
        return size + 1 if segment + 4 > size else size
    length, width = _ebml_number(file)
    return size if length is None else segment + 4 + width + length


def _ebml_number(file: BinaryIO) -> tuple[int | None, int]:
    """Returns an EBML length (None when unknown) and how many bytes it took."""
    first = file.read(1)
    if not first or not first[0]:
        return None, 1
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = int.from_bytes(bytes([first[0] & (0xFF >> width)]) + rest, "big")
    return (None if value == (1 << (7 * width)) - 1 else value), width


_STATED_SIZE = {
    "mov": _mov_size,
    "avi": _avi_size,
    "gif": _gif_size,
    "matroska": _matroska_size,
}
