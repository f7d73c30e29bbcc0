"""Small scenes for tests of tracking: coloured squares stand for faces, a detector finds them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from talking_heads_jax.tracking.detection import FaceBox

RED, GREEN = (230, 20, 30), (20, 220, 40)
_COLORS = (RED, GREEN)


def background(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    """A smooth picture; another seed is another place."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [
        rng.uniform(60, 180) + 40 * np.sin(2 * np.pi * (a * rows + b * columns) + phase)
        for a, b, phase in zip(
            rng.normal(size=3), rng.normal(size=3), rng.uniform(0, 6, 3), strict=True
        )
    ]
    return np.stack(waves, axis=-1).clip(0, 255).astype(np.uint8)


def scene(
    squares: Sequence[tuple[float, float, float, tuple[int, int, int]]],
    *,
    height: int = 96,
    width: int = 128,
    seed: int = 0,
) -> np.ndarray:
    """A background with squares (left, top, side, colour), cut off at the border."""
    frame = background(height, width, seed)
    for left, top, side, color in squares:
        x, y, size = round(left), round(top), round(side)
        frame[max(y, 0) : max(y + size, 0), max(x, 0) : max(x + size, 0)] = color
    return frame


class SquareDetector:
    """Finds the squares of `scene`, one of each colour."""

    name = "squares"
    note = ""

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        self.asked += 1
        boxes = []
        for color in _COLORS:
            rows, columns = np.nonzero((np.abs(frame.astype(int) - color) < 40).all(-1))
            if len(rows) >= 16:
                boxes.append(
                    FaceBox(
                        float(columns.min()),
                        float(rows.min()),
                        float(columns.max() + 1),
                        float(rows.max() + 1),
                    )
                )
        return boxes


def face_points(center: Sequence[float], size: float) -> np.ndarray:
    """(68 2) points that lie as landmarks do, roughly; outer eye corners `size` apart."""
    angle = np.linspace(np.pi, 0, 17)
    jaw = np.stack([0.85 * np.cos(angle), -0.1 + 1.15 * np.sin(angle)], -1)
    brows = np.stack([np.linspace(-0.65, 0.65, 10), np.full(10, -0.35)], -1)
    nose = np.concatenate(
        [
            np.stack([np.zeros(4), np.linspace(-0.1, 0.3, 4)], -1),
            np.stack([np.linspace(-0.15, 0.15, 5), np.full(5, 0.4)], -1),
        ]
    )
    eye = np.array([[-1, 0], [-0.5, -0.4], [0.5, -0.4], [1, 0], [0.5, 0.4], [-0.5, 0.4]]) * 0.15
    eyes = np.concatenate([eye + np.array([side, -0.05]) for side in (-0.35, 0.35)])
    around = np.linspace(-np.pi, np.pi, 13)[:12]
    lips = np.stack([0.3 * np.cos(around), 0.7 + 0.12 * np.sin(around)], -1)
    inner = np.stack([0.2 * np.cos(around[:8]), 0.7 + 0.04 * np.sin(around[:8])], -1)
    points = np.concatenate([jaw, brows, nose, eyes, lips, inner])
    return (points * size + np.asarray(center)).astype(np.float32)


def write_timed_clip(path: Path, frames: Sequence[np.ndarray], moments_ms: Sequence[int]) -> Path:
    """A video whose frames are shown at given moments."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.options = {"crf": "10", "bf": "0"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for image, moment in zip(frames, moments_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
