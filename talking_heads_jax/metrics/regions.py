"""Named regions of a mask: which of its classes a masked metric looks at.

Masks hold a class of `morphable.parts.PARTS` per pixel, 0 for background. A region is a set of
classes; `foreground` is all of them, so that masks of other classes still have one. Letters: h w
image, k frames.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from talking_heads_jax.errors import check_choice
from talking_heads_jax.morphable import parts

FOREGROUND, HEAD, FACE, MOUTH, EYES = "foreground", "head", "face", "mouth", "eyes"
#: Region -> the classes it consists of; None for every class but the background.
REGIONS: Mapping[str, frozenset[int] | None] = {
    FOREGROUND: None,
    **{name: frozenset(parts.REGIONS[name]) for name in (HEAD, FACE, MOUTH, EYES)},
}


def region_weights(mask: np.ndarray, region: str) -> np.ndarray:
    """1 where a mask shows a region, else 0.

    Args:
      mask: (... h w) uint8 classes.
      region: key of `REGIONS`.

    Returns:
      (... h w 1) float32.

    Raises:
      ArgumentError: for an unknown region; lists the known ones.
    """
    check_choice("region", region, tuple(REGIONS))
    classes = REGIONS[region]
    inside = mask != 0 if classes is None else np.isin(mask, sorted(classes))
    return inside[..., None].astype(np.float32)


def silhouette_weights(mask: np.ndarray) -> np.ndarray:
    """1 on the head, else 0; on everything that is no background where a mask has no head.

    Shoulders and clothes hardly follow the head: with them in it, a silhouette says little about
    where the head went.

    Args:
      mask: (... h w) uint8 classes.

    Returns:
      (... h w 1) float32.
    """
    head = region_weights(mask, HEAD)
    empty = ~head.any(axis=(-3, -2, -1), keepdims=True)
    return np.where(empty, region_weights(mask, FOREGROUND), head)


def joint_region(masks: Sequence[np.ndarray], region: str, *, dilation_px: int) -> np.ndarray:
    """1 where any of several frames shows a region, or shows it nearby.

    Args:
      masks: k arrays (h w) uint8 of classes.
      region: key of `REGIONS`.
      dilation_px: added on each side, rows and columns alike.

    Returns:
      (h w 1) float32.

    Raises:
      ArgumentError: for an unknown region.
    """
    shown = region_weights(np.stack(list(masks)), region).max(axis=0)
    side = 2 * dilation_px + 1
    return ndimage.maximum_filter(shown, size=(side, side, 1), mode="constant")
