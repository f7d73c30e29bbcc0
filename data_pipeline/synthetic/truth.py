"""Exact optical flow between two frames of the set, and what of one frame the other shows.

Both frames must have been drawn with the field `flow`, which stores the triangle and the place in
it of every pixel centre. Letters: h w image, v vertices, f faces.
"""

import numpy as np

from data_pipeline.synthetic.scene import CAMERA_DISTANCE, FOCAL, PIXELS_PER_CM
from talking_heads_jax.errors import ArgumentError, requirement

# A point counts as seen in the other frame if it lies at most this far behind what is drawn there,
# cm: the depth is known at pixel centres only, and surfaces are slanted.
_VISIBLE_WITHIN = 0.6


def camera_points_from_px(vertices_px: np.ndarray, size: int) -> np.ndarray:
    """Points in the camera's axes, cm, from x, y, z in pixels as frames store them.

    Args:
      vertices_px: (... 3).
      size: of the frame, pixels.

    Returns:
      (... 3) x right, y down, z = depth.
    """
    vertices_px = np.asarray(vertices_px, np.float64)
    depth = CAMERA_DISTANCE + vertices_px[..., 2:] / (PIXELS_PER_CM * size)
    return np.concatenate([(vertices_px[..., :2] / size - 0.5) * depth / FOCAL, depth], axis=-1)


def _moved(
    face_id: np.ndarray,
    barycentric: np.ndarray,
    target_vertices_px: np.ndarray,
    faces: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Where (h w 2) the points of one frame's pixels lie in another, px, and their depth there."""
    size = len(face_id)
    points = camera_points_from_px(target_vertices_px, size)
    corners = points[np.asarray(faces)[np.maximum(face_id, 0)]]  # (h w 3 3)
    place = np.einsum("hwk,hwkc->hwc", barycentric, corners)
    depth = np.where(face_id >= 0, place[..., 2], 1.0)
    return size * (FOCAL * place[..., :2] / depth[..., None] + 0.5), depth


def flow_px(
    face_id: np.ndarray,
    barycentric: np.ndarray,
    target_vertices_px: np.ndarray,
    faces: np.ndarray,
) -> np.ndarray:
    """Optical flow from a frame to another one: target − source, in pixels.

    Args:
      face_id: (h w) of the source frame.
      barycentric: (h w 3) of the source frame.
      target_vertices_px: (v 3) of the target frame, of the same model.
      faces: (f 3) of the model.

    Returns:
      (h w 2) float32 x, y at the source's pixel centres; 0 on the background, which stands still.
      Points that the target frame does not show have a flow too, see `shown_in`.
    """
    places, _ = _moved(face_id, barycentric, target_vertices_px, faces)
    axis = np.arange(len(face_id)) + 0.5
    centers = np.stack(np.meshgrid(axis, axis, indexing="xy"), axis=-1)
    return np.where((face_id >= 0)[..., None], places - centers, 0.0).astype(np.float32)


def shown_in(
    face_id: np.ndarray,
    barycentric: np.ndarray,
    target_vertices_px: np.ndarray,
    faces: np.ndarray,
    *,
    target_depth: np.ndarray,
) -> np.ndarray:
    """Which pixels of a frame show a point that the target frame shows too.

    Args:
      face_id: (h w) of the source frame.
      barycentric: (h w 3) of the source frame.
      target_vertices_px: (v 3) of the target frame.
      faces: (f 3) of the model.
      target_depth: (h w) of the target frame, cm, 0 on the background.

    Returns:
      (h w) bool. On the background: where the target shows the same background.

    Raises:
      ArgumentError: the frames are of different sizes.
    """
    if target_depth.shape != face_id.shape:
        raise ArgumentError(
            requirement(
                "The target's depth",
                f"have the shape of face_id, {face_id.shape}",
                target_depth.shape,
                "Compare frames of one size.",
            )
        )
    places, depth = _moved(face_id, barycentric, target_vertices_px, faces)
    size = len(face_id)
    column, row = np.floor(np.moveaxis(places, -1, 0)).astype(int)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    surface = np.where(target_depth > 0, target_depth, np.inf)
    there = surface[np.clip(row, 0, size - 1), np.clip(column, 0, size - 1)]
    return np.where(
        face_id >= 0,
        inside & np.isfinite(there) & (depth <= there + _VISIBLE_WITHIN),
        target_depth == 0,
    )
