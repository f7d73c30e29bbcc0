"""`mesh.npz`: what the vertices of a data set's records are corners of.

All records of a data set share one mesh. Letters: v vertices, f faces.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.schema import read_clip_table
from data_pipeline.transforms import MIRROR68
from talking_heads_jax.errors import ArgumentError, DataError, UnsafeFileError, requirement
from talking_heads_jax.serialization.npz_file import read_npz

MESH = "mesh.npz"

_MAX_NAME = 100
_REMEDY = "Copy the data set again, or make it again."


class Mesh(NamedTuple):
    """The topology of a face model.

    Attributes:
      morphable: name of the model.
      faces: int32 (f 3) corners of the triangles, from 0.
      mirror: int32 (v): vertex i of a mirrored head is where vertex mirror[i] of the original is.
      face_part: uint8 (f) class of each triangle, numbered as in masks.
      landmark_mirror: int32 (68): the same as `mirror` for landmarks.
    """

    morphable: str
    faces: np.ndarray
    mirror: np.ndarray
    face_part: np.ndarray
    landmark_mirror: np.ndarray


def mesh_of_model(model: Any) -> Mesh:
    """The topology of a morphable model, as it lies beside the records of its vertices.

    Args:
      model: with the attributes `name`, `faces`, `mirror` and `face_part`.
    """
    return Mesh(
        morphable=model.name,
        faces=np.asarray(model.faces, np.int32),
        mirror=np.asarray(model.mirror, np.int32),
        face_part=np.asarray(model.face_part, np.uint8),
        landmark_mirror=MIRROR68.astype(np.int32),
    )


def write_mesh(folder: Path, mesh: Mesh) -> str:
    """Writes `mesh.npz`.

    Args:
      folder: the data set.
      mesh: what to write.

    Returns:
      The file's SHA-256, for the clip table.

    Raises:
      ArgumentError: indices outside the mesh, or arrays that do not fit.
    """
    problem = _problem(mesh)
    if problem:
        raise ArgumentError(requirement("A mesh", "be whole", problem, "Correct the face model."))
    with (folder / MESH).open("wb") as file:
        np.savez_compressed(file, **mesh._replace(morphable=np.array(mesh.morphable))._asdict())
    return _sha256(folder / MESH)


def read_mesh(folder: Path) -> Mesh:
    """Reads `mesh.npz`, and checks it against the clip table's checksum and in itself.

    Args:
      folder: the data set.

    Raises:
      DataError: there is none, or it is damaged.
    """
    path, expected = folder / MESH, read_clip_table(folder).mesh_sha256
    if not expected or not path.is_file():
        raise DataError(requirement(f"{folder}", f"hold {MESH}", "none", _REMEDY))
    if _sha256(path) != expected:
        raise DataError(requirement(f"{path}", "have its checksum", "another", _REMEDY))
    try:
        arrays = read_npz(path, f"{path}")
        arrays["morphable"] = str(arrays["morphable"])
        mesh = Mesh(**arrays)
    except (UnsafeFileError, KeyError, TypeError) as error:
        raise DataError(requirement(f"{path}", "be a mesh", f"{error!r}", _REMEDY)) from error
    problem = _problem(mesh)
    if problem:
        raise DataError(requirement(f"{path}", "be whole", problem, _REMEDY))
    return mesh


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _problem(mesh: Mesh) -> str:
    """What is wrong with a mesh, or ''."""
    dtypes = {"faces": "int32", "mirror": "int32", "face_part": "uint8", "landmark_mirror": "int32"}
    for name, dtype in dtypes.items():
        if getattr(mesh, name).dtype != dtype:
            return f"{name} of dtype {getattr(mesh, name).dtype} instead of {dtype}"
    faces, count = mesh.faces, len(mesh.mirror)
    if faces.ndim != 2 or faces.shape[1] != 3 or mesh.face_part.shape != faces.shape[:1]:
        return f"faces {faces.shape} with parts {mesh.face_part.shape}"
    if faces.size and not 0 <= faces.min() <= faces.max() < count:
        return f"faces with corners {faces.min()} to {faces.max()} of {count} vertices"
    # Meshes are not symmetric to the last vertex: two may have the same nearest partner.
    if (
        mesh.mirror.ndim != 1
        or not count
        or not 0 <= mesh.mirror.min() <= mesh.mirror.max() < count
    ):
        return f"a mirror {mesh.mirror.shape} that leads outside the mesh"
    if not np.array_equal(np.sort(mesh.landmark_mirror), np.arange(68)):
        return "a landmark_mirror that is no permutation of 68"
    if not 0 < len(mesh.morphable) <= _MAX_NAME:
        return f"a model name of {len(mesh.morphable)} characters"
    return ""
