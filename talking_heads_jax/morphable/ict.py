"""ICT-FaceKit's light face model: what its arrays need before they are a head.

The clean npz names sub-meshes and materials, as the original does. Here its faces get the parts of
`parts.PARTS`, its texture tiles one atlas, and the eyes what an opaque renderer needs: the scleras
include the cornea, which would hide the iris discs, so those are dropped (draw the iris on the
sclera by the angle from the eye's axis); and the eyeballs shrink a little, because slivers of
them show through shut lids. Letters: v vertices, f faces, t texture coordinates.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from talking_heads_jax.morphable.face_regions import derived_parts
from talking_heads_jax.morphable.parts import PARTS

ICT_NAME = "ict"
#: Share of the radius by which eyeballs shrink.
EYEBALL_SHRINK = 0.02

_PARTS_OF_MESHES = {
    "face": "face_skin",
    "head_neck": "face_skin",
    "mouth_socket": "mouth_interior",
    "eye_socket_L": "eyelids",
    "eye_socket_R": "eyelids",
    "gums_tongue": "mouth_interior",
    "teeth": "teeth",
    "eyeball_L": "eyeball",
    "eyeball_R": "eyeball",
}
_EYES = {"eyeball_L": "eye_L", "eyeball_R": "eye_R"}
# u0 v0 u1 v1 in the atlas of each texture tile; the eyeballs share the face's tile in the original.
_ATLAS = {
    "face": (0.0, 0.0, 0.75, 0.75),
    "head_neck": (0.75, 0.0, 1.0, 0.5),
    "mouth_socket": (0.75, 0.0, 1.0, 0.5),
    "eye_socket_L": (0.75, 0.0, 1.0, 0.5),
    "eye_socket_R": (0.75, 0.0, 1.0, 0.5),
    "gums_tongue": (0.75, 0.5, 1.0, 0.75),
    "teeth": (0.5, 0.75, 1.0, 1.0),
    "eyeball_L": (0.0, 0.75, 0.25, 1.0),
    "eyeball_R": (0.25, 0.75, 0.5, 1.0),
}


def is_ict(arrays: Mapping[str, Any]) -> bool:
    """Whether arrays carry the sub-meshes of ICT-FaceKit instead of our parts.

    Args:
      arrays: the keys of a clean npz.
    """
    names = np.asarray(arrays.get("part_names", ())).tolist()
    return "material_names" in arrays and set(names) == set(_PARTS_OF_MESHES)


def with_parts(
    arrays: Mapping[str, np.ndarray], *, eyeball_shrink: float = EYEBALL_SHRINK
) -> dict[str, np.ndarray]:
    """The same model with our parts, one texture atlas, no iris discs and smaller eyeballs.

    Args:
      arrays: ICT's, with `is_ict`.
      eyeball_shrink: share of the radius; 0 leaves the eyeballs as they are.

    Returns:
      New arrays; vertices keep their numbers.
    """
    result = dict(arrays)
    meshes = np.asarray(arrays["part_names"]).tolist()
    materials = np.asarray(arrays["material_names"]).tolist()
    iris = [number for number, name in enumerate(materials) if name.startswith("M_Iris")]
    kept = ~np.isin(arrays["face_material"], iris)
    faces = np.asarray(arrays["faces"])[kept]
    mesh = np.asarray(arrays["face_part"])[kept]
    table = np.array([PARTS.index(_PARTS_OF_MESHES[name]) for name in meshes], np.uint8)
    template = np.asarray(arrays["v_template"], np.float32)
    landmarks = template[np.asarray(arrays["landmarks68"])]
    result["faces"] = faces
    result["face_part"] = derived_parts(template, faces, landmarks, table[mesh])
    result["uv"], result["faces_uv"] = _atlas(
        np.asarray(arrays["uv"]), np.asarray(arrays["faces_uv"])[kept], mesh, meshes
    )
    for key in ("part_names", "material_names", "face_material", "vertex_part"):
        result.pop(key, None)
    result["centimetres_per_unit"] = np.float32(1.0)
    if eyeball_shrink:
        result.update(_smaller_eyeballs(arrays, meshes, 1.0 - eyeball_shrink))
    return result


def _atlas(
    uv: np.ndarray, faces_uv: np.ndarray, mesh: np.ndarray, names: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates (t 2), u right and v down, of one square for all tiles."""
    found, rows = [], np.empty_like(faces_uv)
    start = 0
    for number, name in enumerate(names):
        chosen = mesh == number
        if not chosen.any():
            continue
        used, index = np.unique(faces_uv[chosen], return_inverse=True)
        u0, v0, u1, v1 = _ATLAS[name]
        inside = uv[used] - np.floor(uv[used])  # the whole part counts tiles
        u = u0 + (u1 - u0) * inside[:, 0]
        v = v0 + (v1 - v0) * (1.0 - inside[:, 1])
        found.append(np.stack([u, v], axis=-1))
        rows[chosen] = start + index.reshape(-1, 3)
        start += len(used)
    return np.concatenate(found).astype(np.float32), rows


def _smaller_eyeballs(
    arrays: Mapping[str, np.ndarray], names: list[str], factor: float
) -> dict[str, np.ndarray]:
    """Template and identity basis with the eyeballs scaled about their joints."""
    template = np.array(arrays["v_template"], np.float32)
    if "shapedirs" in arrays:
        shapes = np.array(arrays["shapedirs"], np.float32)
    else:
        steps = np.asarray(arrays["shapedirs_i8"]).astype(np.float32)
        shapes = steps * np.asarray(arrays["shapedirs_scale"], np.float32)[:, None, None]
    joints = np.asarray(arrays["joint_names"]).tolist()
    for mesh, joint in _EYES.items():
        inside = np.flatnonzero(np.asarray(arrays["vertex_part"]) == names.index(mesh))
        center = np.asarray(arrays["J_template"])[joints.index(joint)]
        moves = np.asarray(arrays["J_shapedirs"])[joints.index(joint)].T[:, None]  # (K 1 3)
        template[inside] = center + factor * (template[inside] - center)
        shapes[:, inside] = moves + factor * (shapes[:, inside] - moves)
    return {"v_template": template, "shapedirs": shapes}
