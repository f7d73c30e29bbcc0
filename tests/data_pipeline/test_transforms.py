"""Augmentation: probabilities, colour operations against formulas, mirrored labels."""

import colorsys

import numpy as np
import pytest

from data_pipeline.records import Record
from data_pipeline.transforms import (
    MIRROR68,
    Augmentation,
    augment_pair,
    draw_augmentation,
    jitter_colors,
    mirror_record,
)
from talking_heads_jax.errors import ConfigError

RECIPE = Augmentation()


def picture(seed: int = 0, size: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def record(seed: int = 0) -> Record:
    rng = np.random.default_rng(seed)
    return Record(
        picture(seed), "clip", "who", seed, np.zeros(4, np.float32), np.eye(2, 3, dtype=np.float32),
        rng.uniform(0, 24, (68, 2)).astype(np.float32),
        rng.integers(0, 2, 68).astype(np.uint8),
        np.array([0.3, -0.1, 0.2], np.float32),
    )  # fmt: skip


def grey(image: np.ndarray) -> np.ndarray:
    """ITU-R 601-2 luma, rounded as Pillow does."""
    return (image.astype(np.int64) @ [19595, 38470, 7471] + 0x8000) >> 16


def blend(low: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """low + factor (image - low), cut to bytes."""
    exact = low + factor * (image.astype(np.float64) - low)
    return np.clip(exact, 0, 255)


def test_flips_come_in_the_shares_of_the_recipe() -> None:
    draws = [draw_augmentation(RECIPE, np.random.default_rng(i)) for i in range(4000)]
    time = np.mean([draw.time_flip for draw in draws])
    mirror = np.mean([draw.horizontal_flip for draw in draws])
    # 1/2, 1/4 and never both; a standard deviation is 0.008.
    assert abs(time - 0.5) < 0.04 and abs(mirror - 0.25) < 0.04
    assert not any(draw.time_flip and draw.horizontal_flip for draw in draws)


def test_jitter_factors_cover_their_ranges_in_every_order() -> None:
    draws = [draw_augmentation(RECIPE, np.random.default_rng(i)) for i in range(3000)]
    orders = {tuple(operation for operation, _ in draw.jitter) for draw in draws}
    assert len(orders) == 24
    for operation, centre in ((0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0)):
        factors = np.array([dict(draw.jitter)[operation] for draw in draws]) - centre
        assert np.abs(factors).max() <= 0.1 and factors.max() > 0.099 and factors.min() < -0.099
        assert abs(factors.mean()) < 0.006  # 5 standard deviations of the mean


def test_jitter_operations_follow_their_formulas() -> None:
    image = picture()
    black, luma = np.zeros_like(image), grey(image)[..., None]
    mean = np.full_like(image, int(grey(image).mean() + 0.5))
    for factor in (0.9, 1.0, 1.1):
        for operation, low in ((0, black), (1, mean), (2, luma)):
            result = jitter_colors(image, ((operation, factor),))
            # Truncation to a byte.
            assert np.abs(result - blend(low, image, factor)).max() < 1.001


def test_jitter_hue_turns_the_colour_circle() -> None:
    image = picture(size=8)
    shift = 0.07
    result = jitter_colors(image, ((3, shift),)).astype(float)
    expected = np.empty_like(result)
    for index in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*(image[index] / 255))
        expected[index] = np.array(colorsys.hsv_to_rgb((h + int(shift * 255) / 255) % 1, s, v))
    # Hue and saturation are held in 8 bits: a hue step moves a channel by up to 6 levels.
    assert np.abs(result - expected * 255).max() <= 8
    grey_image = np.repeat(image[..., :1], 3, -1)
    assert np.array_equal(jitter_colors(grey_image, ((3, -0.1),)), grey_image)


def test_jitter_order_matters_and_nothing_is_identity() -> None:
    image = picture()
    assert jitter_colors(image, ()) is image
    one = jitter_colors(image, ((0, 1.1), (1, 0.9)))
    two = jitter_colors(image, ((1, 0.9), (0, 1.1)))
    assert not np.array_equal(one, two)


def test_augment_pair_treats_both_frames_alike() -> None:
    for seed in range(12):
        draw = draw_augmentation(RECIPE, np.random.default_rng(seed))
        source, driving = augment_pair(record(1), record(2), draw)
        assert (source.frame_index, driving.frame_index) == ((2, 1) if draw.time_flip else (1, 2))
        same, again = augment_pair(record(3), record(3), draw)
        assert np.array_equal(same.image, again.image)
        assert source.image.flags.c_contiguous


def test_augment_pair_leaves_its_input_alone() -> None:
    source, driving = record(1), record(2)
    draw = draw_augmentation(RECIPE, np.random.default_rng(2))
    augment_pair(source, driving, draw)
    assert np.array_equal(source.image, record(1).image)
    assert np.array_equal(driving.landmarks68_px, record(2).landmarks68_px)


def test_mirror_record_is_an_involution() -> None:
    twice = mirror_record(mirror_record(record()))
    np.testing.assert_allclose(twice.landmarks68_px, record().landmarks68_px, atol=1e-5)
    assert np.array_equal(twice.landmarks68_visible, record().landmarks68_visible)
    assert np.array_equal(twice.image, record().image)
    np.testing.assert_allclose(twice.angles, record().angles)


def test_mirror_record_moves_landmarks_and_angles_with_the_picture() -> None:
    original = record()._replace(landmarks68_px=np.full((68, 2), 3.5, np.float32))
    mirrored = mirror_record(original)
    # The pixel whose centre is (3.5, 3.5) lands where the landmark says.
    x, y = mirrored.landmarks68_px[0]
    assert np.array_equal(mirrored.image[int(y), int(x)], original.image[3, 3])
    np.testing.assert_allclose(mirrored.angles, [-0.3, -0.1, -0.2], rtol=1e-6)


def test_mirror_of_the_68_landmarks_pairs_left_and_right() -> None:
    assert sorted(MIRROR68) == list(range(68))
    assert np.array_equal(MIRROR68[MIRROR68], np.arange(68))
    pairs = {0: 16, 17: 26, 27: 27, 33: 33, 36: 45, 39: 42, 41: 46, 48: 54, 51: 51, 57: 57, 60: 64}
    assert all(MIRROR68[one] == other for one, other in pairs.items())


def test_augmentation_from_config_checks_keys_and_ranges() -> None:
    assert Augmentation.from_config({}) == Augmentation.from_config(None)
    draw = draw_augmentation(Augmentation.from_config({}), np.random.default_rng(0))
    assert draw == (draw.__class__(False, False, ()))
    with pytest.raises(ConfigError, match="rotation"):
        Augmentation.from_config({"rotation": 0.1})
    for wrong in ({"hue": 0.6}, {"brightness": -0.1}, {"time_flip": 1.1}):
        with pytest.raises(ConfigError, match=r"data\.augmentation"):
            Augmentation.from_config(wrong)
