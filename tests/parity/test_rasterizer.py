"""The rasteriser's golden case at full size, and cases that cannot be run."""

import json

import numpy as np
import pytest

from talking_heads_jax.ops.platform import compiling_for
from talking_heads_jax.parity import runner


def write_mesh_case(folder, *, faces=((0, 1, 2),), face_id=None):
    """A triangle over the lower left half of eight by six pixels."""
    vertices = np.array([[-1, -1, 0], [1, 1, 0.5], [-1, 1, 1]], np.float32)
    rows, columns = np.meshgrid(np.arange(6) + 0.5, np.arange(8) + 0.5, indexing="ij")
    inside = columns / 8 <= rows / 6
    if face_id is None:
        face_id = np.where(inside, 0, -1).astype(np.int32)
    weights = np.stack([1 - rows / 6, columns / 8, rows / 6 - columns / 8], axis=-1)
    np.savez(
        folder / "raster_opengl.npz",
        **{
            "in/vertices": vertices,
            "in/faces": np.array(faces, np.int32),
            "out/face_id": face_id,
            "out/barycentric": np.where(inside[..., None], weights, 0).astype(np.float32),
        },
    )
    document = {
        "tensors": {},
        "tolerance": {
            "face_id": {"min_agreement_foreground": 0.999},
            "barycentric": {"max_abs": 1e-5},
        },
    }
    (folder / "raster_opengl.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parity
@pytest.mark.parametrize("platform", ["cpu", "tpu"])  # the scatter and the tile implementation
def test_run_case_reproduces_opengl(shared_folder, platform):
    with compiling_for(platform):
        found = runner.run_case(shared_folder / "golden", "raster_opengl")
    assert found.status == runner.PASSED, found


def test_run_case_draws_a_mesh(tmp_path):
    write_mesh_case(tmp_path)
    found = runner.run_case(tmp_path, "raster_opengl")
    assert found.status == runner.PASSED, found
    assert {output.name for output in found.outputs} == {"face_id", "barycentric"}


def test_run_case_fails_on_another_picture(tmp_path):
    face_id = np.full((6, 8), -1, np.int32)
    face_id[3, 0] = 0
    write_mesh_case(tmp_path, face_id=face_id)
    found = runner.run_case(tmp_path, "raster_opengl")
    assert found.status == runner.FAILED
    assert [output.name for output in found.outputs if not output.passed] == ["face_id"]


def test_run_case_reports_a_mesh_it_cannot_draw(tmp_path):
    write_mesh_case(tmp_path, faces=[[1, 2, 3]])
    found = runner.run_case(tmp_path, "raster_opengl")
    assert found.status == runner.BROKEN and "faces must name vertices" in found.message
    write_mesh_case(tmp_path, face_id=np.zeros(3, np.int32))
    found = runner.run_case(tmp_path, "raster_opengl")
    assert found.status == runner.BROKEN and "rows and columns" in found.message
