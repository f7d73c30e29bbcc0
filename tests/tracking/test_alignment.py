"""Alignment recipes: the released programs' arithmetic, and crops whose pixels lie as they say."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.geometry.deep3d_template import TEMPLATE_FIVE_POINTS
from talking_heads_jax.tracking.alignment import (
    RECIPES,
    Alignment,
    align_clip,
    alignment_from_box,
    warp_to_crop,
)
from talking_heads_jax.tracking.clip_boxes import fomm_clip_box, landmark_box
from talking_heads_jax.tracking.face_crops import (
    deca_224,
    deep3d_224,
    eg3d_512,
    gdpw_256,
    template_scale_px,
)

HEIGHT, WIDTH = 300, 400
FRAME_SIZE = (HEIGHT, WIDTH)


def face(scale=46.3, center=(210.3, 160.8), turn_deg=12.0):
    """(68 2) landmarks: template points where the five are, the rest on an ellipse around them."""
    yaw, roll = np.deg2rad(turn_deg), np.deg2rad(0.5 * turn_deg)
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_z = np.array(
        [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
    )
    five = TEMPLATE_FIVE_POINTS @ (about_z @ about_y).T
    around = np.linspace(0, 2 * np.pi, 68)
    points = np.stack([0.7 * np.cos(around), 0.75 * np.sin(around) - 0.1], axis=-1)
    for pair, place in zip(((36, 39), (42, 45)), five[:2, :2], strict=True):
        points[list(pair)] = place + np.array([[-0.12, 0.01], [0.12, -0.01]])
    points[[30, 48, 54]] = five[2:, :2]
    return scale * points * [1, -1] + center


def photograph(height=HEIGHT, width=WIDTH):
    """uint8 picture without details finer than a few pixels."""
    y, x = np.mgrid[:height, :width] / 40.0
    waves = np.stack(
        [np.sin(x + y), np.cos(1.3 * x - y), np.sin(0.7 * x) * np.cos(1.1 * y)], axis=-1
    )
    return np.uint8(128 + 100 * waves)


def clip():
    """(t 68 2): two frames with a face, one without."""
    return np.stack([face(), np.full((68, 2), np.nan), face(center=(200, 150))])


def boxes():
    return np.array([[150.0, 90, 260, 230], [np.nan] * 4, [140, 95, 250, 228]])


def test_fomm_box_by_hand():
    """Union 80 x 120: the height grows by 12 on each side, the width by (144 - 80) / 2 = 32."""
    tube = np.array([[100.0, 50, 170, 165], [110, 60, 180, 170], [np.nan] * 4])
    assert fomm_clip_box(tube, FRAME_SIZE).box_px == pytest.approx((68, 38, 212, 182))
    wide = np.array(
        [[100.5, 100, 220.5, 160]]
    )  # 120 x 60: 12 beside, 42 above; cut to whole pixels
    assert fomm_clip_box(wide, FRAME_SIZE).box_px == pytest.approx((88, 58, 232, 202))
    more = fomm_clip_box(tube, FRAME_SIZE, increase=0.2, size=64)
    assert more.box_px == pytest.approx((56, 26, 224, 194)) and more.size == 64


def test_fomm_box_at_the_border():
    tube = np.array([[10.0, 20, 130, 140]])  # grows to (-2, 8, 142, 152)
    kept = fomm_clip_box(tube, (150, 400))
    assert kept.box_px == pytest.approx((-2, 8, 142, 152)) and not kept.is_inside((150, 400))
    cut = fomm_clip_box(tube, (150, 400), at_border="clamp")
    assert cut.box_px == pytest.approx((0, 8, 142, 150)) and cut.is_inside((150, 400))
    with pytest.raises(ArgumentError, match="'clamp'"):
        fomm_clip_box(tube, FRAME_SIZE, at_border="drop")


def test_deca_crops_anchor_their_corners_where_the_fitter_does():
    """Its three and four point pairs, counted from pixel centres."""
    points = face()
    low, high = points.min(0) - 0.5, points.max(0) - 0.5
    middle, old = (low + high) / 2, (high - low).sum() / 2 * 1.1
    first, second = int(old * 1.25), int(old * 1.35)
    crop = deca_224(points)
    pairs = [(-0.5, -0.5, 0, 0), (-0.5, 0.5, 0, 224), (0.5, -0.5, 224, 0)]
    for x, y, *place in pairs:
        corner = middle + first * np.array([x, y])
        np.testing.assert_allclose(crop.to_crop(corner + 0.5) - 0.5, place, atol=1e-9)
    upstream = deca_224(points, anchor=223)
    corner = middle + first / 2
    np.testing.assert_allclose(upstream.to_crop(corner + 0.5) - 0.5, [223, 223], atol=1e-9)
    final = gdpw_256(points)
    for x, y, *place in [(-0.5, -0.6, 0, 0), (-0.5, 0.4, 0, 255), (0.5, 0.4, 255, 255)]:
        corner = middle + second * np.array([x, y])
        np.testing.assert_allclose(final.to_crop(corner + 0.5) - 0.5, place, atol=1e-9)


def released_deep3d(frame, points, target, factor):
    """Deep3DFaceRecon's steps: y up from the last row's centre, whole pixels, resize, cut out."""
    image = Image.fromarray(frame)
    width, height = image.size
    five = points[[36, 42, 30, 48, 54]] - 0.5
    five[:2] = (points[[36, 42]] + points[[39, 45]]) / 2 - 0.5
    five[:, 1] = height - 1 - five[:, 1]
    system = np.zeros((10, 8))
    system[0::2, :3] = system[1::2, 4:7] = TEMPLATE_FIVE_POINTS
    system[0::2, 3] = system[1::2, 7] = 1
    answer = np.linalg.lstsq(system, five.reshape(10), rcond=None)[0]
    scale = factor / ((np.linalg.norm(answer[:3]) + np.linalg.norm(answer[4:7])) / 2)
    wide, high = int(width * scale), int(height * scale)
    left = int(wide / 2 - target / 2 + (answer[3] - width / 2) * scale)
    up = int(high / 2 - target / 2 + (height / 2 - answer[7]) * scale)
    resized = image.resize((wide, high), Image.Resampling.BICUBIC)
    return resized.crop((left, up, left + target, up + target))


@pytest.mark.parametrize("turn_deg", [0.0, 35.0])
def test_deep3d_crop_is_the_released_crop(turn_deg):
    frame, points = photograph(), face(turn_deg=turn_deg)
    expected = np.asarray(released_deep3d(frame, points, 224, 102.0), np.float64)
    crop = warp_to_crop(frame, deep3d_224(points, FRAME_SIZE))
    # The same kernel at the same places; Pillow rounds to bytes between its two passes.
    assert np.abs(crop - expected).max() <= 1
    assert np.abs(warp_to_crop(frame, deep3d_224(points + 1.5, FRAME_SIZE)) - expected).max() > 5


def test_eg3d_crop_is_the_released_crop():
    frame, points = photograph(), face(scale=60.0)
    canvas = released_deep3d(frame, points, 1024, 300.0).crop((162, 162, 862, 862))
    expected = np.asarray(canvas.resize((512, 512), Image.Resampling.LANCZOS), np.float64)
    crop = warp_to_crop(frame, eg3d_512(points, FRAME_SIZE))
    # One Lanczos pass instead of bicubic and Lanczos: a few levels at most on a smooth picture.
    assert np.abs(crop - expected)[8:-8, 8:-8].max() <= 3
    assert np.abs(crop - expected).mean() < 0.5


def test_template_is_placed_where_it_was_projected():
    """Under a scaled rotation the linear fit is exact: scale and origin come back."""
    points = face(scale=70.0, center=(200.25, 140.5), turn_deg=50.0)
    assert template_scale_px(points) == pytest.approx(70.0)
    crop = deep3d_224(points, FRAME_SIZE, rounded=False)
    assert crop.matrix[0, 0] == pytest.approx(102 / 70)
    # The released zero points put the middle half a pixel left of, and below, the origin.
    np.testing.assert_allclose(crop.to_frame([112, 112]), [199.75, 141.0])
    five = np.stack([points[[36, 39]].mean(0), points[[42, 45]].mean(0), *points[[30, 48, 54]]])
    np.testing.assert_allclose(deep3d_224(five, FRAME_SIZE, rounded=False).matrix, crop.matrix)


def test_eg3d_and_deep3d_share_their_centre():
    """Deep3D's 224 pixels are the middle 481.9 of EG3D's 512."""
    points, places = face(), np.array([[0.0, 0], [112, 112], [224, 100]])
    small, large = (recipe(points, FRAME_SIZE, rounded=False) for recipe in (deep3d_224, eg3d_512))
    seen = large.to_crop(small.to_frame(places))
    np.testing.assert_allclose(seen, (places - 112) * (512 * 16 / 17 / 224) + 256, atol=1e-9)
    rounded = eg3d_512(points, FRAME_SIZE).to_crop(deep3d_224(points, FRAME_SIZE).to_frame(places))
    assert 0 < np.abs(rounded - seen).max() < 4  # a pixel of 224 is 2.2, one of the canvas 0.7


def aligned(name):
    return align_clip(name, FRAME_SIZE, landmarks_px=clip(), boxes_px=boxes())[0]


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [None, 96])
def test_crops_show_the_places_their_matrix_names(name, size):
    """A picture whose colours are x and y: every pixel says where it comes from."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    frame = np.stack([x, y, 0 * x], axis=-1).astype(np.float32)
    alignment = align_clip(name, FRAME_SIZE, landmarks_px=clip(), boxes_px=boxes(), size=size)[0]
    assert alignment.size == (RECIPES[name].size if size is None else size)
    centres = np.stack(np.meshgrid(*[np.arange(alignment.size) + 0.5] * 2), axis=-1)
    places = alignment.to_frame(centres)
    reach = 3 * max(1, 1 / alignment.matrix[0, 0])  # of the widest filter
    inside = ((places > reach) & (places < np.array([WIDTH, HEIGHT]) - reach)).all(-1)
    assert inside.mean() > 0.4
    # A filter cut off at whole pixels keeps ramps to hundredths of a pixel only.
    crop = warp_to_crop(frame, alignment)
    np.testing.assert_allclose(crop[inside][:, :2], places[inside], atol=0.05)
    if alignment.interpolation == "bilinear":
        crop = warp_to_crop(frame, alignment, antialias=False)
        np.testing.assert_allclose(crop[inside][:, :2], places[inside], atol=1e-3)
    np.testing.assert_allclose(alignment.to_crop(places), centres, atol=1e-9)
    full = np.concatenate([places, np.ones_like(places[..., :1])], axis=-1)
    np.testing.assert_allclose(full @ alignment.matrix.T, centres, atol=1e-9)
    ones = np.concatenate([centres, np.ones_like(centres[..., :1])], axis=-1)
    np.testing.assert_allclose(ones @ alignment.inverse.T, places, atol=1e-9)


def test_what_lies_outside_the_frame_looks_as_the_recipe_says():
    frame = np.full((40, 60, 3), 100, np.uint8)
    box = (-30.0, -10.0, 30.0, 50.0)
    for outside, level in (("edge", 100), ("black", 0), ("white", 255)):
        alignment = alignment_from_box("test", 1, box, 60, outside=outside)
        for antialias in (True, False):
            crop = warp_to_crop(frame, alignment, antialias=antialias)
            assert (crop[:, :28] == level).all() and (crop[:8] == level).all()
            assert (crop[12:48, 32:] == 100).all()


def test_a_box_far_larger_than_the_frame_costs_no_memory():
    """Sixty frames wide: only the part with pixels is resampled, and it lies where it should."""
    frame = np.full((20, 20, 3), 200, np.uint8)
    crop = warp_to_crop(
        frame, alignment_from_box("test", 1, (-590, -590, 610, 610), 240, outside="black")
    )
    assert crop[:117].max() == crop[123:].max() == crop[:, :117].max() == crop[:, 123:].max() == 0
    assert crop[..., 0].sum(dtype=int) == pytest.approx(16 * 200, rel=0.02)  # four by four pixels
    np.testing.assert_array_equal(crop, crop[::-1, ::-1])
    with pytest.raises(ArgumentError, match="64 times as large"):
        warp_to_crop(frame, alignment_from_box("test", 1, (-5000, -5000, 5000, 5000), 240))


def test_warp_to_crop_refuses_what_is_no_picture():
    alignment = alignment_from_box("test", 1, (0, 0, 8, 8), 8)
    for antialias in (True, False):
        with pytest.raises(ArgumentError, match=r"be \(h w 3\)"):
            warp_to_crop(np.zeros((8, 8), np.uint8), alignment, antialias=antialias)
    with pytest.raises(ArgumentError, match="overlap the 8 x 8 image"):
        warp_to_crop(np.zeros((8, 8, 3), np.uint8), alignment_from_box("t", 1, (9, 0, 12, 3), 8))


def test_four_taps_do_not_average():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    alignment = alignment_from_box("test", 1, (0, 0, 64, 64), 16)
    # Centres fall between columns 1 and 2 of every four, which are black.
    assert (warp_to_crop(stripes, alignment, antialias=False) == 0).all()
    assert warp_to_crop(stripes, alignment)[4:-4, 4:-4].min() > 30
    with pytest.raises(ArgumentError, match="must be bilinear"):
        warp_to_crop(
            stripes,
            alignment_from_box("t", 1, (0, 0, 9, 9), 9, interpolation="lanczos"),
            antialias=False,
        )


def test_align_clip_gives_every_frame_its_crop():
    for name, recipe in RECIPES.items():
        crops = align_clip(name, FRAME_SIZE, landmarks_px=clip(), boxes_px=boxes())
        assert len(crops) == 3 and crops[0].name == name and crops[0].label == f"{name}/1"
        if recipe.clip_wise:
            assert crops[0] is crops[1] is crops[2]
        else:
            assert crops[1] is None
            assert not np.allclose(crops[0].matrix, crops[2].matrix)
    degenerate = clip()
    degenerate[2] = 7.0  # every point in one place: of this frame only
    crops = align_clip("deca_224", FRAME_SIZE, landmarks_px=degenerate)
    assert crops[0] is not None and crops[1] is crops[2] is None
    found = clip()[[0, 2]]
    expected = landmark_box(found, *FRAME_SIZE)
    assert aligned("prepare").box_px == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("ffhq", {}, "'eg3d_512'"),
        ("prepare", {"boxes_px": boxes()}, "be given landmarks"),
        ("fomm_clip_box", {"landmarks_px": clip()}, "be given boxes"),
        ("deca_224", {"landmarks_px": clip()[0]}, r"have shape \(\*, 68, 2\)"),
        ("deep3d_224", {"landmarks_px": np.full((2, 68, 2), np.nan)}, "68 finite landmarks"),
        ("prepare", {"landmarks_px": np.full((2, 68, 2), np.nan)}, "at least one finite landmark"),
        ("fomm_clip_box", {"boxes_px": np.full((2, 4), np.nan)}, "at least one finite face box"),
        ("fomm_clip_box", {"boxes_px": np.array([[5.0, 5, 5, 9]])}, "x0 < x1"),
        ("deca_224", {"landmarks_px": np.full((1, 68, 2), 7.0)}, "a pixel or more"),
        ("eg3d_512", {"landmarks_px": np.full((1, 68, 2), 1e300)}, "far outside"),
        ("eg3d_512", {"landmarks_px": np.ones((1, 68, 2)) * np.arange(68)[:, None]}, "one line"),
    ],
)
def test_align_clip_refuses(name, given, message):
    with pytest.raises(ArgumentError, match=message):
        align_clip(name, FRAME_SIZE, **given)


def test_frame_recipes_refuse_a_clip():
    for recipe in (deca_224, gdpw_256, deep3d_224, eg3d_512):
        with pytest.raises(ArgumentError, match="A frame's face must have"):
            recipe(clip(), FRAME_SIZE)


def test_alignment_refuses_what_is_no_crop():
    for matrix in ([[1, 0.1, 0], [0, 1, 0]], [[-1, 0, 0], [0, 1, 0]], [[1, 0, np.nan], [0, 1, 0]]):
        with pytest.raises(ArgumentError, match="turn nothing"):
            Alignment("test", 1, np.array(matrix), 8)
    with pytest.raises(ArgumentError, match="size must be positive"):
        Alignment("test", 1, np.eye(2, 3), 0)
    with pytest.raises(ArgumentError, match="'lanczos'"):
        Alignment("test", 1, np.eye(2, 3), 8, "nearest")
    half = Alignment("test", 1, np.eye(2, 3), 8).resized(4)
    assert half.size == 4 and half.box_px == (0, 0, 8, 8)


def test_alignment_and_paste_import_without_jax():
    """Spawned data workers import them."""
    program = (
        "import sys; import talking_heads_jax.tracking.alignment, talking_heads_jax.tracking.paste;"
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
