"""Closed forms of resizing and cropping: means, ramps, shifts and padded edges."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.media.resize import crop_and_resize, resize_image


def ramp(height: int, width: int) -> np.ndarray:
    """The value at a pixel is the x of its centre, in [0, 1]."""
    x = (np.arange(width, dtype=np.float32) + 0.5) / width
    return np.broadcast_to(x[None, :, None], (height, width, 3)).copy()


def test_resize_image_keeps_a_ramp_inside() -> None:
    # Linear functions survive a symmetric kernel with half-pixel centres, away from the edges.
    for width in (16, 24, 96):
        resized = resize_image(ramp(32, 48), (32, width))
        margin = 2 if width < 48 else 3
        np.testing.assert_allclose(
            resized[:, margin:-margin], ramp(32, width)[:, margin:-margin], atol=1e-6
        )


def test_resize_image_is_antialiased_when_shrinking() -> None:
    # Stripes of one pixel: sampling would return 0 or 1, an antialiased filter the mean.
    stripes = np.zeros((64, 64, 3), np.float32)
    stripes[:, ::2] = 1.0
    shrunk = resize_image(stripes, (16, 16))
    np.testing.assert_allclose(shrunk[:, 1:-1], 0.5, atol=0.02)


def test_resize_image_uint8_equals_float_up_to_rounding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    exact = resize_image(image.astype(np.float32), (17, 23))
    # Pillow rounds to 8 bits after each of the two passes.
    assert np.abs(resize_image(image, (17, 23)) - exact).max() <= 1.01


def test_resize_image_of_the_same_size_is_the_same_array() -> None:
    image = ramp(8, 8)
    assert resize_image(image, 8) is image


def test_crop_and_resize_of_whole_pixels_is_slicing() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    cropped = crop_and_resize(image, (5, 2, 17, 14), 12)
    assert np.array_equal(cropped, image[2:14, 5:17])
    assert np.array_equal(crop_and_resize(image, (0, 0, 30, 20), (20, 30)), image)


def test_crop_and_resize_respects_parts_of_a_pixel() -> None:
    # Crop [10.5, 26.5) of a ramp: the first centre lies at 11.
    cropped = crop_and_resize(ramp(32, 48), (10.5, 8, 26.5, 24), 16)
    expected = (np.arange(16) + 11.0) / 48
    np.testing.assert_allclose(cropped[4, 1:-1, 0], expected[1:-1], atol=1e-6)


def test_crop_and_resize_repeats_the_edge_outside() -> None:
    image = np.random.default_rng(2).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    cropped = crop_and_resize(image, (-4, -3, 10, 11), (14, 14))
    assert np.array_equal(cropped, np.pad(image, ((3, 1), (4, 0), (0, 0)), mode="edge"))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("outside", ["edge", "black", "white"])
def test_crop_and_resize_resamples_only_what_the_image_reaches(interpolation, outside) -> None:
    """Far outside: the same as padding the whole box first."""
    image = np.random.default_rng(3).random((20, 30, 3), np.float32)
    box, pads = (-170.3, -90.6, 129.7, 209.4), ((91, 190), (171, 100), (0, 0))
    fill = {"mode": "edge"} if outside == "edge" else {"constant_values": float(outside == "white")}
    padded = np.pad(image, pads, **fill)
    inside = (box[0] + 171, box[1] + 91, box[2] + 171, box[3] + 91)
    names = {"interpolation": interpolation, "outside": outside}
    for size in (100, 450):  # smaller and larger than the box
        expected = crop_and_resize(padded, inside, size, interpolation=interpolation)
        np.testing.assert_allclose(
            crop_and_resize(image, box, size, **names), expected, atol=1e-3
        )  # Pillow holds boxes in single precision


def test_crop_and_resize_clips_the_overshoot_of_bytes() -> None:
    step = np.zeros((8, 8, 3), np.uint8)
    step[:, 4:] = 255
    large = crop_and_resize(step, (0, 0, 8, 8), 32, interpolation="lanczos")
    exact = crop_and_resize(step.astype(np.float32), (0, 0, 8, 8), 32, interpolation="lanczos")
    assert exact.max() > 260 and exact.min() < -5
    assert np.abs(large - exact.clip(0, 255)).max() <= 1


def test_crop_and_resize_refuses_unknown_names() -> None:
    for wrong in ({"interpolation": "area"}, {"outside": "grey"}):
        with pytest.raises(ArgumentError, match=r"'lanczos'|'white'"):
            crop_and_resize(ramp(10, 10), (0, 0, 5, 5), 8, **wrong)


def test_crop_and_resize_refuses_boxes_without_pixels() -> None:
    for box in ((5, 5, 5, 9), (9, 5, 5, 9), (-5, 0, 0, 5), (10, 0, 12, 5), (np.nan, 0, 5, 5)):
        with pytest.raises(ArgumentError, match="crop box"):
            crop_and_resize(ramp(10, 10), box, 8)


def test_resize_image_refuses_other_arrays() -> None:
    for wrong in (np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.int32)):
        with pytest.raises(ArgumentError, match="uint8 or floating"):
            resize_image(wrong, 8)
