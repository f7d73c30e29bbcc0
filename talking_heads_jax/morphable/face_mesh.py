"""The mesh of a morphable model without its coefficients: triangles, neighbours, coordinate codes.

What draws meshes needs the triangles only. Letters: v vertices, f faces.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_file, requirement
from talking_heads_jax.morphable.coordinate_code import vertex_code
from talking_heads_jax.morphable.registry import MORPHABLE_NAMES, load_morphable
from talking_heads_jax.morphable.wavefront import read_wavefront
from talking_heads_jax.ops.silhouette_antialiasing import MeshTopology, mesh_topology
from talking_heads_jax.serialization.npz_file import read_npz

#: Vertices of the models whose file a user has to supply: shapes are known without it.
NUM_VERTICES: Mapping[str, int] = MappingProxyType(
    {"flame2020": 5023, "flame2023": 5023, "bfm09": 35709, "ict": 24591}
)


class FaceMesh:
    """A mesh by name, read when something is asked of it, once.

    Two of the same name are equal, so that a linen module can hold one.
    """

    def __init__(self, name: str) -> None:
        """Names a mesh; reads nothing.

        Args:
          name: of a morphable model, or the path of a mesh file: an .obj; an .npz with `faces` and
            `v_template`; or the `mesh.npz` of a data set.

        Raises:
          ArgumentError: if it is neither.
        """
        if name not in MORPHABLE_NAMES and Path(name).suffix not in (".npz", ".obj"):
            raise ArgumentError(
                requirement(
                    "the mesh",
                    "be a morphable model or an .npz or .obj file",
                    name,
                    f"Models: {', '.join(MORPHABLE_NAMES)}.",
                )
            )
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FaceMesh) and other.name == self.name

    def __hash__(self) -> int:
        return hash((FaceMesh, self.name))

    def __repr__(self) -> str:
        return f"FaceMesh({self.name!r})"

    @functools.cached_property
    def _arrays(self) -> tuple[np.ndarray, int, np.ndarray | None]:
        """Triangles (f 3), number of vertices, mean face coordinates (v 3) in [0, 1] if known."""
        if self.name in MORPHABLE_NAMES:
            model = load_morphable(self.name)
            return np.asarray(model.faces, np.int32), model.num_vertices, model.attributes("nmfc")
        path = Path(self.name).expanduser()
        check_file(path, ArgumentError)
        if path.suffix == ".obj":
            mesh = read_wavefront(path)
            faces, template, count = mesh.faces, mesh.vertices, len(mesh.vertices)
        else:
            faces, template, count = _read_arrays(path)
        codes = None if template is None else vertex_code("nmfc", template)
        return faces.astype(np.int32), count, codes

    @property
    def faces(self) -> np.ndarray:
        """Vertex numbers of each triangle (f 3) int32, counter-clockwise seen from outside.

        Raises:
          AssetNotFoundError: if the model's file is not registered.
        """
        return self._arrays[0]

    @property
    def coordinates(self) -> np.ndarray:
        """Normalised mean face coordinates (v 3) float32 in [0, 1] (see `coordinate_code`).

        Raises:
          ArgumentError: if the mesh file has no mean face.
        """
        codes = self._arrays[2]
        if codes is None:
            raise ArgumentError(
                requirement(
                    f"mesh file '{self.name}'",
                    "hold v_template (v 3) for the coordinates of the mean face",
                    "triangles only",
                    "Name the morphable model instead.",
                )
            )
        return codes

    @functools.cached_property
    def topology(self) -> MeshTopology:
        """Which triangles share an edge."""
        return mesh_topology(self.faces)

    @property
    def num_vertices(self) -> int:
        """v; known without the file for the models of `NUM_VERTICES`."""
        known = NUM_VERTICES.get(self.name)
        return self._arrays[1] if known is None else known


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Triangles, mean face (or None) and number of vertices of an .npz."""
    arrays = read_npz(path, f"file '{path.name}'")
    faces, template = arrays.get("faces"), arrays.get("v_template")
    # A data set's mesh.npz has no mean face, but names every vertex's mirror image.
    rows = arrays.get("mirror") if template is None else template
    fits = (
        faces is not None
        and faces.ndim == 2
        and faces.shape[1] == 3
        and faces.dtype.kind in "iu"
        and faces.size > 0
        and rows is not None
        and rows.ndim == (1 if template is None else 2)
        and (template is None or (template.shape[1] == 3 and template.dtype.kind == "f"))
        and faces.min() >= 0
        and faces.max() < len(rows)
    )
    if not fits:
        raise ArgumentError(
            requirement(
                f"file '{path.name}'",
                "hold faces (f 3) and v_template (v 3), or the mirror (v) of a data set's mesh",
                {name: array.shape for name, array in arrays.items()},
                "See docs/morphable.md for the keys.",
            )
        )
    return faces, template, len(rows)
