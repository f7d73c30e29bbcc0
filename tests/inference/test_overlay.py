"""Drawing: where discs land, what stays untouched."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.inference.overlay import draw_keypoints, keypoint_colors, side_by_side


def test_keypoint_colors_are_distinct_and_start_with_red():
    colors = keypoint_colors(10)
    assert colors.dtype == np.uint8
    assert tuple(colors[0]) == (255, 0, 0)
    assert len({tuple(color) for color in colors}) == 10


@pytest.mark.parametrize(
    "point, pixel", [((-1, -1), (0, 0)), ((1, -1), (0, 32)), ((0, 1), (16, 16))]
)
def test_draw_keypoints_puts_corners_on_outer_pixel_centres(point, pixel):
    image = np.zeros((17, 33, 3), np.uint8)
    drawn = draw_keypoints(image, np.array([point]))
    assert tuple(drawn[pixel]) == (255, 0, 0)
    rows, columns = np.nonzero(drawn.any(-1))
    # A disc of one pixel radius: all it touches is within one pixel of its centre.
    assert np.abs(rows - pixel[0]).max() <= 1 and np.abs(columns - pixel[1]).max() <= 1


def test_draw_keypoints_scales_discs_with_the_frame():
    drawn = draw_keypoints(np.zeros((256, 256, 3), np.uint8), np.zeros((1, 2)))
    # pi r^2 with r = 0.02 * 256; the boundary adds less than a pixel's width around it.
    assert np.pi * 4.6**2 < drawn.any(-1).sum() < np.pi * 5.7**2


def test_draw_keypoints_leaves_the_input_and_unreachable_points_alone():
    image = np.full((32, 32, 3), 7, np.uint8)
    points = np.array([[np.nan, 0.0], [np.inf, 0.0], [5.0, 5.0]])
    np.testing.assert_array_equal(draw_keypoints(image, points), image)
    assert draw_keypoints(image, np.zeros((1, 2))) is not image
    assert (image == 7).all()


def test_draw_keypoints_draws_later_points_on_top():
    drawn = draw_keypoints(np.zeros((32, 32, 3), np.uint8), np.zeros((2, 2)))
    assert {tuple(color) for color in drawn[drawn.any(-1)]} == {tuple(keypoint_colors(2)[1])}


def test_draw_keypoints_refuses_other_arrays():
    with pytest.raises(ArgumentError, match="uint8"):
        draw_keypoints(np.zeros((8, 8, 3)), np.zeros((1, 2)))
    with pytest.raises(ArgumentError, match="points"):
        draw_keypoints(np.zeros((8, 8, 3), np.uint8), np.zeros((1, 3)))


def test_side_by_side_keeps_panels_in_order():
    panels = [np.full((4, width, 3), width, np.uint8) for width in (2, 3, 5)]
    joined = side_by_side(panels)
    assert joined.shape == (4, 10, 3)
    assert list(joined[0, :, 0]) == [2] * 2 + [3] * 3 + [5] * 5


def test_side_by_side_refuses_different_heights():
    with pytest.raises(ArgumentError, match="one height"):
        side_by_side([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)])
    with pytest.raises(ArgumentError, match="one height"):
        side_by_side([])
