"""The helpers every refusal is made of, and the inputs that must pass them."""

import importlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.common import check_config
from talking_heads_jax.errors import DataError, check_file, one_line, requirement
from talking_heads_jax.media.image import read_image, write_image
from tests.hostile.files import NAMES

SHIPPED = [
    path.relative_to(Path(__file__).parents[2]).with_suffix("").as_posix().replace("/", ".")
    for model in ("fomm", "fnevr")
    for path in sorted((Path(__file__).parents[2] / "configs" / model).glob("[a-z]*.py"))
]


@pytest.mark.parametrize("text", NAMES, ids=ascii)
def test_one_line_escapes_what_a_terminal_would_obey(text):
    shown = one_line(f"before {text} after")
    assert shown.isprintable() and shown.startswith("before ") and shown.endswith(" after")
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["plain", "Zürich 東京 ✓", "a 'quoted' path/with.dots"])
def test_one_line_leaves_printable_text_alone(text):
    assert one_line(text) == text


def test_requirement_is_printable_whatever_it_is_given():
    message = requirement("a\nb", "c\x1b[2J", "d\udcff", "e\u202e")
    assert message.isprintable() and message.count("\\x1b") == 1 and "\\udcff" in message


def test_check_file_takes_files_only(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    check_file(tmp_path / "file", DataError, max_bytes=5)
    check_file(tmp_path / "link", DataError)
    for path in (tmp_path, tmp_path / "loop", tmp_path / "pipe", Path("/dev/null"), Path("a\0b")):
        with pytest.raises(DataError, match="readable file"):
            check_file(path, DataError)
    with pytest.raises(DataError, match="at most 4 bytes, got 5"):
        check_file(tmp_path / "file", DataError, max_bytes=4)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_pass_the_check_of_configs(name):
    check_config(importlib.import_module(name).get_config())


def test_pillows_own_limit_neither_refuses_nor_is_changed(tmp_path, monkeypatch):
    """`--max-pixels` alone decides: Pillow's limit would refuse what a user has allowed."""
    write_image(tmp_path / "a.png", np.zeros((16, 16, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_image(tmp_path / "a.png").shape == (16, 16, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
