"""The keys of a clean npz: checked, dequantised and completed, so that models can trust them.

docs/morphable.md lists the keys. Needs no jax. Letters: v vertices, f faces, j joints, K shape and
E expression coefficients, t texture coordinates.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.morphable.face_regions import derived_parts
from talking_heads_jax.morphable.landmarks import NUM_LANDMARKS
from talking_heads_jax.morphable.parts import PARTS

#: How far rows of skinning weights may be from adding up to 1 (files hold them as float16).
_WEIGHT_SUM_TOLERANCE = 0.01
_REMEDY = "Get the original file again and run: talking-heads assets add FILE."
_OPTIONAL = ("name", "units", "license", "source", "jawopen_angle_rad")

# Prefixes of what only one kind of model has, and checks itself.
_PASSED_ON = ("contour_", "texture_", "normal_")


def refuse_arrays(where: str, what: str, constraint: str, got: object) -> NoReturn:
    """Raises `ArgumentError` about one key of a set of arrays.

    Args:
      where: what to call the set.
      what: the key, or what is wrong with it.
      constraint: what it must be or do.
      got: the offending value.
    """
    raise ArgumentError(requirement(f"{what} in {where}", constraint, got, _REMEDY))


def check_indices(where: str, key: str, indices: np.ndarray, count: int, *, all_used: bool) -> None:
    """Raises unless whole numbers count from 0 to below `count`; names files that count from 1.

    Args:
      where: what to call the set.
      key: of the indices.
      indices: any shape.
      count: of what they point at.
      all_used: whether every one of them should be used, so that none at 0 tells a count from 1.

    Raises:
      ArgumentError: says whether the file counts from 1.
    """
    indices = np.asarray(indices)
    if indices.dtype.kind not in "iu":
        refuse_arrays(where, f"'{key}'", "hold whole numbers", indices.dtype)
    if not indices.size:
        refuse_arrays(where, f"'{key}'", "not be empty", indices.shape)
    low, high = int(indices.min()), int(indices.max())
    if low >= 1 and (high == count or (all_used and high > count)):
        refuse_arrays(
            where,
            f"'{key}'",
            f"count from 0 to {count - 1}",
            f"{low} to {high}: it counts from 1, as Matlab and obj files do; subtract 1",
        )
    if low < 0 or high >= count:
        refuse_arrays(where, f"'{key}'", f"count from 0 to {count - 1}", f"{low} to {high}")


def numbers(arrays: Mapping[str, Any], where: str, key: str) -> np.ndarray:
    """One key of a set of arrays, whose values may be lists.

    Args:
      arrays: the set.
      where: what to call it in messages.
      key: of the array.

    Raises:
      ArgumentError: if it is missing, or no array of numbers.
    """
    if key not in arrays:
        refuse_arrays(where, "the keys", f"hold '{key}'", "none of that name")
    try:
        value = np.asarray(arrays[key])
    except ValueError:
        refuse_arrays(where, f"'{key}'", "hold numbers", "lists of different lengths")
    if value.dtype.kind not in "fiu":
        refuse_arrays(where, f"'{key}'", "hold numbers", value.dtype)
    return value


def _floats(arrays: Mapping[str, Any], where: str, key: str, shape: tuple[Any, ...]) -> np.ndarray:
    value = numbers(arrays, where, key)
    fits = value.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = "(" + ", ".join("*" if size is None else str(size) for size in shape) + ")"
        refuse_arrays(where, f"'{key}'", f"have shape {wanted}", value.shape)
    value = np.ascontiguousarray(value, np.float32)
    if not np.isfinite(value).all():
        refuse_arrays(where, f"'{key}'", "be finite", "NaN or infinity")
    return value


def _basis(arrays: Mapping[str, Any], where: str, key: str, count: int) -> np.ndarray:
    """(n v 3) directions, from floats or from int8 with a scale per direction."""
    if key in arrays:
        return _floats(arrays, where, key, (None, count, 3))
    quantised, scale = f"{key}_i8", f"{key}_scale"
    if quantised in arrays and scale in arrays:
        steps = np.asarray(arrays[quantised])
        if steps.dtype != np.int8 or steps.ndim != 3 or steps.shape[1:] != (count, 3):
            got = f"{steps.dtype} {steps.shape}"
            refuse_arrays(where, f"'{quantised}'", f"be int8 of shape (*, {count}, 3)", got)
        scales = _floats(arrays, where, scale, (len(steps),))
        return steps.astype(np.float32) * scales[:, None, None]
    return np.zeros((0, count, 3), np.float32)


def _unit(arrays: Mapping[str, Any], where: str) -> np.float32:
    """Centimetres in the model's unit of length."""
    key = "centimetres_per_unit"
    if key not in arrays:
        return np.float32(1.0)
    value = numbers(arrays, where, key)
    if value.size != 1 or not 0 < value.item() < np.inf:
        refuse_arrays(where, f"'{key}'", "be one positive number", value)
    return np.float32(value.item())


def _names(arrays: Mapping[str, Any], where: str, key: str, stem: str, count: int) -> np.ndarray:
    if key not in arrays:
        return np.array([f"{stem}_{number:03d}" for number in range(count)], dtype=np.str_)
    names = np.asarray(arrays[key])
    if names.dtype.kind != "U" or names.shape != (count,) or len(set(names.tolist())) != count:
        refuse_arrays(where, f"'{key}'", f"hold {count} different names", names.shape)
    return names


def _skeleton(arrays: Mapping[str, Any], where: str, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Joints, parents and weights; a single root at the origin where a model has none."""
    count, num_shape, num_expression = sizes
    if "J_template" not in arrays:
        return {
            "joint_names": np.array(["root"]),
            "parents": np.array([-1], np.int32),
            "J_template": np.zeros((1, 3), np.float32),
            "J_shapedirs": np.zeros((1, 3, num_shape), np.float32),
            "J_exprdirs": np.zeros((1, 3, num_expression), np.float32),
            "lbs_weights": np.ones((count, 1), np.float32),
        }
    joints = _floats(arrays, where, "J_template", (None, 3))
    num = len(joints)
    parents = np.asarray(arrays.get("parents", ()))
    tree = parents.shape == (num,) and parents.dtype.kind in "iu" and num and parents[0] == -1
    if not tree or any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], 1)):
        constraint = f"name an earlier joint for each of {num}, -1 for the first"
        refuse_arrays(where, "'parents'", constraint, parents.tolist())
    weights = _floats(arrays, where, "lbs_weights", (count, num))
    sums = weights.sum(axis=1, keepdims=True)
    if (weights < 0).any() or np.abs(sums - 1.0).max() > _WEIGHT_SUM_TOLERANCE:
        got = f"sums from {sums.min():.3f} to {sums.max():.3f}"
        refuse_arrays(where, "rows of 'lbs_weights'", "be positive and add up to 1", got)
    result = {
        "joint_names": _names(arrays, where, "joint_names", "joint", num),
        "parents": parents.astype(np.int32),
        "J_template": joints,
        "lbs_weights": weights / sums,
    }
    for key, columns in (("J_shapedirs", num_shape), ("J_exprdirs", num_expression)):
        shape = (num, 3, columns)
        has = key in arrays
        result[key] = _floats(arrays, where, key, shape) if has else np.zeros(shape, np.float32)
    return result


def _landmarks(arrays: Mapping[str, Any], where: str, count: int) -> dict[str, np.ndarray]:
    """Corners (68 3) and barycentric weights (68 3), where the model has landmarks."""
    if "landmarks68" in arrays:
        vertices = np.asarray(arrays["landmarks68"])
        if vertices.shape != (NUM_LANDMARKS,):
            refuse_arrays(where, "'landmarks68'", "hold 68 vertex numbers", vertices.shape)
        check_indices(where, "landmarks68", vertices, count, all_used=False)
        corners = np.repeat(vertices[:, None], 3, axis=1).astype(np.int32)
        weights = np.zeros((NUM_LANDMARKS, 3), np.float32)
        weights[:, 0] = 1.0
        return {"landmark_corners": corners, "landmark_weights": weights}
    if "landmark_corners" not in arrays or "landmark_weights" not in arrays:
        return {}
    corners = np.asarray(arrays["landmark_corners"])
    if corners.shape != (NUM_LANDMARKS, 3):
        refuse_arrays(where, "'landmark_corners'", "have shape (68, 3)", corners.shape)
    check_indices(where, "landmark_corners", corners, count, all_used=False)
    weights = _floats(arrays, where, "landmark_weights", (NUM_LANDMARKS, 3))
    return {"landmark_corners": corners.astype(np.int32), "landmark_weights": weights}


def _texture_coordinates(
    arrays: Mapping[str, Any], where: str, num_faces: int
) -> dict[str, np.ndarray]:
    if "uv" not in arrays or "faces_uv" not in arrays:
        return {}
    uv = _floats(arrays, where, "uv", (None, 2))
    faces_uv = np.asarray(arrays["faces_uv"])
    if faces_uv.shape != (num_faces, 3):
        refuse_arrays(where, "'faces_uv'", f"have shape ({num_faces}, 3)", faces_uv.shape)
    check_indices(where, "faces_uv", faces_uv, len(uv), all_used=True)
    return {"uv": uv, "faces_uv": faces_uv.astype(np.int32)}


def _parts(arrays: Mapping[str, Any], where: str, result: Mapping[str, np.ndarray]) -> np.ndarray:
    """The part of every face: as stored, or read off the skeleton and the landmarks."""
    faces = result["faces"]
    if "face_part" in arrays:
        part = np.asarray(arrays["face_part"])
        if part.shape != (len(faces),) or part.dtype.kind not in "iu":
            refuse_arrays(where, "'face_part'", f"hold {len(faces)} whole numbers", part.shape)
        if part.min() < 1 or part.max() >= len(PARTS):
            got = f"{part.min()} to {part.max()}"
            refuse_arrays(where, "'face_part'", f"lie in 1 to {len(PARTS) - 1}", got)
        return part.astype(np.uint8)
    part = np.full(len(faces), PARTS.index("face_skin"), np.uint8)
    eyes = [n for n, name in enumerate(result["joint_names"]) if name.startswith("eye_")]
    on_eyes = result["lbs_weights"][:, eyes].sum(axis=1) > 0.5
    part[on_eyes[faces].all(axis=1)] = PARTS.index("eyeball")
    if "landmark_corners" not in result:
        return part
    template, weights = result["v_template"], result["landmark_weights"]
    landmarks = (template[result["landmark_corners"]] * weights[..., None]).sum(axis=1)
    return derived_parts(template, faces, landmarks, part)


def first_coefficients(
    arrays: Mapping[str, np.ndarray], num_shape: int | None, num_expression: int | None
) -> dict[str, np.ndarray]:
    """The same model with fewer coefficients.

    Args:
      arrays: from `checked_arrays`.
      num_shape: how many shape coefficients to keep, from the first; None keeps all.
      num_expression: likewise.

    Raises:
      ArgumentError: if the model has fewer.
    """
    result = dict(arrays)
    for what, key, number in (
        ("shape", "shape", num_shape),
        ("expression", "expr", num_expression),
    ):
        if number is None:
            continue
        has = len(arrays[f"{key}dirs"])
        if not 0 <= number <= has:
            raise ArgumentError(
                requirement(f"num_{what}", f"lie in 0 to {has}", number, "Ask for fewer.")
            )
        result[f"{key}dirs"] = arrays[f"{key}dirs"][:number]
        result[f"{key}_names"] = arrays[f"{key}_names"][:number]
        result[f"J_{key}dirs"] = arrays[f"J_{key}dirs"][..., :number]
    return result


def checked_arrays(arrays: Mapping[str, Any], *, where: str) -> dict[str, np.ndarray]:
    """The arrays of a model, complete and consistent.

    Args:
      arrays: the keys of a clean npz; bases as floats or as int8 with scales.
      where: what to call them in messages.

    Returns:
      float32 `shapedirs` (K v 3) and `exprdirs` (E v 3); names for every coefficient and joint;
      joints, or one root; `lbs_weights` that add up to 1; landmarks as corners and barycentric
      weights; `face_part` over `PARTS`; int32 indices. Keys of other kinds pass through.

    Raises:
      ArgumentError: names the key that is missing or does not fit.
    """
    for key in ("v_template", "faces"):
        if key not in arrays:
            refuse_arrays(where, "the keys", f"hold '{key}'", ", ".join(sorted(arrays)) or "none")
    template = _floats(arrays, where, "v_template", (None, 3))
    count = len(template)
    faces = np.asarray(arrays["faces"])
    if faces.ndim != 2 or faces.shape[1] != 3:
        refuse_arrays(where, "'faces'", "have shape (*, 3)", faces.shape)
    check_indices(where, "faces", faces, count, all_used=True)
    shapes = _basis(arrays, where, "shapedirs", count)
    expressions = _basis(arrays, where, "exprdirs", count)
    result: dict[str, Any] = {
        "v_template": template,
        "faces": faces.astype(np.int32),
        "shapedirs": shapes,
        "exprdirs": expressions,
        "shape_names": _names(arrays, where, "shape_names", "shape", len(shapes)),
        "expr_names": _names(arrays, where, "expr_names", "expression", len(expressions)),
        "centimetres_per_unit": _unit(arrays, where),
        **_skeleton(arrays, where, (count, len(shapes), len(expressions))),
        **_landmarks(arrays, where, count),
        **_texture_coordinates(arrays, where, len(faces)),
        **{key: arrays[key] for key in _OPTIONAL if key in arrays},
    }
    result["face_part"] = _parts(arrays, where, result)
    if "posedirs" in arrays:
        features = 9 * (len(result["J_template"]) - 1)
        result["posedirs"] = _floats(arrays, where, "posedirs", (features, 3 * count))
    if "mirror" in arrays:
        mirror = np.asarray(arrays["mirror"])
        if mirror.shape != (count,):
            refuse_arrays(where, "'mirror'", f"have shape ({count},)", mirror.shape)
        check_indices(where, "mirror", mirror, count, all_used=True)
        result["mirror"] = mirror.astype(np.int32)
    for key in set(arrays) - set(result):
        if key.startswith(_PASSED_ON):
            result[key] = np.asarray(arrays[key])
    return result
