"""Finished clips on their way into records: one folder each, whole or absent.

`prepare` is resumable because of it: a clip whose folder carries the right fingerprint is not
decoded again. Free of jax, as spawned workers import it. Letters: t time, h w image.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from data_pipeline.preprocess.crops import crop_matrix
from data_pipeline.records import round_for_storage
from data_pipeline.schema import FIELDS, SCHEMA_VERSION, field_shape, read_json, write_json
from talking_heads_jax.errors import DataError
from talking_heads_jax.media.image import encode_image

PRESENT = "present"
SKIPPED = "skipped"
MIN_FRAMES = 2  # a pair needs two

_REPORT = "clip.json"
_IMAGE = "image"
_STREAM = ".bin"
_LENGTHS = ".lengths"
_ARRAYS = "arrays.npz"
_PICTURES = "pictures.json"


class ClipStage:
    """Collects the encoded frames of one clip; context manager, whole or absent.

    The clip's folder appears by a rename when `finish` was called and the block ends.
    """

    def __init__(self, staging: Path, clip_id: str) -> None:
        """Names the folder after the clip.

        Args:
          staging: the folder that holds all staged clips.
          clip_id: the clip.
        """
        self.folder = staged_folder(staging, clip_id)
        self._partial = self.folder.with_name(f"{self.folder.name}.partial")

    def __enter__(self) -> "ClipStage":
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._files: dict[str, BinaryIO] = {}
        self._lengths: dict[str, list[int]] = {}
        self._indices: list[int] = []
        self._captions: list[str] = []
        self._report: dict[str, Any] | None = None
        return self

    def add(self, image: bytes, frame_index: int, **large: bytes) -> None:
        """Appends a frame.

        Args:
          image: encoded.
          frame_index: its number in the original clip.
          **large: fields of the record as they lie on disk, too large to wait in memory for the
            end of the clip; every frame has the same ones.
        """
        for name, data in {_IMAGE: image, **large}.items():
            if name not in self._files:
                self._files[name] = (self._partial / f"{name}{_STREAM}").open("wb")
                self._lengths[name] = []
            self._files[name].write(data)
            self._lengths[name].append(len(data))
        self._indices.append(frame_index)

    def add_picture(self, jpeg: bytes, caption: str) -> None:
        """Adds a picture for people, see `staged_pictures`.

        Args:
          jpeg: encoded.
          caption: what it shows.
        """
        (self._partial / _picture_name(len(self._captions))).write_bytes(jpeg)
        self._captions.append(caption)

    @property
    def frame_indices(self) -> np.ndarray:
        """int64 (t): numbers of the frames added so far in the original clip."""
        return np.array(self._indices, np.int64)

    def finish(self, report: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """States what the clip is, and adds `encoded_bytes` to its report.

        Args:
          report: the clip's row of the manifest, and its fingerprint.
          arrays: fields of the record by name, one row per frame; none for a skipped clip.
        """
        written = sum(sum(lengths) for lengths in self._lengths.values())
        report["encoded_bytes"] = written + sum(array.nbytes for array in arrays.values())
        self._report = report
        lengths = {
            f"{name}{_LENGTHS}": np.array(values, np.int64)
            for name, values in self._lengths.items()
        }
        np.savez(self._partial / _ARRAYS, frame_index=self.frame_indices, **lengths, **arrays)
        if self._captions:
            write_json(self._partial / _PICTURES, {"captions": self._captions})

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()
        if kind is not None or self._report is None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        write_json(self._partial / _REPORT, self._report)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._partial.rename(self.folder)


def staged_folder(staging: Path, clip_id: str) -> Path:
    """Returns where a clip is staged: names may hold anything, so they are hashed."""
    return staging / hashlib.sha256(clip_id.encode("utf-8")).hexdigest()[:24]


def staged_report(staging: Path, clip_id: str, fingerprint: str | None = None) -> dict | None:
    """Returns the report of a staged clip, or None if there is none with this fingerprint.

    Args:
      staging: the folder that holds all staged clips.
      clip_id: the clip.
      fingerprint: what the report must carry; None takes any.
    """
    report = staged_row(staged_folder(staging, clip_id))
    if report is None or fingerprint not in (None, report.get("fingerprint")):
        return None
    return report


def staged_row(folder: Path) -> dict[str, Any] | None:
    """Returns the report of the clip in a folder of the staging area, or None.

    Args:
      folder: of one clip; a half-written one has another name than its clip would give it.
    """
    try:
        report = read_json(folder / _REPORT)
    except DataError:  # absent, or damaged: staged again
        return None
    clip_id = report.get("clip_id")
    named = isinstance(clip_id, str) and staged_folder(folder.parent, clip_id) == folder
    # An earlier version kept the frames under another name: those are staged again.
    whole = report.get("status") != PRESENT or (folder / f"{_IMAGE}{_STREAM}").is_file()
    return report if named and whole else None


def staged_examples(
    staging: Path,
    report: Mapping[str, Any],
    optional: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the records of a staged clip, in order.

    Args:
      staging: the folder that holds all staged clips.
      report: the clip's report.
      optional: the optional fields that every record of the data set has; those this clip lacks
        are filled: numbers with NaN, visibility and masks with 0, text with ''.
      shapes: of the fields whose shape depends on the face model.

    Yields:
      Field name to value; 'image' is encoded bytes.
    """
    folder = staged_folder(staging, report["clip_id"])
    with np.load(folder / _ARRAYS, allow_pickle=False) as content:
        arrays = dict(content)
    size, count = report["crop_size"], len(arrays["frame_index"])
    lengths = {
        name.removesuffix(_LENGTHS): arrays.pop(name)
        for name in tuple(arrays)
        if name.endswith(_LENGTHS)
    }
    known = arrays.keys() | lengths.keys()
    missing = {name: _nothing(name, size, shapes or {}) for name in optional if name not in known}
    if "crop_matrix" not in arrays:  # one box for all frames
        box = tuple(report["box_px"])
        arrays["source_box_px"] = np.tile(np.array(box, np.float32), (count, 1))
        arrays["crop_matrix"] = np.tile(crop_matrix(box, size), (count, 1, 1))
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / f"{name}{_STREAM}").open("rb")) for name in lengths
        }
        for row in range(count):
            large = {name: file.read(int(lengths[name][row])) for name, file in files.items()}
            example = {
                "image": large[_IMAGE],
                "clip_id": report["clip_id"],
                "identity_id": report["identity_id"],
                "frame_index": int(arrays["frame_index"][row]),
                "source_box_px": arrays["source_box_px"][row],
                "crop_matrix": arrays["crop_matrix"][row],
                "schema_version": SCHEMA_VERSION,
            }
            for name in optional:
                if name in large:
                    example[name] = _as_stored(name, large[name], size, shapes or {})
                else:
                    value = arrays[name][row] if name in arrays else missing[name]
                    example[name] = storable(name, value, size)
            yield example


def staged_pictures(staging: Path, clip_id: str) -> Iterator[tuple[str, bytes]]:
    """Yields the pictures of a staged clip: caption and jpeg bytes.

    Args:
      staging: the folder that holds all staged clips.
      clip_id: the clip; one that is not staged or has no pictures yields none.
    """
    folder = staged_folder(staging, clip_id)
    if not (folder / _PICTURES).is_file():
        return
    for number, caption in enumerate(read_json(folder / _PICTURES)["captions"]):
        yield str(caption), (folder / _picture_name(number)).read_bytes()


def _picture_name(number: int) -> str:
    return f"picture_{number}.jpg"


def _as_stored(
    name: str, data: bytes, size: int, shapes: Mapping[str, tuple[int, ...]]
) -> bytes | np.ndarray:
    """A field that was staged as it lies on disk, as TFDS takes it."""
    if FIELDS[name].dtype == "mask":
        return data
    dtype = FIELDS[name].stored.partition(" ")[0] or FIELDS[name].dtype
    return np.frombuffer(data, dtype).reshape(field_shape(name, size, shapes))


def storable(name: str, value: Any, size: int) -> Any:
    """Returns an optional field as TFDS takes it: text as `str`, masks as png, the rest rounded.

    Args:
      name: of the field.
      value: of one record.
      size: height and width of the images.
    """
    field = FIELDS[name]
    if field.dtype == "str":
        return str(value)
    if field.dtype == "mask":
        return encode_image(value, "png")
    return round_for_storage(name, value, size) if field.stored else value


def _nothing(name: str, size: int, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """What a record holds in an optional field that its clip lacks."""
    dtype = FIELDS[name].dtype
    if dtype == "str":
        return ""
    if dtype == "mask":
        return np.zeros((size, size), np.uint8)
    value = 0 if np.dtype(dtype).kind == "u" else np.nan
    return np.full(field_shape(name, size, shapes), value, np.dtype(dtype))
