"""A track drawn on its frames: box, landmarks, and the fitted face as a shaded mesh. For people.

Letters: h w image, v vertices, f faces.
"""

import functools

import numpy as np
from PIL import Image, ImageDraw

from talking_heads_jax.tracking.track import ClipTrack

_SEEN, _HIDDEN, _BOX, _GUESS = (60, 230, 90), (255, 150, 30), (70, 130, 255), (160, 160, 160)
_MESH = np.array([120.0, 200.0, 255.0])
_MESH_OPACITY = 0.55
_LIGHT = np.array([0.3, -0.5, -0.81])  # from the upper right, before the face
_AMBIENT = 0.35
_SMALLEST_SIDE = 512  # smaller frames are enlarged by a whole number, or points hide the face


def enlargement(frame_size: tuple[int, int]) -> int:
    """How often pixels are repeated in an overlay, so that small frames can be read.

    Args:
      frame_size: height, width.
    """
    return max(1, -(-_SMALLEST_SIDE // max(frame_size)))


def draw_track(
    frame: np.ndarray,
    track: ClipTrack,
    index: int,
    *,
    vertices_px: np.ndarray | None = None,
    faces: np.ndarray | None = None,
) -> np.ndarray:
    """One frame with what the track says about it.

    Args:
      frame: (h w 3) uint8 RGB.
      track: of its clip.
      index: of the frame.
      vertices_px: (v 3) of the fitted model as `fitting.fit_vertices_px` gives them; None, or NaN,
        draws no mesh.
      faces: (f 3) of that model.

    Returns:
      (k h, k w, 3) uint8, k of `enlargement`: the box blue (grey if it is a guess), landmarks green
      (orange if hidden or outside), the mesh light blue.
    """
    times = enlargement(frame.shape[:2])
    canvas = np.repeat(np.repeat(frame, times, axis=0), times, axis=1)
    if vertices_px is not None and faces is not None and np.isfinite(vertices_px).all():
        canvas = _blend_mesh(canvas, vertices_px * times, faces)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    box = track.box_px[index]
    if np.isfinite(box).all():
        color = _BOX if track.face[index] else _GUESS
        draw.rectangle([float(side) * times for side in box], outline=color, width=2)
    radius = max(canvas.shape[:2]) / 350
    points = track.landmarks68_px[index] * times
    for (x, y), seen in zip(points.tolist(), track.visible[index].tolist(), strict=True):
        if np.isfinite(x) and np.isfinite(y):
            corners = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(corners, fill=_SEEN if seen else _HIDDEN)
    return np.asarray(picture)


def _blend_mesh(canvas: np.ndarray, vertices_px: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The canvas under a mesh lit from the front; hidden triangles do not show."""
    height, width = canvas.shape[:2]
    face_id = _face_ids(vertices_px, faces, height, width)
    corners = vertices_px[faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    normals *= np.where(normals[:, 2:] > 0, -1.0, 1.0)  # towards the viewer, whose z is smaller
    light = _AMBIENT + (1 - _AMBIENT) * np.maximum(normals @ _LIGHT, 0.0)
    shaded = light[face_id][..., None] * _MESH
    opacity = np.where(face_id >= 0, _MESH_OPACITY, 0.0)[..., None]
    return np.rint(canvas * (1 - opacity) + shaded * opacity).astype(np.uint8)


def _face_ids(vertices_px: np.ndarray, faces: np.ndarray, height: int, width: int) -> np.ndarray:
    """(h w) number of the nearest triangle, -1 where there is none."""
    size = np.array([width, height], np.float64)
    positions = np.concatenate(
        [2 * vertices_px[:, :2] / size - 1, vertices_px[:, 2:] / max(height, width)], axis=-1
    )
    drawn = _program(height, width)(positions[None].astype(np.float32), np.asarray(faces, np.int32))
    return np.asarray(drawn)[0]


@functools.lru_cache(maxsize=4)
def _program(height: int, width: int) -> object:
    import jax

    from talking_heads_jax.ops.rasterizer import rasterize

    def face_ids(positions: jax.Array, faces: jax.Array) -> jax.Array:
        return rasterize(positions, faces, height=height, width=width).face_id

    return jax.jit(face_ids)
