"""Silhouette antialiasing: colours of neighbouring pixels mix where a mesh's outline passes.

The image of a z-buffer jumps at an outline and does not change while a vertex moves by less than a
pixel. Here the share of the pixels on both sides of an outline edge depends on where the edge
crosses the line between their centres, so that the picture is smooth and gradients reach the
vertices. Letters: b batch, v vertices, f faces, h w image, d feature.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from talking_heads_jax.errors import check_shape
from talking_heads_jax.typing import Array, Bool, Float, Int, typechecked

_MARGIN = 1.0 / 16.0  # px: rounding may put a crossing slightly outside its pair of centres
_EDGES = ((1, 2), (2, 0), (0, 1))  # vertices of edge i, which lies opposite of vertex i


class MeshTopology(NamedTuple):
    """Who shares the edges of a mesh.

    Attributes:
      opposite: for the edge opposite of a face's vertex i, the vertex of the adjacent face that
        is not on the edge; -1 where there is none, or more than one.
    """

    opposite: Int[np.ndarray, "f 3"]


def mesh_topology(faces: Int[np.ndarray, "f 3"] | Int[Array, "f 3"]) -> MeshTopology:
    """Finds the face on the other side of every edge; on the host, once per mesh.

    Args:
      faces: vertices of each triangle, concrete. Orientation does not matter.
    """
    faces = np.asarray(faces)
    check_shape("faces", faces.shape, (None, 3))
    # Row 3 i + k is the edge of face i opposite of its vertex k.
    ends = np.sort(faces[:, _EDGES], axis=-1).reshape(-1, 2)
    tips = faces.reshape(-1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends = ends[order]
    same = (ends[1:] == ends[:-1]).all(axis=1)
    like_next = np.append(same, False)
    like_previous = np.insert(same, 0, False)
    # Exactly two in a row share their edge.
    first = like_next & ~like_previous
    first[:-1] &= ~like_next[1:]
    first = np.flatnonzero(first)
    opposite = np.full(faces.size, -1, np.int32)
    opposite[order[first]] = tips[order[first + 1]]
    opposite[order[first + 1]] = tips[order[first]]
    return MeshTopology(opposite.reshape(faces.shape))


@typechecked
def blend_silhouettes(
    image: Float[Array, "b h w d"],
    face_id: Int[Array, "b h w"],
    depth: Float[Array, "b h w"],
    positions: Float[Array, "b v c"],
    faces: Int[Array, "f 3"],
    topology: MeshTopology,
) -> Float[Array, "b h w d"]:
    """Mixes the colours of neighbouring pixels across silhouette edges.

    For every pair of pixels side by side or one above the other that show different triangles, the
    nearer triangle (the second at equal depth, the only one beside background) is followed along
    the line from its pixel's centre to the other's. Where it ends there with an edge that is a
    silhouette and at most 45 degrees off the perpendicular, at distance t of the centre, the pixel
    that holds the edge takes |t - 1/2| of the other one's colour. All pairs add up.

    Args:
      image: colours or other attributes.
      face_id: of `rasterizer.rasterize`.
      depth: of `rasterizer.rasterize`.
      positions: as given to `rasterizer.rasterize`.
      faces: vertices of each triangle.
      topology: of these faces.

    Returns:
      Differentiable in the image and the positions. Triangles with a vertex behind the camera are
      left as they are.
    """
    return _blend_batch(image, face_id, depth, positions, faces, jnp.asarray(topology.opposite))


@jax.jit
def _blend_batch(
    image: Array, face_id: Array, depth: Array, positions: Array, faces: Array, opposite: Array
) -> Array:
    def blend(picture: Array, ids: Array, z: Array, points: Array) -> Array:
        window, in_front = _to_window(points, height=ids.shape[0], width=ids.shape[1])
        outline = _silhouettes(lax.stop_gradient(window), in_front, faces, opposite)
        shown = window[faces]
        usable = in_front[faces].all(axis=1)
        across = _blend_rows(picture, ids, z, shown, outline, usable)
        down = _blend_rows(
            picture.swapaxes(0, 1), ids.T, z.T, shown[..., ::-1], outline, usable
        ).swapaxes(0, 1)
        return picture + across + down

    return jax.vmap(blend)(image, face_id, depth, positions)


def _to_window(points: Array, *, height: int, width: int) -> tuple[Array, Bool[Array, "v"]]:
    """Positions in pixels (v 2), and which lie in front of the camera."""
    size = jnp.array([width, height], jnp.float32)
    xy = points[:, :2]
    in_front = jnp.ones(xy.shape[:1], bool)
    if points.shape[-1] == 4:
        in_front = points[:, 3] > 0
        xy = xy / jnp.where(in_front, points[:, 3], 1.0)[:, None]
    return (xy * 0.5 + 0.5) * size, in_front


def _silhouettes(
    window: Array, in_front: Array, faces: Array, opposite: Array
) -> Bool[Array, "f 3"]:
    """Edges with nothing on the other side: no face, or one that folds back over its neighbour."""
    found = (opposite >= 0) & in_front[opposite]
    columns = []
    for i, (j, k) in enumerate(_EDGES):
        a, b = window[faces[:, j]], window[faces[:, k]]
        own = _side(a, b, window[faces[:, i]])
        other = _side(a, b, window[opposite[:, i]])
        columns.append(~found[:, i] | ((own < 0) == (other < 0)))
    return jnp.stack(columns, axis=-1)


def _side(a: Array, b: Array, point: Array) -> Array:
    along, off = b - a, point - a
    return along[:, 0] * off[:, 1] - along[:, 1] * off[:, 0]


def _blend_rows(
    picture: Array, ids: Array, z: Array, shown: Array, outline: Array, usable: Array
) -> Array:
    """What the pairs of neighbours within the rows add to the picture (h w d).

    Args:
      picture: colours (h w d).
      ids: faces shown (h w).
      z: depths (h w).
      shown: window (along the row, across the rows) of each face's vertices (f 3 2).
      outline: which edges are silhouettes (f 3).
      usable: which faces lie in front of the camera.
    """
    height, width = ids.shape
    id0, id1 = ids[:, :-1], ids[:, 1:]
    first = (id0 >= 0) & ((id1 < 0) | (z[:, :-1] < z[:, 1:]))
    chosen = jnp.where(first, id0, id1)
    face = jnp.maximum(chosen, 0)
    # Along the row towards the other pixel, from the centre of the chosen one.
    direction = jnp.where(first, 1.0, -1.0)
    centre = jnp.arange(width - 1, dtype=jnp.float32) + jnp.where(first, 0.5, 1.5)
    corners = shown[face]
    along = (corners[..., 0] - centre[..., None]) * direction[..., None]
    off = corners[..., 1] - (jnp.arange(height, dtype=jnp.float32) + 0.5)[:, None, None]

    distance = jnp.full(face.shape, -jnp.inf)
    cuts = jnp.zeros(face.shape, bool)
    edges = outline[face]
    for i, (j, k) in enumerate(_EDGES):
        rise, run = off[..., k] - off[..., j], along[..., k] - along[..., j]
        straddles = (off[..., j] < 0) != (off[..., k] < 0)
        crossing = along[..., j] - off[..., j] * run / jnp.where(straddles, rise, 1.0)
        farther = straddles & (crossing > distance)
        distance = jnp.where(farther, crossing, distance)
        cuts = jnp.where(farther, edges[..., i] & (jnp.abs(rise) >= jnp.abs(run)), cuts)
    cuts &= (id0 != id1) & usable[face] & (distance > -_MARGIN) & (distance < 1 + _MARGIN)
    share = jnp.where(cuts, 0.5 - jnp.clip(jnp.where(cuts, distance, 0.5), 0.0, 1.0), 0.0)
    alpha = (direction * share)[..., None]
    step = alpha * (picture[:, 1:] - picture[:, :-1])
    to_first = jnp.pad(jnp.where(alpha > 0, step, 0.0), ((0, 0), (0, 1), (0, 0)))
    to_second = jnp.pad(jnp.where(alpha > 0, 0.0, step), ((0, 0), (1, 0), (0, 0)))
    return to_first + to_second
