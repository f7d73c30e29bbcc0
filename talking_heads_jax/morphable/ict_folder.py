"""ICT-FaceKit's FaceXModel folder → the keys of a clean npz, with a skeleton it does not have.

The folder holds a neutral mesh, one mesh per identity mode (one standard deviation away from it)
and one per expression, all of the same vertices. The skeleton is derived: under `jawOpen` the lower
teeth move as a rigid body, which gives the jaw's axis and angle; the scleras are spheres, which
gives the eyes; the neck is a choice. Letters: v vertices, f faces, K shape, E expression.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from talking_heads_jax.errors import ConversionError, requirement
from talking_heads_jax.morphable.landmarks import mirror_vertices
from talking_heads_jax.morphable.procedural_skin import smoothstep
from talking_heads_jax.morphable.wavefront import (
    WavefrontMesh,
    read_wavefront,
    read_wavefront_vertices,
)

NEUTRAL_FILE = "generic_neutral_mesh.obj"
JOINT_NAMES = ("root", "neck", "jaw", "eye_L", "eye_R")
#: The 53 expressions of the model's own configuration; other files of the folder are left alone.
EXPRESSIONS = (
    *("browDown_L", "browDown_R", "browInnerUp_L", "browInnerUp_R", "browOuterUp_L"),
    *("browOuterUp_R", "cheekPuff_L", "cheekPuff_R", "cheekSquint_L", "cheekSquint_R"),
    *("eyeBlink_L", "eyeBlink_R", "eyeLookDown_L", "eyeLookDown_R", "eyeLookIn_L"),
    *("eyeLookIn_R", "eyeLookOut_L", "eyeLookOut_R", "eyeLookUp_L", "eyeLookUp_R"),
    *("eyeSquint_L", "eyeSquint_R", "eyeWide_L", "eyeWide_R", "jawForward", "jawLeft"),
    *("jawOpen", "jawRight", "mouthClose", "mouthDimple_L", "mouthDimple_R", "mouthFrown_L"),
    *("mouthFrown_R", "mouthFunnel", "mouthLeft", "mouthLowerDown_L", "mouthLowerDown_R"),
    *("mouthPress_L", "mouthPress_R", "mouthPucker", "mouthRight", "mouthRollLower"),
    *("mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmile_L", "mouthSmile_R"),
    *("mouthStretch_L", "mouthStretch_R", "mouthUpperUp_L", "mouthUpperUp_R", "noseSneer_L"),
    "noseSneer_R",
)

_NECK_PIVOT = (0.0, -5.0, 0.0)
_NECK_FROM, _NECK_TO = -13.5, -6.0  # heights between which the skin goes over to the skull
_STILL = 0.05  # share of the largest motion below which teeth belong to the upper jaw
_JAW_NEIGHBOURS = 2.0  # cm around the jaw's axis whose motion the joint follows
_SMALL_MOTION = 0.02  # cm², squared motion below which the jaw's share of it means nothing
_LICENCE_FILES = ("LICENSE", "LICENSE.txt", "../LICENSE", "../LICENSE.txt")


@dataclasses.dataclass(frozen=True)
class FolderLayout:
    """Which vertices of the folder's meshes are what.

    Attributes:
      parts: sub-mesh names and how many vertices each has, in order from vertex 0.
      num_vertices: of the files; what lies beyond the named parts is dropped.
      landmarks68: vertex numbers in Multi-PIE order.
    """

    parts: tuple[tuple[str, int], ...]
    num_vertices: int
    landmarks68: tuple[int, ...]


#: The light model of December 2020; lashes and layers around the eyes follow the named parts.
LAYOUT = FolderLayout(
    parts=(
        ("face", 9409),
        ("head_neck", 1839),
        ("mouth_socket", 2046),
        ("eye_socket_L", 384),
        ("eye_socket_R", 384),
        ("gums_tongue", 2977),
        ("teeth", 4412),
        ("eyeball_L", 1570),
        ("eyeball_R", 1570),
    ),
    num_vertices=26_719,
    landmarks68=(
        *(1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927),
        *(3924, 2608, 3272, 4088, 3443, 268, 493, 1914, 2044, 1401, 3615, 4240),
        *(4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360),
        *(1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732),
        *(5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957, 5841),
        *(5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),
    ),
)


def find_model_folder(folder: Path) -> Path | None:
    """The folder that holds the neutral mesh: the given one, or its FaceXModel; None if neither.

    Args:
      folder: what the user named.
    """
    for place in (folder, folder / "FaceXModel"):
        if (place / NEUTRAL_FILE).is_file():
            return place
    return None


def _refuse(what: str, constraint: str, got: object) -> ConversionError:
    remedy = "Give the FaceXModel folder of an unchanged checkout of ICT-FaceKit."
    return ConversionError(requirement(what, constraint, got, remedy))


def arrays_from_folder(folder: Path, *, layout: FolderLayout = LAYOUT) -> dict[str, np.ndarray]:
    """Reads a FaceXModel folder.

    Args:
      folder: holds generic_neutral_mesh.obj, identity000.obj, … and one .obj per expression.
      layout: of its vertices.

    Returns:
      The keys of docs/morphable.md, bases as int8 with a scale per direction.

    Raises:
      ConversionError: if a file is missing, damaged or of another number of vertices.
    """
    mesh = read_wavefront(folder / NEUTRAL_FILE)
    if len(mesh.vertices) != layout.num_vertices:
        raise _refuse(NEUTRAL_FILE, f"have {layout.num_vertices} vertices", len(mesh.vertices))
    kept = sum(count for _, count in layout.parts)
    template = mesh.vertices[:kept]
    identities = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
    missing = [name for name in EXPRESSIONS if not (folder / f"{name}.obj").is_file()]
    if not identities or missing:
        got = f"{len(identities)} identity meshes; without {', '.join(missing[:5]) or 'none'}"
        raise _refuse(f"folder '{folder.name}'", "hold the model's meshes", got)

    def displacements(paths: Sequence[Path]) -> np.ndarray:
        found = np.empty((len(paths), kept, 3), np.float32)
        for row, path in zip(found, paths, strict=True):
            vertices = read_wavefront_vertices(path)
            if len(vertices) != layout.num_vertices:
                raise _refuse(path.name, f"have {layout.num_vertices} vertices", len(vertices))
            row[:] = vertices[:kept] - template
        return found

    shapes = displacements(identities)
    expressions = displacements([folder / f"{name}.obj" for name in EXPRESSIONS])
    part = np.repeat(np.arange(len(layout.parts)), [count for _, count in layout.parts])
    opened = expressions[EXPRESSIONS.index("jawOpen")]
    skeleton = derive_skeleton(
        template, opened, shapes, part, tuple(name for name, _ in layout.parts)
    )
    licence = next((folder / n for n in _LICENCE_FILES if (folder / n).is_file()), None)
    text = licence.read_text(errors="replace") if licence else "MIT License (ICT-FaceKit)"
    return {
        "v_template": template.astype(np.float32),
        **_kept_faces(mesh, kept, part),
        "part_names": np.array([name for name, _ in layout.parts]),
        "vertex_part": part.astype(np.uint8),
        **_quantised("shapedirs", shapes),
        **_quantised("exprdirs", expressions),
        "expr_names": np.array(EXPRESSIONS),
        "landmarks68": np.array(layout.landmarks68, np.int32),
        **skeleton,
        "mirror": mirror_vertices(template),
        "units": np.array("centimetres; +y up, +z out of the nose, +x = the subject's left"),
        "license": np.array(text[:20_000]),
        "source": np.array("ICT-FaceKit, FaceXModel folder"),
    }


def _kept_faces(mesh: WavefrontMesh, kept: int, part: np.ndarray) -> dict[str, np.ndarray]:
    """Triangles of the kept vertices, with parts, materials and texture coordinates."""
    inside = (mesh.faces < kept).all(axis=1)
    if not len(mesh.faces_uv) or not inside.any():
        raise _refuse(NEUTRAL_FILE, "have texture coordinates", "none")
    rows, faces_uv = np.unique(mesh.faces_uv[inside], return_inverse=True)
    faces = mesh.faces[inside]
    return {
        "faces": faces,
        "faces_uv": faces_uv.reshape(-1, 3).astype(np.int32),
        "uv": mesh.uv[rows].astype(np.float32),
        "face_part": part[faces[:, 0]].astype(np.uint8),
        "face_material": mesh.face_material[inside].astype(np.uint8),
        "material_names": np.array(mesh.materials),
    }


def _quantised(key: str, directions: np.ndarray) -> dict[str, np.ndarray]:
    """int8 with a scale per direction: an error of at most 1/254 of its largest displacement."""
    scale = np.abs(directions).max(axis=(1, 2)) / 127.0
    steps = np.rint(directions / np.where(scale > 0, scale, 1.0)[:, None, None])
    return {f"{key}_i8": steps.astype(np.int8), f"{key}_scale": scale.astype(np.float32)}


def derive_skeleton(
    template: np.ndarray,
    opened: np.ndarray,
    shapes: np.ndarray,
    part: np.ndarray,
    names: Sequence[str],
) -> Mapping[str, np.ndarray]:
    """Joints, how identity moves them, and skinning weights.

    Args:
      template: (v 3).
      opened: (v 3) displacement of `jawOpen`.
      shapes: (K v 3) displacements of the identity modes.
      part: (v,) index into `names`.
      names: of the sub-meshes.

    Raises:
      ConversionError: if the lower teeth do not turn about an axis from ear to ear.
    """
    skin = (part == names.index("face")) | (part == names.index("head_neck"))
    pivot, angle = _jaw_axis(template, opened, part == names.index("teeth"))
    eyes = [part == names.index(name) for name in ("eyeball_L", "eyeball_R")]
    joints = np.stack(
        [
            template[skin].mean(axis=0),
            np.array(_NECK_PIVOT),
            pivot,
            *(_sphere_center(template[eye]) for eye in eyes),
        ]
    )
    near_axis = np.linalg.norm(template[:, 1:] - pivot[1:], axis=1) < _JAW_NEIGHBOURS
    low = skin & (np.abs(template[:, 1] - _NECK_PIVOT[1]) < _JAW_NEIGHBOURS)
    groups = [skin, low, skin & near_axis, *eyes]
    nothing = np.zeros((len(shapes), 3))
    moves = [shapes[:, group].mean(axis=1) if group.any() else nothing for group in groups]

    turned = (template - pivot) @ _turn_about_x(angle).T + pivot - template
    along = (opened * turned).sum(axis=1) / np.maximum((turned**2).sum(axis=1), _SMALL_MOTION)
    jaw = np.clip(along, 0.0, 1.0)
    neck = smoothstep(_NECK_FROM, _NECK_TO, template[:, 1])
    neck[~skin] = 1.0  # what lies inside the head turns with it
    jaw = jaw * neck
    weights = np.zeros((len(template), len(JOINT_NAMES)))
    weights[:, 0], weights[:, 1], weights[:, 2] = 1.0 - neck, neck - jaw, jaw
    for joint, eye in enumerate(eyes, start=3):
        weights[eye] = np.eye(len(JOINT_NAMES))[joint]
    return {
        "joint_names": np.array(JOINT_NAMES),
        "parents": np.array([-1, 0, 1, 1, 1], np.int32),
        "J_template": joints.astype(np.float32),
        "J_shapedirs": np.stack(moves).transpose(0, 2, 1).astype(np.float32),
        "lbs_weights": weights.astype(np.float32),
        "jawopen_angle_rad": np.float32(angle),
    }


def _turn_about_x(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])


def _jaw_axis(
    template: np.ndarray, opened: np.ndarray, teeth: np.ndarray
) -> tuple[np.ndarray, float]:
    """Fixed point and angle of the rotation about x that the lower teeth make."""
    motion = np.linalg.norm(opened, axis=1)
    lower = teeth & (motion > _STILL * motion[teeth].max(initial=0.0))
    before, after = template[lower], template[lower] + opened[lower]
    if len(before) >= 3:
        a, b = before - before.mean(axis=0), after - after.mean(axis=0)
        # The best angle in the y-z plane has a closed form (Kabsch's problem in two dimensions).
        angle = float(
            np.arctan2((a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]).sum(), (a * b)[:, 1:].sum())
        )
        if 0.02 < angle < 1.5:
            turn = _turn_about_x(angle)[1:, 1:]
            shift = after.mean(axis=0)[1:] - turn @ before.mean(axis=0)[1:]
            return np.concatenate([[0.0], np.linalg.solve(np.eye(2) - turn, shift)]), angle
        got = f"a turn by {np.rad2deg(angle):.1f} degrees"
    else:
        got = "no moving teeth"
    raise _refuse("jawOpen.obj", "open the jaw about an axis from ear to ear", got)


def _sphere_center(points: np.ndarray) -> np.ndarray:
    """Centre of the sphere through the back half of an eyeball; cornea and iris lie in front."""
    depth = points[:, 2]
    back = points[depth <= 0.5 * (depth.min() + depth.max())]
    system = np.concatenate([2.0 * back, np.ones((len(back), 1))], axis=1)
    return np.linalg.lstsq(system, (back**2).sum(axis=1), rcond=None)[0][:3]
