"""Logs on disk: what is kept after a crash, and how pictures are laid out."""

import errno
import json
import sys

import numpy as np
import pytest

from talking_heads_jax.train.writers import (
    JsonLinesWriter,
    TensorBoardWriter,
    create_writer,
    labelled_grid,
    to_uint8,
)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_lines_drop_what_a_resumed_run_repeats(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path)
    for step in (10, 20, 30):
        writer.write_scalars(step, {"loss": float(step)})
    writer.close()
    with path.open("a") as stream:
        stream.write('{"step": 40, "lo')  # a crash in the middle of a line
    writer = JsonLinesWriter(path, start_step=20)
    writer.write_scalars(25, {"loss": float("nan")})
    writer.close()
    assert [row["step"] for row in read(path)] == [10, 20, 25]
    assert read(path)[-1]["loss"] == "nan"


def test_create_writer_works_without_tensorboardx_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    writer = create_writer(tmp_path)
    writer.write_scalars(1, {"a": 1.0})
    writer.write_images(1, {"b": np.zeros((4, 4, 3))})
    writer.close()
    assert read(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1.0}]
    assert "pip install" in (tmp_path / "tensorboard-missing.txt").read_text()


def test_create_writer_of_a_secondary_process_leaves_no_files(tmp_path):
    writer = create_writer(tmp_path / "run", primary=False)
    writer.write_scalars(1, {"a": 1.0})
    writer.close()
    assert not (tmp_path / "run").exists()


def test_tensorboard_receives_scalars_and_images(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    writer = create_writer(tmp_path)
    writer.write_scalars(1, {"loss/generator/total": 1.0})
    writer.write_images(1, {"panels": np.zeros((8, 8, 3))})
    writer.close()
    content = next((tmp_path / "tensorboard").iterdir()).read_bytes()
    assert b"loss/generator/total" in content and b"panels" in content


def test_tensorboard_on_a_full_disk_raises_and_does_not_wait(tmp_path, monkeypatch):
    """It once waited for ever, for a thread that the same error had ended."""
    events = pytest.importorskip(
        "tensorboardX.event_file_writer", reason="tensorboardX is not installed"
    )

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(events.RecordWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        TensorBoardWriter(tmp_path)
    monkeypatch.undo()
    writer = TensorBoardWriter(tmp_path)
    monkeypatch.setattr(events.RecordWriter, "write", full)
    for _ in range(20):  # more than any queue in between holds
        with pytest.raises(OSError, match="No space left"):
            writer.write_scalars(1, {f"loss/{index}": 1.0 for index in range(20)})
    writer.close()


def test_labelled_grid_has_a_column_per_panel_and_a_row_per_example():
    panels = {"source": np.full((3, 16, 20, 3), 0.25), "prediction": np.full((3, 16, 20, 3), 0.75)}
    grid = labelled_grid(panels, rows=2)
    label = grid.shape[0] - 2 * 16
    assert grid.shape[1] == 40 and label > 0
    assert np.all(grid[label:, :20] == 0.25) and np.all(grid[label:, 20:] == 0.75)
    assert grid[:label, :20].min() < 0.5  # text was drawn


def test_to_uint8_rounds_and_clips():
    np.testing.assert_array_equal(to_uint8(np.array([-1, 0.5, 0.999, 2])), [0, 128, 255, 255])
