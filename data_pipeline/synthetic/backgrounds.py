"""Static textured backgrounds: small families of patterns, each drawn from a generator.

A picture is a function of continuous coordinates (x right, y down, both [0, 1] across the frame),
sampled twice as densely as it is shown and averaged, so that the same background appears at every
size. Letters: h w image.
"""

import colorsys
from collections.abc import Callable

import numpy as np

_Painter = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]


def _color(
    rng: np.random.Generator, hue: float, *, value: tuple[float, float], strongest: float = 0.55
) -> np.ndarray:
    """An RGB colour near a hue, of a value in a range and moderate saturation."""
    shifted = (hue + rng.normal(0, 0.035)) % 1
    return np.array(colorsys.hsv_to_rgb(shifted, rng.uniform(0.08, strongest), rng.uniform(*value)))


def _blend(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """From one colour (or image) to another where `share` (h w) goes from 0 to 1."""
    return low + (high - low) * share[..., None]


def _soft_step(value: np.ndarray, softness: float) -> np.ndarray:
    """0 below, 1 above zero, with a smooth ramp of that half width."""
    share = np.clip(0.5 + 0.5 * value / softness, 0, 1)
    return share * share * (3 - 2 * share)


def _box(
    x: np.ndarray, y: np.ndarray, corners: tuple[float, float, float, float], softness: float
) -> np.ndarray:
    """1 inside a rectangle x0 y0 x1 y1 with soft borders."""
    x0, y0, x1, y1 = corners
    across = _soft_step(x - x0, softness) * _soft_step(x1 - x, softness)
    return across * _soft_step(y - y0, softness) * _soft_step(y1 - y, softness)


def _gradient(rng: np.random.Generator, x: np.ndarray, y: np.ndarray, hue: float) -> np.ndarray:
    """Two colours across the frame in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    share = 0.5 + 0.7 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    dark = _color(rng, hue, value=(0.15, 0.5))
    other = _color(rng, hue + rng.choice([0.0, 0.08, 0.5]), value=(0.5, 0.95))
    return _blend(dark, other, np.clip(share, 0, 1))


def _waves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A gradient under two crossing sinusoids."""
    hue = rng.random()
    picture = _gradient(rng, x, y, hue)
    for _ in range(2):
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(2, 9)
        phase = 2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 7)
        tone = _color(rng, hue + 0.1, value=(0.0, 1.0)) - 0.5
        picture = picture + rng.uniform(0.06, 0.16) * np.sin(phase)[..., None] * (0.7 + tone)
    return picture


def _stripes(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Stripes of two widths, as of a wallpaper or a blind."""
    hue = rng.random()
    base = _gradient(rng, x, y, hue)
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    position = x * np.cos(angle) + y * np.sin(angle)
    period, duty = 1 / rng.uniform(4, 14), rng.uniform(0.3, 0.7)
    wave = np.abs((position / period) % 1 - 0.5) * 2
    stripes = _soft_step(wave - duty, rng.uniform(0.08, 0.5))
    return _blend(base, _color(rng, hue + rng.choice([0, 0.5]), value=(0.3, 0.9)), 0.6 * stripes)


def _plaid(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Crossing bands, as of cloth or a window front."""
    hue = rng.random()
    picture = _gradient(rng, x, y, hue)
    for axis in (x, y):
        for _ in range(2):
            period, width = 1 / rng.uniform(2.5, 7), rng.uniform(0.1, 0.35)
            wave = np.abs((axis / period + rng.random()) % 1 - 0.5) * 2
            band = _soft_step(width - wave, 0.06)
            picture = _blend(picture, _color(rng, hue + 0.45, value=(0.2, 0.95)), 0.3 * band)
    return picture


def _blobs(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Soft clouds of colour, as of foliage far out of focus."""
    hue = rng.random()
    picture = _gradient(rng, x, y, hue)
    for _ in range(rng.integers(14, 34)):
        center, radius = rng.uniform(-0.05, 1.05, 2), rng.uniform(0.04, 0.2)
        distance = np.square((x - center[0]) / radius) + np.square((y - center[1]) / radius)
        tone = _color(rng, hue + rng.choice([0.0, 0.08, 0.5]), value=(0.1, 0.95))
        picture = _blend(picture, tone, rng.uniform(0.3, 0.8) * np.exp(-distance))
    return picture


def _lamps(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Out-of-focus lamps at night: sharp discs of light."""
    hue = rng.random()
    picture = 0.45 * _gradient(rng, x, y, hue)
    for _ in range(rng.integers(18, 40)):
        center, radius = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.075)
        distance = np.hypot(x - center[0], y - center[1])
        disc = _soft_step(radius - distance, 0.008) * (0.6 + 0.4 * np.clip(distance / radius, 0, 1))
        tone = _color(rng, rng.choice([hue, 0.09, 0.12, 0.6]), value=(0.7, 1.0), strongest=0.75)
        picture = picture + rng.uniform(0.15, 0.5) * disc[..., None] * tone
    return picture


def _room(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A wall with a window, pictures and a darker wainscot, slightly out of focus."""
    hue = rng.random()
    focus = rng.uniform(0.004, 0.02)
    wall = _color(rng, hue, value=(0.45, 0.9), strongest=0.3)
    corner = rng.uniform(0.1, 0.9)
    shade = 0.75 + 0.25 * _soft_step(x - corner, 0.02) + 0.1 * (x - 0.5) * rng.choice([-1, 1])
    picture = wall * shade[..., None]
    floor = rng.uniform(0.55, 0.8)
    lower = _color(rng, hue + 0.05, value=(0.2, 0.5))
    picture = _blend(picture, lower, _soft_step(y - floor, focus))
    picture = _blend(picture, 0.8 * wall, _box(x, y, (-1, floor - 0.03, 2, floor), focus))
    for _ in range(rng.integers(1, 4)):
        x0, y0 = rng.uniform(0, 0.85), rng.uniform(0.02, 0.45)
        x1, y1 = x0 + rng.uniform(0.08, 0.2), y0 + rng.uniform(0.1, 0.22)
        picture = _blend(
            picture,
            _color(rng, rng.random(), value=(0.1, 0.4)),
            _box(x, y, (x0, y0, x1, y1), focus),
        )
        inner = (x0 + 0.012, y0 + 0.012, x1 - 0.012, y1 - 0.012)
        picture = _blend(
            picture, _color(rng, rng.random(), value=(0.4, 0.95)), _box(x, y, inner, focus)
        )
    left = rng.uniform(-0.1, 0.75)
    width, top = rng.uniform(0.2, 0.4), rng.uniform(-0.05, 0.15)
    frame = (left, top, left + width, top + rng.uniform(0.3, 0.5))
    sky = _blend(
        np.array([0.95, 0.96, 0.98]), _color(rng, 0.58, value=(0.7, 0.95)), np.clip(1 - y, 0, 1)
    )
    picture = _blend(picture, np.array([0.9, 0.88, 0.85]), _box(x, y, frame, focus))
    bars = rng.integers(1, 4)
    for number in range(bars):
        pane = (
            left + width * number / bars + 0.012,
            frame[1] + 0.015,
            left + width * (number + 1) / bars - 0.012,
            frame[3] - 0.015,
        )
        picture = _blend(picture, sky, _box(x, y, pane, focus))
    return picture


def _shelves(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shelves of books, slightly out of focus."""
    hue = rng.random()
    focus = rng.uniform(0.005, 0.018)
    wood = _color(rng, rng.choice([0.07, 0.09, hue]), value=(0.25, 0.6))
    picture = _blend(0.45 * wood, 0.6 * wood, y)
    rows = rng.integers(3, 5)
    for row in range(rows + 1):
        top, bottom = (row - 1) / rows + 0.02, row / rows
        left = -rng.uniform(0, 0.05)
        while left < 1.0:
            width, height = rng.uniform(0.02, 0.06), rng.uniform(0.6, 0.92) * (bottom - top)
            if rng.random() < 0.88:
                book = (left, bottom - height, left + width - 0.003, bottom)
                tone = _color(rng, rng.choice([hue, rng.random()]), value=(0.2, 0.85))
                picture = _blend(picture, tone, _box(x, y, book, focus))
            left += width
        plank = (-1.0, bottom - 0.004, 2.0, bottom + 0.022)
        picture = _blend(picture, wood, _box(x, y, plank, focus))
    return picture


def _panels(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Overlapping soft-edged panels, as of a studio backdrop."""
    hue = rng.random()
    picture = _gradient(rng, x, y, hue)
    for _ in range(rng.integers(4, 9)):
        angle = rng.uniform(0, np.pi)
        offset, width = rng.uniform(-0.6, 0.6), rng.uniform(0.05, 0.25)
        position = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) - offset
        band = _soft_step(width - np.abs(position), rng.uniform(0.005, 0.08))
        tone = _color(rng, hue + rng.choice([0.0, 0.1, 0.5]), value=(0.15, 0.95))
        picture = _blend(picture, tone, rng.uniform(0.25, 0.6) * band)
    return picture


#: The families, by name.
PAINTERS: dict[str, _Painter] = {
    "waves": _waves,
    "stripes": _stripes,
    "plaid": _plaid,
    "blobs": _blobs,
    "lamps": _lamps,
    "room": _room,
    "shelves": _shelves,
    "panels": _panels,
}


def draw_background(
    rng: np.random.Generator, size: int, *, family: str | None = None
) -> np.ndarray:
    """Draws a background.

    Args:
      rng: source of randomness; the same state gives the same picture at every size.
      size: height and width, pixels.
      family: a key of `PAINTERS`; None draws one.

    Returns:
      (h w 3) float32 in [0, 1].
    """
    names = tuple(PAINTERS)
    drawn = names[rng.integers(len(names))]
    axis = (np.arange(2 * size) + 0.5) / (2 * size)
    x, y = np.meshgrid(axis, axis, indexing="xy")
    picture = PAINTERS[family or drawn](rng, x, y)
    vignette = 1 - rng.uniform(0, 0.35) * (np.square(x - 0.5) + np.square(y - 0.5))
    picture = np.clip(picture * vignette[..., None], 0.02, 0.98)
    return picture.reshape(size, 2, size, 2, 3).mean((1, 3)).astype(np.float32)
