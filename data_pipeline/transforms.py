"""Augmentation of a pair on uint8 images: one draw for both frames, as FOMM and FNeVR train.

With probability `time_flip` the frames change places and nothing is mirrored; otherwise both are
mirrored with probability `horizontal_flip`. Colours are always jittered: brightness, contrast,
saturation by factors around 1, hue by a shift, in an order drawn once per pair. The colour
operations are torchvision's on PIL images: every one rounds to 8 bits. Letters: h w image.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from data_pipeline.records import Record
from talking_heads_jax.errors import ArgumentError, ConfigError, requirement

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)

# Multi-PIE order under left-right mirroring: jaw, brows, nose, eyes, outer and inner lips.
_MIRROR_GROUPS = (
    (range(17), range(16, -1, -1)),
    (range(17, 27), range(26, 16, -1)),
    (range(27, 31), range(27, 31)),
    (range(31, 36), range(35, 30, -1)),
    (range(36, 48), (45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40)),
    (range(48, 55), range(54, 47, -1)),
    (range(55, 60), range(59, 54, -1)),
    (range(60, 65), range(64, 59, -1)),
    (range(65, 68), range(67, 64, -1)),
)
#: Landmark i of a mirrored face is landmark MIRROR68[i] of the original.
MIRROR68 = np.concatenate([np.array(list(partner)) for _, partner in _MIRROR_GROUPS])


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn for a pair; the defaults are FOMM's and FNeVR's recipe.

    Attributes:
      time_flip: probability that source and driving change places (and nothing is mirrored).
      horizontal_flip: probability of mirroring both where time is not flipped.
      brightness: factors are drawn from [1 - this, 1 + this].
      contrast: likewise.
      saturation: likewise.
      hue: shifts are drawn from [-this, this], in turns of the colour circle.
    """

    time_flip: float = 0.5
    horizontal_flip: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.1

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> "Augmentation":
        """Returns the augmentation of a config section; None and {} switch everything off.

        Args:
          config: any of the attributes; those that are missing are 0.

        Raises:
          ConfigError: an unknown key, or a value outside its range.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        values = {key: float(value) for key, value in (config or {}).items() if key in names}
        unknown = sorted(set(config or {}) - set(names))
        if unknown:
            raise ConfigError(
                requirement("data.augmentation", "have known keys", unknown, f"Use {names}.")
            )
        for name, value in values.items():
            highest = 0.5 if name == "hue" else 1.0
            if not 0.0 <= value <= highest:
                raise ConfigError(
                    requirement(
                        f"data.augmentation.{name}", f"lie in [0, {highest}]", value, "Correct it."
                    )
                )
        return cls(**{name: values.get(name, 0.0) for name in names})


@dataclasses.dataclass(frozen=True)
class Draw:
    """One draw, to be applied to both frames.

    Attributes:
      time_flip: whether the frames change places.
      horizontal_flip: whether both are mirrored.
      jitter: (operation, factor) in the order of application.
    """

    time_flip: bool
    horizontal_flip: bool
    jitter: tuple[tuple[int, float], ...]


def draw_augmentation(augmentation: Augmentation, rng: np.random.Generator) -> Draw:
    """Draws what is done to a pair.

    Args:
      augmentation: probabilities and ranges.
      rng: of this sample.
    """
    # A fixed number of draws, so that a range of 0 leaves the others as they are.
    flips = rng.random(2)
    spans = rng.uniform(-1.0, 1.0, 4)
    order = rng.permutation(4)
    time_flip = bool(flips[0] < augmentation.time_flip)
    ranges = (
        augmentation.brightness,
        augmentation.contrast,
        augmentation.saturation,
        augmentation.hue,
    )
    jitter = tuple(
        (int(operation), float(spans[operation] * ranges[operation] + (operation != _HUE)))
        for operation in order
        if ranges[operation] > 0
    )
    return Draw(time_flip, not time_flip and bool(flips[1] < augmentation.horizontal_flip), jitter)


def augment_pair(
    source: Record, driving: Record, draw: Draw, *, vertex_mirror: np.ndarray | None = None
) -> tuple[Record, Record]:
    """Applies one draw to both frames; everything known about them follows a mirroring.

    Args:
      source: the earlier frame.
      driving: the later frame.
      draw: what to do.
      vertex_mirror: int (v) of the mesh; needed if the records hold vertices.

    Returns:
      The new source and driving. Their `crop_matrix` still describes the crop as stored.

    Raises:
      ArgumentError: vertices without `vertex_mirror`.
    """
    if draw.time_flip:
        source, driving = driving, source
    return _augment(source, draw, vertex_mirror), _augment(driving, draw, vertex_mirror)


def jitter_colors(image: np.ndarray, jitter: tuple[tuple[int, float], ...]) -> np.ndarray:
    """Applies colour operations in order.

    Args:
      image: uint8 (h w 3).
      jitter: (operation, factor): 0 brightness, 1 contrast (about the mean grey of this very
        image), 2 saturation, each with a factor; 3 hue, with a shift in turns.

    Returns:
      uint8 (h w 3).
    """
    if not jitter:
        return image
    picture = Image.fromarray(image)
    for operation, factor in jitter:
        if operation == _BRIGHTNESS:
            picture = ImageEnhance.Brightness(picture).enhance(factor)
        elif operation == _CONTRAST:
            picture = ImageEnhance.Contrast(picture).enhance(factor)
        elif operation == _SATURATION:
            picture = ImageEnhance.Color(picture).enhance(factor)
        else:
            hue, saturation, value = picture.convert("HSV").split()
            shift = int(factor * 255)  # truncated, as torchvision casts it
            turned = hue.point([(level + shift) % 256 for level in range(256)])
            picture = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
    return np.asarray(picture)


def mirror_record(record: Record, vertex_mirror: np.ndarray | None = None) -> Record:
    """Mirrors a frame left to right with everything that is known about it.

    Landmarks and vertices change names with their partners, yaw and roll their signs; the classes
    of a mask stay. Coefficients of a face model are dropped: what they would have to be, only the
    model knows; the vertices say it too.

    Args:
      record: the frame.
      vertex_mirror: int (v): vertex i of a mirrored head is vertex vertex_mirror[i] of the
        original; needed if the record holds vertices.

    Raises:
      ArgumentError: vertices without `vertex_mirror`.
    """
    width = record.image.shape[1]
    changes: dict[str, Any] = {"image": record.image[:, ::-1]}
    if record.landmarks68_px is not None:
        changes["landmarks68_px"] = _mirrored_points(record.landmarks68_px, MIRROR68, width)
    if record.landmarks68_visible is not None:
        changes["landmarks68_visible"] = record.landmarks68_visible[MIRROR68]
    if record.angles is not None:
        changes["angles"] = record.angles * np.array([-1, 1, -1], record.angles.dtype)
    for name in ("mask", "depth"):
        if getattr(record, name) is not None:
            changes[name] = getattr(record, name)[:, ::-1]
    for name in ("normals", "flow_to_next_px"):  # vectors: their first component is to the right
        vectors = getattr(record, name)
        if vectors is not None:
            signs = np.array([-1] + [1] * (vectors.shape[-1] - 1), vectors.dtype)
            changes[name] = vectors[:, ::-1] * signs
    if record.vertices is not None:
        if vertex_mirror is None:
            raise ArgumentError(
                requirement(
                    "vertices", "be mirrored by a mesh's symmetry", None, "Give vertex_mirror."
                )
            )
        changes["vertices"] = _mirrored_points(record.vertices, vertex_mirror, width)
    if record.camera25 is not None:
        changes["camera25"] = _mirrored_camera(record.camera25)
    changes |= dict.fromkeys(("shape_coeffs", "expression_coeffs", "joint_pose"))
    return record._replace(**changes)


def _mirrored_points(points: np.ndarray, partner: np.ndarray, width: int) -> np.ndarray:
    mirrored = points[partner]
    mirrored[:, 0] = width - mirrored[:, 0]
    return mirrored


def _mirrored_camera(camera25: np.ndarray) -> np.ndarray:
    """The camera of the mirrored world: its x axis and the world's are both turned round."""
    flip = np.diag([-1, 1, 1, 1]).astype(camera25.dtype)
    pose = flip @ camera25[:16].reshape(4, 4) @ flip
    intrinsics = camera25[16:].copy()
    intrinsics[[1, 2]] = -intrinsics[1], 1 - intrinsics[2]  # skew; the centre, by image width
    return np.concatenate([pose.reshape(16), intrinsics])


def _augment(record: Record, draw: Draw, vertex_mirror: np.ndarray | None) -> Record:
    if draw.horizontal_flip:
        record = mirror_record(record, vertex_mirror)
    image = jitter_colors(np.ascontiguousarray(record.image), draw.jitter)
    return record._replace(image=image)
