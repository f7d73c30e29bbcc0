"""Edits of a face by name: signs, what moves and what does not, what is refused."""

import types

import jax
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.inference.edit_changes import TIMELINE, Change, parse_setting, parse_sweeps
from talking_heads_jax.inference.edit_presets import PRESETS, preset_changes
from talking_heads_jax.inference.edit_quantities import (
    find_quantity,
    quantities_of,
    quantity_lines,
)
from talking_heads_jax.inference.editing import (
    angles_deg,
    edit_track,
    keep_shoulders,
    rotation_of,
)
from talking_heads_jax.inference.mesh_motion import track_vertices
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.tracking.track import PERSPECTIVE, WEAK_PERSPECTIVE
from tests.inference.edit_states import SIDE, head, landmarks, state
from tests.morphable.toy_models import toy_arrays

NOSE_TIP, CHIN = 30, 8
EYE_CORNERS = (36, 45)  # of the subject's right eye, at the image's left, and of the left one
INNER_LIPS = (62, 66)


def edited(*settings, sweeps=(), source=None, **options):
    changes = [*map(parse_setting, settings), *parse_sweeps(sweeps, together=True)]
    return edit_track(source or state(), head(), changes, **options)


def meshes(clip):
    return np.stack(list(clip.meshes(head())))


def points(*settings, **options):
    return landmarks(meshes(edited(*settings, **options))[0])


@pytest.fixture(scope="module")
def before():
    return landmarks(track_vertices(state(), head())[0])


def test_names_come_from_the_model():
    quantities = quantities_of(head())
    joints = {name.split(".")[0] for name, q in quantities.items() if q.kind == "joint"}
    assert joints == {"neck", "jaw", "eyes", "left_eye", "right_eye"}
    assert sum(q.kind == "expression" for q in quantities.values()) == head().num_expression
    assert sum(q.kind == "shape" for q in quantities.values()) == head().num_shape
    by_number = find_quantity(quantities, "shape.3")
    assert by_number is find_quantity(quantities, f"shape.{head().shape_names[3]}")
    assert find_quantity(quantities, "jaw") is quantities["jaw.open"]
    lines = list(quantity_lines(head()))
    assert len(lines) == 1 + len(quantities)
    assert any(line.split()[:4] == ["head.yaw", "-60", "60", "degrees"] for line in lines)


def flame(unit=1.0):
    """A made-up model under FLAME's name, whose unit is so many centimetres."""
    arrays = toy_arrays() | {"centimetres_per_unit": unit}
    lengths = ("v_template", "shapedirs", "exprdirs", "J_template", "J_shapedirs")
    arrays |= {name: np.float32(arrays[name] / unit) for name in lengths}
    return SkinnedFaceModel.from_arrays(arrays, name="flame2020")


def test_gaussian_models_count_expressions_in_standard_deviations():
    quantities = quantities_of(flame())
    known = quantities["expression.expression_001"]
    assert (known.unit, known.lowest, known.highest) == ("standard deviations", -3, 3)
    assert find_quantity(quantities, "shape.2").name == "shape.shape_002"
    assert {"neck.roll", "jaw.open", "eyes.pitch", "right_eye.yaw"} <= set(quantities)
    changes = preset_changes(["demo-expression"], quantities)
    assert {change.name[-1] for change in changes[:2]} == {"0", "2"}  # even ones first
    assert all(np.nanmin(change.values) == -2 and change.offset for change in changes)


def test_models_of_another_unit_are_edited_alike():
    changes = [
        parse_setting(text) for text in ("head.yaw=25", "jaw=10", "shape.1=0.5", "neck.roll=5")
    ]
    found = []
    for unit in (1.0, 100.0):
        model = flame(unit)
        source = state(
            morphable="flame2020",
            shape_coeffs=np.zeros(model.num_shape, np.float32),
            expression_coeffs=np.full((1, model.num_expression), 0.2, np.float32),
        )
        clip = edit_track(source, model, changes, shoulders="stay")
        found.append(next(clip.meshes(model)))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


def test_two_ways_to_open_the_mouth_are_noted():
    arrays = toy_arrays() | {"expr_names": np.array(["smile", "jawOpen", "frown"])}
    model = SkinnedFaceModel.from_arrays(arrays, name="ict")
    source = state(
        morphable="ict",
        shape_coeffs=np.zeros(model.num_shape, np.float32),
        expression_coeffs=np.zeros((1, model.num_expression), np.float32),
    )
    opened = parse_setting("expression.jawOpen=0.5")
    (note,) = edit_track(source, model, [opened]).notes  # whose jaw is ajar by the joint
    assert "use one of them" in note
    assert not edit_track(source, model, [opened, parse_setting("jaw=0")]).notes


def test_models_without_joints_have_the_head_only():
    names = types.SimpleNamespace(name="bfm09", joint_names=("root",))
    names.shape_names = names.expression_names = ("0", "1")
    quantities = quantities_of(names)
    assert not any(known.kind == "joint" for known in quantities.values())
    assert {"head.yaw", "camera.scale", "shape.0", "expression.1"} <= set(quantities)


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("head.jaw", "head.yaw"),
        ("jaw.opne", "jaw.open"),
        ("expression.smile", "expression.smile_L"),
        ("yaw", "head.yaw"),
        ("left_eye.yow", "left_eye.yaw"),
    ],
)
def test_unknown_names_suggest_similar_ones(name, wanted):
    with pytest.raises(ArgumentError, match=r"Did you mean .*" + wanted.replace(".", r"\.")):
        find_quantity(quantities_of(head()), name)


def test_unknown_names_list_the_known():
    with pytest.raises(ArgumentError, match=r"Known: head\.yaw, .*camera\.y, expression\.NAME"):
        find_quantity(quantities_of(head()), "qqqq")


@pytest.mark.parametrize("camera", [WEAK_PERSPECTIVE, PERSPECTIVE])
def test_yaw_moves_the_nose_by_what_the_projection_says(camera):
    source = state(camera)
    clip = edited("head.yaw=20", source=source)
    found = landmarks(meshes(clip)[0])[NOSE_TIP]
    rest = track_vertices(edited("head.yaw=0", "head.pitch=0", "head.roll=0").track, head())[0]
    tip = landmarks(rest)[NOSE_TIP] - [*source.offset_px[0], 0.0]
    tip = tip * (1, -1, -1) / source.scale_px[0]  # cm in model axes
    angles = np.deg2rad([20.0, *np.rad2deg(source.angles[0, 1:])]).astype(np.float32)
    x, y, z = np.asarray(jax.jit(head_rotation_from_angles)(angles)) @ tip
    wanted = source.offset_px[0] + source.scale_px[0] * np.array([x, -y])
    if camera == PERSPECTIVE:
        middle = np.array(source.principal_px)
        wanted = middle + (wanted - middle) / (1 - z / source.depth_cm[0])
    np.testing.assert_allclose(found[:2], wanted, atol=2e-3)
    assert found[0] > landmarks(track_vertices(source, head())[0])[NOSE_TIP, 0] + 3


def test_pitch_raises_and_roll_turns_clockwise(before):
    assert points("head.pitch=20")[NOSE_TIP, 1] < before[NOSE_TIP, 1] - 3
    left, right = points("head.roll=20")[list(EYE_CORNERS), 1]
    assert right > left + 3  # the eye at the image's right goes down


def test_frontal_faces_the_camera_exactly_and_keeps_the_rest():
    source = state()
    clip = edit_track(source, head(), preset_changes(["frontal"], quantities_of(head())))
    assert (clip.track.angles == 0).all() and len(clip) == 1
    for name in ("expression_coeffs", "joint_pose", "scale_px", "offset_px"):
        np.testing.assert_array_equal(getattr(clip.track, name), getattr(source, name))


def test_neutral_has_no_expression_and_a_shut_mouth():
    clip = edit_track(state(), head(), preset_changes(["neutral"], quantities_of(head())))
    assert not clip.track.expression_coeffs.any()
    np.testing.assert_allclose(clip.track.joint_pose, 0, atol=1e-7)
    np.testing.assert_array_equal(clip.track.angles, state().angles)


def test_the_demo_moves_everything_and_ends_where_it_began():
    quantities = quantities_of(head())
    changes = preset_changes(["demo"], quantities)
    moved = {change.name for change in changes}
    assert {"head.yaw", "jaw.open", "expression.pucker", "shape.head_width"} <= moved
    assert not {"shape.glasses", "camera.x", "neck.yaw"} & moved
    parts = {name: preset_changes([name], quantities) for name in PRESETS if "-" in name}
    lengths = {name: max(len(c.values) for c in part) for name, part in parts.items()}
    assert lengths["demo-head"] == 3 * 80 and lengths["demo-shape"] == 2 * 80
    assert max(len(change.values) for change in changes) == sum(lengths.values())
    yaw = next(c for c in parts["demo-head"] if c.name == "head.yaw").values
    assert (yaw[0], yaw.max(), yaw.min()) == (0.0, 15.0, -15.0) and abs(yaw[79]) == 0.75
    np.testing.assert_allclose(np.abs(np.diff(yaw)), 0.75)


def test_the_jaw_opens_degree_by_degree():
    clip = edited(sweeps=["jaw.open=0:20:5"])
    jaw = head().joint_names.index("jaw")
    turns = clip.track.joint_pose.reshape(5, -1, 3)[:, jaw]
    np.testing.assert_allclose(np.rad2deg(turns[:, 0]), [0, 5, 10, 15, 20], atol=1e-4)
    upper, lower = INNER_LIPS
    lips = np.array([landmarks(mesh) for mesh in meshes(clip)])
    gaps = lips[:, lower, 1] - lips[:, upper, 1]
    assert (np.diff(gaps) > 0.5).all()


def test_two_quantities_compose():
    both = edited("head.yaw=20", "jaw.open=15").track
    np.testing.assert_array_equal(both.angles, edited("head.yaw=20").track.angles)
    np.testing.assert_array_equal(both.joint_pose, edited("jaw.open=15").track.joint_pose)
    np.testing.assert_array_equal(both.expression_coeffs, state().expression_coeffs)
    source = np.rad2deg(state().angles[0])
    added = edited("head.yaw+=5", "head.yaw+=2", "head.pitch=4", "head.pitch+=1").track.angles[0]
    np.testing.assert_allclose(np.rad2deg(added), [source[0] + 7, 5, source[2]], atol=1e-4)


def test_later_layers_win_and_offsets_are_added_last():
    changes = [
        *preset_changes(["frontal"], quantities_of(head())),
        parse_setting("head.yaw+=1"),
        parse_setting("head.pitch=3"),
        Change("head.pitch", np.array([7.0, np.nan]), layer=TIMELINE, held=False),
        *parse_sweeps(["head.roll=2:8:3"]),
    ]
    angles = np.rad2deg(edit_track(state(), head(), changes).track.angles)
    np.testing.assert_allclose(angles, [[1, 7, 2], [1, 3, 5], [1, 3, 8]], atol=1e-4)


def test_presets_compose_in_either_order_and_later_values_win():
    quantities = quantities_of(head())
    for names in (["frontal", "demo-head"], ["demo-head", "frontal"]):
        angles = edit_track(state(), head(), preset_changes(names, quantities)).track.angles
        assert (angles[0] == 0).all() and np.rad2deg(angles[:, 0]).max() == pytest.approx(15)
    shown = edit_track(state(), head(), preset_changes(["neutral", "demo-expression"], quantities))
    own = head().expression_names.index("smile_L")
    coefficients = shown.track.expression_coeffs
    assert coefficients[0, own] == 0 and coefficients[:, own].max() == 1  # not the source's 0.3
    assert (coefficients > 0).sum(axis=1).max() == 1  # one by one


def test_gaze_turns_the_eyes_it_names():
    rest = meshes(edited("head.yaw=0", "head.pitch=0", "head.roll=0"))[0]
    weights = np.asarray(head().arrays["weights"])
    ahead = ["head.yaw=0", "head.pitch=0", "head.roll=0"]
    both = meshes(edited("eyes.yaw=20", "eyes.pitch=10", *ahead))[0] - rest
    right = meshes(edited("right_eye.yaw=20", *ahead))[0] - rest
    for name, moves in (("eye_L", False), ("eye_R", True)):
        own = weights[:, head().joint_names.index(name)] > 0.5
        front = own & (rest[:, 2] < np.quantile(rest[own, 2], 0.2))
        assert both[front, 0].min() > 0 and both[front, 1].max() < 0  # to the right, and up
        assert (np.abs(right[own]).max() > 0.1) == moves
    np.testing.assert_allclose(both[weights[:, 2] > 0.5], 0, atol=1e-4)


@pytest.mark.parametrize("camera", [WEAK_PERSPECTIVE, PERSPECTIVE])
def test_shoulders_stay_while_the_head_turns_as_asked(camera):
    source = state(camera)
    turned = meshes(edited("head.yaw=30", "head.pitch=5", source=source))[0]
    stayed = meshes(edited("head.yaw=30", "head.pitch=5", source=source, shoulders="stay"))[0]
    before = track_vertices(source, head())[0]
    weights = np.asarray(head().arrays["weights"])
    torso = weights[:, head().joint_names.index("root")] > 0.999
    np.testing.assert_allclose(stayed[torso, :2], before[torso, :2], atol=0.02)
    assert np.abs(turned[torso, :2] - before[torso, :2]).max() > 3
    if camera == WEAK_PERSPECTIVE:  # the skull differs by a shift
        skull = weights[:, head().joint_names.index("neck")] > 0.999
        shift = (turned - stayed)[skull]
        np.testing.assert_allclose(shift, np.tile(shift[:1], (len(shift), 1)), atol=0.02)


@pytest.mark.parametrize("camera", [WEAK_PERSPECTIVE, PERSPECTIVE])
def test_a_drivers_head_keeps_its_place_on_the_sources_shoulders(camera):
    source, angles = state(camera), np.float32([[0.5, 0.1, -0.2], [-0.3, 0, 0.1]])
    source.joint_pose[0, :3] = (0.02, -0.1, 0.05)  # of the root
    driver = state(camera, count=2, angles=angles)
    kept = keep_shoulders(driver, source, head(), source.shape_coeffs, keep_head=True)
    turned, stayed = (track_vertices(track, head()) for track in (driver, kept))
    weights = np.asarray(head().arrays["weights"])
    torso, skull = (weights[:, head().joint_names.index(name)] > 0.999 for name in ("root", "neck"))
    np.testing.assert_allclose(stayed[:, skull, :2], turned[:, skull, :2], atol=0.02)
    if camera == WEAK_PERSPECTIVE:  # the torso differs from the source's by a shift
        shift = (stayed - track_vertices(source, head()))[:, torso]
        np.testing.assert_allclose(shift, np.tile(shift[:, :1], (len(shift[0]), 1)), atol=0.02)
        assert np.ptp((turned - stayed)[:, torso], axis=1).max() > 3


def test_the_camera_zooms_about_the_head_and_shifts_by_shares(before):
    origin = np.append(state().offset_px[0], 0)
    near = points("camera.scale=1.5", "camera.x=0.1", "camera.y=-0.05")
    wanted = origin + 1.5 * (before - origin) + [0.1 * SIDE, -0.05 * SIDE, 0]
    np.testing.assert_allclose(near, wanted, atol=2e-3)


def test_shapes_may_change_from_frame_to_frame():
    clip = edited(sweeps=["shape.head_width=-2:2:3"])
    column = head().shape_names.index("head_width")
    np.testing.assert_allclose(clip.shape_coeffs[:, column], [-2, 0, 2])
    found = meshes(clip)
    for mesh, shape in zip(found, clip.shape_coeffs, strict=True):
        np.testing.assert_array_equal(mesh, track_vertices(state(), head(), shape_coeffs=shape)[0])
    widths = np.ptp(np.array([landmarks(mesh) for mesh in found])[..., 0], axis=1)
    assert (np.diff(widths) > 1).all()


def test_what_is_out_of_range_is_noted_and_what_is_impossible_refused():
    (note,) = edited("head.yaw=75").notes
    assert "head.yaw: 75 is outside -60 to 60" in note
    assert any("expression.smile_L" in note for note in edited("expression.smile_L+=0.9").notes)
    assert any("jaw.open: 50" in note for note in edited("jaw.open=50").notes)
    assert not edited("head.yaw=60", "jaw=34", "shape.glasses=1").notes
    zoomed = edited("camera.scale=1.5", "camera.scale+=-0.25").track  # of an offset the sum counts
    np.testing.assert_allclose(zoomed.scale_px, 1.25 * state().scale_px)
    for text in ("head.yaw=1e9", "shape.0=-200", "camera.scale=0", "camera.scale+=-1"):
        with pytest.raises(ArgumentError, match="lie within"):
            edited(text)


@pytest.mark.parametrize(
    "settings",
    [["head.yaw=1", "head.yaw=2"], ["eyes.yaw=1", "left_eye.yaw=2"], ["jaw=1", "jaw.open=1"]],
)
def test_a_quantity_is_stated_once(settings):
    with pytest.raises(ArgumentError, match="stated once by --set"):
        edited(*settings)


def test_a_state_must_be_one_fitted_frame_of_the_model():
    for source, word in (
        (state(count=2), "be of one frame"),
        (state(morphable="ict"), "fitted with 'procedural'"),
        (state(angles=np.full((1, 3), np.nan, np.float32)), "show a fitted face"),
        (state(shape_coeffs=np.zeros(3, np.float32)), "shape, expression and pose numbers"),
    ):
        with pytest.raises(ArgumentError, match=word):
            edited("head.yaw=1", source=source)


def test_angles_here_are_those_of_the_geometry():
    angles = np.array([[20.0, -35.0, 10.0], [-70.0, 15.0, -100.0], [0.0, 0.0, 0.0]])
    ours = rotation_of(angles)
    theirs = np.asarray(jax.jit(head_rotation_from_angles)(np.float32(np.deg2rad(angles))))
    np.testing.assert_allclose(ours.as_matrix(), theirs, atol=1e-6)
    np.testing.assert_allclose(angles_deg(ours.as_rotvec()), angles, atol=1e-9)
    vectors = np.float32([[0.3, -0.2, 0.1]])
    turned = np.asarray(jax.jit(matrix_from_axis_angle)(vectors))
    np.testing.assert_allclose(rotation_of(angles_deg(vectors)).as_matrix(), turned, atol=1e-6)
