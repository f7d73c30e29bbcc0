"""The parts of a head: the one list of classes behind masks, meshes, metrics and loss weights.

`PARTS.index(name)` is the uint8 class in the masks of the synthetic set and in `face_part` of every
morphable model. Needs neither jax nor numpy.
"""

from collections.abc import Mapping
from types import MappingProxyType

#: Class number -> name; new parts go to the end, since masks on disk hold the numbers.
PARTS = (
    "background",
    "face_skin",
    "eyelids",
    "eyeball",
    "lips",
    "teeth",
    "mouth_interior",
    "ears",
    "scalp",
    "hair",
    "neck",
    "clothes",
    "glasses",
)


def _classes(*names: str) -> frozenset[int]:
    return frozenset(PARTS.index(name) for name in names)


_MOUTH = _classes("lips", "teeth", "mouth_interior")
_EYES = _classes("eyelids", "eyeball")
_FACE = _MOUTH | _EYES | _classes("face_skin", "glasses")

#: Region -> class numbers; what masked metrics and loss weights look at.
REGIONS: Mapping[str, frozenset[int]] = MappingProxyType(
    {
        "foreground": frozenset(range(1, len(PARTS))),
        "head": _FACE | _classes("ears", "scalp", "hair"),
        "face": _FACE,
        "mouth": _MOUTH,
        "eyes": _EYES,
    }
)
