"""`talking-heads assets add FILE`: a face model is recognised, checked and converted once.

What is registered is a clean npz (keys in docs/morphable.md); the user's file is never read again.
FLAME comes in up to three files: the model, its landmark embedding and its template with texture
coordinates; each is an asset of its own, joined when the model is loaded.
"""

import dataclasses
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.assets import KNOWN_ASSETS, Asset, register_asset
from talking_heads_jax.errors import (
    ArgumentError,
    ConversionError,
    check_file,
    requirement,
)
from talking_heads_jax.morphable import bfm, flame, ict
from talking_heads_jax.morphable.clean_arrays import checked_arrays, numbers
from talking_heads_jax.morphable.ict_folder import arrays_from_folder, find_model_folder
from talking_heads_jax.morphable.mat_files import RAW_MODEL, merge_raw_bfm, read_mat
from talking_heads_jax.morphable.wavefront import read_wavefront
from talking_heads_jax.serialization.array_pickle import read_array_pickle
from talking_heads_jax.serialization.npz_file import read_npz

FLAME_LANDMARKS, FLAME_UV = "flame_landmarks", "flame_uv"
_MAX_BYTES = 2**31
_FLAME_NAMES = ("flame2020", "flame2023")
_OTHER_HEADS = (
    (b"version https://git-lfs", "a Git LFS pointer", "Run git lfs pull, or download the file."),
    (b"<", "a web page", "Download the file itself, not the page that offers it."),
    (b"\x89HDF", "an HDF5 file", "BFM 2017 and 2019 (.h5) are not read: give the files of 2009."),
    (b"\x1f\x8b", "a gzip file", "Unpack it first."),
)
_PICKLE_HEADS = (b"\x80", b"(d", b"(l", b"}", b"]", b"\x93NUMPY")


@dataclasses.dataclass(frozen=True)
class RecognisedFile:
    """What a file turned out to be.

    Attributes:
      kind: in words.
      names: of the assets it may become; the first one unless the user says otherwise. Empty: the
        user has to say.
      convert: makes the arrays to store.
    """

    kind: str
    names: tuple[str, ...]
    convert: Callable[[], Mapping[str, np.ndarray]]


def add_asset(path: Path, name: str | None = None) -> Asset:
    """Checks, converts and registers a file of the user's; doing it twice changes nothing.

    Args:
      path: a FLAME pickle or landmark embedding or template, a BFM .mat, ICT-FaceKit's folder or
        npz, or a converted network (.safetensors).
      name: the asset it must be; None: what the content says.

    Raises:
      TalkingHeadsError: if it is nothing the package can use, not what `name` says, damaged, or
        asks to run code.
    """
    path = Path(path)
    if name is not None and name not in KNOWN_ASSETS:
        raise ArgumentError(
            requirement(
                "--name", "be a known asset", name, f"Use one of {', '.join(KNOWN_ASSETS)}."
            )
        )
    if path.suffix == ".safetensors":
        return _add_network(path, name)
    found = recognise(path)
    if name is not None and name not in found.names:
        fits = " or ".join(found.names)
        raise ArgumentError(
            requirement(
                f"'{path.name}'",
                f"be {KNOWN_ASSETS[name].what}, as --name {name} says",
                found.kind,
                f"It can be added as {fits}: leave --name out or change it.",
            )
        )
    if name is None and len(found.names) > 1:
        name = _name_from_file(path, found.names)
    return _register(name or found.names[0], found.convert(), path)


def recognise(path: Path) -> RecognisedFile:
    """Finds out what a file or folder is, by its content.

    Args:
      path: what the user named.

    Raises:
      TalkingHeadsError: if it is missing, damaged or unknown.
    """
    if path.is_dir():
        folder = find_model_folder(path)
        if folder is None:
            raise ConversionError(
                requirement(
                    f"folder '{path.name}'",
                    "be ICT-FaceKit's FaceXModel",
                    "one without generic_neutral_mesh.obj",
                    "Of FLAME and BFM, name the file itself.",
                )
            )
        return RecognisedFile(
            "ICT-FaceKit's folder", (ict.ICT_NAME,), lambda: arrays_from_folder(folder)
        )
    check_file(path, ConversionError, max_bytes=_MAX_BYTES)
    with path.open("rb") as stream:
        head = stream.read(128)
    for prefix, kind, remedy in _OTHER_HEADS:
        if head.startswith(prefix):
            raise ConversionError(requirement(f"'{path.name}'", "be a face model", kind, remedy))
    if head.startswith(b"PK"):
        return _recognise_npz(path)
    if head.startswith(b"MATLAB"):
        return _recognise_mat(path)
    if path.suffix == ".obj":
        return RecognisedFile("a FLAME template", (FLAME_UV,), lambda: _flame_uv(path))
    if head.startswith(_PICKLE_HEADS):
        return _recognise_pickle(path)
    raise ConversionError(
        requirement(
            f"'{path.name}'",
            "be a face model",
            f"a file that starts with {head[:8]!a}" if head else "an empty file",
            "docs/morphable.md lists the files that can be added.",
        )
    )


def _recognise_npz(path: Path) -> RecognisedFile:
    where = f"file '{path.name}'"
    if not zipfile.is_zipfile(path):
        read_npz(path, where)  # says what is wrong with it
    arrays = read_npz(path, where)
    if ict.is_ict(arrays):
        return RecognisedFile("ICT-FaceKit's npz", (ict.ICT_NAME,), lambda: _checked(arrays, where))
    if {"v_template", "faces"} <= set(arrays):
        count = (*arrays["v_template"].shape, 0)[0]
        kinds = {
            flame.NUM_VERTICES: ("a FLAME npz", _FLAME_NAMES),
            bfm.NUM_VERTICES: ("a BFM npz", ("bfm09",)),
        }
        if count in kinds:
            kind, names = kinds[count]
            return RecognisedFile(kind, names, lambda: _checked(arrays, where))
    raise ConversionError(
        requirement(
            where,
            "hold a face model",
            f"arrays {', '.join(sorted(arrays)[:8])}",
            "docs/morphable.md lists the keys and the models.",
        )
    )


def _checked(arrays: Mapping[str, np.ndarray], where: str) -> Mapping[str, np.ndarray]:
    """Arrays of a clean npz as they are, once they are known to make a model."""
    checked_arrays(ict.with_parts(arrays) if ict.is_ict(arrays) else arrays, where=where)
    return arrays


def _recognise_mat(path: Path) -> RecognisedFile:
    if path.name == RAW_MODEL:
        return RecognisedFile(
            "a BFM file (raw Basel model)", ("bfm09",), lambda: _bfm(merge_raw_bfm(path), path)
        )
    fields = read_mat(path)
    if bfm.is_merged_bfm(fields):
        return RecognisedFile(
            "a BFM file (BFM_model_front.mat)", ("bfm09",), lambda: _bfm(fields, path)
        )
    if {"shapePC", "texPC"} <= set(fields):
        return RecognisedFile(
            "a BFM file (raw Basel model)", ("bfm09",), lambda: _bfm(merge_raw_bfm(path), path)
        )
    raise ConversionError(
        requirement(
            f"'{path.name}'",
            "be BFM_model_front.mat or 01_MorphableModel.mat",
            f"a Matlab file with {', '.join(sorted(fields)[:8]) or 'nothing'}",
            "Of the raw model's files, name 01_MorphableModel.mat; the others lie beside it.",
        )
    )


def _bfm(fields: Mapping[str, Any], path: Path) -> Mapping[str, np.ndarray]:
    where = f"file '{path.name}'"
    arrays = bfm.bfm_arrays(fields, where=where)
    _check_counts(where, arrays, bfm.NUM_VERTICES, bfm.NUM_FACES)
    return _checked(arrays, where)


def _recognise_pickle(path: Path) -> RecognisedFile:
    tree = read_array_pickle(path)
    where = f"file '{path.name}'"
    if flame.is_flame(tree):

        def convert() -> Mapping[str, np.ndarray]:
            keys = {"v_template": "v_template", "faces": "f"}
            counts = {what: numbers(tree, where, key) for what, key in keys.items()}
            _check_counts(where, counts, flame.NUM_VERTICES, flame.NUM_FACES)
            return _checked(flame.flame_arrays(tree, where=where), where)

        return RecognisedFile("a FLAME pickle", _FLAME_NAMES, convert)
    if flame.is_landmark_embedding(tree):
        return RecognisedFile(
            "FLAME's landmark embedding", (FLAME_LANDMARKS,), lambda: _embedding(tree, where)
        )
    keys = (
        ", ".join(sorted(map(str, tree))[:8]) if isinstance(tree, Mapping) else type(tree).__name__
    )
    raise ConversionError(
        requirement(
            f"'{path.name}'",
            "be FLAME's model or landmark embedding",
            f"a pickle of {keys or 'nothing'}",
            "docs/morphable.md lists the files that can be added.",
        )
    )


def _check_counts(where: str, arrays: Mapping[str, Any], vertices: int, faces: int) -> None:
    for key, expected in (("v_template", vertices), ("faces", faces)):
        shape = np.shape(arrays[key])
        if not shape or shape[0] != expected:
            what = "vertices" if key == "v_template" else "faces"
            raise ConversionError(
                requirement(
                    where,
                    f"have {expected} {what}",
                    shape[0] if shape else "none",
                    "It belongs to another model or another version of it.",
                )
            )


def _embedding(tree: Mapping[str, Any], where: str) -> Mapping[str, np.ndarray]:
    """Triangle numbers as they are: which vertices they mean is the model's business."""
    arrays = {key: numbers(tree, where, key) for key in flame.EMBEDDING_KEYS}
    stand_in = np.zeros((flame.NUM_FACES, 3), np.int32)
    flame.embedding_arrays(arrays, stand_in, where=where)
    return arrays


def _flame_uv(path: Path) -> Mapping[str, np.ndarray]:
    mesh = read_wavefront(path)
    where = f"file '{path.name}'"
    _check_counts(
        where,
        {"v_template": mesh.vertices, "faces": mesh.faces},
        flame.NUM_VERTICES,
        flame.NUM_FACES,
    )
    if not len(mesh.faces_uv):
        raise ConversionError(
            requirement(where, "have texture coordinates", "none", "Give head_template.obj.")
        )
    uv = np.stack([mesh.uv[:, 0], 1.0 - mesh.uv[:, 1]], axis=-1)
    return {"uv": uv.astype(np.float32), "faces_uv": mesh.faces_uv, "faces": mesh.faces}


def _name_from_file(path: Path, names: tuple[str, ...]) -> str:
    """Which version of FLAME a file is: its content does not say, but its name usually does."""
    years = [name for name in names if re.search(name[-4:], path.name)]
    if len(years) == 1:
        return years[0]
    if not years and path.name in ("generic_model.pkl", "FLAME_NEUTRAL.pkl"):
        return "flame2020"
    raise ArgumentError(
        requirement(
            "--name",
            f"say which version '{path.name}' is",
            "nothing",
            f"Use one of {', '.join(names)}: their coefficients are not interchangeable.",
        )
    )


def _add_network(path: Path, name: str | None) -> Asset:
    if name is None or name not in KNOWN_ASSETS:
        raise ArgumentError(
            requirement("--name", "say what a .safetensors file is", name, "For instance vgg19.")
        )
    check_file(path, ArgumentError)
    return register_asset(name, path)


def _register(name: str, arrays: Mapping[str, np.ndarray], path: Path) -> Asset:
    handle, temporary = tempfile.mkstemp(suffix=".npz")
    os.close(handle)
    try:
        # numpy stamps every entry with the same date: equal arrays are equal files.
        np.savez(temporary, **{key: arrays[key] for key in sorted(arrays)})
        return register_asset(name, Path(temporary), source=path.name)
    finally:
        os.unlink(temporary)
