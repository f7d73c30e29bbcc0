"""One head under every convention: the same pixels. References: float64, from the definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry import eg3d_cameras as eg3d
from talking_heads_jax.geometry import estimator_cameras as estimators
from talking_heads_jax.geometry.cameras import (
    EG3D_RADIUS,
    camera25_from_camera,
    camera_from_camera25,
    camera_points,
    camera_relative_to,
    clip_from_camera_points,
    frontal_camera,
    head_rotation_from_angles,
)
from talking_heads_jax.geometry.deep3d_template import TEMPLATE_FIVE_POINTS, five_points
from talking_heads_jax.geometry.estimator_cameras import HeadPose, WeakPerspective
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.morphable.procedural_head import procedural_head_arrays
from talking_heads_jax.ops.rasterizer import rasterize

# The bound that the conventions are held to. Float32 leaves about 1e-4 px at these sizes.
SAME_PX = 0.01
NOSE, CHIN = 30, 8

YAW_DEG = np.arange(-60, 61, 15)
_RNG = np.random.default_rng(0)
ANGLES = np.deg2rad(
    np.stack(
        [YAW_DEG, _RNG.uniform(-30, 30, len(YAW_DEG)), _RNG.uniform(-25, 25, len(YAW_DEG))], axis=-1
    )
)
DEEP3D_ANGLES = np.stack([-ANGLES[:, 1], ANGLES[:, 0], -ANGLES[:, 2]], axis=-1)
TRANSLATION_DM = _RNG.uniform(-0.4, 0.4, (len(YAW_DEG), 3))


def run(function, *arguments, **static):
    """The function compiled as a whole: operation by operation takes ten times as long."""
    return jax.jit(functools.partial(function, **static))(*arguments)


@pytest.fixture(scope="module")
def head():
    """(b n 3) points of the built-in head at rest, centimetres; the 68 landmarks come first."""
    arrays = procedural_head_arrays()
    template = np.float64(arrays["v_template"])
    head = template[template[:, 1] > -15]  # the shoulders would leave the picture
    points = np.concatenate([template[arrays["landmarks68"]], head[::60]])
    return np.broadcast_to(points, (len(ANGLES), *points.shape))


def turned(points, angles):
    """Yaw about y, pitch about -x, roll about -z, in the model's axes; pitch first."""
    yaw, pitch, roll = np.moveaxis(np.asarray(angles), -1, 0)
    turn = Rotation.from_euler("ZYX", np.stack([-roll, yaw, -pitch], axis=-1)).as_matrix()
    return np.einsum("bij,bnj->bni", turn, points)


def deep3d_px(points_cm):
    """Deep3DFaceRecon's projection: rows times (Rz Ry Rx)^T, camera at 10 dm, x right, y up."""
    turn = Rotation.from_euler("xyz", DEEP3D_ANGLES).as_matrix()  # lower case: about fixed axes
    moved = (points_cm / 10) @ np.swapaxes(turn, 1, 2) + TRANSLATION_DM[:, None]
    plane = 1015.0 * moved[..., :2] / (10.0 - moved[..., 2:])
    return np.stack([112.0 + plane[..., 0], 112.0 - plane[..., 1]], axis=-1)


def zoomed_to_eg3d(px):
    """Of Deep3D's 224 crop, whose side is 224 · 300 / 102 of EG3D's canvas, 700 of which is 512."""
    return (px - 112.0) * (300 / 102) * (512 / 700) + 256.0


def seen_by_camera25(camera25, world, size):
    """Pinhole projection by EG3D's 25 numbers, float64."""
    numbers = np.asarray(camera25, np.float64)
    cam2world, intrinsics = numbers[:, :16].reshape(-1, 4, 4), numbers[:, 16:].reshape(-1, 3, 3)
    seen = (np.asarray(world, np.float64) - cam2world[:, None, :3, 3]) @ cam2world[:, :3, :3]
    plane = np.einsum("bij,bnj->bni", intrinsics, seen)
    return size * plane[..., :2] / plane[..., 2:]


@pytest.fixture(scope="module")
def pose():
    return run(
        estimators.head_pose_from_deep3d,
        DEEP3D_ANGLES.astype(np.float32),
        TRANSLATION_DM.astype(np.float32),
    )


def apart(a, b):
    """Largest distance of two sets of pixels."""
    return float(
        np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=-1).max()
    )


def test_deep3d_and_our_pinhole_draw_the_same_pixels(head, pose):
    np.testing.assert_allclose(pose.angles, ANGLES, atol=1e-6)
    # Our form, from its definition: turned, then placed before a camera with y down.
    seen = turned(head, ANGLES) * [1, -1, -1] + np.asarray(pose.position, np.float64)[:, None]
    ours = 1015.0 * seen[..., :2] / seen[..., 2:] + 112.0
    expected = deep3d_px(head)
    assert apart(ours, expected) < SAME_PX
    lens = {"focal_px": 1015.0, "principal_px": (112.0, 112.0)}
    assert apart(run(estimators.project_head, np.float32(head), pose, **lens), expected) < SAME_PX
    assert np.ptp(expected[..., 0]) > 150  # the heads fill the picture


@pytest.mark.parametrize("mode", ["none", "orig", "cor"])
def test_eg3ds_25_numbers_draw_the_same_pixels(head, pose, mode):
    view = run(eg3d.camera25_from_head_pose, pose, mode=mode)
    # World points from the published mapping; the scale from the camera it was normalised by.
    turn = Rotation.from_euler("xyz", DEEP3D_ANGLES).as_matrix()
    away = np.array([0, 0, 10.0]) - TRANSLATION_DM
    offset = np.array([0, 0.006, 0.161])
    center = np.array([0, 0, 0.175]) if mode == "cor" else np.zeros(3)
    place = 0.27 * np.einsum("bji,bj->bi", turn, away) + offset
    scale = np.ones(len(place))
    if mode != "none":
        scale = 2.7 / np.linalg.norm(place - center, axis=-1)
    world = center + scale[:, None, None] * (0.027 * head + offset - center)
    np.testing.assert_allclose(view.scale, scale, rtol=1e-6)
    expected = zoomed_to_eg3d(deep3d_px(head))
    assert apart(seen_by_camera25(view.camera25, world, 512), expected) < SAME_PX
    ours = run(eg3d.eg3d_points, np.float32(head), view.scale, mode=mode)
    assert apart(seen_by_camera25(view.camera25, ours, 512), expected) < SAME_PX
    if mode != "none":  # the scale is not decoration
        unscaled = 0.027 * head + offset
        assert apart(seen_by_camera25(view.camera25, unscaled, 512), expected) > 2


@pytest.mark.parametrize("mode", ["none", "orig", "cor"])
def test_head_pose_comes_back_from_25_numbers(pose, mode):
    view = run(eg3d.camera25_from_head_pose, pose, mode=mode)
    again = run(
        lambda view: eg3d.head_pose_from_camera25(view.camera25, scale=view.scale, mode=mode), view
    )
    np.testing.assert_allclose(again.angles, ANGLES, atol=2e-6)
    np.testing.assert_allclose(again.position, pose.position, atol=2e-3)  # of 100 cm, float32
    angles, translation = run(estimators.deep3d_from_head_pose, again)
    np.testing.assert_allclose(angles, DEEP3D_ANGLES, atol=2e-6)
    np.testing.assert_allclose(translation, TRANSLATION_DM, atol=2e-4)


def test_modes_put_the_camera_where_they_say(pose):
    places = {}
    for mode in eg3d.EG3D_MODES:
        camera25 = np.asarray(run(eg3d.camera25_from_head_pose, pose, mode=mode).camera25)
        places[mode] = camera25[:, :16].reshape(-1, 4, 4)
        np.testing.assert_allclose(
            camera25[:, 16:], np.tile([4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1], (9, 1)), atol=1e-4
        )
    radius = np.linalg.norm(places["orig"][:, :3, 3], axis=-1)
    np.testing.assert_allclose(radius, 2.7, rtol=1e-6)
    for mode in ("cor", "simplify"):
        offset = places[mode][:, :3, 3] - [0, 0, 0.175]
        np.testing.assert_allclose(np.linalg.norm(offset, axis=-1), 2.7, rtol=1e-6)
    # 'simplify': forward through the point, the picture's x axis level, y down, right-handed.
    axes = places["simplify"][:, :3, :3]
    forward = -(places["simplify"][:, :3, 3] - [0, 0, 0.175]) / 2.7
    np.testing.assert_allclose(axes[..., 2], forward, atol=1e-6)
    np.testing.assert_allclose(axes[:, 1, 0], 0, atol=1e-7)
    assert (axes[:, 1, 1] < 0).all()
    np.testing.assert_allclose(np.linalg.det(axes), 1, atol=1e-5)


def test_frontal_face_has_the_published_camera():
    """Angles and translation zero: (0, 0.006, 0.161) + 0.27 · (0, 0, 10), axes diag(1, -1, -1)."""
    pose = run(estimators.head_pose_from_deep3d, np.zeros((1, 3)), np.zeros((1, 3)))
    camera25 = np.asarray(run(eg3d.camera25_from_head_pose, pose).camera25)[0, :16].reshape(4, 4)
    np.testing.assert_allclose(camera25[:3, :3], np.diag([1, -1, -1]), atol=1e-7)
    np.testing.assert_allclose(camera25[:3, 3], [0, 0.006, 2.861], atol=1e-6)


JOINT = np.array([[0.002, -0.012, -0.035]])  # FLAME's root lies behind and below its origin, metres
CAM = np.stack([np.linspace(6, 10, 9), *_RNG.uniform(-0.03, 0.03, (2, 9))], axis=-1)
GLOBAL_POSE = Rotation.from_euler(
    "ZYX", np.stack([-ANGLES[:, 2], ANGLES[:, 0], -ANGLES[:, 1]], axis=-1)
).as_rotvec()


@pytest.mark.parametrize("joint", [None, JOINT])
def test_deca_and_weak_perspective_draw_the_same_pixels(head, joint):
    about = np.zeros(3) if joint is None else joint[0]
    metres = (head / 100 - about) @ np.swapaxes(
        Rotation.from_rotvec(GLOBAL_POSE).as_matrix(), 1, 2
    ) + about
    plane = CAM[:, None, :1] * (metres[..., :2] + CAM[:, None, 1:]) * [1, -1]
    expected = (0.5 * plane + 0.5) * 224 + 0.5
    weak = run(
        estimators.weak_perspective_from_deca,
        np.float32(GLOBAL_POSE),
        np.float32(CAM),
        root_joint=joint,
    )
    np.testing.assert_allclose(weak.angles, ANGLES, atol=1e-6)
    # The definition: px = offset + scale · (x, -y) of the turned head.
    scale = np.asarray(weak.scale_px, np.float64)[:, None, None]
    ours = np.asarray(weak.offset_px)[:, None] + scale * turned(head, ANGLES)[..., :2] * [1, -1]
    assert apart(ours, expected) < SAME_PX
    assert apart(run(estimators.project_head_weakly, np.float32(head), weak), expected) < SAME_PX
    pose, cam = run(estimators.deca_from_weak_perspective, weak, root_joint=joint)
    np.testing.assert_allclose(pose, GLOBAL_POSE, atol=2e-6)
    np.testing.assert_allclose(cam, CAM, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("anchor", [(0.0, 0.0, 0.0), (0.5, -1.0, 9.0)])
def test_weak_perspective_is_the_pinhole_at_the_anchors_depth(head, anchor):
    weak = WeakPerspective(
        ANGLES, np.linspace(3, 9, 9), 128 + 20 * np.sin(np.arange(18.0)).reshape(9, 2)
    )
    lens = {"focal_px": 1091.7, "principal_px": (128.0, 120.0), "anchor": anchor}
    pose = run(estimators.head_pose_from_weak_perspective, weak, **lens)
    back = run(estimators.weak_perspective_from_head_pose, pose, **lens)
    np.testing.assert_allclose(back.scale_px, weak.scale_px, rtol=1e-6)
    np.testing.assert_allclose(back.offset_px, weak.offset_px, atol=1e-3)
    # Points at the anchor's depth: undo the turn of a flat shape.
    yaw, pitch, roll = np.moveaxis(ANGLES, -1, 0)
    turn = Rotation.from_euler("ZYX", np.stack([-roll, yaw, -pitch], axis=-1)).as_matrix()
    flat = head[:, :68] * [1, 1, 0] + (turn @ anchor)[:, None] * [0, 0, 1]
    points = np.einsum("bji,bnj->bni", turn, flat)
    seen = weak.scale_px[:, None, None] * flat[..., :2] * [1, -1]
    expected = np.asarray(weak.offset_px)[:, None] + seen
    del lens["anchor"]
    assert apart(run(estimators.project_head, points, pose, **lens), expected) < SAME_PX
    # And the 25 numbers of a crop whose focal length and middle are EG3D's.
    lens = {"focal_px": 256 * eg3d.EG3D_FOCAL, "principal_px": (128.0, 128.0), "anchor": anchor}
    pose = run(estimators.head_pose_from_weak_perspective, weak, **lens)
    view = run(eg3d.camera25_from_head_pose, pose, mode="orig")
    world = run(eg3d.eg3d_points, points, view.scale, mode="orig")
    assert apart(seen_by_camera25(view.camera25, world, 256), expected) < SAME_PX


@pytest.mark.parametrize(
    ("angles_deg", "axis", "sign"),
    [
        ((30, 0, 0), 0, 1),  # yaw > 0: the nose goes to the right edge
        ((0, 30, 0), 1, -1),  # pitch > 0: the nose rises
        ((0, 0, 30), 0, -1),  # roll > 0: clockwise, the chin goes to the left
    ],
)
def test_the_nose_goes_where_the_angles_say_in_every_convention(head, angles_deg, axis, sign):
    angles = np.deg2rad([angles_deg, (0, 0, 0)]).astype(np.float32)
    points = np.float32(head[:2, :68])
    lens = {"focal_px": 1015.0, "principal_px": (112.0, 112.0)}
    still = np.zeros((2, 3), np.float32)
    pose = run(estimators.head_pose_from_deep3d, run(estimators.deep3d_from_angles, angles), still)
    pictures = {"deep3d": run(estimators.project_head, points, pose, **lens)}
    vector = Rotation.from_matrix(np.asarray(head_rotation_from_angles(angles))).as_rotvec()
    weak = run(
        estimators.weak_perspective_from_deca,
        vector.astype(np.float32),
        np.float32([[8, 0, 0], [8, 0, 0]]),
    )
    pictures["deca"] = run(estimators.project_head_weakly, points, weak)
    for mode in eg3d.EG3D_MODES[:3]:
        view = run(eg3d.camera25_from_head_pose, pose, mode=mode)
        world = run(eg3d.eg3d_points, points, view.scale, mode=mode)
        pictures[mode] = seen_by_camera25(view.camera25, world, 224)
    orbit = run(eg3d.camera25_from_angles, angles)
    pictures["orbit"] = seen_by_camera25(orbit, 0.027 * points, 224)
    for name, px in pictures.items():
        mark = NOSE if angles_deg[2] == 0 else CHIN
        moved = np.asarray(px)[0, mark] - np.asarray(px)[1, mark]
        assert sign * moved[axis] > 15, name
        assert np.asarray(px)[1, 45, 0] > np.asarray(px)[1, 36, 0] + 20, (
            name
        )  # left eye at the right


def test_rendered_heads_are_one_picture_and_look_to_the_right_side():
    """The whole mesh, drawn by Deep3D's pinhole, EG3D's camera, weak perspective and DECA's."""
    arrays = procedural_head_arrays()
    vertices, faces = np.float32(arrays["v_template"]), arrays["faces"]
    vertices = np.broadcast_to(vertices, (2, *vertices.shape))
    angles, size = np.deg2rad([[-50, 10, 0], [50, -10, 20]]).astype(np.float32), 64
    lens = {"focal_px": 32 * eg3d.EG3D_FOCAL, "principal_px": (0.0, 0.0)}  # half the picture is 1

    @jax.jit
    def pictures(vertices, angles):
        moved = np.float32([[0.2, -0.1, 0.3], [-0.1, 0.2, -0.2]])
        pose = estimators.head_pose_from_deep3d(estimators.deep3d_from_angles(angles), moved)
        turned = vertices @ jnp.swapaxes(head_rotation_from_angles(angles), 1, 2)
        seen = turned * np.float32([1, -1, -1]) + pose.position[:, None]
        pinhole = jnp.concatenate(
            [2 * eg3d.EG3D_FOCAL * seen[..., :2], seen[..., 2:] - 50, seen[..., 2:]], axis=-1
        )
        view = eg3d.camera25_from_head_pose(pose, mode="orig")
        camera = camera_from_camera25(view.camera25)
        world = eg3d.eg3d_points(vertices, view.scale, mode="orig")
        of_eg3d = clip_from_camera_points(
            camera.intrinsics, camera_points(camera, world), near=1.0, far=9.0
        )
        weak = estimators.weak_perspective_from_head_pose(pose, **lens)
        depth = -turned[..., 2:]
        parallel = jnp.concatenate([estimators.project_head_weakly(vertices, weak) / 32, depth], -1)
        global_pose, cam = estimators.deca_from_weak_perspective(
            weak._replace(offset_px=weak.offset_px + 32.5), size=size
        )
        of_flame = vertices @ jnp.swapaxes(matrix_from_axis_angle(global_pose), 1, 2) / 100
        shifted = of_flame.at[..., :2].add(cam[:, None, 1:])
        deca = cam[:, None, :1] * shifted * np.float32([1, -1, -1])
        ones = jnp.ones_like(depth)
        parallel, deca = (jnp.concatenate([points, ones], -1) for points in (parallel, deca))
        points = jnp.concatenate([pinhole, of_eg3d, parallel, deca])
        return rasterize(points, faces, height=size, width=size).face_id

    pinhole, of_eg3d, parallel, deca = np.asarray(pictures(vertices, angles)).reshape(4, 2, 64, 64)
    for one, other in ((pinhole, of_eg3d), (parallel, deca)):
        covered = (one >= 0) | (other >= 0)
        assert covered.mean() > 0.3
        # Rounding decides pixels whose centre lies on a border of two triangles.
        assert (one == other)[covered].mean() > 0.995
    nose = np.isin(faces, arrays["landmarks68"][27:36]).any(-1)
    for picture in (pinhole, of_eg3d, parallel, deca):
        for drawn, side in zip(picture, (-1, 1), strict=True):
            of_nose = np.argwhere((drawn >= 0) & nose[drawn])
            head = np.argwhere((drawn >= 0) & (np.arange(size)[:, None] < 48))
            assert side * (of_nose[:, 1].mean() - head[:, 1].mean()) > 4


def test_camera25_from_angles_circles_the_head():
    camera25 = run(eg3d.camera25_from_angles, ANGLES.astype(np.float32), focal=3.0)
    np.testing.assert_allclose(run(eg3d.angles_from_camera25, camera25), ANGLES, atol=1e-6)
    place = np.asarray(camera25)[:, :16].reshape(-1, 4, 4)[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(place, axis=-1), EG3D_RADIUS, rtol=1e-6)
    # As the synthetic set writes it: the camera relative to a head that turns about its middle.
    rotation = head_rotation_from_angles(ANGLES.astype(np.float32))
    relative = camera_relative_to(
        frontal_camera(110.0, 3.0), rotation, np.zeros((9, 3), np.float32), scale=EG3D_RADIUS / 110
    )
    np.testing.assert_allclose(camera25, camera25_from_camera(relative), atol=1e-6)
    aimed = run(eg3d.camera25_from_angles, ANGLES.astype(np.float32), target=(0, 0, 0.2))
    np.testing.assert_allclose(seen_by_camera25(aimed, [[[0, 0, 0.2]]] * 9, 512), 256, atol=1e-3)


def test_eg3d_offset_brings_faces_to_one_place(head):
    np.testing.assert_allclose(
        eg3d.eg3d_offset(10 * TEMPLATE_FIVE_POINTS), eg3d.EG3D_OFFSET, atol=1e-9
    )
    landmarks = head[0, :68]
    world = 0.027 * five_points(landmarks) + eg3d.eg3d_offset(landmarks)
    bfm = 0.27 * TEMPLATE_FIVE_POINTS + np.array(eg3d.EG3D_OFFSET)
    np.testing.assert_allclose(world.mean(0), bfm.mean(0), atol=1e-9)


def test_translate_camera25_moves_the_head_by_what_it_says(pose):
    view = run(eg3d.camera25_from_head_pose, pose, mode="orig")
    shift = np.float32(_RNG.uniform(-0.3, 0.3, (9, 2)))
    ratio = np.float32(np.linspace(0.7, 1.4, 9))
    moved = run(eg3d.translate_camera25, view.camera25, eg3d.HeadTranslation(shift, ratio))
    origin = np.zeros((9, 1, 3))
    before = seen_by_camera25(view.camera25, origin, 1)
    np.testing.assert_allclose(
        seen_by_camera25(moved, origin, 1)[:, 0], before[:, 0] + shift, atol=1e-5
    )
    depths = [
        -np.einsum("bi,bi->b", c[:, [2, 6, 10]], c[:, [3, 7, 11]])
        for c in (np.asarray(view.camera25), np.asarray(moved))
    ]
    np.testing.assert_allclose(depths[0] / depths[1], ratio, rtol=1e-5)
    # On the axis: the published form, -du Z / f in the camera's own axes.
    frontal = run(eg3d.camera25_from_angles, np.zeros((1, 3), np.float32))
    one = eg3d.HeadTranslation(np.float32([[1.0, 0.0]]), np.float32([1.0]))
    place = np.asarray(run(eg3d.translate_camera25, frontal, one))[0, :16].reshape(4, 4)[:3, 3]
    np.testing.assert_allclose(place, [-0.6331, 0, 2.7], atol=1e-4)  # 0.633 per crop's width


def test_head_translation_measures_place_and_size():
    source = _RNG.uniform(0, 100, (68, 2))
    driving = np.stack([source + np.array([30, -12]), 1.5 * source])
    found = eg3d.head_translation(
        source, driving, width_px=200.0, source_scale_px=4.0, driving_scale_px=np.array([4.0, 6.0])
    )
    np.testing.assert_allclose(found.shift[0], [0.15, -0.06], atol=1e-6)
    np.testing.assert_allclose(found.size_ratio, [1, 1.5])
    with pytest.raises(ArgumentError, match="crop's width must be positive"):
        eg3d.head_translation(
            source, driving, width_px=0.0, source_scale_px=4.0, driving_scale_px=np.ones(2)
        )


def test_unknown_modes_are_refused():
    pose = HeadPose(np.zeros((1, 3), np.float32), np.float32([[0, 0, 100]]))
    camera25 = run(eg3d.camera25_from_head_pose, pose).camera25
    for call in (
        lambda: run(eg3d.camera25_from_head_pose, pose, mode="original"),
        lambda: eg3d.head_pose_from_camera25(camera25, mode="original"),
        lambda: run(eg3d.eg3d_points, np.zeros((1, 1, 3)), mode="original"),
    ):
        with pytest.raises(ArgumentError, match="'simplify'"):
            call()
