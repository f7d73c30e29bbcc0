"""Face boxes in a frame: what is installed is used, and what is not is said.

No detector is required and none is downloaded: 'dlib' if that package is there, 'cascade' with the
file that scikit-image ships, else 'centre', which finds nothing and says so. Boxes are pixels of
the frame, pixel (i, j) covers [j, j+1) x [i, i+1). Only numpy is imported at the top.
Letters: h w image.
"""

import functools
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, check_choice, requirement
from talking_heads_jax.media.resize import resize_image

DETECTORS = ("auto", "dlib", "cascade", "centre")

# Cascade: the frame is shrunk to this longer side. Larger is slower and finds more things that are
# no faces: of scikit-image's astronaut the face alone at 256 and 320, five boxes at 512.
_CASCADE_SIDE = 320
_CASCADE_STEP = 1.2  # between the sizes that are tried
_CASCADE_NEIGHBOURS = 4  # agreeing windows that make a face
_CASCADE_SMALLEST = 0.1  # side of the smallest face, share of the frame's longer side
_DLIB_SIDE = 640  # its smallest face is 80 px
_CENTRE_SHARE = 0.6  # of the shorter side: a portrait's face box is about that


class FaceBox(NamedTuple):
    """A box around a face, roughly from the brows to the chin.

    Attributes:
      x0: left edge, pixels.
      y0: upper edge.
      x1: right edge.
      y1: lower edge.
      score: the detector's own; larger is surer. 1 where it gives none, 0 for a guess.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float = 1.0

    @property
    def area(self) -> float:
        """In square pixels; 0 for an empty box."""
        return max(self.x1 - self.x0, 0.0) * max(self.y1 - self.y0, 0.0)

    @property
    def center(self) -> tuple[float, float]:
        """Its x, y."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


class Detector(Protocol):
    """What finds faces.

    Attributes:
      name: as `find_detector` knows it.
      note: what a user should know about its boxes; '' for nothing.
    """

    name: str
    note: str

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        """Returns the faces of a frame (h w 3) uint8 RGB, in any order."""
        ...


class Landmarker(Protocol):
    """What finds 68 landmarks in a box.

    Attributes:
      source: what `ClipTrack.landmark_source` will say.
    """

    source: str

    def landmarks(self, frame: np.ndarray, box: FaceBox) -> tuple[np.ndarray, np.ndarray]:
        """Returns (68 2) pixels and (68,) uint8 visibility for a face of a frame (h w 3) uint8."""
        ...


def find_detector(name: str = "auto") -> Detector:
    """Returns a detector by name.

    Args:
      name: 'dlib', 'cascade', 'centre', or 'auto' for the first of them that is installed.

    Raises:
      ArgumentError: an unknown name.
      AssetNotFoundError: its package is not installed.
    """
    check_choice("the detector", name, DETECTORS)
    if name == "auto":
        packages = {"dlib": "dlib", "cascade": "skimage"}
        name = next((key for key, package in packages.items() if _installed(package)), "centre")
    return {"dlib": DlibDetector, "cascade": CascadeDetector, "centre": CentreDetector}[name]()


class CascadeDetector:
    """Scikit-image's cascade of local binary patterns: frontal faces, slow, nothing to download.

    It misses faces turned by more than about 30 degrees and sometimes takes a pattern for a face;
    the largest box is usually right.
    """

    name = "cascade"
    note = ""

    def __init__(self) -> None:
        """Reads the cascade's file.

        Raises:
          AssetNotFoundError: scikit-image is not installed.
        """
        if not _installed("skimage"):
            raise _absent("cascade", "scikit-image", "pip install 'talking_heads_jax[detect]'")
        self._cascade = _cascade()

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        """Returns the boxes (squares) it finds.

        Args:
          frame: (h w 3) uint8 RGB of any size; it is shrunk first.
        """
        small, scale = _shrink(frame, _CASCADE_SIDE)
        smallest = max(24, round(_CASCADE_SMALLEST * max(small.shape[:2])))  # 24: its window
        if min(small.shape[:2]) <= smallest:
            return []
        found = self._cascade.detect_multi_scale(
            np.ascontiguousarray(small),
            scale_factor=_CASCADE_STEP,
            step_ratio=1,
            min_size=(smallest, smallest),
            max_size=small.shape[:2],
            min_neighbor_number=_CASCADE_NEIGHBOURS,
        )
        return [
            FaceBox(
                box["c"] * scale,
                box["r"] * scale,
                (box["c"] + box["width"]) * scale,
                (box["r"] + box["height"]) * scale,
            )
            for box in found
        ]


class DlibDetector:
    """Dlib's frontal face detector, compiled into the package."""

    name = "dlib"
    note = ""

    def __init__(self) -> None:
        """Makes the detector.

        Raises:
          AssetNotFoundError: dlib is not installed.
        """
        if not _installed("dlib"):
            raise _absent("dlib", "dlib", "pip install 'talking_heads_jax[dlib]'")
        self._detector = importlib.import_module("dlib").get_frontal_face_detector()

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        """Returns the boxes it finds, the surest first.

        Args:
          frame: (h w 3) uint8 RGB of any size; a large one is shrunk first.
        """
        small, scale = _shrink(frame, _DLIB_SIDE)
        boxes, scores, _ = self._detector.run(np.ascontiguousarray(small), 0, 0.0)
        return [  # its edges are inclusive pixel indices
            FaceBox(
                box.left() * scale,
                box.top() * scale,
                (box.right() + 1) * scale,
                (box.bottom() + 1) * scale,
                float(score),
            )
            for box, score in zip(boxes, scores, strict=True)
        ]


class CentreDetector:
    """No detector at all: the middle of the frame, where portraits have their face."""

    name = "centre"
    note = (
        "no face was looked for: the box is the middle of the frame. Give --box or --landmarks, or "
        "install a detector: pip install 'talking_heads_jax[detect]'"
    )

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        """Returns one square box with score 0.

        Args:
          frame: (h w 3).
        """
        height, width = frame.shape[:2]
        half = _CENTRE_SHARE * min(height, width) / 2
        x, y = width / 2, height / 2
        return [FaceBox(x - half, y - half, x + half, y + half, 0.0)]


class FixedBox:
    """The box a user gave, in every frame."""

    name = "box"
    note = ""

    def __init__(self, box: Sequence[float]) -> None:
        """Checks the box.

        Args:
          box: x0 y0 x1 y1, pixels; may reach outside the frame.

        Raises:
          ArgumentError: it is empty or not finite.
        """
        x0, y0, x1, y1 = (float(value) for value in box)
        if not (np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1):
            raise ArgumentError(
                requirement(
                    "the box", "be x0 < x1, y0 < y1", tuple(box), "Give pixels of the frame."
                )
            )
        self._box = FaceBox(x0, y0, x1, y1)

    def detect(self, frame: np.ndarray) -> list[FaceBox]:
        """Returns that box.

        Args:
          frame: not looked at.
        """
        return [self._box]


class FanLandmarker:
    """The face alignment network, when its weights are registered: a box → 68 landmarks."""

    source = "fan"

    def __init__(self) -> None:
        """Loads the weights.

        Raises:
          AssetNotFoundError: they are not registered; says how to get them.
        """
        from talking_heads_jax.networks.fan_points import locate_fan

        path = locate_fan()  # before jax is imported: most have no weights
        from talking_heads_jax.networks import fan

        self._find = fan.find_landmarks
        self._variables = fan.load_fan(path)

    def landmarks(self, frame: np.ndarray, box: FaceBox) -> tuple[np.ndarray, np.ndarray]:
        """Returns (68 2) pixels, and 1 for every point: the network finds hidden ones as well.

        Args:
          frame: (h w 3) uint8 RGB.
          box: of the face, as its detector draws it.
        """
        points, _ = self._find(self._variables, frame, [box[:4]])
        return points[0], np.ones(len(points[0]), np.uint8)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _absent(name: str, package: str, command: str) -> AssetNotFoundError:
    remedy = f"Run: {command}; or give --box, --landmarks or another detector."
    return AssetNotFoundError(
        requirement(
            f"the detector '{name}'", f"have {package} installed", "no such package", remedy
        )
    )


@functools.cache
def _cascade() -> Any:
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade

    return Cascade(lbp_frontal_face_cascade_filename())


def _shrink(frame: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """The frame with a longer side of at most `side`, and original pixels per pixel of it."""
    height, width = frame.shape[:2]
    scale = max(height, width) / side
    if scale <= 1:
        return frame, 1.0
    size = (max(round(height / scale), 1), max(round(width / scale), 1))
    return resize_image(frame, size), scale
