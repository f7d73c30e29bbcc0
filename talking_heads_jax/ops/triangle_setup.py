"""What every rasteriser needs to know about a triangle: edge functions, depth plane, pixel box.

Window coordinates: x right, y down, in pixels, the centre of pixel (row i, column j) at
(j + 0.5, i + 0.5). All planes are stated at a local origin, the centre of the box's first pixel, so
that the numbers stay as small as the triangle. Letters: v vertices, f faces.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from talking_heads_jax.typing import Array, Bool, Float, Int

SUBPIXELS = 256  # a pixel's subdivisions: OpenGL drivers and hardware round positions to 1/256 px
# Up to this extent, products of two subpixel offsets and their differences fit in int32, and edge
# functions at the pixels of the box are whole numbers below 2^24: exact in float32.
_EXACT_EXTENT = 127 * SUBPIXELS
# A vertex close to the camera's plane is projected far away, where float32 has no subpixels left:
# beyond this extent triangles with a w get homogeneous edge functions, which divide by nothing.
_FLAT_EXTENT = 16384 * SUBPIXELS


class Triangles(NamedTuple):
    """Triangles of one mesh, ready to be drawn; every field has one row per face.

    A pixel of the box, `dx` columns right of and `dy` rows below its first one, is covered if
    `x dx + y dy + constant >= 0` holds for the three edges. Its depth is the same of `depth`.
    """

    edge_x: tuple[Float[Array, "f"], ...]
    edge_y: tuple[Float[Array, "f"], ...]
    edge_constant: tuple[Float[Array, "f"], ...]
    depth_x: Float[Array, "f"]
    depth_y: Float[Array, "f"]
    depth_constant: Float[Array, "f"]
    column: Int[Array, "f"]  # of the first pixel of the box
    row: Int[Array, "f"]
    width: Int[Array, "f"]  # of the box; 0 where there is nothing to draw
    height: Int[Array, "f"]


def is_back_facing(positions: Float[Array, "v d"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Which triangles show their back: (v1 - v0) x (v2 - v0) has a z component > 0.

    Args:
      positions: (x, y, z), or (x, y, z, w) before the division by w; x right, y down.
      faces: vertices of each triangle.

    Returns:
      False for triangles without an area. Triangles with vertices behind the camera are judged by
      the part in front of it.
    """
    corners = [positions[faces[:, i]] for i in range(3)]
    if positions.shape[-1] == 3:
        return _cross(*[corner[:, :2] for corner in corners]) > 0
    w = [corner[:, 3] for corner in corners]
    front = (w[0] > 0) & (w[1] > 0) & (w[2] > 0)
    flat = [
        corner[:, :2] / jnp.where(front, weight, 1.0)[:, None]
        for corner, weight in zip(corners, w, strict=True)
    ]
    homogeneous = [(corner[:, 0], corner[:, 1], corner[:, 3]) for corner in corners]
    lines = _lines(homogeneous)
    determinant = _dot(homogeneous[0], lines[0])
    return jnp.where(front, _cross(*flat), determinant) > 0


def set_up_triangles(
    positions: Float[Array, "v d"],
    faces: Int[Array, "f 3"],
    *,
    height: int,
    width: int,
    drop_back_faces: bool,
) -> Triangles:
    """Computes the planes and boxes of all triangles of a mesh.

    Triangles wholly in front of the camera have their window positions rounded to 1/256 px for the
    edge functions and the box. Those that cross the plane w = 0 get homogeneous edge functions
    (the 2-D lines through the clip-space vertices, never divided by w), unrounded, and the whole
    image as their box; so do, within their box, those that a small w makes larger than 16384 px.
    Triangles behind the camera, without an area, or with a vertex that is not
    finite have an empty box.

    Args:
      positions: (x, y, z) or (x, y, z, w) as of `rasterizer.rasterize`.
      faces: vertices of each triangle.
      height: of the image in pixels.
      width: of the image in pixels.
      drop_back_faces: whether back-facing triangles get an empty box.

    Source:
      Homogeneous edge functions: Olano and Greer, "Triangle scan conversion using 2D homogeneous
      coordinates", 1997.
    """
    perspective = positions.shape[-1] == 4
    size = jnp.array([width, height], jnp.float32)
    xy, z = positions[:, :2], positions[:, 2]
    if perspective:
        w = positions[:, 3]
        clip = jnp.concatenate([(xy * 0.5 + 0.5 * w[:, None]) * size, w[:, None], z[:, None]], -1)
        inverse = 1.0 / jnp.where(w > 0, w, 1.0)
        window, z = (xy * inverse[:, None] * 0.5 + 0.5) * size, z * inverse
    else:
        window = (xy * 0.5 + 0.5) * size
    # Gathered once, behind a barrier: fused into each of the results, XLA would gather them tens of
    # times over.
    x, y, z = lax.optimization_barrier(
        [[value[faces[:, i]] for i in range(3)] for value in (window[:, 0], window[:, 1], z)]
    )

    fixed_x = [jnp.round(value * SUBPIXELS) for value in x]
    fixed_y = [jnp.round(value * SUBPIXELS) for value in y]
    low_x, high_x = _range(fixed_x)
    low_y, high_y = _range(fixed_y)
    first_column = _first_centre(low_x, width)
    first_row = _first_centre(low_y, height)
    box_width = _last_centre(high_x, width) - first_column + 1.0
    box_height = _last_centre(high_y, height) - first_row + 1.0

    extent = jnp.maximum(high_x - low_x, high_y - low_y)
    origin_x = first_column * SUBPIXELS + SUBPIXELS // 2
    origin_y = first_row * SUBPIXELS + SUBPIXELS // 2
    exact = extent <= _EXACT_EXTENT
    edge_x, edge_y, edge_constant, has_area = _flat_edges(
        [value - origin_x for value in fixed_x], [value - origin_y for value in fixed_y], exact
    )

    # The depth plane, from the unrounded positions.
    local_x = [value - (first_column + 0.5) for value in x]
    local_y = [value - (first_row + 0.5) for value in y]
    ax, ay, az = local_x[1] - local_x[0], local_y[1] - local_y[0], z[1] - z[0]
    bx, by, bz = local_x[2] - local_x[0], local_y[2] - local_y[0], z[2] - z[0]
    area = ax * by - bx * ay
    scale = 1.0 / jnp.where(area == 0, 1.0, area)
    depth_x = (az * by - bz * ay) * scale
    depth_y = (ax * bz - bx * az) * scale
    depth_constant = z[0] - depth_x * local_x[0] - depth_y * local_y[0]
    drawn = has_area & (area != 0)
    back = area > 0

    if perspective:
        weights = [clip[faces[:, i], 2] for i in range(3)]
        in_front = jnp.minimum(jnp.minimum(weights[0], weights[1]), weights[2]) > 0
        behind = ~(jnp.maximum(jnp.maximum(weights[0], weights[1]), weights[2]) > 0)
        homogeneous = [clip[faces[:, i]] for i in range(3)]
        lines, plane, determinant = _homogeneous_planes(homogeneous)
        sign = jnp.sign(determinant)

        first_column = jnp.where(in_front, first_column, 0.0)
        first_row = jnp.where(in_front, first_row, 0.0)
        box_width = jnp.where(in_front, box_width, width)
        box_height = jnp.where(in_front, box_height, height)
        flat = in_front & (extent <= _FLAT_EXTENT)

        def at_origin(line: _Point) -> Array:
            return line[0] * (first_column + 0.5) + line[1] * (first_row + 0.5) + line[2]

        for i, line in enumerate(lines):
            edge_x[i] = jnp.where(flat, edge_x[i], line[0] * sign)
            edge_y[i] = jnp.where(flat, edge_y[i], line[1] * sign)
            edge_constant[i] = jnp.where(flat, edge_constant[i], at_origin(line) * sign)
        depth_x = jnp.where(flat, depth_x, plane[0])
        depth_y = jnp.where(flat, depth_y, plane[1])
        depth_constant = jnp.where(flat, depth_constant, at_origin(plane))
        drawn = jnp.where(flat, drawn, (determinant != 0) & ~behind)
        back = jnp.where(flat, back, determinant > 0)

    if drop_back_faces:
        drawn &= ~back
    # A vertex that is not finite makes one of these sums NaN or infinite.
    total = sum(edge_x) + sum(edge_y) + sum(edge_constant) + depth_x + depth_y + depth_constant
    drawn &= jnp.isfinite(total) & (box_width > 0) & (box_height > 0)
    return Triangles(
        edge_x=tuple(edge_x),
        edge_y=tuple(edge_y),
        edge_constant=tuple(edge_constant),
        depth_x=depth_x,
        depth_y=depth_y,
        depth_constant=depth_constant,
        column=jnp.where(drawn, first_column, 0.0).astype(jnp.int32),
        row=jnp.where(drawn, first_row, 0.0).astype(jnp.int32),
        width=jnp.where(drawn, box_width, 0.0).astype(jnp.int32),
        height=jnp.where(drawn, box_height, 0.0).astype(jnp.int32),
    )


def _range(values: list[Array]) -> tuple[Array, Array]:
    low = jnp.minimum(jnp.minimum(values[0], values[1]), values[2])
    high = jnp.maximum(jnp.maximum(values[0], values[1]), values[2])
    return low, high


def _first_centre(low: Array, size: int) -> Array:
    """The first pixel of [0, size] whose centre is at `low` subpixels or after it."""
    return jnp.clip(jnp.ceil(low / SUBPIXELS - 0.5), 0, size)


def _last_centre(high: Array, size: int) -> Array:
    """The last pixel of [-1, size - 1] whose centre is at `high` subpixels or before it."""
    return jnp.clip(jnp.floor(high / SUBPIXELS - 0.5), -1, size - 1)


def _flat_edges(
    x: list[Array], y: list[Array], exact: Array
) -> tuple[list[Array], list[Array], list[Array], Array]:
    """Edge functions of triangles with rounded vertices, relative to the origin (subpixels).

    The function of an edge from a to b is (b - a) x (p - a), turned so that it is not negative
    inside. At a pixel centre it is its value at the origin plus a multiple of 256 subpixel^2; its
    sign is that of its floor after division by 256, a whole number. Where `exact`, the division
    happens in int32.

    Returns:
      Coefficients of dx and dy and the constant (3 f), and which triangles have an area.
    """
    ix = [jnp.where(exact, value, 0.0).astype(jnp.int32) for value in x]
    iy = [jnp.where(exact, value, 0.0).astype(jnp.int32) for value in y]
    whole_area = (ix[1] - ix[0]) * (iy[2] - iy[0]) - (ix[2] - ix[0]) * (iy[1] - iy[0])
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    area = jnp.where(exact, jnp.sign(whole_area).astype(jnp.float32), jnp.sign(area))
    whole_sign = area.astype(jnp.int32)
    edge_x, edge_y, constant = [], [], []
    for a, b in ((1, 2), (2, 0), (0, 1)):
        edge_x.append((y[a] - y[b]) * area)
        edge_y.append((x[b] - x[a]) * area)
        whole = (ix[a] * iy[b] - ix[b] * iy[a]) * whole_sign
        plain = (x[a] * (y[b] - y[a]) - y[a] * (x[b] - x[a])) * area / SUBPIXELS
        constant.append(jnp.where(exact, (whole >> 8).astype(jnp.float32), plain))
    return edge_x, edge_y, constant, area != 0


def _cross(a: Array, b: Array, c: Array) -> Array:
    """(b - a) x (c - a) of rows (x, y)."""
    ab, ac = b - a, c - a
    return ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]


_Point = tuple[Array, Array, Array]


def _lines(points: list[_Point]) -> list[_Point]:
    """Homogeneous lines opposite of each of three homogeneous points: their cross products."""
    lines = []
    for i, j in ((1, 2), (2, 0), (0, 1)):
        (ax, ay, aw), (bx, by, bw) = points[i], points[j]
        lines.append((ay * bw - aw * by, aw * bx - ax * bw, ax * by - ay * bx))
    return lines


def _dot(a: _Point, b: _Point) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _homogeneous_planes(corners: list[Array]) -> tuple[list[_Point], _Point, Array]:
    """Edge lines and depth plane over window (x, y, 1), from rows (x w, y w, w, z w).

    Returns:
      Three lines, the plane of z/w, and the determinant, whose sign the lines have inside.
    """
    points = [(corner[:, 0], corner[:, 1], corner[:, 2]) for corner in corners]
    lines = _lines(points)
    determinant = _dot(points[0], lines[0])
    scale = 1.0 / jnp.where(determinant == 0, 1.0, determinant)
    plane = tuple(
        sum(corner[:, 3] * line[k] for corner, line in zip(corners, lines, strict=True)) * scale
        for k in range(3)
    )
    return lines, plane, determinant
