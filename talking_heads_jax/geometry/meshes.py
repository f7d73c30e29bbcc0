"""Triangle meshes: smooth vertex normals. Letters: b batch, v vertices, f faces."""

import jax
import jax.numpy as jnp
import numpy as np

from talking_heads_jax.typing import Array, Float, Int

_SMALLEST_SQUARE = 1e-20  # of a sum of face normals; below it the direction is noise


def vertex_normals(
    vertices: Float[Array, "b v 3"], faces: Int[Array, "f 3"] | Int[np.ndarray, "f 3"]
) -> Float[Array, "b v 3"]:
    """Unit normals: sums of the normals of the faces around a vertex, weighted by their areas.

    Args:
      vertices: of meshes that share their faces.
      faces: counter-clockwise seen from outside; the normals then point outwards.

    Returns:
      Zero, with zero gradient, where the faces around a vertex have no area.
    """
    faces = jnp.asarray(faces, jnp.int32)

    def of_mesh(points: Array) -> Array:
        first, second, third = (points[faces[:, i]] for i in range(3))
        # Half the cross product is area times normal; its length is the weight.
        weighted = jnp.cross(second - first, third - first)
        total = jnp.zeros_like(points)
        for corner in range(3):
            total = total.at[faces[:, corner]].add(weighted)
        square = jnp.sum(jnp.square(total), axis=-1, keepdims=True)
        safe = square > _SMALLEST_SQUARE
        return jnp.where(safe, total * jax.lax.rsqrt(jnp.where(safe, square, 1.0)), 0.0)

    return jax.vmap(of_mesh)(vertices)
