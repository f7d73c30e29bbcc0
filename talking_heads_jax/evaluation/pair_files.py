"""pairs.json: a pair list on disk, its writer and its strict reader.

```
{"format": "talking_heads_jax pairs", "version": 1, "protocol": {...}, "data": {...}, "pairs": [
 {"name": ..., "source": {"clip", "identity", "frame"},
  "driving": {"clip", "identity", "frames", "length"}, "initial_frame": null}, ...]}
```
"""

import dataclasses
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talking_heads_jax.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    check_file,
    requirement,
)
from talking_heads_jax.evaluation.pairs import Pair, PairList, is_pair_name
from talking_heads_jax.evaluation.protocols import Protocol

PAIRS_FILE = "pairs.json"
_FORMAT, _VERSION = "talking_heads_jax pairs", 1
_LARGEST_BYTES = 256 << 20
_LARGEST_FRAME = 1 << 31


def pairs_document(pair_list: PairList, data: Mapping[str, Any]) -> dict[str, Any]:
    """A list as JSON types.

    Args:
      pair_list: the list.
      data: split and limits of the clips, and the names of the recipes that were asked for (none:
        the default ones), for the reader to know.
    """
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "protocol": dataclasses.asdict(pair_list.protocol),
        "data": dict(data),
        "pairs": [_as_row(pair) for pair in pair_list.pairs],
    }


def pairs_text(pair_list: PairList, data: Mapping[str, Any]) -> str:
    """The file's content: one pair per line.

    Args:
      pair_list: the list.
      data: see `pairs_document`.
    """
    document = pairs_document(pair_list, data)
    rows = [json.dumps(row, ensure_ascii=False) for row in document.pop("pairs")]
    head = json.dumps(document, ensure_ascii=False, indent=1)
    return head[: -len("\n}")] + ',\n "pairs": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"


def pairs_digest(pair_list: PairList) -> str:
    """A hash of protocol and pairs: equal for equal lists.

    Args:
      pair_list: the list.
    """
    text = json.dumps(pairs_document(pair_list, {}), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_pairs(folder: Path, pair_list: PairList, data: Mapping[str, Any]) -> None:
    """Writes the list beside predictions, or checks that the one there is the same.

    Processes that write the same list to one folder at the same time do not disturb each other.

    Args:
      folder: exists.
      pair_list: the list.
      data: see `pairs_document`.

    Raises:
      ArgumentError: the folder holds another list.
      DataError: the folder holds a file of that name that is no list.
    """
    path = folder / PAIRS_FILE
    if path.exists():
        if pairs_digest(read_pairs(path)[0]) != pairs_digest(pair_list):
            raise ArgumentError(
                requirement(f"{path}", "list the same pairs", "others", "Give a new folder.")
            )
        return
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{PAIRS_FILE}.", suffix=".partial")
    partial = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(pairs_text(pair_list, data))
        partial.chmod(0o644)  # mkstemp's files are the owner's alone
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_pairs(path: str | os.PathLike[str]) -> tuple[PairList, dict[str, Any]]:
    """Reads a list.

    Args:
      path: a pairs.json.

    Returns:
      The list, and what is said about the data.

    Raises:
      DataError: the file is missing, too large, no list of this version, or makes no sense.
    """
    path = Path(path)
    remedy = "Give a pairs.json that run_eval.py wrote."
    check_file(path, DataError, max_bytes=_LARGEST_BYTES)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(requirement(f"{path}", "be readable JSON", reason, remedy)) from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise DataError(requirement(f"{path}", "be a list of pairs", "other JSON", remedy))
    if document.get("version") != _VERSION:
        raise DataError(
            requirement(
                f"{path}",
                f"have version {_VERSION}",
                document.get("version"),
                "Use the version of talking_heads_jax that wrote it.",
            )
        )
    return parse_pairs(document, f"{path}")


def parse_pairs(document: Mapping[str, Any], what: str) -> tuple[PairList, dict[str, Any]]:
    """A list from JSON types, checked field by field.

    Args:
      document: see the module.
      what: how a message names it.

    Raises:
      DataError: names the first thing that is wrong.
    """
    protocol, rows, data = (document.get(key) for key in ("protocol", "pairs", "data"))
    if not isinstance(protocol, dict) or not isinstance(rows, list) or not isinstance(data, dict):
        raise DataError(
            requirement(what, "hold protocol, data and pairs", "less", "Take an unchanged copy.")
        )
    try:
        protocol = Protocol.from_config(protocol)
    except ConfigError as error:
        raise DataError(f"{what}: {error}") from None
    pairs = tuple(_as_pair(row, f"{what}: pair {i}") for i, row in enumerate(rows))
    names = [pair.name.lower() for pair in pairs]
    if not pairs or len(set(names)) != len(names):
        got = "none" if not pairs else "two of one name"
        raise DataError(
            requirement(what, "hold pairs of different names", got, "Take an unchanged copy.")
        )
    return PairList(protocol, pairs), data


def _as_row(pair: Pair) -> dict[str, Any]:
    return {
        "name": pair.name,
        "source": {
            "clip": pair.source_clip,
            "identity": pair.source_identity,
            "frame": pair.source_frame,
        },
        "driving": {
            "clip": pair.driving_clip,
            "identity": pair.driving_identity,
            "frames": list(pair.driving_frames),
            "length": pair.driving_length,
        },
        "initial_frame": pair.initial_frame,
    }


def _as_pair(row: Any, what: str) -> Pair:
    def check(fits: bool, field: str, constraint: str, got: object) -> None:
        if not fits:
            raise DataError(
                requirement(f"{what}: {field}", constraint, got, "Take an unchanged copy.")
            )

    check(isinstance(row, dict), "it", "be an object", type(row).__name__)
    source, driving = row.get("source"), row.get("driving")
    check(isinstance(source, dict), "source", "be an object", source)
    check(isinstance(driving, dict), "driving", "be an object", driving)
    check(is_pair_name(row.get("name")), "name", "be a plain folder name", row.get("name"))
    for side, value in (("source", source), ("driving", driving)):
        for key in ("clip", "identity"):
            check(isinstance(value.get(key), str), f"{side}.{key}", "be text", value.get(key))
    frames, length = driving.get("frames"), driving.get("length")
    check(_is_frame(source.get("frame")), "source.frame", "be a number from 0", source.get("frame"))
    check(_is_frame(length), "driving.length", "be a number from 0", length)
    check(
        isinstance(frames, list)
        and bool(frames)
        and all(map(_is_frame, frames))
        and all(a < b for a, b in itertools.pairwise(frames)),
        "driving.frames",
        "be increasing numbers from 0",
        frames,
    )
    check(frames[-1] < length, "driving.frames", f"be below the length {length}", frames[-1])
    initial = row.get("initial_frame")
    check(
        initial is None or (_is_frame(initial) and initial < length),
        "initial_frame",
        "be null or a frame of the driving clip",
        initial,
    )
    return Pair(
        row["name"],
        source["clip"],
        source["identity"],
        source["frame"],
        driving["clip"],
        driving["identity"],
        tuple(frames),
        length,
        initial,
    )


def _is_frame(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_FRAME
