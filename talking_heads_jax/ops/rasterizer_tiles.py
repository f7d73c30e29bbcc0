"""The tile-binned rasteriser, for TPU: every tile of the image goes through its own triangles.

The image is cut into tiles; pairs (tile, triangle) are listed by triangle, a chunk of fixed size at
a time, and sorted by tile. Then all tiles walk along their parts of the list together, a few
triangles a step, and every pixel keeps the nearest so far. Dense arithmetic, one sort and no
scatter: what a TPU does well. Letters: t tiles, p pixels of a tile, s triangles of a step.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from talking_heads_jax.ops.triangle_setup import Triangles
from talking_heads_jax.typing import Array

TILE = 16  # pixels a side; its 256 pixels fill two rows of a TPU's 128 lanes
_STEP = 8  # triangles of a tile a step
_INT32_MAX = 2**31 - 1


def draw_tiles(
    triangles: Triangles, *, height: int, width: int, budget: Array, chunk: int
) -> tuple[Array, Array]:
    """Finds the nearest triangle of every pixel.

    Args:
      triangles: of one mesh.
      height: of the image in pixels.
      width: of the image in pixels.
      budget: how many pairs of tile and triangle are processed at most.
      chunk: how many pairs are processed at a time.

    Returns:
      Face numbers (h w), -1 where there is none, and how many pairs were left out.
    """
    tall, wide = -(-height // TILE), -(-width // TILE)
    num_tiles = tall * wide
    drawn = triangles.width > 0
    first_column, first_row = triangles.column // TILE, triangles.row // TILE
    columns = jnp.where(drawn, (triangles.column + triangles.width - 1) // TILE, -1) + 1
    columns = jnp.where(drawn, columns - first_column, 0)
    rows = (triangles.row + triangles.height - 1) // TILE + 1 - first_row
    counts = jnp.where(drawn, columns * rows, 0)
    ends = jnp.cumsum(counts)
    # Where int32 does not hold the number of pairs, nothing is drawn and everything is reported.
    fits = counts.astype(jnp.float32).sum() < 2.0**30
    total = jnp.where(fits, ends[-1], _INT32_MAX)
    allowed = jnp.minimum(jnp.where(fits, total, 0), budget)

    planes = jnp.stack(
        [
            *triangles.edge_x,
            *triangles.edge_y,
            *triangles.edge_constant,
            triangles.depth_x,
            triangles.depth_y,
            triangles.depth_constant,
        ],
        axis=-1,
    )
    boxes = jnp.stack([triangles.column, triangles.row, triangles.width, triangles.height], axis=-1)
    tile_rows, tile_columns = np.divmod(np.arange(num_tiles), wide)
    pixel_rows, pixel_columns = np.divmod(np.arange(TILE * TILE), TILE)
    x = jnp.asarray(tile_columns[:, None] * TILE + pixel_columns, jnp.int32)[:, None]
    y = jnp.asarray(tile_rows[:, None] * TILE + pixel_rows, jnp.int32)[:, None]
    offsets = jnp.arange(chunk, dtype=jnp.int32)

    def draw_chunk(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        first, depth, winner = state
        pairs = first + offsets
        faces = jnp.searchsorted(ends, pairs, side="right", method="scan_unrolled")
        faces = jnp.minimum(faces, ends.shape[0] - 1).astype(jnp.int32)
        local = pairs - (ends[faces] - counts[faces])
        local_row = local // jnp.maximum(columns[faces], 1)
        tile = (first_row[faces] + local_row) * wide
        tile += first_column[faces] + local - local_row * columns[faces]
        tile = jnp.where(pairs < allowed, tile, num_tiles)
        # Stable: the triangles of a tile stay in the order of their numbers.
        tile, faces = lax.sort((tile, faces), num_keys=1, is_stable=True)
        bounds = jnp.searchsorted(
            tile, jnp.arange(num_tiles + 1, dtype=jnp.int32), method="scan_unrolled"
        ).astype(jnp.int32)
        begin, end = bounds[:-1], bounds[1:]
        sorted_planes, sorted_boxes = planes[faces], boxes[faces]

        def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            done, depth, winner = state
            place = begin[:, None] + done + jnp.arange(_STEP, dtype=jnp.int32)
            valid = place < end[:, None]
            place = jnp.minimum(place, chunk - 1)
            plane = sorted_planes[place][..., None, :]
            box = sorted_boxes[place][..., None, :]
            dx, dy = x - box[..., 0], y - box[..., 1]
            covered = valid[..., None] & (dx >= 0) & (dy >= 0)
            covered &= (dx < box[..., 2]) & (dy < box[..., 3])
            right, down = dx.astype(jnp.float32), dy.astype(jnp.float32)
            for i in range(3):
                covered &= plane[..., i] * right + plane[..., 3 + i] * down + plane[..., 6 + i] >= 0
            here = plane[..., 9] * right + plane[..., 10] * down + plane[..., 11]
            here = jnp.where(covered, here, jnp.inf)
            best = here.min(axis=1)
            number = jnp.where(here == best[:, None], faces[place][..., None], _INT32_MAX)
            closer = best < depth
            winner = jnp.where(closer, number.min(axis=1), winner)
            return done + _STEP, jnp.where(closer, best, depth), winner

        longest = (end - begin).max()
        _, depth, winner = lax.while_loop(
            lambda state: state[0] < longest, step, (jnp.int32(0), depth, winner)
        )
        return first + chunk, depth, winner

    shape = (num_tiles, TILE * TILE)
    state = (jnp.int32(0), jnp.full(shape, jnp.inf), jnp.full(shape, -1, jnp.int32))
    winner = lax.while_loop(lambda state: state[0] < allowed, draw_chunk, state)[2]
    image = winner.reshape(tall, wide, TILE, TILE).transpose(0, 2, 1, 3)
    return image.reshape(tall * TILE, wide * TILE)[:height, :width], total - allowed
