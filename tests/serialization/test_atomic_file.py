"""A file is replaced whole, or stays what it was."""

import pytest

from talking_heads_jax.serialization.atomic_file import replace_text, replacing


def test_the_new_file_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    replace_text(path, "neu: ä")
    assert path.read_text(encoding="utf-8") == "neu: ä" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as partial:
        assert partial.parent == tmp_path and partial.suffix == ".json"
        partial.write_text("ne")
        raise RuntimeError("halfway")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_nobody_sees_the_file_before_it_is_whole(tmp_path):
    path = tmp_path / "a.bin"
    with replacing(path) as partial:
        partial.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
