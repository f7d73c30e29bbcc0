"""The reader: every kind of damage is one line, and nothing in a folder is trusted."""

import json

import numpy as np
import pytest

from talking_heads_jax.errors import ParityError
from talking_heads_jax.parity import cases
from talking_heads_jax.parity.cases import list_cases, read_case


def _write(folder, document=None, **arrays):
    document = {"tolerance": {"y": {"max_abs": 1}}} if document is None else document
    (folder / "case.json").write_text(json.dumps(document))
    np.savez(folder / "case.npz", **(arrays or {"out/y": np.zeros(2)}))


def _error(folder):
    with pytest.raises(ParityError) as caught:
        read_case(folder, "case")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_read_case_returns_what_was_written(tmp_path):
    _write(
        tmp_path,
        {"tolerance": {"y": {"max_abs": 1}}, "note": "n", "uses": ["other"], "future": 1},
        **{"in/x": np.full((1, 2, 2, 3), 255, np.uint8), "out/y": np.ones(2)},
    )
    case = read_case(tmp_path, "case")
    assert case.uses == ("other",)
    np.testing.assert_array_equal(case.image("x"), np.ones((1, 2, 2, 3), np.float32))
    np.testing.assert_array_equal(case.expected["y"], np.ones(2))


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ([], "json object"),
        ({"tensors": {"a.weight": [-1]}}, "a.weight"),
        ({"tensors": {"a.weight": [2.5]}}, "a.weight"),
        ({"tensors": {"a.weight": "3"}}, "a.weight"),
        ({"tensors": {"a.weight": [2**20, 2**20]}}, "2\\*\\*30|numbers"),
        ({"tensors": {"a.weight": [2]}}, "weights_sha256"),
        ({"tolerance": {"y": 1e-5}}, "tolerance of 'y'"),
        ({"tolerance": {"y": {"max_abs": -1}}}, "tolerance of 'y'"),
        ({"tolerance": {"y": {"max_abs": "1e-5"}}}, "tolerance of 'y'"),
        ({"salt": 3}, "salt"),
        ({"scale": {"a": None}}, "scale"),
        ({"uses": "fomm"}, "uses"),
        ({"uses": ["../secret"]}, "plain file name"),
        ({"subsample": {"y": [1, 2]}}, "subsample"),
        ({"subsample": {"z": [1]}}, "subsample"),
        ({"inputs_from": {"x": ["../../etc/passwd/a"]}}, "inputs_from|passwd|hold|plain"),
        ({"inputs_from": {"x": ["missing/a"]}}, "missing"),
    ],
)
def test_read_case_names_what_is_wrong_with_the_json(tmp_path, document, word):
    _write(tmp_path, document)
    message = _error(tmp_path)
    assert any(part in message for part in word.replace("\\", "").split("|")), message


def test_read_case_refuses_objects_instead_of_arrays(tmp_path):
    _write(tmp_path)
    # A pickle inside: it must not be opened.
    np.savez(tmp_path / "case.npz", **{"out/y": np.array([print], dtype=object)})
    assert "plain arrays" in _error(tmp_path)


def test_read_case_refuses_truncated_and_missing_files(tmp_path):
    _write(tmp_path)
    whole = (tmp_path / "case.npz").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        (tmp_path / "case.npz").write_bytes(whole[:size])
        assert "case.npz" in _error(tmp_path)
    (tmp_path / "case.npz").unlink()
    assert "case.npz" in _error(tmp_path)
    (tmp_path / "case.json").write_text('{"tolerance": ')
    assert "case.json" in _error(tmp_path)


def test_read_case_refuses_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch):
    _write(tmp_path)
    monkeypatch.setattr(cases, "_MAX_ARRAY_BYTES", 100)  # the header alone is larger
    assert "unpack to less" in _error(tmp_path)


def test_read_case_needs_outputs_and_known_prefixes(tmp_path):
    _write(tmp_path, **{"in/x": np.zeros(2)})
    assert "expected outputs" in _error(tmp_path)
    _write(tmp_path, **{"output/y": np.zeros(2)})
    assert "output/y" in _error(tmp_path)


def test_read_case_compares_constants_with_their_shapes(tmp_path):
    _write(
        tmp_path,
        {"tensors": {"a.weight": [3]}, "weights_sha256": "0"},
        **{"out/y": np.zeros(1), "const/a.weight": np.zeros(2)},
    )
    assert "const/a.weight" in _error(tmp_path)


def test_input_checks_presence_shape_and_values(tmp_path):
    _write(tmp_path, **{"in/x": np.array([[1.0, np.nan]]), "out/y": np.zeros(2)})
    case = read_case(tmp_path, "case")
    for name, shape, word in (
        ("z", None, "in/z"),
        ("x", (1, 3), "(1, 3)"),
        ("x", (1, None), "finite"),
    ):
        with pytest.raises(ParityError) as caught:
            case.input(name, shape)
        assert word in str(caught.value)


def test_inputs_from_joins_shared_arrays_along_the_batch(tmp_path):
    np.savez(tmp_path / "images.npz", a=np.zeros((1, 2)), b=np.ones((1, 2)))
    _write(tmp_path, {"inputs_from": {"x": ["images/a", "images/b"]}})
    case = read_case(tmp_path, "case")
    np.testing.assert_array_equal(case.input("x"), [[0, 0], [1, 1]])


def test_list_cases_filters_and_complains_about_patterns_without_a_case(tmp_path):
    for name in ("fomm_a", "fomm_b", "vgg19"):
        (tmp_path / f"{name}.json").write_text("{}")
    assert list_cases(tmp_path) == ["fomm_a", "fomm_b", "vgg19"]
    assert list_cases(tmp_path, ["fomm_*", "vgg19"]) == ["fomm_a", "fomm_b", "vgg19"]
    assert list_cases(tmp_path, ["*_b"]) == ["fomm_b"]
    with pytest.raises(ParityError, match="fnevr"):
        list_cases(tmp_path, ["fomm_*", "fnevr_*"])
    with pytest.raises(ParityError, match="exist"):
        list_cases(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ParityError, match="no json"):
        list_cases(tmp_path / "empty")
