"""Motion files as drivers: whom they can drive, and which way the head turns."""

import dataclasses

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, CheckpointError, DataError
from talking_heads_jax.inference.animate import AnimateOptions, animate_clip
from talking_heads_jax.inference.animator import FrameAnimator
from talking_heads_jax.inference.driven_pose import pose_motion
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.tracking.motion_file import save_motion
from talking_heads_jax.tracking.track import empty_track

from .conftest import BrightnessHead, TurnableHead, moving_frames, write_clip

ANGLES = np.deg2rad([[2, 1, 0], [12, 1, 0], [-8, 6, 3], [2, 1, 0]]).astype(np.float32)


def track_of(angles=ANGLES, **fields):
    count = len(angles)
    known = np.isfinite(angles).all(1)
    fill = np.where(known, 1.0, np.nan).astype(np.float32)
    return empty_track(
        count,
        fps=20.0,
        frame_size=(64, 64),
        **{
            "face": known,
            "morphable": "procedural",
            "shape_coeffs": np.zeros(3, np.float32),
            "expression_coeffs": np.tile(fill[:, None], (1, 2)),
            "joint_pose": np.tile(fill[:, None], (1, 6)),
            "angles": angles,
            "scale_px": fill,
            "offset_px": np.tile(fill[:, None], (1, 2)),
        }
        | fields,
    )


@pytest.fixture
def turnable():
    head = TurnableHead()
    return head, head.init(None) | {"pose_editor": {"params": {"gain": np.float32(1.0)}}}


@pytest.fixture
def run(turnable, tmp_path):
    """Animates a portrait by a motion file, to pictures."""
    write_image(tmp_path / "portrait.png", moving_frames(1, seed=5)[0])

    def animate(track=None, model=None, source=tmp_path / "portrait.png", **options):
        save_motion(tmp_path / "motion.npz", track or track_of())
        folder = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        head, variables = model or turnable
        result = animate_clip(
            head, variables, source, tmp_path / "motion.npz", folder,
            options=AnimateOptions(**options), log=lambda text: None,
        )  # fmt: skip
        return result, [read_image(path) for path in sorted(folder.iterdir())]

    return animate


def test_angles_turn_the_head_relative_to_the_first_frame(turnable, run, tmp_path):
    result, pictures = run(batch_size=3)
    head, variables = turnable
    portrait = read_image(tmp_path / "portrait.png")
    animator = FrameAnimator(head, variables, batch_size=1)
    for picture, angles in zip(pictures, ANGLES, strict=True):
        animator.set_source(portrait, pose_deg=np.rad2deg(angles - ANGLES[0]))
        animator.set_initial(portrait, adapt_scale=False)
        expected = np.asarray(animator.frames(portrait[None], as_uint8=True).prediction[0])
        assert np.abs(picture.astype(int) - expected).max() <= 1  # beside a rounding boundary
    assert np.abs(pictures[1].astype(int) - pictures[0]).max() > 5
    np.testing.assert_array_equal(pictures[0], pictures[3])
    assert (result.fps, result.best_frame, result.frames) == (20.0, 0, 4)
    assert any("expressions are not used" in note for note in result.notes)


def test_pose_and_rest_frame_shift_the_motion(run):
    _, plain = run()
    result, rested = run(best_frame=1)
    assert result.best_frame == 1
    np.testing.assert_array_equal(rested[1], plain[0])
    _, posed = run(pose=(10.0, 0.0, 0.0))  # what the second frame does
    assert np.abs(posed[0].astype(int) - plain[1]).max() <= 1


def test_motion_files_can_be_pasted_back(run, tmp_path):
    source = tmp_path / "wide.png"
    write_image(source, moving_frames(1, (16, 40), seed=2)[0])
    _, pictures = run(source=source, crop="centre", paste_back=True)
    frame = read_image(source)
    assert pictures[1].shape == frame.shape
    np.testing.assert_array_equal(pictures[1][:, :12], frame[:, :12])
    assert np.abs(pictures[1].astype(int) - frame)[:, 12:28].max() > 5


def test_models_that_see_their_motion_say_what_they_need(run):
    head = BrightnessHead()
    with pytest.raises(ArgumentError) as error:
        run(model=(head, head.init(None)))
    message = str(error.value)
    assert "the driving input of brightness must be a video" in message
    assert "keypoints that it sees in pictures" in message
    assert "trained pose editor (fnevr" in message and "coefficients or a mesh" in message


def test_a_pose_editor_without_weights_is_named(run):
    head = TurnableHead()
    with pytest.raises(CheckpointError, match="pose editor"):
        run(model=(head, head.init(None)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"side_by_side": True}, "side_by_side must be used with a driving video"),
        ({"keypoints": True}, "keypoints must be used with a driving video"),
        ({"adapt_scale": True}, "adapt_scale must be used with a driving video"),
        ({"driving_box": (0, 0, 9, 9)}, "driving_box must be used with a driving video"),
        ({"relative": False}, "absolute motion must have a driving video"),
        ({"best_frame": 9}, "best frame must be a frame of the motion file"),
    ],
)
def test_options_of_videos_are_refused(run, options, message):
    with pytest.raises(ArgumentError, match=message):
        run(**options)


def test_a_source_video_or_another_file_is_refused(run, turnable, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving_frames(3))
    with pytest.raises(ArgumentError, match="source must be an image with a motion file"):
        run(source=clip)
    np.savez(tmp_path / "other.npz", landmarks68_px=np.zeros((2, 68, 2)))
    head, variables = turnable
    with pytest.raises(DataError, match="format"):
        animate_clip(
            head, variables, tmp_path / "portrait.png", tmp_path / "other.npz", tmp_path / "out",
            options=AnimateOptions(), log=lambda text: None,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_frames_without_a_face_hold_the_turn_before_them():
    angles = ANGLES.copy()
    angles[[0, 2]] = np.nan
    motion = pose_motion(track_of(angles))
    assert motion.rest == 1 and "2 of 4 frames have no face" in motion.notes[0]
    np.testing.assert_allclose(motion.offsets_rad[:3], 0, atol=1e-7)
    np.testing.assert_allclose(np.rad2deg(motion.offsets_rad[3]), [-10, 0, 0], atol=1e-4)
    with pytest.raises(ArgumentError, match="with a face"):
        pose_motion(track_of(angles), rest=2)


def test_turns_do_not_jump_at_a_full_circle():
    roll = np.deg2rad([170, 179, -179, -170]).astype(np.float32)
    angles = np.stack([np.zeros(4, np.float32), np.zeros(4, np.float32), roll], -1)
    offsets = np.rad2deg(pose_motion(track_of(angles)).offsets_rad[:, 2])
    np.testing.assert_allclose(offsets, [0, 9, 11, 20], atol=1e-3)


def test_uneven_times_are_interpolated():
    track = dataclasses.replace(
        track_of(np.deg2rad([[0, 0, 0], [5, 0, 0], [30, 0, 0]]).astype(np.float32)),
        time_s=np.array([0.0, 0.05, 0.30]),
    )
    motion = pose_motion(track)
    yaw = np.rad2deg(motion.offsets_rad[:, 0])
    np.testing.assert_allclose(yaw, [0, 5, 10, 15, 20, 25, 30], atol=1e-3)
    assert motion.fps == 20.0 and "uneven times" in motion.notes[0]


def test_times_that_ask_for_endless_frames_are_refused():
    """Within the motion file's limits for one number each, together they would fill the memory."""
    track = dataclasses.replace(track_of(), fps=1e4, time_s=np.array([0.0, 1.0, 2.0, 1e6]))
    with pytest.raises(ArgumentError, match="at most 432000 evenly spaced frames"):
        pose_motion(track)


def test_a_motion_without_angles_is_refused():
    track = track_of(np.full((3, 3), np.nan, np.float32), morphable="")
    with pytest.raises(ArgumentError, match="--morphable"):
        pose_motion(track)
