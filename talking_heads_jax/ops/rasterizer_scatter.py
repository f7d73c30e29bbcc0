"""The fragment-scatter rasteriser, for CPU and GPU: every block of every triangle finds its pixels.

A triangle's pixel box is cut into small blocks. The blocks of all triangles stand in one long list,
processed a chunk of fixed size at a time: which triangle a list position belongs to follows from a
scatter of the triangles' first positions and a cumulative maximum. Every pixel of a block that its
triangle covers is a fragment; a scatter-min of the depths and a second one of the face numbers
among those that hit the smallest depth keep the nearest, the lowest number on a tie.
"""

import jax
import jax.numpy as jnp
from jax import lax

from talking_heads_jax.ops.triangle_setup import Triangles
from talking_heads_jax.typing import Array

# Heads at 128 to 512 px have triangles of a few pixels: larger blocks mostly hold pixels outside.
BLOCK_HEIGHT = 2
BLOCK_WIDTH = 2
_INT32_MAX = 2**31 - 1


def scatter_triangles(
    triangles: Triangles, *, height: int, width: int, budget: Array, chunk: int
) -> tuple[Array, Array]:
    """Finds the nearest triangle of every pixel.

    Args:
      triangles: of one mesh.
      height: of the image in pixels.
      width: of the image in pixels.
      budget: how many blocks are processed at most.
      chunk: how many blocks are processed at a time.

    Returns:
      Face numbers (h w), -1 where there is none, and how many blocks were left out.
    """
    columns = (triangles.width + BLOCK_WIDTH - 1) // BLOCK_WIDTH
    rows = (triangles.height + BLOCK_HEIGHT - 1) // BLOCK_HEIGHT
    counts = columns * rows
    ends = jnp.cumsum(counts)
    starts = ends - counts
    total = ends[-1]
    # Where int32 does not hold the number of blocks, nothing is drawn and everything is reported.
    fits = counts.astype(jnp.float32).sum() < 2.0**30
    total = jnp.where(fits, total, _INT32_MAX)
    allowed = jnp.minimum(jnp.where(fits, total, 0), budget)

    edges = (triangles.edge_x, triangles.edge_y, triangles.edge_constant)
    depths = (triangles.depth_x, triangles.depth_y, triangles.depth_constant)
    boxes = (starts, columns, triangles.row, triangles.column)
    num_faces = counts.shape[0]
    numbers = jnp.arange(num_faces, dtype=jnp.int32)
    positions = jnp.arange(chunk, dtype=jnp.int32)
    empty = counts == 0

    def draw(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        first, last_face, nearest, winner = state
        # The triangle of every list position; an index past the end drops the update.
        inside = ~empty & (starts >= first) & (starts < first + chunk)
        heads = jnp.where(inside, starts - first, chunk)
        faces = jnp.zeros(chunk, jnp.int32).at[heads].set(numbers, mode="drop")
        faces = lax.cummax(faces.at[0].max(last_face))
        # The facts of every block's triangle; the barrier keeps XLA from gathering them again for
        # each pixel of the block.
        (edge_x, edge_y, edge), (depth_x, depth_y, depth), (start, wide, row, column) = (
            lax.optimization_barrier(
                jax.tree.map(lambda table: table[faces], (edges, depths, boxes))
            )
        )
        block = first + positions - start
        block_row = block // wide
        left = (block - block_row * wide) * BLOCK_WIDTH
        top = block_row * BLOCK_HEIGHT
        x, y = column + left, row + top
        alive = first + positions < allowed
        keys, pixels = [], []
        for dy in range(BLOCK_HEIGHT):
            for dx in range(BLOCK_WIDTH):
                right, down = (left + dx).astype(jnp.float32), (top + dy).astype(jnp.float32)
                covered = alive & (x + dx < width) & (y + dy < height)
                for i in range(3):
                    covered &= edge_x[i] * right + edge_y[i] * down + edge[i] >= 0
                here = depth_x * right + depth_y * down + depth
                keys.append(jnp.where(covered, _ordered_key(here), _INT32_MAX))
                # What is not covered writes a key that never wins: cheaper than a branch, and at
                # scattered pixels cheaper than at one.
                pixels.append(jnp.minimum((y + dy) * width + x + dx, height * width - 1))
        keys, pixels = lax.optimization_barrier((keys, pixels))
        closer = nearest
        for key, pixel in zip(keys, pixels, strict=True):
            closer = closer.at[pixel].min(key, mode="promise_in_bounds")
        winner = jnp.where(closer < nearest, _INT32_MAX, winner)
        for key, pixel in zip(keys, pixels, strict=True):
            hits = (key == closer[pixel]) & (key != _INT32_MAX)
            names = jnp.where(hits, faces, _INT32_MAX)
            winner = winner.at[pixel].min(names, mode="promise_in_bounds")
        return first + chunk, faces[-1], closer, winner

    background = jnp.full(height * width, _INT32_MAX, jnp.int32)
    state = (jnp.int32(0), jnp.int32(0), background, background)
    winner = lax.while_loop(lambda state: state[0] < allowed, draw, state)[3]
    face_id = jnp.where(winner == _INT32_MAX, -1, winner).reshape(height, width)
    return face_id, total - allowed


def _ordered_key(depth: Array) -> Array:
    """Integers in the order of the floats: hardware compares and exchanges them atomically."""
    bits = lax.bitcast_convert_type(jnp.where(depth == 0, 0.0, depth), jnp.int32)
    return bits ^ ((bits >> 31) & _INT32_MAX)
