"""Renders frames that a written data set does not hold: one of its people as another one moves.

A data set of `talking-heads synthesize` says in its manifest how it was made, and a clip's name
says who moves in it; that fixes every picture. Letters: h w image.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_pipeline.schema import MANIFEST, read_json
from talking_heads_jax.errors import DataError, requirement

_CLIP_NAME = re.compile(r"(?P<split>\w+)/(?P<identity>\d+)-(?P<take>\d+)")
_EXTRAPOLATION = "extrapolation"
_MADE_BY = "synthetic_talking_heads"
_KEPT = 256  # frames: retrieval asks for those of a pair again
# Mean difference of a stored frame from its render, in levels: jpeg costs about 2.
_LARGEST_DIFFERENCE = 6.0


class ExactFrame(NamedTuple):
    """A rendered frame.

    Attributes:
      image: (h w 3) uint8.
      mask: (h w) uint8 of parts.
      landmarks: (68 2) x, y in pixels.
      vertices: (v 3) x, y in pixels, z in the same scale (smaller is nearer).
    """

    image: np.ndarray
    mask: np.ndarray
    landmarks: np.ndarray
    vertices: np.ndarray


class ExactFrames:
    """The renderer of one written data set."""

    def __init__(self, folder: Path, *, resolution: int | None = None) -> None:
        """Reads how the set was made; nothing is rendered yet.

        Args:
          folder: what `talking-heads synthesize` wrote.
          resolution: height and width of the frames, at most the stored size; None for that size.

        Raises:
          DataError: the folder is no such data set, or one of another version of the renderer.
        """
        from data_pipeline.synthetic.head_set import PICTURES

        self._folder = Path(folder)
        options = read_json(self._folder / MANIFEST).get("options")
        recipe = options.get("recipe") if isinstance(options, dict) else None
        if not isinstance(recipe, dict) or recipe.get("made_by") != _MADE_BY:
            raise self._refused("be made by `talking-heads synthesize`", "another data set")
        if recipe.get("pictures") != PICTURES:
            raise self._refused(
                f"hold pictures of version {PICTURES}", f"version {recipe.get('pictures')}"
            )
        kinds = dict.fromkeys(("size", "seed", "num_frames", "stride"), int)
        kinds |= dict.fromkeys(("motion", "poses", "morphable"), str)
        for name, kind in kinds.items():
            if type(recipe.get(name)) is not kind:
                raise self._refused(f"say in {MANIFEST} how it was made", f"no {name}")
        self._recipe: Mapping[str, Any] = recipe
        self._resolution = resolution or int(recipe["size"])
        self._heads = functools.lru_cache(maxsize=2)(self._build)
        self._states = functools.lru_cache(maxsize=_KEPT)(self._states_of)
        self.render = functools.lru_cache(maxsize=_KEPT)(self._render)

    def _render(
        self, person: str, clip: str, number: int, *, shape_of: str | None = None
    ) -> ExactFrame:
        """Draws a person, who stands as in a frame of a clip; also as `render`, which keeps some.

        Args:
          person: name of any clip of whom is shown.
          clip: name of the clip whose expression and pose are taken.
          number: of its frame.
          shape_of: name of any clip of the person whose head shape the picture gets; None: as is.
        """
        split, identity, _ = self._parsed(person)
        states = self._states(clip)
        if not 0 <= number < len(states):
            raise self._refused(f"have frame {number} of {clip}", f"{len(states)} frames")
        heads = self._heads(split == _EXTRAPOLATION)
        shown = heads.identity(identity)
        if shape_of is not None:
            other = heads.identity(self._parsed(shape_of)[1])
            shown = shown._replace(shape_coeffs=other.shape_coeffs)
        frame = heads.render(shown, states[number])
        size = (self._resolution, self._resolution)
        image, mask = frame.image, frame.mask
        if image.shape[0] != self._resolution:  # as the loader shrinks stored frames
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        ratio = np.float32(self._resolution / int(self._recipe["size"]))
        return ExactFrame(image, mask, frame.landmarks68_px * ratio, frame.vertices_px * ratio)

    def check(self, clip: str, image: np.ndarray) -> None:
        """Raises unless the renderer draws what the data set holds.

        Args:
          clip: its name.
          image: (h w 3) uint8, its first frame as the loader gives it.

        Raises:
          DataError: the pictures differ.
        """
        drawn = self.render(clip, clip, 0).image
        difference = np.abs(np.float32(drawn) - np.float32(image)).mean()
        if difference > _LARGEST_DIFFERENCE:
            raise self._refused(
                "hold the pictures that this version renders",
                f"a mean difference of {difference:.1f} levels in {clip}",
            )

    def _states_of(self, clip: str) -> list[Any]:
        split, identity, take = self._parsed(clip)
        heads = self._heads(split == _EXTRAPOLATION)
        count, stride = int(self._recipe["num_frames"]), int(self._recipe["stride"])
        return heads.clip(identity, take, count, stride=stride)

    def _build(self, turned_away: bool) -> Any:
        from data_pipeline.synthetic.talking_heads import SyntheticTalkingHeads

        names = ("size", "seed", "motion", "morphable")
        poses = _EXTRAPOLATION if turned_away else self._recipe["poses"]
        return SyntheticTalkingHeads(**{name: self._recipe[name] for name in names}, poses=poses)

    def _parsed(self, clip: str) -> tuple[str, int, int]:
        found = _CLIP_NAME.fullmatch(clip)
        if found is None:
            raise self._refused("name its clips SPLIT/IDENTITY-TAKE", clip)
        return found["split"], int(found["identity"]), int(found["take"])

    def _refused(self, constraint: str, got: str) -> DataError:
        remedy = "Exact truth needs a data set of this version's `talking-heads synthesize`."
        return DataError(requirement(f"{self._folder}", constraint, got, remedy))
