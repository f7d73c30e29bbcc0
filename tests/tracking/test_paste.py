"""Paste-back: the way there and back, borders, masks, and what must stay untouched."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.tracking.alignment import alignment_from_box, warp_to_crop
from talking_heads_jax.tracking.paste import paste_back

HEIGHT, WIDTH = 90, 120


def noise(height=HEIGHT, width=WIDTH):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def waves():
    y, x = np.mgrid[:HEIGHT, :WIDTH] / 14.0
    return np.uint8(128 + 90 * np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1))


def crop_of(box, size):
    return alignment_from_box("test", 1, box, size)


def covered(alignment):
    """(h w) whether a pixel's centre lies in the crop."""
    x0, y0, x1, y1 = alignment.box_px
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return (x > x0) & (x < x1) & (y > y0) & (y < y1)


@pytest.mark.parametrize("feather", [0.0, 0.1, 0.5])
def test_an_unchanged_crop_of_whole_pixels_changes_nothing(feather):
    frame = noise()
    alignment = crop_of((20, 10, 84, 74), 64)
    crop = warp_to_crop(frame, alignment)
    np.testing.assert_array_equal(paste_back(frame, crop, alignment, feather=feather), frame)


@pytest.mark.parametrize(
    "box", [(20.3, 10.7, 80.3, 70.7), (-25.4, -10.2, 60.6, 75.8), (60.0, 20.0, 170.0, 130.0)]
)
@pytest.mark.parametrize("size", [64, 160])
def test_an_unchanged_crop_comes_back_up_to_resampling(box, size):
    frame, alignment = waves(), crop_of(box, size)
    result = paste_back(frame, warp_to_crop(frame, alignment), alignment)
    outside = ~covered(alignment)
    np.testing.assert_array_equal(result[outside], frame[outside])
    # Twice resampled: the bilinear filter to fewer pixels takes a level or two off these waves.
    assert np.abs(result.astype(int) - frame).max() <= (6 if size == 64 else 2)


def test_a_new_crop_replaces_the_middle_and_blends_towards_its_border():
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    alignment = crop_of((20, 10, 84, 74), 32)
    before = frame.copy()
    result = paste_back(frame, np.full((32, 32, 3), 200, np.uint8), alignment, feather=0.25)
    np.testing.assert_array_equal(frame, before)
    assert (result[26:58, 36:68] == 200).all()  # a quarter of 64 pixels from every side
    assert (result[~covered(alignment)] == 0).all()
    row = result[42, 20:37, 0].astype(int)
    assert row[0] < 5 and row[8] == pytest.approx(200 / 2, abs=15) and (np.diff(row) >= 0).all()
    hard = paste_back(frame, np.full((32, 32, 3), 200, np.uint8), alignment, feather=0.0)
    np.testing.assert_array_equal(hard[..., 0], np.where(covered(alignment), 200, 0))


def test_sides_beyond_the_frame_stay_hard():
    """Nothing of the original shows along the frame's border where the crop reaches over it."""
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    alignment = crop_of((-6, 0, 74, 80), 40)  # beyond the left side, on the upper one
    result = paste_back(frame, np.full((40, 40, 3), 200, np.uint8), alignment, feather=0.2)
    assert (result[:60, :50] == 200).all()
    assert result[70, 10, 0] < 200 > result[10, 70, 0] and (result[80:] == 0).all()


@pytest.mark.parametrize("n", [40, 80, 200])
def test_pixels_land_where_the_alignment_says(n):
    """A blot in a crop of any resolution: its centroid is mapped as a point is."""
    alignment = crop_of((13.4, 7.2, 93.4, 87.2), 40)
    y, x = np.mgrid[:n, :n] + 0.5
    place = np.array([0.4, 0.6]) * n
    blot = np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * (0.08 * n) ** 2))
    crop = np.repeat(np.uint8(250 * blot)[..., None], 3, axis=-1)
    frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    result = paste_back(frame, crop, alignment)[..., 0].astype(float)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    found = np.array([(result * columns).sum(), (result * rows).sum()]) / result.sum()
    np.testing.assert_allclose(found, alignment.to_frame(place * 40 / n), atol=0.1)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_a_mask_takes_its_part_of_the_crop(kind):
    frame = np.full((HEIGHT, WIDTH, 3), 10, np.uint8)
    alignment = crop_of((20, 10, 84, 74), 64)
    mask = np.zeros((32, 32, 1))  # half the crop's resolution
    mask[:, 16:] = 255 if kind is np.uint8 else 1
    crop = np.full((64, 64, 3), 210, np.uint8)
    result = paste_back(frame, crop, alignment, mask=mask.astype(kind), feather=0.0)
    assert (result[10:74, 20:51] == 10).all() and (result[10:74, 54:84] == 210).all()
    half = paste_back(frame, crop, alignment, mask=np.full((8, 8), 0.5), feather=0.0)
    assert (half[10:74, 20:84] == 110).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": np.zeros((9, 9, 3), np.float32)}, "A frame must be uint8"),
        ({"crop": np.zeros((8, 8), np.uint8)}, "A crop to paste must be uint8"),
        ({"crop": np.zeros((8, 9, 3), np.uint8)}, "be square"),
        ({"alignment": crop_of((200, 0, 208, 8), 8)}, "cover a pixel"),
        ({"feather": 0.6}, "feather must be"),
        ({"mask": np.full((8, 8), 1.5)}, "in \\[0, 1\\]"),
        ({"mask": np.full((8, 8), np.nan)}, "in \\[0, 1\\]"),
        ({"mask": np.zeros((8, 6))}, "square"),
        ({"mask": np.zeros((8, 8), np.int32)}, "uint8"),
        ({"interpolation": "nearest"}, "'bicubic'"),
    ],
)
def test_paste_back_refuses(change, message):
    arguments = {
        "frame": np.zeros((40, 40, 3), np.uint8),
        "crop": np.zeros((8, 8, 3), np.uint8),
        "alignment": crop_of((0, 0, 20, 20), 8),
    } | change
    with pytest.raises(ArgumentError, match=message):
        paste_back(**arguments)
