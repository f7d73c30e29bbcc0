"""ICT-FaceKit: the folder a user has, the skeleton derived from it, the real file if present."""

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ConversionError
from talking_heads_jax.morphable import ict
from talking_heads_jax.morphable.ict_folder import (
    EXPRESSIONS,
    NEUTRAL_FILE,
    FolderLayout,
    arrays_from_folder,
    find_model_folder,
)
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.registry import model_from_file
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from tests.morphable.toy_models import toy_faces, toy_landmarks, toy_template

_ANGLE, _PIVOT = 0.4, np.array([0.0, -0.5, 1.8])
_SOCKET = 3  # vertices of each small part
_DROPPED = 5  # vertices after the named parts, as lashes are


def _jaw_turn(points):
    cos, sin = np.cos(_ANGLE), np.sin(_ANGLE)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return (points - _PIVOT) @ turn.T + _PIVOT


def _sphere(center):
    rows = [(a, b) for a in np.linspace(0.2, 2.9, 6) for b in np.linspace(0, 5.5, 8)]
    way = np.array([(np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)) for a, b in rows])
    return center + 1.5 * way


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A FaceXModel folder of a few hundred vertices under the real names, and its layout."""
    root = tmp_path_factory.mktemp("ICT-FaceKit") / "FaceXModel"
    root.mkdir()
    rng = np.random.default_rng(0)
    face = toy_template()[:-8]
    skull = face[:20] * [1, 1, -0.5]
    teeth = rng.uniform(-2, 2, (12, 3)) + np.array([0, -3.4, 8])
    small = [rng.uniform(-1, 1, (_SOCKET, 3)) for _ in range(4)]
    eyes = [_sphere([3.1, 3.6, 7.9]), _sphere([-3.1, 3.6, 7.9])]
    pieces = [face, skull, small[0], small[1], small[2], small[3], teeth, *eyes]
    points = np.concatenate([*pieces, rng.uniform(-1, 1, (_DROPPED, 3))])
    names = ("face", "head_neck", "mouth_socket", "eye_socket_L", "eye_socket_R", "gums_tongue")
    names = (*names, "teeth", "eyeball_L", "eyeball_R")
    counts = [len(piece) for piece in pieces]
    starts = dict(zip(names, np.cumsum([0, *counts[:-1]]), strict=True))
    landmarks = toy_landmarks(face)
    layout = FolderLayout(tuple(zip(names, counts, strict=True)), len(points), tuple(landmarks))

    def write(name, vertices, tail=()):
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
        (root / name).write_text("\n".join([*lines, *tail]) + "\n")

    tail = ["vt 0.25 0.75", "vt 1.5 0.5", "vt 0.9 0.9", "usemtl M_Face"]
    tail += [f"f {a + 1}/1/1 {b + 1}/2/1 {c + 1}/3/1" for a, b, c in toy_faces()[:-4].tolist()]
    for name, material in (("eyeball_L", "M_ScleraLeft"), ("eyeball_R", "M_IrisRight")):
        first = starts[name] + 1
        tail += [f"usemtl {material}", f"f {first}/1 {first + 1}/2 {first + 9}/3 {first + 8}/1"]
    last = len(points)
    tail += ["usemtl M_EyeLashes", f"f {last}/1 {last - 1}/2 {last - 2}/3"]
    write(NEUTRAL_FILE, points, tail)
    modes = 0.3 * rng.standard_normal((3, *points.shape))
    for number, mode in enumerate(modes):
        write(f"identity{number:03d}.obj", points + mode)
    opened = points.copy()
    lower = slice(starts["teeth"], starts["teeth"] + 6)
    opened[lower] = _jaw_turn(points[lower])
    for name in EXPRESSIONS:
        moved = opened if name == "jawOpen" else points + 0.01
        write(f"{name}.obj", moved)
    return root, layout, points, modes, lower, starts


def test_arrays_from_folder_is_the_folders_model(folder):
    root, layout, points, modes, _, starts = folder
    assert find_model_folder(root.parent) == root
    arrays = arrays_from_folder(root, layout=layout)
    assert ict.is_ict(arrays)
    kept = sum(count for _, count in layout.parts)
    np.testing.assert_allclose(arrays["v_template"], points[:kept], atol=1e-5)
    assert arrays["faces"].max() < kept
    model = SkinnedFaceModel.from_arrays(arrays)
    assert model.name == "ict" and model.expression_names == EXPRESSIONS
    # One half step of int8, per mode.
    step = np.abs(modes[:, :kept]).max(axis=(1, 2)) / 127
    shape = jnp.zeros((3, 3)).at[jnp.arange(3), jnp.arange(3)].set(1.0)
    coefficients = model.neutral(3)._replace(shape_coeffs=shape)
    found = model.vertices(coefficients) - model.vertices(model.neutral(3))
    for row in range(3):
        first = slice(0, starts["eyeball_L"])  # eyeballs are made smaller
        error = np.abs(found[row, first] - modes[row, first]).max()
        assert error <= 0.51 * step[row] + 1e-5


def test_skeleton_is_found_where_it_is(folder):
    root, layout, points, _, lower, starts = folder
    arrays = arrays_from_folder(root, layout=layout)
    joints = dict(zip(arrays["joint_names"].tolist(), arrays["J_template"], strict=True))
    np.testing.assert_allclose(arrays["jawopen_angle_rad"], _ANGLE, atol=1e-4)
    np.testing.assert_allclose(joints["jaw"], _PIVOT, atol=1e-3)
    np.testing.assert_allclose(joints["eye_L"], [3.1, 3.6, 7.9], atol=1e-3)
    np.testing.assert_allclose(joints["eye_R"], [-3.1, 3.6, 7.9], atol=1e-3)
    np.testing.assert_allclose(arrays["lbs_weights"].sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(arrays["lbs_weights"][lower, 2], 1.0, atol=1e-4)
    eye = slice(starts["eyeball_L"], starts["eyeball_R"])
    assert (arrays["lbs_weights"][eye, 3] == 1).all()
    model = SkinnedFaceModel.from_arrays(arrays)
    pose = model.neutral(1).pose.at[0, 2, 0].set(_ANGLE)
    turned = model.vertices(model.neutral(1)._replace(pose=pose))[0, lower]
    # jawOpen moves the teeth by up to 4 cm, and int8 keeps 1/254 of that.
    np.testing.assert_allclose(turned, _jaw_turn(points[lower]), atol=4 / 254)


def test_with_parts_drops_the_iris_and_shrinks_the_eyes(folder):
    root, layout, *_, starts = folder
    arrays = arrays_from_folder(root, layout=layout)
    found = ict.with_parts(arrays)
    assert len(found["faces"]) == len(arrays["faces"]) - 2  # the quad of M_IrisRight
    assert (found["face_part"][-2:] == PARTS.index("eyeball")).all()
    eye = slice(starts["eyeball_L"], starts["eyeball_R"])
    center = arrays["J_template"][3]
    before = np.linalg.norm(arrays["v_template"][eye] - center, axis=1)
    after = np.linalg.norm(found["v_template"][eye] - center, axis=1)
    np.testing.assert_allclose(after, 0.98 * before, rtol=1e-5)
    same = ict.with_parts(arrays, eyeball_shrink=0.0)
    np.testing.assert_array_equal(same["v_template"], arrays["v_template"])
    assert found["uv"].min() >= 0 and found["uv"].max() <= 1
    # Row 0 of the texture coordinates, in the face's tile: v grows downwards.
    corner = found["uv"][found["faces_uv"][0, 0]]
    np.testing.assert_allclose(corner, [0.75 * 0.25, 0.75 * 0.25], atol=1e-6)


@pytest.mark.parametrize("case", ["missing", "short", "still teeth", "wrong size"])
def test_arrays_from_folder_refuses_an_incomplete_folder(folder, tmp_path, case):
    root, layout, *_ = folder
    copy = tmp_path / "FaceXModel"
    copy.mkdir()
    for path in root.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    words = {"missing": "jawLeft", "short": "vertices", "still teeth": "jawOpen"}
    if case == "missing":
        (copy / "jawLeft.obj").unlink()
    elif case == "short":
        (copy / "identity001.obj").write_text("v 0 0 0\n")
    elif case == "still teeth":
        (copy / "jawOpen.obj").write_bytes((copy / "jawLeft.obj").read_bytes())
    with pytest.raises(ConversionError, match=words.get(case, "26719")):
        if case == "wrong size":
            arrays_from_folder(copy)
        else:
            arrays_from_folder(copy, layout=layout)


@pytest.fixture(scope="module")
def real(shared_folder):
    path = shared_folder / "face3d" / "ict_face.npz"
    if not path.is_file():
        pytest.skip(f"no ICT model at {path}")
    return model_from_file("ict", path)


def test_jaw_joint_of_the_real_model_opens_as_its_expression(real):
    """0.44 cm is what skinning alone with a displacement after it would reach."""
    angle = real.description.jaw_open_angle
    assert np.rad2deg(angle) == pytest.approx(25.33, abs=0.01)
    rest = real.neutral(1)
    number = real.expression_names.index("jawOpen")
    opened = real.vertices(
        rest._replace(expression_coeffs=rest.expression_coeffs.at[0, number].set(1.0))
    )
    turned = real.vertices(rest._replace(pose=rest.pose.at[0, 2, 0].set(angle)))
    assert float(jnp.abs(turned - opened).max()) < 1e-4  # far below 0.44 cm
    assert float(jnp.abs(opened - real.vertices(rest)).max()) > 3.0


def test_real_model_has_every_part_it_should(real):
    present = {PARTS[number] for number in np.unique(real.face_part)}
    wanted = {"face_skin", "eyelids", "eyeball", "lips", "teeth", "mouth_interior", "ears"}
    assert present == wanted | {"scalp", "neck"}
    mirror = real.mirror
    assert (mirror[mirror] == np.arange(len(mirror))).mean() > 0.999
    away = real.template[mirror] * [-1, 1, 1] - real.template
    assert np.abs(away[real.faces.ravel()]).max() < 0.2
