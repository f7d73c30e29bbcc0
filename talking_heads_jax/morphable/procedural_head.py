"""The built-in head: a morphable model made by code alone, under the keys of the clean npz.

Identity modes are derivatives of the surface in the fields of `HeadShape` (one standard deviation
each), hair styles and glasses further modes with weights 0 or 1; expressions are smooth fields on
the average head. The jaw, the neck and the eyes are joints; the lids' blink is an expression. All
of it is original: no scan and no other model went into it.
Letters: v vertices, f faces, K shape modes, E expressions.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.procedural_assembly import (
    LIP_DEPTHS,
    PATCH_PARTS,
    head_positions,
)
from talking_heads_jax.morphable.procedural_grid import landmark_vertices, skin_grid
from talking_heads_jax.morphable.procedural_motion import (
    EXPRESSION_NAMES,
    expression_fields,
    field_coordinates,
    skin_weights,
)
from talking_heads_jax.morphable.procedural_parts import (
    GLASSES,
    HAIR_STYLES,
    Patch,
    glasses,
    hair,
)
from talking_heads_jax.morphable.procedural_skin import (
    SHAPE_NAMES,
    HeadShape,
    eye_center,
    smoothstep,
)
from talking_heads_jax.morphable.procedural_topology import head_topology

JOINT_NAMES = ("root", "neck", "jaw", "eye_L", "eye_R")

_NECK_PIVOT = np.array([0.0, -6.0, -1.2])
_JAW_PIVOT = np.array([0.0, -0.4, 1.6])
# Patches that are each other's mirror image, by their number: eyes, ears, rims, temples.
_MIRRORED_PATCH = {0: 1, 1: 0, 6: 7, 7: 6, 10: 11, 11: 10, 13: 14, 14: 13}


def _weights(patches: list[Patch], neutral: np.ndarray) -> np.ndarray:
    """(v 5) joint weights of all vertices."""
    start = len(field_coordinates()[0])
    weights = np.zeros((len(neutral), 5))
    weights[:start] = skin_weights()
    weights[start:, 1] = 1.0
    for number, patch in enumerate(patches):
        count = patch.points.shape[0] * patch.points.shape[1]
        here = slice(start, start + count)
        region = PATCH_PARTS[number][1]
        y = patch.points.reshape(-1, 3)[:, 1]
        if region == "eye":
            weights[here] = np.eye(5)[3 + number]
        elif region in ("lower_teeth", "tongue"):
            weights[here] = np.eye(5)[2]
        elif region == "cavity":
            jaw = smoothstep(-2.7, -4.1, y)
            weights[here] = np.outer(1 - jaw, np.eye(5)[1]) + np.outer(jaw, np.eye(5)[2])
        elif region == "hair":
            # Hanging hair rests on the shoulders: its ends turn with them by two thirds.
            head = 0.35 + 0.65 * smoothstep(-15.0, -5.0, _long_hair_height())
            weights[here] = np.outer(head, np.eye(5)[1]) + np.outer(1 - head, np.eye(5)[0])
        elif region == "torso":
            weights[here] = np.eye(5)[0]
        start += count
    return weights


def _long_hair_height() -> np.ndarray:
    return hair(HeadShape(), "hair_long").points.reshape(-1, 3)[:, 1]


def _joints(shape: HeadShape) -> np.ndarray:
    return np.stack(
        [
            np.array([0.0, -20.0, -2.0]),
            _NECK_PIVOT,
            _JAW_PIVOT,
            eye_center(shape, 1),
            eye_center(shape, -1),
        ]
    )


def _mirror(patches: list[Patch]) -> np.ndarray:
    """(v,) vertex -> the vertex at its mirror image, and the other side of every slit."""
    grid = skin_grid()
    skin = np.zeros(grid.count, np.int64)
    for table in (grid.above, grid.below):
        skin[table] = table[:, ::-1]
    pieces = [skin]
    start = grid.count
    # Rims follow the columns of their slit: reversed, and for eyes on the other eye.
    eye = len(grid.slit["eye_L"][0])
    for first in (2 * eye, 3 * eye, 0, eye):  # left upper, lower, right upper, lower
        pieces.append(start + first + np.arange(eye)[::-1])
    start += 4 * eye
    lip = len(grid.slit["mouth"][0])
    for row in range(2 * len(LIP_DEPTHS)):
        pieces.append(start + row * lip + np.arange(lip)[::-1])
    start += 2 * len(LIP_DEPTHS) * lip
    counts = [patch.points.shape[0] * patch.points.shape[1] for patch in patches]
    starts = start + np.concatenate([[0], np.cumsum(counts)])
    # Worn, so that the frame's points lie apart.
    placed = [*patches[:-5], *glasses(HeadShape(), "glasses")]
    flip = np.array([-1.0, 1.0, 1.0])
    for number, patch in enumerate(placed):
        other = _MIRRORED_PATCH.get(number, number)
        tree = cKDTree(placed[other].points.reshape(-1, 3))
        pieces.append(starts[other] + tree.query(flip * patch.points.reshape(-1, 3))[1])
    return np.concatenate(pieces).astype(np.int32)


@functools.cache
def procedural_head_arrays() -> Mapping[str, np.ndarray]:
    """The model under the keys of the clean npz; computed once, do not write into it.

    Returns:
      Lengths in cm, +y up, +z out of the nose, +x = the subject's left. `shapedirs` (K v 3) has a
      row per name of `shape_names`: one standard deviation of each dimension of the head, then the
      hair styles and glasses with weights 0 or 1 (a style's weights may add up to 1 at most).
    """
    average = HeadShape()
    neutral, patches = head_positions(average)
    topology = head_topology()
    shapes, joints = [], []
    for name in SHAPE_NAMES:
        high = dataclasses.replace(average, **{name: 1.0})
        low = dataclasses.replace(average, **{name: -1.0})
        shapes.append(0.5 * (head_positions(high)[0] - head_positions(low)[0]))
        joints.append(0.5 * (_joints(high) - _joints(low)))
    for style in HAIR_STYLES:
        shapes.append(head_positions(average, style=style)[0] - neutral)
        joints.append(np.zeros((5, 3)))
    square = head_positions(average, frame="glasses")[0]
    shapes.append(square - neutral)
    shapes.append(head_positions(average, frame="glasses_round")[0] - square)
    joints += [np.zeros((5, 3))] * 2
    arrays = {
        "v_template": neutral.astype(np.float32),
        **topology,
        "part_names": np.array(PARTS),
        "shapedirs": np.stack(shapes).astype(np.float32),
        "shape_names": np.array([*SHAPE_NAMES, *HAIR_STYLES, *GLASSES]),
        "exprdirs": expression_fields(neutral).astype(np.float32),
        "expr_names": np.array(EXPRESSION_NAMES),
        "landmarks68": landmark_vertices(),
        "joint_names": np.array(JOINT_NAMES),
        "parents": np.array([-1, 0, 1, 1, 1], np.int32),
        "J_template": _joints(average).astype(np.float32),
        "J_shapedirs": np.moveaxis(np.stack(joints), 0, -1).astype(np.float32),
        "lbs_weights": _weights(patches, neutral).astype(np.float32),
        "mirror": _mirror(patches),
        "units": np.array("centimetres; +y up, +z out of the nose, +x = the subject's left"),
        "license": np.array("Apache-2.0, part of talking_heads_jax"),
        "source": np.array("talking_heads_jax.morphable.procedural_head"),
    }
    for array in arrays.values():
        array.setflags(write=False)
    return arrays
