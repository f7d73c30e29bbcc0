"""FAN's crop and decoding against brute force, its mirror test, and its weights' way in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, ConversionError
from talking_heads_jax.morphable.landmarks import LANDMARK_MIRROR
from talking_heads_jax.networks import fan
from talking_heads_jax.networks.fan_points import (
    FAN_MIRROR,
    FAN_SIDE,
    FanWindow,
    crop_for_fan,
    decode_heatmaps,
    fan_window,
)
from talking_heads_jax.serialization.tensors import flatten, write_safetensors

_ROWS, _COLUMNS = range(0, FAN_SIDE, 17), range(0, FAN_SIDE, 15)  # both ends are among them


def _canvas_crop(frame, box, reference):
    """The rule step by step: corners, a black canvas, then a resize pixel by pixel, thinned."""
    x0, y0, x1, y1 = box
    centre = ((x0 + x1) / 2, (y0 + y1) / 2 - 0.12 * (y1 - y0))
    side = 200 * ((x1 - x0) + (y1 - y0)) / reference
    left, top = (int((1 - 128) * side / 256 + c) for c in centre)
    right, bottom = (int((256 - 128) * side / 256 + c) for c in centre)
    canvas = np.zeros((bottom - top, right - left, 3))
    for row in range(bottom - top):
        for column in range(right - left):
            if 0 <= row + top < frame.shape[0] and 0 <= column + left < frame.shape[1]:
                canvas[row, column] = frame[row + top, column + left]
    result = np.zeros((len(_ROWS), len(_COLUMNS), 3))
    ends = np.array(canvas.shape[:2]) - 1
    for i, row in enumerate(_ROWS):
        for j, column in enumerate(_COLUMNS):
            place = (np.array([row, column]) + 0.5) * (ends + 1) / FAN_SIDE - 0.5
            place = np.clip(place, 0, ends)
            y, x = np.floor(place).astype(int)
            v, u = place - (y, x)
            y2, x2 = min(y + 1, ends[0]), min(x + 1, ends[1])
            upper = canvas[y, x] * (1 - u) + canvas[y, x2] * u
            lower = canvas[y2, x] * (1 - u) + canvas[y2, x2] * u
            result[i, j] = upper * (1 - v) + lower * v
    return result


@pytest.mark.parametrize(
    ("box", "reference"),
    [
        ((20.3, 14.0, 61.7, 70.9), 195.0),  # inside, enlarged
        ((-30.0, -25.5, 31.2, 40.0), 165.0),  # over the upper left corner
        ((40.0, 30.0, 400.0, 420.0), 195.0),  # over the lower right one, shrunk
    ],
)
def test_crop_equals_the_rule_applied_pixel_by_pixel(box, reference):
    frame = np.random.default_rng(0).integers(0, 256, (90, 110, 3), np.uint8)
    crop, window = crop_for_fan(frame, box, reference=reference)
    assert crop.shape == (FAN_SIDE, FAN_SIDE, 3) and crop.dtype == np.uint8
    # Half a level from rounding, the rest from float32 beside a tie.
    assert np.abs(crop[::17, ::15] - _canvas_crop(frame, box, reference)).max() < 0.501
    assert window == fan_window(box, reference=reference)


def test_window_is_lifted_and_grows_with_a_smaller_reference():
    window = fan_window((10, 20, 110, 180, 0.99))
    np.testing.assert_allclose(window.centre_px, (60, 100 - 0.12 * 160))
    np.testing.assert_allclose(window.side_px, 200 * 260 / 195)
    tighter = fan_window((10, 20, 110, 180), reference=165)
    np.testing.assert_allclose(tighter.side_px / window.side_px, 195 / 165)


def test_a_huge_box_needs_no_huge_canvas():
    frame = np.full((40, 40, 3), 200, np.uint8)
    crop, _ = crop_for_fan(frame, (-1e7, -1e7, 1e7, 1e7))
    assert crop.max() <= 200  # the frame is far smaller than one pixel of the crop


@pytest.mark.parametrize(
    ("box", "reference", "word"),
    [
        ((10, 10, 10, 20), 195, "x0 < x1"),
        ((10, float("nan"), 20, 20), 195, "finite"),
        ((10, 10, 20, 20), 0, "positive"),
        ((500, 500, 520, 520), 195, "overlap"),
    ],
)
def test_crop_refuses_boxes_it_cannot_use(box, reference, word):
    frame = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(ArgumentError, match=word) as caught:
        crop_for_fan(frame, box, reference=reference)
    assert "\n" not in str(caught.value)


def test_crop_refuses_other_frames():
    with pytest.raises(ArgumentError, match="uint8"):
        crop_for_fan(np.zeros((40, 40, 3), np.float32), (0, 0, 20, 20))


def _decode_one(heatmap, window):
    """The rule for one landmark, in plain Python; the first of equal peaks wins."""
    rows, columns = heatmap.shape
    best = (0, 0)
    for row in range(rows):
        for column in range(columns):
            if heatmap[row, column] > heatmap[best]:
                best = (row, column)
    y, x = best
    p = [x + 1.0, y + 1.0]
    if 0 < x < columns - 1 and 0 < y < rows - 1:
        p[0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
        p[1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
    p = [value - 0.5 for value in p]
    return [
        (p[axis] - 32) * window.side_px / 64 + window.centre_px[axis] for axis in (0, 1)
    ], heatmap[best]


def test_decoding_equals_the_rule_landmark_by_landmark():
    rng = np.random.default_rng(1)
    heatmaps = rng.standard_normal((64, 64, 68)).astype(np.float32)
    heatmaps[0, 17, 0] = heatmaps[63, 63, 1] = heatmaps[40, 0, 2] = 9  # on the border: not moved
    heatmaps[20, 20, 3] = heatmaps[20, 22, 3] = heatmaps[44, 1, 3] = 9  # equal peaks
    heatmaps[30:33, 29:32, 4] = 8 * np.eye(3) + 1  # equal neighbours: moved along neither axis
    heatmaps[31, 30, 4] = 10
    window = FanWindow((70.25, -3.5), 143.7)
    exact, scores = decode_heatmaps(heatmaps, window, round="none")
    whole, _ = decode_heatmaps(heatmaps, window)
    for index in range(68):
        point, score = _decode_one(heatmaps[..., index], window)
        np.testing.assert_allclose(exact[index], point, atol=1e-5)
        # Towards zero, also where a point lies outside the picture.
        np.testing.assert_array_equal(whole[index], [int(value) for value in point])
        assert scores[index] == score
    assert (exact < 0).any()
    with pytest.raises(ArgumentError, match="'library', 'none'"):
        decode_heatmaps(heatmaps, window, round="up")


def test_crop_and_decoding_are_inverse_to_a_heatmap_cell():
    """A bright dot in a frame, seen through the crop and blurred to cells, is found again."""
    frame = np.zeros((300, 300, 3), np.uint8)
    box = (90, 80, 230, 240)
    for x, y in [(120, 131), (187, 102), (160, 214)]:
        frame[:] = 0
        frame[y - 1 : y + 2, x - 1 : x + 2] = 255
        crop, window = crop_for_fan(frame, box)
        cells = crop[..., :1].astype(np.float32).reshape(64, 4, 64, 4, 1).sum(axis=(1, 3))
        point, _ = decode_heatmaps(cells, window, round="none")
        # Half a cell from finding the peak, and the library's half pixel of the crop.
        assert np.abs(point[0] - (x, y)).max() < (0.5 + 0.25) * window.side_px / 64


def test_mirror_table_is_the_landmarks_own():
    np.testing.assert_array_equal(FAN_MIRROR, LANDMARK_MIRROR)


@pytest.fixture(scope="module")
def narrow():
    """A network of the same kind, thirty-two times narrower, with random statistics."""
    module = fan.FaceAlignmentNetwork(num_stacks=1, features=8)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.6, leaf.shape).astype("f4"), shapes)
    return module, variables


def test_flip_test_adds_what_the_mirrored_picture_shows(narrow, monkeypatch):
    """Mirroring the input mirrors the sum: columns and landmarks exchanged."""
    module, variables = narrow
    monkeypatch.setattr(fan, "FaceAlignmentNetwork", lambda: module)
    images = np.random.default_rng(2).random((1, 64, 64, 3)).astype(np.float32)
    fan.fan_heatmaps.clear_cache()  # another network under the same name
    seen = np.asarray(fan.fan_heatmaps(variables, images))
    mirrored = np.asarray(fan.fan_heatmaps(variables, images[:, :, ::-1]))
    single = np.asarray(fan.fan_heatmaps(variables, images, flip_test=False))
    other = np.asarray(fan.fan_heatmaps(variables, images[:, :, ::-1], flip_test=False))
    fan.fan_heatmaps.clear_cache()
    scale = np.abs(seen).max()
    np.testing.assert_allclose(mirrored[:, :, ::-1][..., FAN_MIRROR], seen, atol=1e-5 * scale)
    # The jaw's first point is its last one in the mirrored picture.
    np.testing.assert_allclose(
        seen[..., 0], single[..., 0] + other[:, :, ::-1, 16], atol=1e-5 * scale
    )
    assert np.abs(single - seen / 2).max() > 1e-3 * scale


def test_find_landmarks_counts_pixels_from_their_edges(monkeypatch):
    def fake(variables, images, *, flip_test):
        assert images.shape == (1, 256, 256, 3) and images.max() <= 1 and not flip_test
        heatmaps = np.zeros((1, 64, 64, 68), np.float32)
        heatmaps[0, 31, 31] = 2.0
        return heatmaps

    monkeypatch.setattr(fan, "fan_heatmaps", fake)
    frame = np.full((100, 100, 3), 255, np.uint8)
    boxes = np.array([[20, 20, 80, 80], [10, 30, 70, 90]])
    points, scores = fan.find_landmarks({}, frame, boxes, flip_test=False)
    assert points.shape == (2, 68, 2) and (scores == 2).all()
    for box, found in zip(boxes, points, strict=True):
        window = fan_window(box)
        # A cell without slope, half a cell before the middle.
        expected = np.array(window.centre_px) - 0.5 * window.side_px / 64 + 0.5
        np.testing.assert_allclose(found, np.broadcast_to(expected, (68, 2)), atol=1e-4)
    assert fan.find_landmarks({}, frame, [])[0].shape == (0, 68, 2)


def test_load_fan_says_where_to_get_it(tmp_path):
    with pytest.raises(AssetNotFoundError) as caught:
        fan.load_fan()
    for word in ("2DFAN4", "github.com/1adrianb", "convert --model fan", "Or use", "landmarks"):
        assert word in str(caught.value), word
    with pytest.raises(AssetNotFoundError, match="convert --model fan"):
        fan.load_fan(tmp_path / "missing.safetensors")
    write_safetensors(tmp_path / "other.safetensors", {"features_0/kernel": np.zeros(3)})
    with pytest.raises(ConversionError, match=r"be those of 'fan'.*convert --model fan"):
        fan.load_fan(tmp_path / "other.safetensors")


def test_load_variables_gives_back_what_was_written(narrow, tmp_path, monkeypatch):
    module, variables = narrow
    monkeypatch.setattr(fan, "FaceAlignmentNetwork", lambda: module)
    monkeypatch.setattr(fan, "FAN_SIDE", 64)
    write_safetensors(tmp_path / "fan.safetensors", flatten(variables))
    loaded = fan.load_fan(tmp_path / "fan.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
    flat = flatten(variables) | {"params/extra": np.zeros(1, np.float32)}
    write_safetensors(tmp_path / "wider.safetensors", flat)
    with pytest.raises(ConversionError, match="in all"):
        fan.load_fan(tmp_path / "wider.safetensors")
