"""Clips of photographs under smooth known warps: the small data set of `make demo`.

A handful of freely usable photographs ship inside scikit-image and matplotlib. Each clip moves one
of them by an affine part (a turn, a zoom, a shift) and a few broad bumps, all drifting smoothly in
time, so that neighbouring frames are alike and every pixel's origin is known in closed form.
Nothing is downloaded. Letters: t time, h w image, n bumps.

Coordinates: output positions q are x, y in [-1, 1], -1 and +1 on the outer *edges* of the frame
(pixel j is centred at (2 j + 1) / size - 1). A warp is backward: it maps q to the position in the
photograph's crop that is seen there, in the same units.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from data_pipeline.preprocess.finishing import PrepareSummary
from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, requirement

_SUPERSAMPLING = 2  # rendered at this multiple of the frame size and averaged: no aliasing
_MARGIN = 0.5  # of the crop's side, kept around the crop so that warps look beyond its border
_SPLITS = {"train": 0, "test": 1}


class Photograph(NamedTuple):
    """A photograph inside an installed package, and the square of it that is shown.

    Attributes:
      name: becomes the identity of its clips.
      package: the installed package it ships in.
      path: inside that package.
      box_px: x0, y0, x1, y1 of the square crop, in pixels of the photograph.
      licence: how it may be used.
    """

    name: str
    package: str
    path: str
    box_px: tuple[int, int, int, int]
    licence: str


PHOTOGRAPHS = (
    Photograph(
        "astronaut", "skimage", "data/astronaut.png", (98, 0, 358, 260), "public domain (NASA)"
    ),
    Photograph(
        "admiral",
        "matplotlib",
        "mpl-data/sample_data/grace_hopper.jpg",
        (101, 15, 431, 345),
        "public domain (US Navy)",
    ),
    Photograph("cat", "skimage", "data/chelsea.png", (105, 0, 405, 300), "CC0"),
    Photograph("photographer", "skimage", "data/camera.png", (88, 30, 348, 290), "CC0"),
    Photograph("coffee", "skimage", "data/coffee.png", (136, 20, 476, 360), "CC0"),
)


class WarpLimits(NamedTuple):
    """The largest excursions of a random motion.

    Attributes:
      turn_deg: rotation about the frame's centre.
      zoom: relative change of scale.
      shift: translation, half frame sides.
      bump: displacement at the centre of a bump, half frame sides.
    """

    turn_deg: float = 14.0
    zoom: float = 0.12
    shift: float = 0.16
    bump: float = 0.07


_LIMITS = WarpLimits()


class SmoothWarp(NamedTuple):
    """A motion in closed form: one backward warp per frame.

    Attributes:
      matrix: (t 2 2) linear part.
      shift: (t 2) translation.
      bumps: (t n 2) displacement at the bump centres.
      centers: (n 2) where the bumps sit.
      radius: standard deviation of a bump.
    """

    matrix: np.ndarray
    shift: np.ndarray
    bumps: np.ndarray
    centers: np.ndarray
    radius: float

    def positions(self, frame: int, points: np.ndarray) -> np.ndarray:
        """Where in the crop the output points of one frame come from.

        Args:
          frame: which frame.
          points: (... 2) output positions.

        Returns:
          (... 2) crop positions, same units.
        """
        offsets = points[..., None, :] - self.centers
        weights = np.exp(-0.5 * np.sum(offsets**2, axis=-1) / self.radius**2)
        linear = points @ self.matrix[frame].T + self.shift[frame]
        return linear + weights @ self.bumps[frame]


class Clip(NamedTuple):
    """One rendered clip.

    Attributes:
      clip_id: unique name.
      identity_id: name of the photograph.
      frames: (t h w 3) uint8 RGB.
      warp: the motion that made it.
    """

    clip_id: str
    identity_id: str
    frames: np.ndarray
    warp: SmoothWarp


def frame_points(size: int) -> np.ndarray:
    """(size size 2) positions x, y of the pixel centres of a square frame."""
    axis = (2 * np.arange(size) + 1) / size - 1
    return np.stack(np.meshgrid(axis, axis, indexing="xy"), axis=-1)


def random_warp(
    rng: np.random.Generator, *, num_frames: int, limits: WarpLimits = _LIMITS
) -> SmoothWarp:
    """Draws a motion: each parameter is a sum of two slow sines with random phases.

    The limits keep the warp free of folds (its Jacobian determinant stays positive).

    Args:
      rng: source of randomness.
      num_frames: length of the clip; the slow sine has one period in 24 frames.
      limits: the largest excursions.
    """
    centers = frame_points(3).reshape(-1, 2)
    radius = 0.45
    time = 2 * np.pi * np.arange(num_frames) / 24

    def drift(count: int) -> np.ndarray:
        """(t count) smooth curves in [-1, 1]."""
        phases = rng.uniform(0, 2 * np.pi, (2, count))
        share = rng.uniform(0.5, 1.0, count)
        slow, fast = np.sin(time[:, None] + phases[0]), np.sin(2 * time[:, None] + phases[1])
        return share * slow + (1 - share) * fast

    angle = np.deg2rad(limits.turn_deg) * drift(1)[:, 0]
    scale = 1 + limits.zoom * drift(1)[:, 0]
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], -2)
    bumps = limits.bump * drift(2 * len(centers)).reshape(num_frames, len(centers), 2)
    return SmoothWarp(matrix, limits.shift * drift(2), bumps, centers, radius)


def locate_photograph(photograph: Photograph) -> Path:
    """The file of a photograph.

    Raises:
      AssetNotFoundError: if its package is not installed, or came without the file.
    """
    spec = importlib.util.find_spec(photograph.package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / photograph.path).is_file():
        raise AssetNotFoundError(
            requirement(
                f"photograph '{photograph.name}'",
                f"ship inside {photograph.package}",
                "no such file" if folder else "no such package",
                "Install it: pip install 'talking_heads_jax[demo]'.",
            )
        )
    return folder / photograph.path


def read_crop(photograph: Photograph, *, size: int) -> np.ndarray:
    """Reads the crop of a photograph with a margin around it, ready to be warped.

    Args:
      photograph: which.
      size: side of the frames to render, pixels.

    Returns:
      (h w 3) float32 in [0, 1]; the crop is the central square, `2 * size` pixels wide, with half
      a crop more on each side: the photograph's own pixels where it has them, mirrored elsewhere.
    """
    with Image.open(locate_photograph(photograph)) as image:
        pixels = np.asarray(image.convert("RGB"))
    x0, y0, x1, y1 = photograph.box_px
    margin = round(_MARGIN * (x1 - x0))
    height, width = pixels.shape[:2]
    inside = pixels[
        max(y0 - margin, 0) : min(y1 + margin, height),
        max(x0 - margin, 0) : min(x1 + margin, width),
    ]
    border = (
        (max(margin - y0, 0), max(y1 + margin - height, 0)),
        (max(margin - x0, 0), max(x1 + margin - width, 0)),
        (0, 0),
    )
    padded = np.pad(inside, border, mode="symmetric")
    side = round((1 + 2 * _MARGIN) * _SUPERSAMPLING * size)
    resized = Image.fromarray(padded).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(resized, np.float32) / 255


def render_frame(crop: np.ndarray, warp: SmoothWarp, frame: int, *, size: int) -> np.ndarray:
    """Renders one frame of a motion.

    Args:
      crop: what `read_crop` returned for the same size.
      warp: the motion.
      frame: which frame of it.
      size: side of the frame, pixels.

    Returns:
      (size size 3) uint8 RGB.
    """
    positions = warp.positions(frame, frame_points(_SUPERSAMPLING * size))
    scale = _SUPERSAMPLING * size / 2
    rows_columns = positions[..., ::-1] * scale + crop.shape[0] / 2 - 0.5
    coordinates = np.moveaxis(rows_columns, -1, 0)
    fine = np.stack(
        [
            ndimage.map_coordinates(crop[..., channel], coordinates, order=1, mode="reflect")
            for channel in range(3)
        ],
        axis=-1,
    )
    coarse = fine.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING, 3).mean((1, 3))
    return np.round(255 * coarse).astype(np.uint8)


def warped_clips(
    *,
    split: str,
    clips_per_photograph: int,
    num_frames: int,
    size: int,
    seed: int = 0,
    photographs: tuple[Photograph, ...] = PHOTOGRAPHS,
) -> Iterator[Clip]:
    """Yields clips, photograph by photograph; same arguments, same pixels.

    Args:
      split: 'train' or 'test': the same photographs under different, never shared motions.
      clips_per_photograph: how many motions each photograph gets.
      num_frames: frames per clip.
      size: side of the frames, pixels.
      seed: of the whole set.
      photographs: which to use.

    Raises:
      ArgumentError: for an unknown split.
      AssetNotFoundError: if a photograph is not there.
    """
    if split not in _SPLITS:
        raise ArgumentError(
            requirement("split", "be known", repr(split), f"Use one of {', '.join(_SPLITS)}.")
        )
    for index, photograph in enumerate(photographs):
        crop = read_crop(photograph, size=size)
        for number in range(clips_per_photograph):
            rng = np.random.default_rng([seed, _SPLITS[split], index, number])
            warp = random_warp(rng, num_frames=num_frames)
            frames = np.stack(
                [render_frame(crop, warp, frame, size=size) for frame in range(num_frames)]
            )
            clip_id = f"{photograph.name}_{split}_{number:03d}"
            yield Clip(clip_id, photograph.name, frames, warp)


def write_warped_photos(
    output: Path,
    *,
    size: int,
    train_clips: int = 12,
    test_clips: int = 2,
    num_frames: int = 16,
    seed: int = 0,
) -> PrepareSummary:
    """Writes the data set: splits 'train' and 'test' share photographs, never motions.

    Args:
      output: new, empty, or begun by the same call.
      size: side of the frames, pixels.
      train_clips: per photograph.
      test_clips: per photograph.
      num_frames: frames per clip.
      seed: of the whole set.

    Returns:
      What was written.

    Raises:
      AssetNotFoundError: if a photograph is not there.
      DataError: if `output` holds another data set, or the disk is full.
    """
    counts = {"train": train_clips, "test": test_clips}
    clips = (
        ClipFrames(clip.clip_id, clip.frames, identity_id=clip.identity_id, split=split)
        for split, count in counts.items()
        for clip in warped_clips(
            split=split, clips_per_photograph=count, num_frames=num_frames, size=size, seed=seed
        )
    )
    recipe = {
        "made_by": "warped_photos",
        "photographs": [[photo.path, *photo.box_px] for photo in PHOTOGRAPHS],
        "clips": counts,
        "num_frames": num_frames,
        "seed": seed,
    }
    return write_clips(output, clips, size=size, recipe=recipe)
