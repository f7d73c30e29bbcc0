"""Named regions of a mask: which of its classes a masked metric looks at.

Masks hold a class per pixel, 0 for background. A region is a set of classes; `foreground` is all of
them. Regions of single parts (face, mouth, eyes) get their row here once a data set's classes have
been fixed. Letters: h w image.
"""

from collections.abc import Mapping

import numpy as np

from talking_heads_jax.errors import check_choice

FOREGROUND = "foreground"
#: Region -> the classes it consists of; None for every class but the background.
REGIONS: Mapping[str, frozenset[int] | None] = {FOREGROUND: None}


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
