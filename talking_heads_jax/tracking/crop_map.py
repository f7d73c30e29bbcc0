"""One crop of a frame: the affine map, what it was made by, and how its pixels are computed.

Numpy only. Pixels are the house's: pixel (i, j) covers [j, j+1) x [i, i+1), its centre lies at
+0.5, x right, y down. Many foreign recipes put a pixel's centre on whole numbers; where one does,
its matrix holds the shift. Letters: h w image.
"""

import dataclasses

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, check_shape, requirement
from talking_heads_jax.media.resize import INTERPOLATIONS, OUTSIDE, crop_and_resize

# A box wider than so many frames is a mistake in the landmarks, and would cost gigabytes.
_LARGEST_BOX = 64.0


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """A map from the original frame's pixels to those of a square crop: scales and shifts.

    Attributes:
      name: of the recipe.
      version: of the recipe; it changes whenever the same landmarks give another crop.
      matrix: (2 3) float64, original px to crop px; x and y scale by positive factors, nothing
        turns.
      size: height and width of the crop, pixels.
      interpolation: the filter the recipe's source resamples with.
      outside: what it shows outside the frame: 'edge' (repeated), 'black' or 'white'.
    """

    name: str
    version: int
    matrix: np.ndarray
    size: int
    interpolation: str = "bilinear"
    outside: str = "edge"

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, np.float64)
        check_shape("an alignment's matrix", matrix.shape, (2, 3))
        plain = matrix[0, 1] == 0 == matrix[1, 0] and matrix[0, 0] > 0 < matrix[1, 1]
        if not (np.isfinite(matrix).all() and plain):
            raise ArgumentError(
                requirement(
                    "An alignment's matrix",
                    "be finite, scale by positive factors and turn nothing",
                    matrix.tolist(),
                    "Check the landmarks it comes from.",
                )
            )
        if not self.size > 0:
            raise ArgumentError(
                requirement("A crop's size", "be positive", self.size, "Give pixels.")
            )
        check_choice("interpolation", self.interpolation, tuple(INTERPOLATIONS))
        check_choice("outside", self.outside, OUTSIDE)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @property
    def label(self) -> str:
        """Name and version in one word, for manifests: 'deep3d_224/1'."""
        return f"{self.name}/{self.version}"

    @property
    def box_px(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the crop in the original frame; parts may lie outside it."""
        scale, shift = np.diag(self.matrix), self.matrix[:, 2]
        (x0, y0), (x1, y1) = -shift / scale, (self.size - shift) / scale
        return float(x0), float(y0), float(x1), float(y1)

    @property
    def inverse(self) -> np.ndarray:
        """(2 3) float64, crop px to original px."""
        scale, shift = np.diag(self.matrix), self.matrix[:, 2]
        return np.array([[1 / scale[0], 0, -shift[0] / scale[0]],
                         [0, 1 / scale[1], -shift[1] / scale[1]]])  # fmt: skip

    @property
    def mean_scale(self) -> float:
        """Crop pixels per pixel of the frame: the geometric mean of x and y."""
        return float(np.sqrt(self.matrix[0, 0] * self.matrix[1, 1]))

    def mesh_to_crop(self, vertices: np.ndarray) -> np.ndarray:
        """A mesh in the crop's pixels, as records hold it.

        Args:
          vertices: (v 3) x, y, z in pixels of the frame.

        Returns:
          (v 3) float32; z in the crop's mean scale.
        """
        places = self.to_crop(vertices[:, :2])
        depth = vertices[:, 2:] * self.mean_scale
        return np.concatenate([places, depth], axis=-1).astype(np.float32)

    def to_crop(self, points_px: np.ndarray) -> np.ndarray:
        """Points (... 2) of the original frame in crop pixels, float64.

        Args:
          points_px: x, y.
        """
        return np.asarray(points_px, np.float64) * np.diag(self.matrix) + self.matrix[:, 2]

    def to_frame(self, points_px: np.ndarray) -> np.ndarray:
        """Points (... 2) of the crop in pixels of the original frame, float64.

        Args:
          points_px: x, y.
        """
        return (np.asarray(points_px, np.float64) - self.matrix[:, 2]) / np.diag(self.matrix)

    def resized(self, size: int) -> "Alignment":
        """The same part of the frame at another resolution.

        Args:
          size: of the crop, pixels.
        """
        return dataclasses.replace(self, matrix=self.matrix * (size / self.size), size=size)

    def is_inside(self, frame_size: tuple[int, int]) -> bool:
        """Whether no part of the crop lies outside the frame.

        Args:
          frame_size: its height and width.
        """
        height, width = frame_size
        x0, y0, x1, y1 = self.box_px
        return x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height


def alignment_from_box(
    name: str,
    version: int,
    box_px: tuple[float, float, float, float],
    size: int,
    *,
    interpolation: str = "bilinear",
    outside: str = "edge",
) -> Alignment:
    """The alignment whose crop is a box of the frame.

    Args:
      name: of the recipe.
      version: of the recipe.
      box_px: x0, y0, x1, y1 in the original frame; a box that is not square is stretched.
      size: of the crop, pixels.
      interpolation: see `Alignment`.
      outside: see `Alignment`.

    Raises:
      ArgumentError: the box is empty or not finite.
    """
    x0, y0, x1, y1 = (float(value) for value in box_px)
    if not (x0 < x1 and y0 < y1 and np.isfinite(box_px).all()):
        raise ArgumentError(
            requirement(
                "A crop box", "be x0 < x1, y0 < y1", (x0, y0, x1, y1), "Check the landmarks."
            )
        )
    x_scale, y_scale = size / (x1 - x0), size / (y1 - y0)
    matrix = [[x_scale, 0.0, -x0 * x_scale], [0.0, y_scale, -y0 * y_scale]]
    return Alignment(name, version, np.array(matrix), size, interpolation, outside)


def warp_to_crop(frame: np.ndarray, alignment: Alignment, *, antialias: bool = True) -> np.ndarray:
    """Resamples a frame to a recipe's crop.

    Args:
      frame: uint8 or floating (h w 3).
      alignment: of that frame.
      antialias: average over the pixels that a crop's pixel covers, with the recipe's filter. False
        reads four pixels, as `warpAffine` of the DECA recipes' sources does, and aliases when it
        shrinks: only to repeat what a released network saw.

    Returns:
      (size size 3) in the frame's dtype.

    Raises:
      ArgumentError: the crop lies outside the frame or is many times larger; another shape or
        dtype; four taps of a recipe that is not bilinear.
    """
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ArgumentError(
            requirement("A frame", "be (h w 3)", frame.shape, "Read it with media.image.")
        )
    x0, y0, x1, y1 = alignment.box_px
    longest = max(x1 - x0, y1 - y0)
    if longest > _LARGEST_BOX * max(frame.shape[:2]):
        raise ArgumentError(
            requirement(
                f"The crop of recipe '{alignment.name}'",
                f"be at most {_LARGEST_BOX:.0f} times as large as the frame",
                f"{longest:.0f} pixels",
                "Check the landmarks it comes from.",
            )
        )
    if antialias:
        return crop_and_resize(
            frame,
            alignment.box_px,
            alignment.size,
            interpolation=alignment.interpolation,
            outside=alignment.outside,
        )
    if alignment.interpolation != "bilinear":
        raise ArgumentError(
            requirement(
                "A recipe without antialiasing",
                "be bilinear",
                alignment.interpolation,
                "Leave antialias on.",
            )
        )
    return _four_taps(frame, alignment)


def _four_taps(frame: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Plain bilinear sampling at the centres of the crop's pixels."""
    centres = np.arange(alignment.size) + 0.5
    places = alignment.to_frame(np.stack([centres, centres], axis=-1)) - 0.5
    mode = {"mode": "edge"} if alignment.outside == "edge" else {}
    if alignment.outside == "white":
        mode = {"constant_values": 255 if frame.dtype == np.uint8 else 1}
    # One more pixel on each side: what lies farther outside looks like it.
    image = np.pad(frame, ((1, 1), (1, 1), (0, 0)), **mode)
    for axis in (0, 1):
        count = image.shape[axis]
        place = np.clip(places[:, 1 - axis] + 1, 0, count - 1)
        low = np.minimum(np.floor(place).astype(int), count - 2)
        share = (place - low).astype(np.float32)
        share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        image = image.take(low, axis) * (1 - share) + image.take(low + 1, axis) * share
    return np.rint(image).astype(np.uint8) if frame.dtype == np.uint8 else image.astype(frame.dtype)
