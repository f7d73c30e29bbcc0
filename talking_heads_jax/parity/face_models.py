"""Cases of the morphable models, on made-up arrays of a few hundred vertices."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.morphable.bfm import BfmModel, bfm_arrays, project_to_px, split_deep3d
from talking_heads_jax.morphable.flame import DEFAULT_NUM_SHAPE, FlameModel, flame_arrays
from talking_heads_jax.parity.cases import GoldenCase


def pose_flame(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `flame_lbs`: coefficients and pose → vertices and joints."""
    del options
    template = case.input("v_template", (None, 3))
    count = len(template)
    posedirs = case.input("posedirs", (None, 3 * count))
    parents = case.input("parents", (None,))
    where = f"case '{case.name}'"
    fields = {
        "v_template": template,
        "f": np.arange(count - count % 3).reshape(-1, 3),  # the case has no triangles
        "shapedirs": case.input("shapedirs", (count, 3, None)),
        "posedirs": posedirs.T.reshape(count, 3, -1),
        "J_regressor": case.input("J_regressor", (len(parents), count)),
        "kintree_table": np.stack([parents, np.arange(len(parents))]),
        "weights": case.input("weights", (count, len(parents))),
    }
    arrays = flame_arrays(fields, where=where, num_identity=DEFAULT_NUM_SHAPE)
    model = FlameModel.from_arrays(arrays, name="flame")
    both = jnp.asarray(case.input("betas", (None, None)))
    coefficients = FaceCoefficients(
        shape_coeffs=both[:, :DEFAULT_NUM_SHAPE],
        expression_coeffs=both[:, DEFAULT_NUM_SHAPE:],
        pose=jnp.asarray(case.input("pose", (None, 3 * len(parents)))),
    )
    return {
        "vertices": np.asarray(model.vertices(coefficients)),
        "joints": np.asarray(model.posed_joints(coefficients)),
    }


def shade_bfm(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `deep3d_face_model`: the 257 numbers → vertices, colours, landmarks.

    A triangle that names a vertex twice has no normal. The reference normalises what rounding and
    fused multiply-add leave of the cross product of its edges, so that its direction hangs on the
    last bit of the vertices; the colours around such triangles are left out. Real files have none.
    """
    del options
    prefix = "mat_"
    fields = {
        name.removeprefix(prefix): case.input(name)
        for name in case.inputs
        if name.startswith(prefix)
    }
    model = BfmModel.from_arrays(bfm_arrays(fields, where=f"case '{case.name}'"), name="bfm09")
    vector = jnp.asarray(case.input("coeffs", (None, 257)))

    @jax.jit
    def run(model: BfmModel, vector: jax.Array) -> dict[str, jax.Array]:
        vertices = model.camera_vertices(vector)
        return {
            "vertices_camera": vertices,
            "texture": model.albedo(split_deep3d(vector).texture_coeffs),
            "colour": model.colours(vector),
            "landmarks_px": project_to_px(model.landmarks68(vertices)),
        }

    outputs = run(model, vector)
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    faces = model.faces
    flat = (
        (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    )
    undetermined = np.append(flat, False)[np.asarray(model.arrays["normal_faces"])].any(axis=1)
    mask = np.broadcast_to(undetermined[:, None], arrays["colour"].shape)
    arrays["colour"] = np.ma.MaskedArray(arrays["colour"], mask)
    return arrays
