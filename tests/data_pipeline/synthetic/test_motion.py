"""Motion in closed form: independent of the length asked for, within its limits, alive."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.synthetic.channels import (
    LARGEST_JAW_ANGLE,
    expression_coeffs,
    joint_pose,
    world_rotation,
)
from data_pipeline.synthetic.motion import (
    CHANNELS,
    LONGEST_CLIP,
    POSE_RANGES,
    PoseRange,
    clip_curves,
    frame_times,
    pose_range,
)
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.cameras import head_rotation_from_angles

JOINTS = ("root", "neck", "jaw", "eye_L", "eye_R")
MODERATE = POSE_RANGES["moderate"]
FINE = np.arange(0, 60, 0.002)  # seconds


def runs(active):
    """Lengths of the stretches in which something is true, those at the ends left out."""
    edges = np.flatnonzero(np.diff(active.astype(int)))
    starts = edges[~active[edges]]
    ends = edges[active[edges]]
    ends = ends[ends > starts[0]]
    return (ends - starts[: len(ends)]) * 0.002


@pytest.mark.parametrize(("num_frames", "stride"), [(1, 1), (7, 3), (40, 1), (2, 60)])
def test_frames_do_not_depend_on_length_or_stride(num_frames, stride):
    angles, curves = clip_curves(5, 3, 1, frame_times(130), MODERATE)
    some_angles, some_curves = clip_curves(5, 3, 1, frame_times(num_frames, stride), MODERATE)
    chosen = np.arange(num_frames) * stride
    np.testing.assert_array_equal(some_angles, angles[chosen])
    for name in CHANNELS:
        np.testing.assert_array_equal(some_curves[name], curves[name][chosen], err_msg=name)
    poses = joint_pose(angles, curves, JOINTS, rigid_bust=False)
    some_poses = joint_pose(some_angles, some_curves, JOINTS, rigid_bust=False)
    np.testing.assert_array_equal(some_poses, poses[chosen])


def test_clips_differ_by_seed_identity_and_take():
    clips = [
        clip_curves(*numbers, frame_times(30), MODERATE)[0]
        for numbers in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    ]
    for i in range(4):
        for j in range(i):
            assert np.abs(clips[i] - clips[j]).max() > 0.02, (i, j)


@pytest.mark.parametrize("name", ["moderate", "wide"])
def test_poses_spread_over_their_range_smoothly(name):
    limits = POSE_RANGES[name]
    clips = [clip_curves(0, number, 0, frame_times(250), limits)[0] for number in range(40)]
    degrees = np.rad2deg(np.concatenate(clips))
    largest = np.array([limits.yaw_deg, limits.pitch_deg, limits.roll_deg])
    assert (np.abs(degrees) <= largest).all()
    # Evenly spread values have a standard deviation of 0.577 of the largest one.
    np.testing.assert_allclose(degrees.std(0) / largest, 0.577, atol=0.08)
    steps = np.abs(np.rad2deg(np.diff(np.stack(clips), axis=1))).max((0, 1))
    assert (steps < 0.16 * largest).all()


def test_extrapolation_turns_beyond_45_degrees_to_one_side_per_clip():
    limits = POSE_RANGES["extrapolation"]
    yaws = np.stack(
        [clip_curves(0, n, 0, frame_times(100), limits)[0][:, 0] for n in range(20_000, 20_030)]
    )
    degrees = np.rad2deg(np.abs(yaws))
    assert degrees.min() > 45 and 65 < degrees.max() <= 72
    sides = np.sign(yaws)
    assert (sides == sides[:, :1]).all() and {-1.0, 1.0} == set(sides[:, 0])


def test_blinks_last_150_to_250_ms():
    _, curves = clip_curves(0, 2, 0, FINE, MODERATE)
    both = np.minimum(curves["blink_L"], curves["blink_R"])
    shut = runs(both > 0.45)  # lids that follow the gaze down stay below
    assert 8 < len(shut) < 60
    # Above .45 a pulse of 150 to 250 ms has about half of its length.
    assert shut.min() > 0.06 and shut.max() < 0.16


def test_jaw_opens_3_to_6_times_a_second_in_bursts():
    _, curves = clip_curves(0, 2, 0, FINE, MODERATE)
    jaw = curves["jaw"]
    peaks = np.flatnonzero((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:])) + 1
    gaps = np.diff(FINE[peaks])
    # m, b and p hide a peak, so some gaps are two syllables long; pauses are longer still.
    assert 1 / 6 < np.median(gaps) < 1 / 2.5
    assert (gaps > 0.6).sum() > 5 and jaw.max() > 0.7 and (jaw < 0.02).mean() > 0.1


def test_gaze_rests_and_jumps():
    _, curves = clip_curves(0, 2, 0, FINE, PoseRange(0, 0, 0))  # without the head's turn
    speed = np.abs(np.diff(curves["gaze_yaw"])) / 0.002
    moving = speed > 0.05
    assert 0.01 < moving.mean() < 0.2
    assert runs(moving).max() < 0.11  # two jumps of 50 ms at most


def test_every_channel_moves_within_its_range():
    total = {name: [] for name in CHANNELS}
    for number in range(12):
        for name, curve in clip_curves(0, number, 0, frame_times(500), MODERATE)[1].items():
            total[name].append(curve)
    for name, curve in ((name, np.concatenate(parts)) for name, parts in total.items()):
        if name.startswith("gaze"):
            assert curve.min() < -0.2 and curve.max() > 0.2 and np.abs(curve).max() < 0.5, name
        else:
            assert curve.min() == 0 and 0.5 < curve.max() <= 1, name


def curves_with(**values):
    return {name: np.array([values.get(name, 0.0)]) for name in CHANNELS}


def test_channels_reach_both_vocabularies_and_unknown_names_rest():
    curves = curves_with(smile_L=1.0, blink_R=0.5, jaw=1.0, gaze_pitch=-0.3)
    names = ("smile_L", "smile_R", "blink_R", "mouthSmile_L", "eyeBlink_R", "eyeLookDown_L")
    coeffs = expression_coeffs(curves, (*names, "jawOpen", "no_such_expression"))[0]
    expected = [1, 0, 0.5, 1, 0.5, 0.3 / np.deg2rad(30), 0, 0]
    np.testing.assert_allclose(coeffs, expected, rtol=1e-6)
    assert expression_coeffs(curves, ()).shape == (1, 0)


def test_joints_turn_the_way_the_channels_say():
    curves = curves_with(jaw=1.0, gaze_yaw=0.3, gaze_pitch=0.2)
    pose = joint_pose(np.zeros((1, 3)), curves, JOINTS, rigid_bust=False)[0]
    np.testing.assert_array_equal(pose[:2], 0)
    chin = Rotation.from_rotvec(pose[2]).apply([0, 0, 1])
    assert chin[1] == pytest.approx(-np.sin(LARGEST_JAW_ANGLE), abs=1e-6)  # down
    for eye in pose[3:]:
        ray = Rotation.from_rotvec(eye).apply([0, 0, 1])
        assert ray[0] > 0.25 and ray[1] > 0.15  # to the picture's right, and up


@pytest.mark.parametrize("rigid_bust", [False, True])
def test_root_and_neck_add_up_to_the_angles(rigid_bust):
    angles = np.random.default_rng(0).uniform(-0.5, 0.5, (6, 3))
    curves = {name: np.zeros(6) for name in CHANNELS}
    pose = joint_pose(angles, curves, JOINTS, rigid_bust=rigid_bust)
    root, neck = (Rotation.from_rotvec(pose[:, i]).as_matrix() for i in range(2))
    expected = np.asarray(head_rotation_from_angles(angles.astype(np.float32)))
    np.testing.assert_allclose(root @ neck, expected, atol=1e-6)
    np.testing.assert_allclose(world_rotation(angles).as_matrix(), expected, atol=1e-6)
    turned = np.linalg.norm(pose[:, 0], axis=-1)
    if rigid_bust:
        np.testing.assert_array_equal(pose[:, 1], 0)
    else:
        assert (turned < 0.35 * np.linalg.norm(angles, axis=-1)).all() and turned.min() > 0


def test_frame_times_refuses():
    for arguments in [(0, 1), (1, 0), (-3, 1), (LONGEST_CLIP, 2)]:
        with pytest.raises(ArgumentError, match="must be at"):
            frame_times(*arguments)


def test_pose_ranges_refuse_what_shows_no_face():
    with pytest.raises(ArgumentError, match="known values"):
        pose_range("sideways")
    for values in [(95, 0, 0), (-1, 0, 0), (10, 0, 0, 20), (10, 91, 0)]:
        with pytest.raises(ArgumentError, match="pose range"):
            PoseRange(*values)
