"""GDPW's learned codes as colours on the head, after Figure 2 of the paper.

The paper embeds by t-SNE; here the two principal axes of the codes do, which are the same at every
run and need no other package. Letters: v vertices, d channels of the codes, f faces.
"""

from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.media.image import write_image
from talking_heads_jax.typing import Float

_SIDE = 256  # pixels of one panel
_YAWS_DEG = (-60.0, 0.0, 60.0)
#: Colours of the corners of the embedding: low low, high low, low high, high high.
_CORNERS = np.array(
    [[0.13, 0.30, 0.75], [0.90, 0.20, 0.25], [0.10, 0.70, 0.45], [0.98, 0.85, 0.25]], np.float32
)


def embed_codes(codes: Float[np.ndarray, "v d"]) -> Float[np.ndarray, "v 2"]:
    """The codes in the plane in which they differ most.

    Args:
      codes: of all vertices.

    Returns:
      Place along the two principal axes as ranks: evenly spread over [0, 1].
    """
    centred = np.asarray(codes, np.float64) - np.mean(codes, axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T
    ranks = places.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return (ranks / max(1, len(places) - 1)).astype(np.float32)


def draw_codes(model: Any, variables: Any, output: Path) -> None:
    """Draws the embedding, and the head in its colours from three sides.

    Args:
      model: a GDPW that learns codes on the mesh of a morphable model.
      variables: of its networks.
      output: png.
    """
    import jax.numpy as jnp

    from talking_heads_jax.geometry.rotations import matrix_from_angles
    from talking_heads_jax.models.gdpw.guidance import draw_attributes
    from talking_heads_jax.morphable.registry import load_morphable

    places = embed_codes(np.asarray(variables["generator"]["params"]["codes"], np.float32))
    colours = _colours(places)
    head = load_morphable(model.mesh.name)
    vertices = np.asarray(head.vertices(head.neutral(1)))[0]
    vertices = vertices - (vertices.max(axis=0) + vertices.min(axis=0)) / 2
    vertices = 0.9 * vertices / np.linalg.norm(vertices, axis=-1).max()
    panels = [_scatter(places, colours)]
    for yaw in _YAWS_DEG:
        turn = np.asarray(matrix_from_angles(jnp.asarray([np.deg2rad(yaw), 0.0, 0.0])))
        turned = vertices @ turn.T * np.array([1.0, -1.0, -1.0])  # y down, nearer is smaller
        drawn = draw_attributes(
            np.concatenate([colours, np.ones_like(colours[:, :1])], axis=-1),
            jnp.asarray(turned[None], jnp.float32),
            model.mesh.faces,
            model.mesh.topology,
            size=_SIDE,
        )[0]
        drawn = np.asarray(drawn)
        panels.append(drawn[..., :3] + 1.0 - drawn[..., 3:])
    picture = np.clip(np.concatenate(panels, axis=1), 0.0, 1.0)
    write_image(output, np.round(255 * picture).astype(np.uint8))


def _colours(places: np.ndarray) -> np.ndarray:
    x, y = places[:, :1], places[:, 1:]
    low = (1 - x) * _CORNERS[0] + x * _CORNERS[1]
    high = (1 - x) * _CORNERS[2] + x * _CORNERS[3]
    return (1 - y) * low + y * high


def _scatter(places: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A dot of 2 x 2 pixels per vertex."""
    panel = np.ones((_SIDE, _SIDE, 3), np.float32)
    corner = np.round(8 + places * (_SIDE - 18)).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            panel[corner[:, 1] + down, corner[:, 0] + right] = colours
    return panel
