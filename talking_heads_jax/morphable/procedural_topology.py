"""Triangles of the procedural head, their parts, and where they lie in the texture."""

from collections.abc import Mapping

import numpy as np

from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.procedural_assembly import (
    LIP_DEPTHS,
    PATCH_PARTS,
    head_positions,
)
from talking_heads_jax.morphable.procedural_grid import COLUMNS, ROWS, skin_grid
from talking_heads_jax.morphable.procedural_skin import (
    EYE_ACROSS,
    EYE_DOWN,
    MOUTH_CORNER,
    HeadShape,
)

# Rectangles of the texture, u0 v0 u1 v1; both eyes and both ears share theirs.
_ATLAS: Mapping[str, tuple[float, float, float, float]] = {
    "skin": (0.0, 0.0, 1.0, 0.68),
    "hair": (0.005, 0.69, 0.42, 0.995),
    "torso": (0.43, 0.69, 0.65, 0.995),
    "eye": (0.66, 0.69, 0.82, 0.85),
    "ear": (0.83, 0.69, 0.995, 0.85),
    "upper_teeth": (0.66, 0.86, 0.82, 0.92),
    "lower_teeth": (0.66, 0.93, 0.82, 0.995),
    "cavity": (0.83, 0.86, 0.90, 0.995),
    "tongue": (0.91, 0.86, 0.995, 0.92),
    "glasses": (0.91, 0.93, 0.995, 0.995),
}


def _part(name: str) -> int:
    return PARTS.index(name)


def _triangles(quads: np.ndarray) -> np.ndarray:
    """(2n 3) from (n 4) corners in order around each cell."""
    return np.stack([quads[:, [0, 2, 1]], quads[:, [0, 3, 2]]], axis=1).reshape(-1, 3)


def _grid_quads(ids: np.ndarray) -> np.ndarray:
    return np.stack([ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]], axis=-1).reshape(
        -1, 4
    )


def _in_atlas(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u0, v0, u1, v1 = _ATLAS[name]
    return np.stack([u0 + (u1 - u0) * u, v0 + (v1 - v0) * v], axis=-1)


def head_topology() -> dict[str, np.ndarray]:
    """Faces with their parts and texture coordinates, and the part of every vertex."""
    grid = skin_grid()
    neutral, patches = head_positions(HeadShape())
    faces, faces_uv, face_part, uv = [], [], [], []
    num_uv = 0

    quads, row, column = grid.quads()
    table = np.arange(len(ROWS) * len(COLUMNS)).reshape(len(ROWS), len(COLUMNS))
    v, u = np.meshgrid(
        np.linspace(0.004, 0.996, len(ROWS)),
        np.linspace(0.002, 0.998, len(COLUMNS)),
        indexing="ij",
    )
    uv.append(_in_atlas("skin", u, v).reshape(-1, 2))
    num_uv += table.size
    across = np.abs(0.5 * (COLUMNS[column] + COLUMNS[column + 1]))
    down = 0.5 * (ROWS[row] + ROWS[row + 1])
    part = np.full(len(quads), _part("face_skin"))
    part[(down > 9.9) | (across > 7.0)] = _part("scalp")
    part[down < -7.6] = _part("neck")
    part[(across > 8.5) & (down < -4.5)] = _part("neck")
    eye = ((across - EYE_ACROSS) / 2.0) ** 2 + ((down - EYE_DOWN - 0.1) / 1.15) ** 2
    part[eye < 1] = _part("eyelids")
    arch = np.clip(1 - (across / (MOUTH_CORNER + 0.15)) ** 2.2, 0, 1)
    lips = (down < -3.25 + 0.75 * arch**0.8) & (down > -3.55 - 1.0 * arch**0.8)
    part[lips & (across < MOUTH_CORNER + 0.1)] = _part("lips")
    quads_uv = np.stack(
        [
            table[row, column],
            table[row, column + 1],
            table[row + 1, column + 1],
            table[row + 1, column],
        ],
        axis=-1,
    )
    faces.append(_triangles(quads))
    faces_uv.append(_triangles(quads_uv))
    face_part.append(np.repeat(part, 2))

    start = grid.count
    rims = [(name, side) for name in ("eye_L", "eye_R") for side in (0, 1)]
    for name, side in rims:
        edge = grid.slit[name][side]
        ring = start + np.arange(len(edge))
        start += len(edge)
        columns = np.flatnonzero(np.isin(grid.above[grid.eye_row], grid.slit[name][0]))
        strip = np.stack([ring, edge]) if side else np.stack([edge, ring])
        coordinates = np.broadcast_to(table[grid.eye_row, columns], strip.shape)
        faces.append(_triangles(_grid_quads(strip)))
        faces_uv.append(_triangles(_grid_quads(coordinates)))
        face_part.append(np.full(2 * (len(edge) - 1), _part("eyelids")))
    columns = np.flatnonzero(np.isin(grid.above[grid.mouth_row], grid.slit["mouth"][0]))
    for side in (0, 1):
        previous = grid.slit["mouth"][side]
        for _ in LIP_DEPTHS:
            ring = start + np.arange(len(previous))
            start += len(previous)
            strip = np.stack([ring, previous]) if side else np.stack([previous, ring])
            coordinates = np.broadcast_to(table[grid.mouth_row, columns], strip.shape)
            faces.append(_triangles(_grid_quads(strip)))
            faces_uv.append(_triangles(_grid_quads(coordinates)))
            face_part.append(np.full(2 * (len(previous) - 1), _part("lips")))
            previous = ring
    # The lower rims run the other way round; orientation of the skin: outwards.
    for patch, (part_name, region) in zip(patches, PATCH_PARTS, strict=True):
        rows, columns_ = patch.points.shape[:2]
        ids = start + np.arange(rows * columns_).reshape(rows, columns_)
        start += rows * columns_
        table = num_uv + np.arange(rows * columns_).reshape(rows, columns_)
        num_uv += rows * columns_
        if region == "eye":  # a disc, so that the iris is round in the texture
            angle = np.linspace(0, 2 * np.pi, columns_)
            radius = 0.5 * np.linspace(0.0, 1.0, rows)[:, None]
            u, v = 0.5 + radius * np.cos(angle), 0.5 - radius * np.sin(angle)
        else:
            v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns_), indexing="ij")
        uv.append(_in_atlas(region, u, v).reshape(-1, 2))
        corners, corners_uv = _grid_quads(ids), _grid_quads(table)
        if patch.flipped:
            corners, corners_uv = corners[:, ::-1], corners_uv[:, ::-1]
        faces.append(_triangles(corners))
        faces_uv.append(_triangles(corners_uv))
        face_part.append(np.full(2 * len(corners), _part(part_name)))
    all_faces = np.concatenate(faces)
    all_parts = np.concatenate(face_part)
    real = np.array([len(set(face)) == 3 for face in all_faces.tolist()])
    all_faces, all_parts = all_faces[real], all_parts[real]
    vertex_part = np.zeros(len(neutral), np.uint8)
    vertex_part[all_faces.ravel()] = np.repeat(all_parts, 3)
    return {
        "faces": all_faces.astype(np.int32),
        "faces_uv": np.concatenate(faces_uv)[real].astype(np.int32),
        "uv": np.concatenate(uv).astype(np.float32),
        "face_part": all_parts.astype(np.uint8),
        "vertex_part": vertex_part,
    }
