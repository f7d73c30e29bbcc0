"""Reader of Wavefront .obj meshes: vertices, texture coordinates, polygons and their materials."""

import dataclasses
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ConversionError, check_file, requirement

_MAX_BYTES = 2**28
_MAX_CORNERS = 64  # of a polygon


@dataclasses.dataclass(frozen=True)
class WavefrontMesh:
    """A mesh whose polygons became triangles, fans around their first corner.

    Attributes:
      vertices: (v 3) float64.
      uv: (t 2) float64, v up as in the file; without rows if it has none.
      faces: (f 3) int32 rows of `vertices`, from 0.
      faces_uv: (f 3) int32 rows of `uv`; without rows if some polygon has none.
      face_material: (f,) int32 index into `materials`.
      materials: names in order of appearance; the first is '' for polygons before any name.
    """

    vertices: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    faces_uv: np.ndarray
    face_material: np.ndarray
    materials: tuple[str, ...]


def _damaged(path: Path, got: object) -> ConversionError:
    return ConversionError(
        requirement(
            f"file '{path.name}'", "be a complete .obj mesh", got, "Download the file again."
        )
    )


def _lines(path: Path) -> list[bytes]:
    check_file(path, ConversionError, max_bytes=_MAX_BYTES)
    return path.read_bytes().split(b"\n")


def _numbers(path: Path, lines: list[bytes], columns: int) -> np.ndarray:
    try:
        rows = [line.split()[1 : columns + 1] for line in lines]
        values = np.array(rows, dtype=np.float64).reshape(-1, columns)
    except ValueError as error:
        raise _damaged(path, "a malformed vertex") from error
    if not np.isfinite(values).all():
        raise _damaged(path, "a vertex that is not finite")
    return values


def read_wavefront_vertices(path: Path) -> np.ndarray:
    """The vertices (v 3) alone, for files that differ from another one in nothing else.

    Args:
      path: the file.

    Raises:
      ConversionError: if it is missing or damaged.
    """
    return _numbers(path, [line for line in _lines(path) if line.startswith(b"v ")], 3)


def read_wavefront(path: Path) -> WavefrontMesh:
    """The whole mesh.

    Args:
      path: the file.

    Raises:
      ConversionError: if it is missing or damaged.
    """
    lines = _lines(path)
    vertices = _numbers(path, [line for line in lines if line.startswith(b"v ")], 3)
    uv = _numbers(path, [line for line in lines if line.startswith(b"vt ")], 2)
    materials, current = {"": 0}, 0
    corners, corners_uv, of_material = [], [], []
    for line in lines:
        if line.startswith(b"usemtl"):
            name = line[6:].strip().decode("ascii", "replace")
            current = materials.setdefault(name, len(materials))
        elif line.startswith(b"f "):
            polygon = line.split()[1:]
            if not 3 <= len(polygon) <= _MAX_CORNERS:
                raise _damaged(path, f"a polygon of {len(polygon)} corners")
            try:
                parts = [corner.split(b"/") for corner in polygon]
                index = [int(part[0]) for part in parts]
                index_uv = [int(part[1]) if len(part) > 1 and part[1] else 0 for part in parts]
            except ValueError as error:
                raise _damaged(path, "a malformed polygon") from error
            for last in range(2, len(index)):
                corners.append((index[0], index[last - 1], index[last]))
                corners_uv.append((index_uv[0], index_uv[last - 1], index_uv[last]))
                of_material.append(current)
    faces = np.array(corners, np.int64).reshape(-1, 3) - 1
    faces_uv = np.array(corners_uv, np.int64).reshape(-1, 3) - 1
    if not len(faces) or faces.min() < 0 or faces.max() >= len(vertices):
        raise _damaged(path, f"{len(vertices)} vertices and polygons that do not fit them")
    if faces_uv.min() < 0:
        faces_uv = faces_uv[:0]
    elif faces_uv.max() >= len(uv):
        raise _damaged(path, "polygons beyond the texture coordinates")
    return WavefrontMesh(
        vertices=vertices,
        uv=uv,
        faces=faces.astype(np.int32),
        faces_uv=faces_uv.astype(np.int32),
        face_material=np.array(of_material, np.int32),
        materials=tuple(materials),
    )
