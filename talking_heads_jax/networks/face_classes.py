"""The 19 classes of face parsing, regions made of them, and pictures at the size it expects.

The released network cannot tell left from right: its training meant to exchange the classes of
mirrored pictures and did not. Use unions of both sides, as everything here does. Only numpy and
Pillow.

Source: CelebAMask-HQ (Lee et al., CVPR 2020); class numbers of face-parsing.PyTorch.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from PIL import Image

from talking_heads_jax.errors import ArgumentError, check_choice, requirement

PARSING_SIDE = 512
#: Class number -> (name, the part of `morphable.parts.PARTS` that shows there). Parsing sees no
#: lids and no teeth: eyes are eyeballs, an open mouth is its interior. What is worn goes with the
#: part it covers, so that a hat belongs to the head and a necklace does not.
_TABLE = (
    ("background", "background"),
    ("skin", "face_skin"),
    ("left_brow", "face_skin"),
    ("right_brow", "face_skin"),
    ("left_eye", "eyeball"),
    ("right_eye", "eyeball"),
    ("glasses", "glasses"),
    ("left_ear", "ears"),
    ("right_ear", "ears"),
    ("earring", "ears"),
    ("nose", "face_skin"),
    ("mouth", "mouth_interior"),
    ("upper_lip", "lips"),
    ("lower_lip", "lips"),
    ("neck", "neck"),
    ("necklace", "neck"),
    ("cloth", "clothes"),
    ("hair", "hair"),
    ("hat", "hair"),
)
FACE_CLASSES = tuple(name for name, _ in _TABLE)
#: Class number -> name of a part.
CLASS_PARTS = tuple(part for _, part in _TABLE)


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(FACE_CLASSES.index(name) for name in names)


_MOUTH = _numbers("mouth", "upper_lip", "lower_lip")
#: Region -> class numbers; 'face' has no hair, but ears and what is worn on the face.
PARSING_REGIONS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "foreground": frozenset(range(1, len(FACE_CLASSES))),
        "face": frozenset(range(1, FACE_CLASSES.index("neck"))),
        "mouth": _MOUTH,
        "eyes": _numbers("left_eye", "right_eye"),
        "hair": _numbers("hair", "hat"),
    }
)


def region_mask(classes: np.ndarray, region: str) -> np.ndarray:
    """Where a region is.

    Args:
      classes: (... h w) class numbers.
      region: key of `PARSING_REGIONS`.

    Returns:
      (... h w) bool.

    Raises:
      ArgumentError: the region or a class number is unknown.
    """
    check_choice("the region", region, tuple(PARSING_REGIONS))
    inside = [number in PARSING_REGIONS[region] for number in range(len(FACE_CLASSES))]
    return np.asarray(inside)[_checked(classes)]


def classes_to_parts(classes: np.ndarray, parts: Sequence[str]) -> np.ndarray:
    """Parsing classes as the part numbers that the masks of records hold.

    Args:
      classes: (... h w) class numbers.
      parts: names of the parts by number, `morphable.parts.PARTS`.

    Returns:
      (... h w) uint8.

    Raises:
      ArgumentError: a class number is unknown, or a part is missing.
    """
    missing = sorted(set(CLASS_PARTS) - set(parts))
    if missing:
        remedy = "Give morphable.parts.PARTS."
        raise ArgumentError(requirement("parts", f"hold {', '.join(missing)}", parts, remedy))
    table = np.asarray([parts.index(name) for name in CLASS_PARTS], np.uint8)
    return table[_checked(classes)]


def _checked(classes: np.ndarray) -> np.ndarray:
    classes = np.asarray(classes)
    if classes.dtype.kind not in "iu" or (
        classes.size and not 0 <= classes.min() <= classes.max() < len(FACE_CLASSES)
    ):
        got = f"{classes.dtype}, " + (f"up to {classes.max()}" if classes.size else "empty")
        remedy = "Give what face_parsing.parse_image returns."
        raise ArgumentError(requirement("classes", "be integers from 0 to 18", got, remedy))
    return classes


def resize_for_parsing(image: np.ndarray) -> np.ndarray:
    """A portrait at 512 pixels a side, by Pillow's BILINEAR, which blurs first when it shrinks.

    Args:
      image: (h w 3) uint8 RGB.

    Raises:
      ArgumentError: the image is of another kind.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        got = f"{image.dtype} {image.shape}"
        raise ArgumentError(requirement("an image", "be uint8 (h w 3)", got, "Give RGB bytes."))
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((PARSING_SIDE, PARSING_SIDE), Image.Resampling.BILINEAR))


def resize_classes(classes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Class numbers at another size: each pixel takes the class at its centre.

    Args:
      classes: (h w).
      size: (height, width) of the result.
    """
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new)
        for new, old in zip(size, classes.shape, strict=True)
    )
    return classes[rows[:, None], columns]
