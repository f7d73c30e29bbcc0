"""From a track to the fields of a clip's records: everything moved into the crops.

jax is imported when a face model was fitted, never at the top. Letters: t frames, v vertices.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipeline.preprocess.track_request import PARSING_ASSET, TrackRequest
from data_pipeline.records import round_for_storage
from data_pipeline.schema import FIELDS
from talking_heads_jax.errors import AssetNotFoundError
from talking_heads_jax.media.image import encode_image
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.tracking.alignment import Alignment, align_clip, alignment_from_box
from talking_heads_jax.tracking.clip_boxes import Box, square_box
from talking_heads_jax.tracking.face_extents import detector_boxes
from talking_heads_jax.tracking.track import FRAME_FIELDS, ClipTrack
from talking_heads_jax.tracking.tracker import fit_of

_FRAMES_AT_ONCE = 16  # of vertices in memory
_CAMERAS_AT_ONCE = 64


def rows_of(track: ClipTrack, frames: np.ndarray) -> ClipTrack:
    """Some frames of a track, as a track without cuts.

    Args:
      track: of a clip.
      frames: numbers of its frames.
    """
    kept = {name: getattr(track, name)[frames] for name in FRAME_FIELDS}
    return dataclasses.replace(track, **kept, segments=((0, len(frames)),))


def clip_alignments(
    track: ClipTrack, recipe: str, size: int, box: Box | None
) -> tuple[Alignment | None, ...]:
    """The crop of every frame.

    Args:
      track: of the frames that are kept; each shows a face.
      recipe: of `tracking.alignment.RECIPES`.
      size: of the crops, pixels.
      box: the user's, which comes before any recipe; or None.

    Returns:
      One per frame; the same object for all frames where the clip has one crop, None where the
      landmarks of a frame do not allow the recipe.

    Raises:
      ArgumentError: those of no frame do.
    """
    if box is not None:
        return (alignment_from_box("box", 1, square_box(box), size),) * len(track)
    return align_clip(
        recipe,
        track.frame_size,
        landmarks_px=track.landmarks68_px,
        boxes_px=detector_boxes(track),
        size=size,
    )


class FieldMaker:
    """The tracked fields of one clip's records."""

    def __init__(
        self, request: TrackRequest, track: ClipTrack, alignments: Sequence[Alignment]
    ) -> None:
        """Fits nothing; computes what is small.

        Args:
          request: which fields are wanted.
          track: of the frames that are kept.
          alignments: their crops.
        """
        self._track, self._alignments = track, tuple(alignments)
        self._size = alignments[0].size
        self._model = load_model(request.morphable) if track.fitted else None
        self._vertices = request.vertices and track.fitted
        self._chunk, self._chunk_start = np.zeros((0, 0, 3), np.float32), 0
        self._parse = face_parser() if PARSING_ASSET in request.assets else None
        self._arrays = self._small()

    @property
    def names(self) -> list[str]:
        """The fields the clip's records have besides those of every record."""
        large = [("vertices", self._vertices), ("mask", self._parse is not None)]
        return [*self._arrays, *(name for name, there in large if there)]

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Of the fields whose shape depends on the face model."""
        shapes = {
            name: list(array.shape[1:])
            for name, array in self._arrays.items()
            if None in FIELDS[name].shape
        }
        if self._vertices:
            shapes["vertices"] = [self._model.num_vertices, 3]
        return shapes

    def arrays(self) -> dict[str, np.ndarray]:
        """The small fields, one row per frame."""
        return dict(self._arrays)

    def large(self, crop: np.ndarray, place: int) -> dict[str, bytes]:
        """The large fields of one frame as they lie on disk.

        Args:
          crop: (size size 3) uint8.
          place: of the frame among those kept.
        """
        fields = {}
        if self._vertices:
            fields["vertices"] = round_for_storage(
                "vertices", self._crop_vertices(place), self._size
            ).tobytes()
        if self._parse is not None:
            fields["mask"] = encode_image(self._parse(crop), "png")
        return fields

    def fitted_px(self, places: Sequence[int]) -> np.ndarray | None:
        """The fitted landmarks in some frames, (n 68 2) original pixels; None without a fit.

        Args:
          places: of the frames among those kept; as many each time, so that one program serves all.
        """
        if self._model is None:
            return None
        from talking_heads_jax.tracking.fitting import fit_landmarks_px

        return fit_landmarks_px(self._model, fit_of(rows_of(self._track, np.asarray(places))))

    def _small(self) -> dict[str, np.ndarray]:
        track, count = self._track, len(self._track)
        arrays: dict[str, np.ndarray] = {
            "landmarks68_px": np.stack(
                [a.to_crop(p) for a, p in zip(self._alignments, track.landmarks68_px, strict=True)]
            ).astype(np.float32),
            "landmarks68_visible": track.visible,
        }
        if np.isfinite(track.angles).any():
            arrays["angles"] = track.angles
        if not track.fitted:
            return arrays
        arrays |= {
            "morphable": np.full(count, track.morphable),
            "shape_coeffs": np.tile(track.shape_coeffs, (count, 1)),
            "expression_coeffs": track.expression_coeffs,
            "joint_pose": track.joint_pose,
            "camera25": crop_cameras(self._model, track, self._alignments),
        }
        return arrays

    def _crop_vertices(self, place: int) -> np.ndarray:
        """(v 3) x, y in crop pixels, z in their mean scale."""
        from talking_heads_jax.tracking.fitting import fit_vertices_px

        inside = self._chunk_start <= place < self._chunk_start + len(self._chunk)
        if not inside:
            # Chunks of one length, the last one reaching back: one compiled program.
            start = max(min(place, len(self._track) - _FRAMES_AT_ONCE), 0)
            rows = np.arange(start, min(start + _FRAMES_AT_ONCE, len(self._track)))
            self._chunk = fit_vertices_px(self._model, fit_of(rows_of(self._track, rows)))
            self._chunk_start = start
        return self._alignments[place].mesh_to_crop(self._chunk[place - self._chunk_start])


def crop_cameras(model: Any, track: ClipTrack, alignments: Sequence[Alignment]) -> np.ndarray:
    """EG3D's cameras of the crops: the head stands still where EG3D's do, the camera moves.

    The scale is one for all clips, 0.027 world units to a centimetre; EG3D's own labels bring every
    camera to radius 2.7 besides. The camera draws the plane through the middle of the landmarks,
    where the fit holds, as the fit does; more cannot agree between different focal lengths.

    Args:
      model: that was fitted.
      track: of a fitted clip.
      alignments: of its frames.

    Returns:
      (t 25) float32.
    """
    from talking_heads_jax.geometry.eg3d_cameras import (
        EG3D_FOCAL,
        camera25_from_head_pose,
        eg3d_offset,
    )
    from talking_heads_jax.geometry.estimator_cameras import (
        WeakPerspective,
        head_pose_from_pixels,
        head_pose_from_weak_perspective,
        weak_perspective_from_head_pose,
    )

    size, count = alignments[0].size, len(track)
    # A few lengths only: every new one is compiled anew.
    places = np.minimum(np.arange(-(-count // _CAMERAS_AT_ONCE) * _CAMERAS_AT_ONCE), count - 1)
    landmarks = _mean_landmarks(model)
    anchor = landmarks.mean(0)
    weak = WeakPerspective(
        *(np.float32(values)[places] for values in (track.angles, track.scale_px, track.offset_px))
    )
    if track.camera == "perspective":
        lens = {"focal_px": track.focal_px, "principal_px": track.principal_px}
        depth = np.float32(track.depth_cm)[places]
        pose = head_pose_from_pixels(weak.angles, weak.offset_px, depth, **lens)
        weak = weak_perspective_from_head_pose(pose, **lens, anchor=anchor)
    crops = [alignments[place] for place in places]
    zoom = np.array([np.sqrt(crop.matrix[0, 0] * crop.matrix[1, 1]) for crop in crops], np.float32)
    offset = [crop.to_crop(px) for crop, px in zip(crops, np.asarray(weak.offset_px), strict=True)]
    weak = WeakPerspective(weak.angles, weak.scale_px * zoom, np.float32(offset))
    pose = head_pose_from_weak_perspective(
        weak, focal_px=EG3D_FOCAL * size, principal_px=(size / 2, size / 2), anchor=anchor
    )
    view = camera25_from_head_pose(pose, mode="none", offset=eg3d_offset(landmarks))
    return np.asarray(view.camera25, np.float32)[:count]


def _mean_landmarks(model: Any) -> np.ndarray:
    """(68 3) of the mean face at rest, centimetres."""
    neutral = model.neutral()
    landmarks = model.landmarks68(model.vertices(neutral), neutral)
    return np.asarray(landmarks)[0] * model.centimetres_per_unit


def load_landmarker() -> Any:
    """FAN, kept for the clips that follow; None where its weights are not registered."""
    try:
        return _fan()
    except AssetNotFoundError:
        return None


@functools.lru_cache(maxsize=1)
def _fan() -> Any:
    # Its absence is raised, and so not kept: weights may be registered in the same session.
    from talking_heads_jax.tracking.tracker import find_landmarker

    return find_landmarker("fan")


@functools.lru_cache(maxsize=1)
def load_model(name: str) -> Any:
    """A face model, kept for the clips that follow.

    Args:
      name: of `morphable.registry`.
    """
    from talking_heads_jax.morphable.registry import load_morphable

    return load_morphable(name)


@functools.lru_cache(maxsize=1)
def face_parser() -> Callable[[np.ndarray], np.ndarray]:
    """The parsing network: a crop (h w 3) uint8 → the part (h w) uint8 that each pixel shows.

    Raises:
      AssetNotFoundError: its weights are not registered.
    """
    from talking_heads_jax.networks.face_classes import classes_to_parts
    from talking_heads_jax.networks.face_parsing import load_face_parsing, parse_image

    variables = load_face_parsing()
    return lambda crop: classes_to_parts(parse_image(variables, crop), PARTS)
