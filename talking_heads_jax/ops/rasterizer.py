"""Z-buffer triangle rasterisation in pure JAX: face index, barycentrics, depth, attributes.

Positions are (x, y, z): x right, y DOWN, both in [-1, 1] across the image's outer edges, z smaller
nearer; or clip space (x, y, z, w), the same after division by w, with w > 0 in front of the camera.
Pixel (row i, column j) has its centre at (j + 0.5, i + 0.5) px; row 0 is at y = -1.

The rule is OpenGL's as far as it can be observed: window positions are rounded to 1/256 px for
coverage only, depth and barycentrics come from the unrounded ones, a pixel is covered where its
centre lies inside or on the border, whichever way the triangle is wound, and shows the triangle of
the smallest depth, of the lowest number on a tie. There are no near and far planes: a triangle that
crosses w = 0 is drawn by homogeneous edge functions where w > 0 (see `triangle_setup`).

No triangle is dropped silently. Without a budget all of them are drawn, however many lie in a pixel
and however large they are: lists are processed in chunks, and only time grows. With one, what did
not fit is counted. Letters: b batch, v vertices, f faces, h w image, d feature.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from talking_heads_jax.errors import ArgumentError, check_choice, check_shape, requirement
from talking_heads_jax.ops.platform import target_platform
from talking_heads_jax.ops.rasterizer_scatter import scatter_triangles
from talking_heads_jax.ops.rasterizer_tiles import draw_tiles
from talking_heads_jax.ops.silhouette_antialiasing import (
    MeshTopology,
    blend_silhouettes,
    mesh_topology,
)
from talking_heads_jax.ops.triangle_setup import is_back_facing, set_up_triangles
from talking_heads_jax.typing import Array, Float, Int, typechecked

__all__ = [
    "CULLINGS",
    "IMPLEMENTATIONS",
    "Fragments",
    "MeshTopology",
    "antialias",
    "interpolate",
    "mesh_topology",
    "rasterize",
    "require_complete",
]

IMPLEMENTATIONS = ("auto", "scatter", "tiles")
CULLINGS = ("none", "back", "back_after")
# List entries processed at a time: few enough to stay in a CPU's cache, many enough to fill others.
_CHUNKS = {"cpu": 16384, "gpu": 262144, "tpu": 65536}
_SMALLEST_CHUNK = 1024
_LARGEST = 2**30  # of what is counted in int32, with room for a chunk

Faces = Int[Array, "f 3"] | Int[np.ndarray, "f 3"]


class Fragments(NamedTuple):
    """What is seen at each pixel.

    Attributes:
      face_id: number of the nearest triangle; -1 is the background.
      barycentric: weights of its three vertices at the pixel's centre, perspective-correct; they
        sum to 1, may be slightly negative at its border, and are 0 on the background.
        Differentiable in the positions.
      depth: z / w there, 0 on the background. Differentiable in the positions.
      overflow: list entries that did not fit the budget, per mesh; 0 says that all triangles are
        drawn.
    """

    face_id: Int[Array, "b h w"]
    barycentric: Float[Array, "b h w 3"]
    depth: Float[Array, "b h w"]
    overflow: Int[Array, "b"]


@typechecked
def rasterize(
    positions: Float[Array, "b v c"],
    faces: Faces,
    *,
    height: int,
    width: int,
    cull: str = "none",
    implementation: str = "auto",
    budget: int | None = None,
) -> Fragments:
    """Draws a batch of meshes that share their faces.

    Args:
      positions: (x, y, z) or clip-space (x, y, z, w), as at the top of this file. A triangle with a
        coordinate that is not finite, or without an area, is not drawn.
      faces: vertices of each triangle, numbered from 0.
      height: of the image in pixels.
      width: of the image in pixels.
      cull: 'none'; 'back' leaves out triangles whose (v1 - v0) x (v2 - v0) has a z component > 0;
        'back_after' draws them and then makes their pixels background, so that nothing behind
        shows through.
      implementation: 'scatter' (CPU, GPU), 'tiles' (TPU), or 'auto': by the target platform.
      budget: how many list entries a mesh may take: for 'scatter' blocks of 2 x 2 pixels of the
        triangles' boxes, for 'tiles' pairs of triangle and tile of 16 x 16 pixels. None draws
        everything (less than 2^30 entries). A budget bounds the time that a soup of huge triangles
        can take: one over the whole of 256 x 256 pixels has 16384 blocks, or 256 pairs.

    Raises:
      ArgumentError: for shapes, sizes or choices out of range, and for concrete faces that name a
        vertex which does not exist.

    Source:
      The coverage rule reproduces every face index of an OpenGL renderer on a golden case.
    """
    check_choice("cull", cull, CULLINGS)
    check_choice("implementation", implementation, IMPLEMENTATIONS)
    _check_mesh(positions, faces)
    for what, value, smallest in (
        ("height", height, 1),
        ("width", width, 1),
        ("height times width", height * width, 1),
        ("budget", 0 if budget is None else budget, 0),
    ):
        if not smallest <= value <= _LARGEST:
            legal = f"lie between {smallest} and {_LARGEST}"
            raise ArgumentError(requirement(what, legal, value, "Give a whole number in between."))
    positions = positions.astype(jnp.float32)
    faces = jnp.asarray(faces, jnp.int32)
    platform = target_platform()
    if implementation == "auto":
        implementation = "tiles" if platform == "tpu" else "scatter"
    face_id, overflow = _find_faces(
        lax.stop_gradient(positions),
        faces,
        jnp.int32(_LARGEST if budget is None else budget),
        height=height,
        width=width,
        cull=cull,
        implementation=implementation,
        chunk=max(_SMALLEST_CHUNK, min(_CHUNKS[platform], 2 * faces.shape[0])),
        one_by_one=platform == "cpu",
    )
    barycentric, depth = _locate(positions, faces, face_id)
    return Fragments(face_id, barycentric, depth, overflow)


@typechecked
def interpolate(
    attributes: Float[Array, "v d"] | Float[Array, "b v d"], fragments: Fragments, faces: Faces
) -> Float[Array, "b h w d"]:
    """Interpolates attributes of the vertices at every pixel.

    Args:
      attributes: one row per vertex, of each mesh or the same for all.
      fragments: of `rasterize`.
      faces: vertices of each triangle.

    Returns:
      0 on the background. Differentiable in the attributes and, through the barycentrics, in the
      positions that were rasterised.
    """
    corners = jnp.asarray(faces, jnp.int32)[jnp.maximum(fragments.face_id, 0)]

    def blend(rows: Array, corner: Array, weight: Array) -> Array:
        return sum(weight[..., i : i + 1] * rows[corner[..., i]] for i in range(3))

    axes = (0 if attributes.ndim == 3 else None, 0, 0)
    return jax.vmap(blend, axes)(attributes, corners, fragments.barycentric)


@typechecked
def antialias(
    image: Float[Array, "b h w d"],
    fragments: Fragments,
    positions: Float[Array, "b v c"],
    faces: Faces,
    topology: MeshTopology,
) -> Float[Array, "b h w d"]:
    """Smooths the outlines of the meshes; gives gradients to the positions of their vertices.

    Args:
      image: colours or other attributes, as interpolated and shaded.
      fragments: of `rasterize`.
      positions: that were rasterised.
      faces: vertices of each triangle.
      topology: of these faces, by `mesh_topology`.

    Returns:
      See `silhouette_antialiasing.blend_silhouettes`. Differentiable in image and positions.
    """
    _check_mesh(positions, faces)
    check_shape("topology.opposite", topology.opposite.shape, faces.shape)
    faces = jnp.asarray(faces, jnp.int32)
    depth = lax.stop_gradient(fragments.depth)
    positions = positions.astype(jnp.float32)
    return blend_silhouettes(image, fragments.face_id, depth, positions, faces, topology)


def require_complete(fragments: Fragments) -> Fragments:
    """Returns the fragments if everything fitted the budget; for use outside `jit`.

    Args:
      fragments: of `rasterize`, concrete.

    Raises:
      ArgumentError: says by how much the budget was exceeded.
    """
    overflow = np.asarray(fragments.overflow)
    if overflow.any():
        mesh = int(overflow.argmax())
        raise ArgumentError(
            requirement(
                "the rasteriser's budget",
                "hold all entries of every mesh",
                f"{overflow[mesh]} too few for mesh {mesh}",
                "Raise `budget` by that number, or leave it out.",
            )
        )
    return fragments


def _check_mesh(positions: Array, faces: Array | np.ndarray) -> None:
    """Raises for shapes, and faces known now, that cannot be drawn."""
    if positions.shape[-1] not in (3, 4):
        remedy = "Give (x, y, z), or (x, y, z, w) in clip space."
        raise ArgumentError(
            requirement("positions", "have 3 or 4 coordinates", positions.shape, remedy)
        )
    if not faces.shape[0] or not positions.shape[1]:
        got = f"{positions.shape[1]} vertices, {faces.shape[0]} faces"
        raise ArgumentError(requirement("a mesh", "have a triangle", got, "Check the arrays."))
    if isinstance(faces, np.ndarray):
        low, high = faces.min(), faces.max()
        if low < 0 or high >= positions.shape[1]:
            raise ArgumentError(
                requirement(
                    "faces",
                    f"name vertices of [0, {positions.shape[1]})",
                    f"{low} to {high}",
                    "Do they count from 1, or belong to another mesh?",
                )
            )


@functools.partial(
    jax.jit,
    static_argnames=(
        "height",
        "width",
        "cull",
        "implementation",
        "chunk",
        "one_by_one",
    ),
)
def _find_faces(
    positions: Array,
    faces: Array,
    budget: Array,
    *,
    height: int,
    width: int,
    cull: str,
    implementation: str,
    chunk: int,
    one_by_one: bool,
) -> tuple[Array, Array]:
    """Face numbers (b h w) and overflow (b)."""
    find_nearest = draw_tiles if implementation == "tiles" else scatter_triangles

    def draw(points: Array) -> tuple[Array, Array]:
        triangles = set_up_triangles(
            points, faces, height=height, width=width, drop_back_faces=cull == "back"
        )
        face_id, overflow = find_nearest(
            triangles, height=height, width=width, budget=budget, chunk=chunk
        )
        if cull == "back_after":
            back = is_back_facing(points, faces)
            face_id = jnp.where((face_id >= 0) & back[face_id], -1, face_id)
        return face_id, overflow

    if one_by_one or positions.shape[0] == 1:
        # On a CPU one mesh at a time stays in the cache, and no mesh waits for the longest list.
        return lax.map(draw, positions)
    return jax.vmap(draw)(positions)


@jax.jit
def _locate(positions: Array, faces: Array, face_id: Array) -> tuple[Array, Array]:
    """Barycentrics (b h w 3) and depth (b h w) of the faces seen, from unrounded positions.

    Edge functions at the pixel's centre of (x w, y w, w): dividing by their sum makes them
    perspective-correct, whatever the signs of w.
    """
    height, width = face_id.shape[1:]
    seen = face_id >= 0
    corners = faces[jnp.maximum(face_id, 0)]
    w = positions[..., 3] if positions.shape[-1] == 4 else jnp.ones_like(positions[..., 0])
    columns = [
        (positions[..., 0] * 0.5 + 0.5 * w) * width,
        (positions[..., 1] * 0.5 + 0.5 * w) * height,
        positions[..., 2],
        w,
    ]
    take = jax.vmap(lambda values, index: values[index])
    x, y, z, w = ([take(values, corners[..., i]) for i in range(3)] for values in columns)
    x_centre = jnp.arange(width, dtype=jnp.float32) + 0.5
    y_centre = (jnp.arange(height, dtype=jnp.float32) + 0.5)[:, None]
    x = [value - x_centre * weight for value, weight in zip(x, w, strict=True)]
    y = [value - y_centre * weight for value, weight in zip(y, w, strict=True)]
    areas = [x[j] * y[k] - y[j] * x[k] for j, k in ((1, 2), (2, 0), (0, 1))]
    total = areas[0] + areas[1] + areas[2]
    scale = jnp.where(seen, 1.0, 0.0) / jnp.where(seen & (total != 0), total, 1.0)
    weights = [area * scale for area in areas]
    along = sum(weight * value for weight, value in zip(weights, w, strict=True))
    depth = sum(weight * value for weight, value in zip(weights, z, strict=True))
    return jnp.stack(weights, axis=-1), depth / jnp.where(along != 0, along, 1.0)
