"""The motion file: a tracked clip as plain arrays in an .npz, safe to share and to receive.

It holds no picture and no object. Units stand inside, as text. A reader refuses files of another
kind or version, and arrays that miss, have other shapes or hold impossible numbers. Its landmarks
have the names of our landmark files, so it can be given wherever one is asked for.
Letters: t frames, K shape and E expression coefficients, j joints, s segments.
"""

import dataclasses
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from talking_heads_jax.errors import DataError, UnsafeFileError, check_file, requirement
from talking_heads_jax.serialization.atomic_file import replacing
from talking_heads_jax.serialization.npz_file import read_npz
from talking_heads_jax.tracking.track import CAMERAS, PERSPECTIVE, ClipTrack

FORMAT = "talking_heads_jax motion"
VERSION = 1
SUFFIX = ".npz"
MAX_FRAMES = 432_000
MAX_BYTES = 2**30  # of the arrays: so many frames have some 2 KB each
_MAX_TEXT = 2000  # characters of one note
_MAX_NOTES = 1000
_REMEDY = "Write it again: talking-heads track VIDEO --save motion.npz."

UNITS = MappingProxyType(
    {
        "fps": "frames per second",
        "time_s": "seconds from the first frame",
        "frame_size": "height, width in pixels",
        "box_px": "x0 y0 x1 y1, pixels; pixel (row i, column j) covers [j, j+1) x [i, i+1)",
        "landmarks68_px": "x y, pixels, Multi-PIE order; NaN: no face",
        "visible": "1 seen, 0 hidden or outside",
        "angles": "radians: yaw (nose to the image's right), pitch (up), roll (clockwise)",
        "shape_coeffs": "standard deviations of the model named in morphable",
        "expression_coeffs": "as the model defines them",
        "joint_pose": "radians, axis-angle per joint of the model, root zero",
        "scale_px": "pixels per centimetre at the head",
        "offset_px": "x y of the model's origin, pixels",
        "depth_cm": "centimetres; NaN for weak_perspective",
        "focal_px": "pixels; 0 for weak_perspective",
        "principal_px": "x y, pixels",
        "reprojection_px": "pixels, root mean square over the fitted points",
        "segments": "first frame, one past the last, of the stretches between cuts",
        "raw_jitter": "share of the outer eye corners' distance, before smoothing",
    }
)

# name -> (kind of dtype, shape with t, K, E, j for sizes, largest magnitude)
_PIXELS, _TURN = 1e6, 4 * np.pi
_ARRAYS: dict[str, tuple[str, tuple[int | str, ...], float]] = {
    "time_s": ("f", ("t",), 1e6),
    "face": ("b", ("t",), 1),
    "box_px": ("f", ("t", 4), _PIXELS),
    "landmarks68_px": ("f", ("t", 68, 2), _PIXELS),
    "visible": ("u", ("t", 68), 1),
    "shape_coeffs": ("f", ("K",), 1e3),
    "expression_coeffs": ("f", ("t", "E"), 1e3),
    "joint_pose": ("f", ("t", "j"), _TURN),
    "angles": ("f", ("t", 3), _TURN),
    "scale_px": ("f", ("t",), _PIXELS),
    "offset_px": ("f", ("t", 2), _PIXELS),
    "depth_cm": ("f", ("t",), 1e6),
    "reprojection_px": ("f", ("t",), _PIXELS),
    "frame_size": ("i", (2,), _PIXELS),
    "principal_px": ("f", (2,), _PIXELS),
    "segments": ("i", ("s", 2), MAX_FRAMES),
    "fps": ("f", (), 1e4),
    "focal_px": ("f", (), 1e9),
    "raw_jitter": ("f", (), 1e6),
}
_TEXTS = ("landmark_source", "morphable", "camera")
_FINITE = ("time_s", "fps", "focal_px", "principal_px", "shape_coeffs")
_FITTED = ("expression_coeffs", "joint_pose", "angles", "scale_px", "offset_px")
_DTYPES = {"f": np.float32, "b": np.bool_, "u": np.uint8, "i": np.int64}


def save_motion(path: Path, track: ClipTrack) -> None:
    """Writes a motion file; nothing is left at `path` unless it is complete.

    Args:
      path: ends in .npz; replaced if it exists.
      track: what to write.

    Raises:
      DataError: if the name ends otherwise, or the track is one that `load_motion` would refuse.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise DataError(
            requirement("the motion file", f"end in {SUFFIX}", path.name, "Give another name.")
        )
    arrays: dict[str, Any] = {name: np.asarray(getattr(track, name)) for name in _ARRAYS}
    arrays["face"] = arrays["face"].astype(np.uint8)
    arrays["segments"] = np.asarray(track.segments, np.int64).reshape(-1, 2)
    for name in _TEXTS:
        arrays[name] = np.array(getattr(track, name))
    arrays["notes"] = np.array([note[:_MAX_TEXT] for note in track.notes[:_MAX_NOTES]], np.str_)
    arrays |= {"format": np.array(FORMAT), "version": np.array(VERSION)}
    arrays["units"] = np.array(json.dumps(dict(UNITS)))
    _track_from(arrays, "the track")
    size = sum(array.nbytes for array in arrays.values())
    if size > MAX_BYTES:
        remedy = "Track the clip in parts."
        raise DataError(requirement("the track", f"have at most {MAX_BYTES} bytes", size, remedy))
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_motion(path: Path) -> ClipTrack:
    """Reads a motion file.

    Args:
      path: the file.

    Returns:
      The track.

    Raises:
      DataError: it is missing, damaged, of another kind or version, holds objects, or its arrays
        miss, have other shapes, or hold impossible numbers.
    """
    path = Path(path)
    check_file(path, DataError, max_bytes=MAX_BYTES)
    try:
        return _track_from(read_npz(path, f"{path}", max_bytes=MAX_BYTES), f"{path}")
    except UnsafeFileError as error:
        raise DataError(str(error)) from error


def _track_from(content: dict[str, np.ndarray], where: str) -> ClipTrack:
    if _text(content, "format", where) != FORMAT:
        raise _refused(where, "be a motion file", f"format {_text(content, 'format', where)!r}")
    version = content.get("version")
    if version is None or version.shape or version.dtype.kind not in "iu":
        raise _refused(where, "state its version", version)
    if version != VERSION:
        remedy = f"Read it with the version that wrote it; this one reads {VERSION}."
        raise DataError(requirement(where, f"be of version {VERSION}", version, remedy))
    sizes: dict[str, int] = {}
    fields = {name: _array(content, name, where, sizes) for name in _ARRAYS}
    fields |= {name: _text(content, name, where) for name in _TEXTS}
    _check_numbers(fields, where)
    notes = content.get("notes", np.zeros(0, np.str_))
    if notes.ndim != 1 or len(notes) > _MAX_NOTES or (notes.size and notes.dtype.kind != "U"):
        raise _refused(where, "hold notes as a list of texts", f"{notes.dtype} {notes.shape}")
    height, width = (int(side) for side in fields["frame_size"])
    x, y = (float(value) for value in fields["principal_px"])
    fields |= {name: float(fields[name]) for name in ("fps", "focal_px", "raw_jitter")}
    fields |= {"frame_size": (height, width), "principal_px": (x, y)}
    fields["segments"] = tuple((int(start), int(stop)) for start, stop in fields["segments"])
    fields["notes"] = tuple(str(note)[:_MAX_TEXT] for note in notes)
    assert set(fields) == {field.name for field in dataclasses.fields(ClipTrack)}
    return ClipTrack(**fields)


def _array(
    content: dict[str, np.ndarray], name: str, where: str, sizes: dict[str, int]
) -> np.ndarray:
    """One array with the dtype it should have; `sizes` learns the lengths on the way."""
    if name not in content:
        raise _refused(where, f"hold {name}", "nothing of that name")
    array = content[name]
    kind, shape, largest = _ARRAYS[name]
    if len(shape) == array.ndim:
        for side, length in zip(shape, array.shape, strict=True):
            if isinstance(side, str):
                sizes.setdefault(side, length)
    wanted = tuple(sizes.get(side, -1) if isinstance(side, str) else side for side in shape)
    if array.shape != wanted or array.dtype.kind not in {"f": "f"}.get(kind, "biu"):
        expected = f"hold {name} as {'x'.join(map(str, shape)) or 'a number'}"
        raise _refused(where, expected, f"{array.dtype} {array.shape}")
    if (np.abs(array[np.isfinite(array)].astype(np.float64)) > largest).any() or (
        np.isinf(array).any()
    ):
        raise _refused(where, f"hold {name} within {largest:g}", "a larger number")
    if name == "time_s" or not shape:
        return array.astype(np.float64)
    return array.astype(_DTYPES[kind])


def _check_numbers(fields: dict[str, Any], where: str) -> None:
    """What no single array can tell."""
    count = len(fields["time_s"])
    if not 1 <= count <= MAX_FRAMES:
        raise _refused(where, f"have 1 to {MAX_FRAMES} frames", count)
    for name in _FINITE:
        if not np.isfinite(fields[name]).all():
            raise _refused(where, f"hold finite {name}", "NaN")
    if fields["fps"] <= 0 or (np.diff(fields["time_s"]) <= 0).any():
        raise _refused(where, "have increasing times and a positive rate", fields["fps"])
    if (fields["frame_size"] < 1).any():
        raise _refused(where, "have frames of a pixel at least", fields["frame_size"])
    if fields["camera"] not in CAMERAS:
        raise _refused(where, f"have a camera of {CAMERAS}", fields["camera"])
    segments = fields["segments"]
    edges = [0, *segments[:, 1].tolist()]
    covers = len(segments) and edges[-1] == count and (np.diff(edges) > 0).all()
    if not covers or segments[:, 0].tolist() != edges[:-1]:
        raise _refused(where, f"have segments that cover {count} frames", segments.tolist())
    for name in ("visible", "face"):
        if (fields[name] > 1).any():
            raise _refused(where, f"hold {name} of 0 and 1", "another number")
    if not fields["morphable"]:
        return
    known = np.isfinite(fields["angles"]).all(1)
    names = (*_FITTED, "depth_cm") if fields["camera"] == PERSPECTIVE else _FITTED
    for name in names:
        if not np.isfinite(fields[name][known]).all():
            raise _refused(where, f"hold {name} in every frame with angles", "NaN")
    if (fields["scale_px"][known] <= 0).any():
        raise _refused(where, "hold positive scale_px", "0 or less")
    if fields["camera"] == PERSPECTIVE and (
        fields["focal_px"] <= 0 or (fields["depth_cm"][known] <= 0).any()
    ):
        raise _refused(where, "hold positive focal_px and depth_cm", "0 or less")


def _text(content: dict[str, np.ndarray], name: str, where: str) -> str:
    array = content.get(name)
    if array is None or array.shape or array.dtype.kind != "U":
        got = "nothing" if array is None else f"{array.dtype} {array.shape}"
        raise _refused(where, f"hold {name} as text", got)
    return str(array)[:_MAX_TEXT]


def _refused(where: str, constraint: str, got: object) -> DataError:
    return DataError(requirement(where, constraint, got, _REMEDY))
