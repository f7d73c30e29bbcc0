"""Reader of the Basel face model's files: Matlab matrices, and Deep3DFaceRecon's expression bin.

scipy reads Matlab files of versions 4 to 7.2 without running anything; cells, structures and
functions, which come out as objects, are refused. Letters: v vertices.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import (
    ConversionError,
    UnsafeFileError,
    check_file,
    requirement,
)
from talking_heads_jax.morphable.bfm import NUM_EXPRESSION, NUM_SHAPE, NUM_TEXTURE
from talking_heads_jax.morphable.clean_arrays import check_indices, refuse_arrays

RAW_MODEL = "01_MorphableModel.mat"
#: What belongs beside `01_MorphableModel.mat`, as Deep3DFaceRecon lists it.
RAW_COMPANIONS = (
    *("Exp_Pca.bin", "std_exp.txt", "BFM_front_idx.mat", "BFM_exp_idx.mat"),
    "facemodel_info.mat",
)
_RAW_FIELDS = ("shapePC", "shapeEV", "shapeMU", "texPC", "texEV", "texMU")
_INFO_FIELDS = ("tri", "point_buf", "keypoints")
_MAX_BYTES = 2**30
_MAX_NUMBERS = 2**28  # the raw Basel model has 64 million
_MATRICES = (
    *("double", "single", "logical", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)
_UNITS = 1e5  # micrometres of the raw file in a decimetre
_HDF5 = b"\x89HDF"


def read_mat(path: Path, fields: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Reads numeric matrices of a Matlab file.

    Args:
      path: the file.
      fields: which; None reads all.

    Raises:
      ConversionError: if it is missing, of version 7.3, or lacks a field.
      UnsafeFileError: if it is damaged, or a field holds anything but numbers.
    """
    check_file(path, ConversionError, max_bytes=_MAX_BYTES)
    where = f"file '{path.name}'"
    with path.open("rb") as stream:
        if stream.read(4) == _HDF5:
            remedy = "Save it as version 7 (Matlab: save -v7), or give the files of 2009."
            raise ConversionError(requirement(where, "be a Matlab file up to 7.2", "HDF5", remedy))
    import scipy.io

    try:
        _check_variables(scipy.io.whosmat(path), where, fields)
        found = scipy.io.loadmat(path, variable_names=fields, struct_as_record=True)
    except UnsafeFileError:
        raise
    except Exception as error:  # its parsers raise a dozen different ones on damaged files
        raise UnsafeFileError(
            requirement(
                where,
                "be a complete Matlab file",
                f"a damaged one ({type(error).__name__})",
                "Download or copy the file again.",
            )
        ) from error
    arrays = {}
    for name, value in found.items():
        if name.startswith("__"):
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            kind = getattr(value, "dtype", type(value).__name__)
            raise UnsafeFileError(
                requirement(f"'{name}' in {where}", "hold numbers", kind, "Get the original file.")
            )
        arrays[name] = value
    missing = sorted(set(fields or ()) - set(arrays))
    if missing:
        raise ConversionError(
            requirement(
                where, f"hold {', '.join(missing)}", ", ".join(arrays) or "nothing", "Wrong file?"
            )
        )
    return arrays


def _check_variables(
    variables: Sequence[tuple[str, tuple[int, ...], str]], where: str, fields: Sequence[str] | None
) -> None:
    """Looks at the headers before anything is read: nested cells and claimed sizes have no end."""
    total = 0
    for name, shape, kind in variables:
        if fields is not None and name not in fields:
            continue
        if kind not in _MATRICES:
            what = f"{name!a} in {where}"
            raise UnsafeFileError(requirement(what, "hold numbers", kind, "Get the original file."))
        total += math.prod(shape)
    if total > _MAX_NUMBERS:
        constraint = f"hold at most {_MAX_NUMBERS} numbers"
        raise UnsafeFileError(requirement(where, constraint, total, "Get the original file."))


def _expressions(folder: Path) -> np.ndarray:
    """Scaled expression directions (3v, E) of Exp_Pca.bin and std_exp.txt."""
    path = folder / "Exp_Pca.bin"
    check_file(path, ConversionError, max_bytes=_MAX_BYTES)
    data = path.read_bytes()
    count = int.from_bytes(data[:4], "little")
    numbers = np.frombuffer(data[4 : 4 + (len(data) - 4) // 4 * 4], "<f4")
    if not 0 < count < 1000 or numbers.size % (3 * (count + 1)):
        got = f"{count} directions and {numbers.size} numbers"
        refuse_arrays(f"file '{path.name}'", "its content", "be a mean and whole directions", got)
    length = numbers.size // (count + 1)
    directions = numbers[length:].reshape(count, length).T
    check_file(folder / "std_exp.txt", ConversionError, max_bytes=2**20)
    text = (folder / "std_exp.txt").read_text(encoding="ascii", errors="replace")
    try:
        deviations = np.array(text.split(), np.float64)
    except ValueError:
        deviations = np.zeros(0)
    if len(deviations) < count:
        refuse_arrays("file 'std_exp.txt'", "its content", f"be {count} numbers", len(deviations))
    return directions * deviations[:count] / _UNITS


def merge_raw_bfm(path: Path) -> Mapping[str, Any]:
    """The fields of `BFM_model_front.mat`, made from the files of Basel and their companions.

    Args:
      path: 01_MorphableModel.mat, with `RAW_COMPANIONS` beside it.

    Raises:
      ConversionError: if a companion is missing.
      ArgumentError: if files do not fit together.
    """
    folder = path.parent
    missing = [name for name in RAW_COMPANIONS if not (folder / name).is_file()]
    if missing:
        raise ConversionError(
            requirement(
                f"the folder of {path.name}",
                f"hold {', '.join(RAW_COMPANIONS)}",
                f"no {', '.join(missing)}",
                "Deep3DFaceRecon's instructions say where each comes from; or give its merged "
                "BFM_model_front.mat.",
            )
        )
    raw = read_mat(path, _RAW_FIELDS)
    info = read_mat(folder / "facemodel_info.mat", _INFO_FIELDS)
    expressions = _expressions(folder)
    front = read_mat(folder / "BFM_front_idx.mat", ("idx",))["idx"].reshape(-1).astype(np.int64) - 1
    trimmed = read_mat(folder / "BFM_exp_idx.mat", ("trimIndex",))["trimIndex"]
    trimmed = trimmed.reshape(-1).astype(np.int64) - 1
    rows = raw["shapeMU"].size // 3
    where = f"the files beside {path.name}"
    check_indices(where, "idx - 1", front, min(len(trimmed), len(expressions) // 3), all_used=False)
    check_indices(where, "trimIndex - 1", trimmed, rows, all_used=False)
    of_shape = trimmed[front]

    def taken(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return values.reshape(len(values) // 3, 3, -1)[indices].reshape(3 * len(indices), -1)

    def scaled(kind: str, columns: int) -> np.ndarray:
        directions, deviations = raw[f"{kind}PC"], raw[f"{kind}EV"].reshape(-1)
        if directions.ndim != 2 or directions.shape != (3 * rows, len(deviations)):
            constraint = f"have shape ({3 * rows}, {len(deviations)})"
            refuse_arrays(f"file '{path.name}'", f"'{kind}PC'", constraint, directions.shape)
        return directions[:, :columns] * deviations[:columns]

    return {
        "meanshape": taken(raw["shapeMU"].reshape(-1, 1), of_shape).reshape(1, -1) / _UNITS,
        "meantex": taken(raw["texMU"].reshape(-1, 1), of_shape).reshape(1, -1),
        "idBase": taken(scaled("shape", NUM_SHAPE) / _UNITS, of_shape),
        "texBase": taken(scaled("tex", NUM_TEXTURE), of_shape),
        "exBase": taken(expressions[:, :NUM_EXPRESSION], front),
        **info,
    }
