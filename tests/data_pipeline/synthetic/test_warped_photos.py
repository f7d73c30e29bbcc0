"""The warps are smooth, free of folds and known; rendering agrees with them."""

import numpy as np
import pytest

from data_pipeline.synthetic.warped_photos import (
    PHOTOGRAPHS,
    Photograph,
    SmoothWarp,
    frame_points,
    locate_photograph,
    random_warp,
    read_crop,
    render_frame,
    warped_clips,
    write_warped_photos,
)
from talking_heads_jax.errors import ArgumentError, AssetNotFoundError

SIZE = 32


def still(*, shift=(0.0, 0.0), matrix=((1.0, 0.0), (0.0, 1.0))):
    return SmoothWarp(
        np.array([matrix]), np.array([shift]), np.zeros((1, 1, 2)), np.zeros((1, 2)), 0.45
    )


def ramp_crop():
    """A crop whose red rises linearly with x and green with y, over crop and margin."""
    side = 2 * 2 * SIZE
    axis = (2 * np.arange(side) + 1) / side - 1
    x, y = np.meshgrid(axis, axis, indexing="xy")
    return np.stack([0.5 + 0.25 * x, 0.5 + 0.25 * y, np.zeros_like(x)], -1).astype(np.float32)


def test_render_frame_of_ramp_shows_the_positions():
    """A linear picture is reproduced exactly by linear sampling: the frame must show 2 q / crop."""
    warp = random_warp(np.random.default_rng(3), num_frames=5)
    frame = render_frame(ramp_crop(), warp, 4, size=SIZE)
    # The crop's margin doubles the side, so crop position p stands at ramp coordinate p / 2.
    fine = warp.positions(4, frame_points(2 * SIZE)) / 2
    expected = 0.5 + 0.25 * fine.reshape(SIZE, 2, SIZE, 2, 2).mean((1, 3))
    inside = np.abs(fine).max() < 1 - 1 / (2 * SIZE)  # no mirrored border in sight
    assert inside
    # uint8 rounding is half a level, float32 sampling adds well under a tenth.
    np.testing.assert_allclose(frame[..., :2], 255 * expected, atol=0.6)


def test_render_frame_shift_moves_whole_pixels():
    """A shift of k pixels moves the picture by k pixels, against the sign of the backward warp."""
    crop = read_crop(PHOTOGRAPHS[0], size=SIZE)
    rest = render_frame(crop, still(), 0, size=SIZE)
    moved = render_frame(crop, still(shift=(3 * 2 / SIZE, 0.0)), 0, size=SIZE)
    np.testing.assert_array_equal(moved[:, :-3], rest[:, 3:])


def test_random_warp_has_no_folds():
    """The Jacobian determinant of the map stays positive, by central differences."""
    step = 1e-4
    points = frame_points(24)
    for seed in range(20):
        warp = random_warp(np.random.default_rng(seed), num_frames=24)
        for frame in (0, 7, 15, 23):
            along_x, along_y = (
                (
                    warp.positions(frame, points + step * axis)
                    - warp.positions(frame, points - step * axis)
                )
                / (2 * step)
                for axis in np.eye(2)
            )
            determinant = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
            assert determinant.min() > 0.2


def test_random_warp_moves_smoothly_and_enough():
    """Neighbouring frames differ by little, frames of a clip by more: there is motion to learn."""
    points = frame_points(16)
    near, far = [], []
    for seed in range(20):
        warp = random_warp(np.random.default_rng(seed), num_frames=24)
        path = np.stack([warp.positions(frame, points) for frame in range(24)])
        near.append(np.linalg.norm(path[1:] - path[:-1], axis=-1).mean())
        far.append(np.linalg.norm(path[12:] - path[:-12], axis=-1).mean())
    # Slow sine: one step is at most 2 pi / 24 = 0.26 of an excursion, the fast one twice that.
    assert max(near) < 0.12
    assert np.mean(far) > 3 * np.mean(near)


def test_warped_clips_repeat_and_splits_differ():
    arguments = {"clips_per_photograph": 2, "num_frames": 3, "size": 16, "seed": 5}
    train = list(warped_clips(split="train", **arguments))
    again = list(warped_clips(split="train", **arguments))
    held_out = list(warped_clips(split="test", **arguments))
    assert len(train) == 2 * len(PHOTOGRAPHS)
    assert len({clip.clip_id for clip in train + held_out}) == 2 * len(train)
    for first, second, other in zip(train, again, held_out, strict=True):
        np.testing.assert_array_equal(first.frames, second.frames)
        assert first.identity_id == other.identity_id
        assert np.abs(first.warp.shift - other.warp.shift).max() > 1e-3
    assert train[0].frames.shape == (3, 16, 16, 3)
    assert train[0].frames.dtype == np.uint8


def test_every_photograph_is_a_square_inside_its_file():
    for photograph in PHOTOGRAPHS:
        x0, y0, x1, y1 = photograph.box_px
        assert x1 - x0 == y1 - y0
        crop = read_crop(photograph, size=SIZE)
        assert crop.shape == (4 * SIZE, 4 * SIZE, 3)
        assert crop.std() > 0.05  # a picture, not a blank


def test_read_crop_margin_continues_the_photograph():
    """Where the photograph goes on beyond the crop, the margin shows it, not a mirror image."""
    whole = Photograph("camera", "skimage", "data/camera.png", (128, 128, 384, 384), "CC0")
    crop = read_crop(whole, size=64)
    mirrored = np.pad(crop[64:-64, 64:-64], ((64, 64), (64, 64), (0, 0)), mode="symmetric")
    assert np.abs(crop - mirrored).mean() > 0.05


def test_unknown_split_and_missing_package_say_what_to_do():
    with pytest.raises(ArgumentError, match="Use one of train, test"):
        next(warped_clips(split="validation", clips_per_photograph=1, num_frames=1, size=16))
    missing = Photograph("x", "no_such_package_here", "x.png", (0, 0, 1, 1), "CC0")
    with pytest.raises(AssetNotFoundError, match=r"pip install 'talking_heads_jax\[demo\]'"):
        locate_photograph(missing)


def test_write_warped_photos_can_be_read_back_exactly(tmp_path):
    from data_pipeline.loaders import make_eval_pairs, make_train_loader

    summary = write_warped_photos(
        tmp_path / "data", size=16, train_clips=2, test_clips=1, num_frames=4
    )
    assert summary.records == {"train": 8 * len(PHOTOGRAPHS), "test": 4 * len(PHOTOGRAPHS)}
    config = {"folder": str(tmp_path / "data"), "resolution": 16, "num_threads": 1}
    stored = {clip_id: np.stack(list(frames)) for clip_id, frames in make_eval_pairs(config)}
    clips = warped_clips(split="test", clips_per_photograph=1, num_frames=4, size=16)
    for clip in clips:
        np.testing.assert_array_equal(np.round(255 * stored.pop(clip.clip_id)), clip.frames)
    assert not stored
    loader = make_train_loader(config, batch_size=2, seed=0)
    assert loader.batch(0).source.image.shape == (2, 16, 16, 3)
    loader.close()
