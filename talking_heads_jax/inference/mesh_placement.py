"""Where the driver's meshes go in the source's picture, and the pictures' crops of meshes.

Absolute motion leaves one thing open: a driver's camera is relative to a crop of his own. In the
released code each driving frame is cropped about its face, and the mesh is drawn where it lies in
that crop: the head then has the size and place of the driver's. Here the driver's crop is laid over
the source's such that, in the median over the clip, a centimetre is as long as there, the neck as
far to the side, and the eyes are as high. One scale and one shift serve the whole clip, so that
nodding, leaning and coming nearer stay. The neck, because a head turns about it: a source that
looks aside keeps its body when it turns to the front. Not the neck's height, because the pitch of a
fit is what is known least: wrong by 15 degrees, it would move the face by a fifth of its height.
Letters: t frames, v vertices.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from talking_heads_jax.errors import check_choice
from talking_heads_jax.inference.framing import Framing
from talking_heads_jax.inference.mesh_motion import track_vertices
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.tracking.alignment import Alignment
from talking_heads_jax.tracking.fit_result import fit_joints_px
from talking_heads_jax.tracking.track import ClipTrack
from talking_heads_jax.tracking.tracker import fit_of

AT_SOURCE, AS_DRIVING = "source", "driving"
#: 'source': size and place of the source's head; 'driving': as in the driver's crop, as released.
PLACEMENTS = (AT_SOURCE, AS_DRIVING)

_MESHES_AT_ONCE = 16
_NECK, _EYES = "neck", ("eye_L", "eye_R")


class Placement(NamedTuple):
    """Pixels of the driver's crop → pixels of the source's.

    Attributes:
      scale: of lengths.
      shift_px: (2,) added afterwards.
    """

    scale: float
    shift_px: np.ndarray

    def place(self, vertices: np.ndarray) -> np.ndarray:
        """Meshes (... v 3) moved; z is scaled as x and y are.

        Args:
          vertices: in pixels of the driver's crop.
        """
        shift = np.append(self.shift_px, 0.0)
        return (vertices * self.scale + shift).astype(np.float32)


def find_placement(
    method: str,
    model: MorphableModel,
    source: ClipTrack,
    source_framing: Framing,
    driving: ClipTrack,
    driving_framing: Framing,
) -> Placement:
    """How the driver's crop is laid over the source's.

    Args:
      method: of `PLACEMENTS`.
      model: the morphable model; of one without neck and eye joints the origin takes their place.
      source: of the source's first frame, in pixels of the frame.
      source_framing: its crop.
      driving: every frame of it fitted.
      driving_framing: its crops.

    Returns:
      One for all frames.

    Raises:
      ArgumentError: an unknown method.
    """
    check_choice("the placement", method, PLACEMENTS)
    if method == AS_DRIVING:
        return Placement(1.0, np.zeros(2))
    driving = dataclasses.replace(driving, shape_coeffs=source.shape_coeffs)
    source_scale, source_place = _median_head(model, source, source_framing)
    driving_scale, driving_place = _median_head(model, driving, driving_framing)
    scale = source_scale / driving_scale
    return Placement(scale, source_place - scale * driving_place)


def placed_meshes(
    track: ClipTrack,
    model: MorphableModel,
    framing: Framing,
    placement: Placement,
    *,
    shape_coeffs: np.ndarray,
) -> Iterator[np.ndarray]:
    """The driver's meshes in the source's crop, frame after frame; a few are in memory at a time.

    Args:
      track: of the driver, every frame fitted.
      model: the morphable model.
      framing: the driver's crops.
      placement: where they lie in the source's crop.
      shape_coeffs: (K,) of the source.

    Yields:
      (v 3) float32, crop pixels of the source.
    """
    count = len(track)
    for first in range(0, count, _MESHES_AT_ONCE):
        # Chunks of one length, the last one reaching back: one compiled program.
        start = max(min(first, count - _MESHES_AT_ONCE), 0)
        rows = range(start, min(start + _MESHES_AT_ONCE, count))
        meshes = track_vertices(
            track.slice(rows.start, rows.stop), model, shape_coeffs=shape_coeffs
        )
        crops = crop_meshes(meshes, [framing.alignment(row) for row in rows])
        yield from placement.place(crops[first - start :])


def crop_meshes(vertices: np.ndarray, alignments: Sequence[Alignment]) -> np.ndarray:
    """Meshes in the pixels of crops, as `talking-heads prepare` stores them.

    Args:
      vertices: (t v 3) in pixels of the frames.
      alignments: t crops.

    Returns:
      (t v 3) float32; z in the crop's mean scale.
    """
    pairs = zip(vertices, alignments, strict=True)
    return np.stack([alignment.mesh_to_crop(mesh) for mesh, alignment in pairs])


def _median_head(
    model: MorphableModel, track: ClipTrack, framing: Framing
) -> tuple[float, np.ndarray]:
    """Pixels per centimetre, and x of the neck with y of the eyes (2,), in the crops."""
    places = track.offset_px
    names = model.joint_names
    if {_NECK, *_EYES} <= set(names):
        joints = fit_joints_px(model, fit_of(track))
        eyes = [names.index(name) for name in _EYES]
        places = np.stack([joints[:, names.index(_NECK), 0], joints[:, eyes, 1].mean(1)], axis=-1)
    alignments = [framing.alignment(row) for row in range(len(track))]
    scales = track.scale_px * [alignment.mean_scale for alignment in alignments]
    pairs = zip(alignments, places, strict=True)
    placed = np.array([alignment.to_crop(place) for alignment, place in pairs])
    return float(np.nanmedian(scales)), np.nanmedian(placed, axis=0)
