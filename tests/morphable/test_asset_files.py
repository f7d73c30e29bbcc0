"""`assets add`: every kind of file is recognised, checked, converted once, and loads."""

import os
import pickle

import numpy as np
import pytest
import scipy.io

from talking_heads_jax.assets import locate_asset, registered_assets
from talking_heads_jax.cli import main
from talking_heads_jax.errors import AssetNotFoundError, TalkingHeadsError
from talking_heads_jax.morphable import asset_files, bfm, mat_files
from talking_heads_jax.morphable.asset_files import add_asset
from talking_heads_jax.morphable.bfm import BfmModel
from talking_heads_jax.morphable.flame import FlameModel
from talking_heads_jax.morphable.mat_files import RAW_MODEL
from talking_heads_jax.morphable.registry import load_morphable
from tests.morphable.toy_models import bfm_fields, flame_embedding, flame_fields


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def flame_pickle(tmp_path_factory):
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    path.write_bytes(pickle.dumps(flame_fields(columns=304), 2))
    return path


def _refused(path, *words, name=None):
    with pytest.raises(TalkingHeadsError) as caught:
        add_asset(path, name)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    assert registered_assets() == {}


def test_add_flame_and_its_companions_in_any_order(flame_pickle, tmp_path, capsys):
    embedding = flame_embedding()
    np.save(tmp_path / "landmark_embedding.npy", np.array(embedding, dtype=object))
    assert main(["assets", "add", str(tmp_path / "landmark_embedding.npy")]) == 0
    assert main(["assets", "add", str(flame_pickle)]) == 0
    assert main(["assets", "add", str(flame_pickle)]) == 0  # again: harmless
    assert "flame2020" in capsys.readouterr().out
    before = locate_asset("flame2020", verify=True).read_bytes()
    add_asset(flame_pickle, "flame2020")
    assert locate_asset("flame2020").read_bytes() == before
    model = load_morphable("flame2020", num_expression=4)
    assert isinstance(model, FlameModel) and model.name == "flame2020"
    assert (model.num_vertices, model.num_shape, model.num_expression) == (5023, 100, 4)
    fields = flame_fields(columns=304)
    index = embedding["full_lmk_faces_idx"][0]
    corners = fields["v_template"][fields["f"].astype(int)[index]]
    expected = (corners * embedding["full_lmk_bary_coords"][0][..., None]).sum(axis=1)
    np.testing.assert_allclose(
        model.landmarks68(model.vertices(model.neutral(1)))[0], expected, atol=1e-6
    )


def test_add_flame_needs_to_know_the_version(flame_pickle, tmp_path):
    other = tmp_path / "model.pkl"
    other.write_bytes(flame_pickle.read_bytes())
    _refused(other, "--name", "flame2020", "flame2023", "not interchangeable")
    assert add_asset(other, "flame2023").name == "flame2023"


def test_add_refuses_a_planted_command_by_name(tmp_path):
    class Planted:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    path = tmp_path / "generic_model.pkl"
    small = flame_fields(vertices=40, faces=30, columns=302)
    path.write_bytes(pickle.dumps({**small, "extra": Planted()}, 2))
    _refused(path, f"{os.system.__module__}.system")
    assert not (tmp_path / "executed").exists()


def test_add_refuses_wrong_counts_and_a_cut_file(flame_pickle, tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(flame_fields(vertices=40, faces=30, columns=302), 2))
    _refused(path, "5023 vertices", "40")
    path.write_bytes(pickle.dumps(flame_fields(faces=30, columns=302), 2))
    _refused(path, "9976 faces", "30")
    path.write_bytes(flame_pickle.read_bytes()[:100_000])
    _refused(path, "complete")


def test_add_refuses_indices_that_count_from_one(tmp_path):
    fields = flame_fields(columns=302)
    fields["f"] = fields["f"] + np.uint32(1)
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(fields, 2))
    _refused(path, "counts from 1", "subtract 1")


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("weights", [[1.0], [1.0, 2.0]], "different lengths"),
        ("v_template", [[1.0], [1.0, 2.0]], "different lengths"),
        ("weights", "hello", "numbers"),
        ("kintree_table", np.full((2, 5), np.nan), "finite"),
        ("v_template", np.full((5023, 3), np.nan), "finite"),
    ],
)
def test_add_refuses_fields_of_flame_that_are_no_numbers(tmp_path, key, value, word):
    fields = flame_fields(columns=302)
    fields[key] = value
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(fields, 2))
    _refused(path, key, word)


@pytest.mark.parametrize("value", [[[1.0], [2.0, 3.0]], "abc"])
def test_add_refuses_a_landmark_embedding_that_is_no_numbers(tmp_path, value):
    path = tmp_path / "landmark_embedding.npy"
    embedding = {**flame_embedding(), "static_lmk_bary_coords": value}
    np.save(path, np.array(embedding, dtype=object), allow_pickle=True)
    _refused(path, "static_lmk_bary_coords", "numbers")


def _merged_mat(path, **changes):
    scipy.io.savemat(path, {**bfm_fields(), **changes})


def test_add_refuses_a_bfm_file_where_flame_was_asked(tmp_path):
    _merged_mat(tmp_path / "BFM_model_front.mat")
    _refused(tmp_path / "BFM_model_front.mat", "FLAME", "a BFM file", "bfm09", name="flame2020")
    _refused(tmp_path / "BFM_model_front.mat", "35709 vertices", "300")


def test_add_refuses_flame_where_bfm_was_asked(flame_pickle):
    _refused(flame_pickle, "Basel", "a FLAME pickle", name="bfm09")


@pytest.fixture
def small_bfm(monkeypatch):
    monkeypatch.setattr(bfm, "NUM_VERTICES", 300)
    monkeypatch.setattr(bfm, "NUM_FACES", 500)


def test_add_bfm_merged(tmp_path, small_bfm):
    path = tmp_path / "BFM_model_front.mat"
    _merged_mat(path)
    assert add_asset(path).name == "bfm09"
    model = load_morphable("bfm09")
    assert isinstance(model, BfmModel)
    assert (model.num_shape, model.num_expression, model.joint_names) == (80, 64, ("root",))
    assert model.centimetres_per_unit == 10.0


def test_add_bfm_from_its_raw_files_equals_the_merged_one(tmp_path, small_bfm):
    """Scales of the raw files: micrometres, deviations apart, two selections of vertices."""
    rng = np.random.default_rng(5)
    total, middle, comps = 330, 320, 199
    deviations = rng.uniform(0.5, 2, (comps, 1))
    raw = {"shapeEV": deviations, "texEV": 2 * deviations}
    for kind in ("shape", "tex"):
        raw[f"{kind}PC"] = rng.standard_normal((3 * total, comps)).astype(np.float32)
        raw[f"{kind}MU"] = rng.standard_normal((3 * total, 1)).astype(np.float32)
    scipy.io.savemat(tmp_path / RAW_MODEL, raw)
    trimmed = np.sort(rng.permutation(total)[:middle])
    front = np.sort(rng.permutation(middle)[:300])
    scipy.io.savemat(tmp_path / "BFM_exp_idx.mat", {"trimIndex": trimmed[:, None] + 1})
    scipy.io.savemat(tmp_path / "BFM_front_idx.mat", {"idx": front[:, None] + 1})
    expressions = rng.standard_normal((79, 3 * middle)).astype("<f4")
    mean = np.zeros(3 * middle, "<f4")
    content = np.int32(79).tobytes() + mean.tobytes() + expressions.tobytes()
    (tmp_path / "Exp_Pca.bin").write_bytes(content)
    spread = rng.uniform(1, 2, 79)
    np.savetxt(tmp_path / "std_exp.txt", spread[None])
    fields = bfm_fields()
    info = {key: fields[key] for key in ("tri", "point_buf", "keypoints")}
    _refused(tmp_path / RAW_MODEL, "facemodel_info.mat", "BFM_model_front.mat")
    scipy.io.savemat(tmp_path / "facemodel_info.mat", info)
    assert add_asset(tmp_path / RAW_MODEL).name == "bfm09"
    model = load_morphable("bfm09")
    chosen = trimmed[front]
    mean = raw["shapeMU"].reshape(-1, 3)[chosen] / 1e5
    np.testing.assert_allclose(model.template, mean - mean.mean(axis=0), atol=1e-9)
    shapes = np.asarray(model.arrays["basis"]).reshape(144, 300, 3)
    expected = raw["shapePC"][:, 79].reshape(-1, 3)[chosen] * deviations[79] / 1e5
    np.testing.assert_allclose(shapes[79], expected, rtol=1e-5)
    expected = expressions[63].reshape(-1, 3)[front] * spread[63] / 1e5
    np.testing.assert_allclose(shapes[143], expected, rtol=1e-5)


def test_add_refuses_matlab_files_with_objects(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "odd.mat", {"tri": np.array([{"a": 1}], dtype=object)})
    _refused(tmp_path / "odd.mat", "tri", "numbers")
    nested = np.array(1.0)
    for _ in range(50):
        cell = np.empty(1, dtype=object)
        cell[0] = nested
        nested = cell
    scipy.io.savemat(tmp_path / "deep.mat", {"tri": nested})
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("cells were read"))
    _refused(tmp_path / "deep.mat", "tri", "cell")
    monkeypatch.undo()
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    scipy.io.savemat(tmp_path / "other.mat", {"x": np.ones(3)})
    _refused(tmp_path / "other.mat", "BFM_model_front.mat")
    _merged_mat(tmp_path / "cut.mat")
    (tmp_path / "cut.mat").write_bytes((tmp_path / "cut.mat").read_bytes()[:-1000])
    _refused(tmp_path / "cut.mat", "complete")


def test_add_refuses_matlab_files_that_claim_too_much(tmp_path, monkeypatch):
    _merged_mat(tmp_path / "BFM_model_front.mat")
    monkeypatch.setattr(mat_files, "_MAX_NUMBERS", 1000)
    _refused(tmp_path / "BFM_model_front.mat", "at most 1000 numbers")


def test_add_refuses_what_is_no_face_model(tmp_path):
    for name, content, word in (
        ("x.pkl", b"", "empty"),
        ("x.pkl", b"version https://git-lfs.github.com/spec/v1", "LFS"),
        ("x.pkl", b"<html>", "web page"),
        ("x.h5", b"\x89HDF\r\n", "2009"),
        ("x.pkl", pickle.dumps({"weights": 1}, 2), "FLAME's model or landmark embedding"),
        ("x.txt", b"hello", "hello"),
        ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "5023 vertices"),
    ):
        (tmp_path / name).write_bytes(content)
        _refused(tmp_path / name, word)
    np.savez(tmp_path / "scalar.npz", v_template=np.float32(1), faces=np.zeros(3))
    _refused(tmp_path / "scalar.npz", "docs/morphable.md")
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    _refused(tmp_path / "x.npz", "docs/morphable.md")
    _refused(tmp_path, "FaceXModel")
    _refused(tmp_path / "x.npz", "known asset", name="flame1999")


def test_load_morphable_says_what_is_missing():
    assert load_morphable("procedural").name == "procedural"
    with pytest.raises(AssetNotFoundError, match=r"generic_model.pkl.*https://.*procedural"):
        load_morphable("flame2020")
    with pytest.raises(TalkingHeadsError, match="flame2023"):
        load_morphable("smpl")


def test_add_flame_template_with_texture_coordinates(tmp_path, flame_pickle):
    fields = flame_fields(columns=304)
    rows = [f"v {x} {y} {z}" for x, y, z in fields["v_template"].tolist()]
    rows += ["vt 0.25 0.75", "vt 1 0", "vt 0 1"]
    rows += [f"f {a + 1}/1 {b + 1}/2 {c + 1}/3" for a, b, c in fields["f"].astype(int).tolist()]
    (tmp_path / "head_template.obj").write_text("\n".join(rows) + "\n")
    assert add_asset(tmp_path / "head_template.obj").name == asset_files.FLAME_UV
    add_asset(flame_pickle)
    model = load_morphable("flame2020", num_shape=1, num_expression=1)
    np.testing.assert_allclose(model.uv[0], [0.25, 0.25])  # v grows downwards
    np.testing.assert_array_equal(model.faces_uv[-1], [0, 1, 2])
