"""Which clips a folder of videos holds: video files and folders of images, and who is shown."""

import csv
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from talking_heads_jax.errors import DataError, check_file, requirement
from talking_heads_jax.media.containers import VIDEO_SUFFIXES
from talking_heads_jax.media.image import IMAGE_SUFFIXES

VIDEO = "video"
FRAMES = "frames"

_MAX_TABLE_BYTES = 1 << 28  # of boxes or identities; VoxCeleb's 150,000 clips need 8 MB
_FARTHEST_PX = 1e6  # of a box's corner from the frame's


@dataclasses.dataclass(frozen=True)
class Source:
    """A clip as it lies in the source folder.

    Attributes:
      clip_id: its path below the source folder, with '/' and the file's ending.
      path: the video file, or the folder of images.
      kind: 'video' or 'frames'.
      images: the images of a folder in their natural order ('2' before '10').
    """

    clip_id: str
    path: Path
    kind: str
    images: tuple[Path, ...] = ()

    @property
    def split(self) -> str | None:
        """The split that FOMM's layout (`train/...`, `test/...`) puts it in, or None."""
        first, _, rest = self.clip_id.partition("/")
        return first if rest and first in ("train", "test") else None


def find_sources(folder: Path, *, exclude: Path | None = None) -> tuple[list[Source], list[str]]:
    """Finds every clip below a folder.

    A clip is a video file, or a folder that holds images itself (also one called x.mp4, as FOMM's
    data have). Images that lie directly in `folder` are a clip only when there is nothing else.
    Hidden files and folders are passed over.

    Args:
      folder: where to look.
      exclude: a folder that is not looked into: the output may lie below the source.

    Returns:
      The clips, sorted by name, and the names of the files that are neither clip nor known side
      file (for the manifest).

    Raises:
      DataError: `folder` does not exist, or holds no clip, or a clip whose name is not UTF-8.
    """
    if not folder.is_dir():
        raise DataError(
            requirement("The source", "be a folder of videos", f"{folder}", "Check the path.")
        )
    found: list[Source] = []
    loose: list[str] = []
    root_images: list[Path] = []
    for current, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        here = Path(current)
        if exclude is not None and here.resolve() == exclude.resolve():
            subfolders.clear()
            continue
        images = []
        for name in names:
            suffix = Path(name).suffix.lower()
            path = here / name
            if name.startswith("."):
                continue
            if suffix in VIDEO_SUFFIXES:
                found.append(Source(path.relative_to(folder).as_posix(), path, VIDEO))
            elif suffix in IMAGE_SUFFIXES:
                images.append(path)
            elif suffix not in (".npz", ".json", ".csv", ".txt", ".md"):
                loose.append(path.relative_to(folder).as_posix())
        images.sort(key=lambda path: natural_key(path.name))
        if here == folder:
            root_images = images
        elif images:
            clip_id = here.relative_to(folder).as_posix()
            found.append(Source(clip_id, here, FRAMES, tuple(images)))
    if not found and root_images:
        found.append(Source(folder.resolve().name, folder, FRAMES, tuple(root_images)))
    else:
        loose += [path.name for path in root_images]
    if not found:
        raise DataError(
            requirement(
                "The source folder",
                f"hold videos ({', '.join(VIDEO_SUFFIXES)}) or folders of images",
                f"{folder} with none",
                "Check the path.",
            )
        )
    for source in found:
        _check_name(source.clip_id)
    loose = [name.encode("utf-8", "backslashreplace").decode("utf-8") for name in loose]
    return sorted(found, key=lambda source: natural_key(source.clip_id)), sorted(loose)


def _check_name(clip_id: str) -> None:
    """Raises for names that a record cannot hold, or that a terminal would not show as they are."""
    if not clip_id.isprintable():
        raise DataError(
            requirement(
                "The name of a clip",
                "be printable UTF-8 text",
                clip_id,
                "Rename the file or folder.",
            )
        )


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a sorting key under which numbers count as numbers: '2.png' before '10.png'."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    )


def identity_of(clip_id: str) -> str:
    """Returns who a clip shows by its name: the text before the first '#'.

    Without a '#' every clip counts as an identity of its own, under its name without ending.

    Args:
      clip_id: the clip's path below the source folder.
    """
    name = clip_id.rsplit("/", 1)[-1]
    before, mark, _ = name.partition("#")
    if mark and before:
        return before
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else name


def match_clip(table: Mapping[str, object], clip_id: str) -> str | None:
    """Returns the key under which a user's table names a clip.

    Tried in turn: the whole path below the source folder, the file's name, the name without ending.

    Args:
      table: what the user gave, by clip.
      clip_id: the clip's path below the source folder.
    """
    name = clip_id.rsplit("/", 1)[-1]
    stem = name.rpartition(".")[0] or name
    return next((key for key in (clip_id, name, stem) if key in table), None)


def read_boxes(path: Path) -> dict[str, tuple[float, float, float, float]]:
    """Reads crop boxes: csv rows `clip,x0,y0,x1,y1`, or a json object clip -> [x0, y0, x1, y1].

    Args:
      path: ends in .csv or .json. A csv may begin with a row of names.

    Returns:
      The boxes in pixels of the original frames.

    Raises:
      DataError: the file cannot be read, or a row is no box.
    """
    boxes = {}
    for clip, values in _read_table(path, 5).items():
        try:
            x0, y0, x1, y1 = (float(value) for value in values)
            usable = x0 < x1 and y0 < y1 and max(map(abs, (x0, y0, x1, y1))) <= _FARTHEST_PX
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise DataError(
                requirement(
                    f"{path}, clip {clip}",
                    f"have x0 < x1 and y0 < y1, all within {_FARTHEST_PX:g}",
                    values,
                    "Give pixels of the original frame.",
                )
            )
        boxes[clip] = (x0, y0, x1, y1)
    return boxes


def read_identities(path: Path) -> dict[str, str]:
    """Reads who is shown: csv rows `clip,identity`, or a json object clip -> identity.

    Args:
      path: ends in .csv or .json. A csv may begin with a row of names.

    Returns:
      Clip to identity.

    Raises:
      DataError: the file cannot be read.
    """
    return {clip: str(values[0]) for clip, values in _read_table(path, 2).items()}


def _read_table(path: Path, columns: int) -> dict[str, list]:
    check_file(path, DataError, max_bytes=_MAX_TABLE_BYTES)
    try:
        if path.suffix.lower() == ".json":
            content = json.loads(path.read_text("utf-8"))
            rows = [[k, *(v if isinstance(v, list) else [v])] for k, v in content.items()]
        else:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
            if rows and rows[0][0].lower() in ("clip", "clip_id", "name", "file", "video"):
                rows = rows[1:]
    except (OSError, ValueError, AttributeError, RecursionError, csv.Error) as error:
        raise DataError(
            requirement(f"{path}", "be a readable csv or json table", error, "Check the file.")
        ) from error
    for row in rows:
        if len(row) != columns:
            raise DataError(
                requirement(f"{path}", f"have {columns} values a row", row, "Repair the row.")
            )
    return {row[0]: row[1:] for row in rows}
