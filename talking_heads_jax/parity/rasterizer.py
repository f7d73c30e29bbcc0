"""Case of the rasteriser: what an OpenGL z-buffer shows of a mesh."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.errors import ParityError, requirement
from talking_heads_jax.ops.rasterizer import rasterize, require_complete
from talking_heads_jax.parity.cases import GoldenCase


def draw_opengl_mesh(case: GoldenCase, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Runs case `raster_opengl`: face numbers and barycentrics at the size of the reference.

    Args:
      case: vertices (v 3) as `rasterize` takes them and faces (f 3); `face_id` says how large the
        image is.
      options: none applies.

    Raises:
      ParityError: if the case has no image of face numbers.
    """
    del options
    shape = np.shape(case.expected.get("face_id", ()))
    if len(shape) != 2:
        raise ParityError(
            requirement(f"{case.name}: 'out/face_id'", "have rows and columns", shape, "Check it.")
        )
    vertices = jnp.asarray(case.input("vertices", (None, 3)), jnp.float32)
    faces = case.input("faces", (None, 3)).astype(np.int32)
    height, width = shape
    fragments = require_complete(rasterize(vertices[None], faces, height=height, width=width))
    return {
        "face_id": np.asarray(fragments.face_id[0]),
        "barycentric": np.asarray(fragments.barycentric[0]),
    }
