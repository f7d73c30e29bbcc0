"""Damage is told from a misfit and skipped; a full disk keeps the last good step."""

import logging
import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.checkpoint_items import (
    CHECKSUMS,
    load_item,
    save_items,
    verify_items,
    write_checksums,
)
from talking_heads_jax.checkpoints import TrainingCheckpoints, restore_other_run
from talking_heads_jax.errors import CheckpointError, DamagedCheckpointError
from tests.train.toy import ToyHead

MODEL = ToyHead()


def state(step, *, size=50):
    values = jnp.asarray(np.random.default_rng(step).random(size, np.float32))
    network = {"params": {"a": values}, "collections": {}, "opt_state": None}
    return {
        "step": jnp.asarray(step, jnp.int32),
        "networks": {"generator": {**network, "ema_params": {"a": values + 1}}},
    }


def snapshot(folder):
    """Every file and folder with its time and bytes."""
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state(step), {"data_step": step})
    return folder


def data_file(step, item="generator.params"):
    """The largest file of an item."""
    return max((step / item).rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def without_checksums(step):
    (step / CHECKSUMS).unlink()
    return step


DAMAGES = {
    "cut": lambda step: cut(data_file(step)),
    "one bit": lambda step: flip(data_file(step)),
    "file gone": lambda step: data_file(step).unlink(),
    "item gone": lambda step: shutil.rmtree(step / "generator.ema_params"),
    "extra gone": lambda step: shutil.rmtree(step / "extra"),
    "all gone": lambda step: [shutil.rmtree(step), step.mkdir()],
    "checksums": lambda step: (step / CHECKSUMS).write_text('{"rest": 3}'),
    "older version, item gone": lambda step: shutil.rmtree(without_checksums(step) / "rest"),
    "older version, extra": lambda step: cut(without_checksums(step) / "extra" / "metadata"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_step_is_named_skipped_and_written_again(
    tmp_path, two_steps, caplog, damage
):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    DAMAGES[damage](folder / "checkpoints" / "2")
    with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
        with caplog.at_level(logging.WARNING):
            restored, extra = checkpoints.restore(state(0))
        assert int(restored["step"]) == 1 and extra == {"data_step": 1}
        assert "damaged checkpoint 2" in caplog.text and "2.damaged" in caplog.text
        assert (folder / "checkpoints" / "2.damaged").is_dir()
        assert checkpoints.latest_step() == 1
        if damage == "one bit":  # the run comes to step 2 again: it must not find it done
            checkpoints.save(2, state(2), {"data_step": 2})
            checkpoints.wait()
            restored, _ = checkpoints.restore(state(0))
            np.testing.assert_array_equal(
                restored["networks"]["generator"]["params"]["a"],
                state(2)["networks"]["generator"]["params"]["a"],
            )


def test_an_intact_step_of_another_model_is_an_error_and_stays(tmp_path, two_steps):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    before = snapshot(folder)
    with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
        with pytest.raises(CheckpointError, match="fit the model") as caught:
            checkpoints.restore(state(0, size=51))
        assert not isinstance(caught.value, DamagedCheckpointError)
        other = state(0)
        other["networks"]["generator"]["ema_params"] = None
        with pytest.raises(CheckpointError, match=r"1 unknown: generator\.ema_params"):
            checkpoints.restore(other)
    assert snapshot(folder) == before


def test_nothing_is_changed_when_all_steps_are_damaged(tmp_path, two_steps):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    for step in (1, 2):
        cut(data_file(folder / "checkpoints" / str(step)))
    before = snapshot(folder)
    with (
        TrainingCheckpoints(folder, model=MODEL) as checkpoints,
        pytest.raises(CheckpointError, match="or one before it") as caught,
    ):
        checkpoints.restore(state(0))
    assert "\n" not in str(caught.value) and snapshot(folder) == before


def test_another_run_is_only_read(tmp_path, two_steps, caplog):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    cut(data_file(folder / "checkpoints" / "2"))
    (folder / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()  # it may be training just now
    (folder / "revision").write_text("theirs\n")
    before = snapshot(folder)
    restored, _ = restore_other_run(folder, state(0), model=MODEL)
    assert int(restored["step"]) == 1 and "damaged checkpoint 2" in caplog.text
    assert snapshot(folder) == before


def test_half_written_steps_of_a_killed_run_are_no_steps_and_go(tmp_path, two_steps):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    steps = folder / "checkpoints"
    partial = shutil.copytree(steps / "2", steps / "3.orbax-checkpoint-tmp")
    assert int(restore_other_run(folder, state(0), model=MODEL)[0]["step"]) == 2
    with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
        assert checkpoints.latest_step() == 2 and not partial.exists()
        checkpoints.save(3, state(3))
    assert sorted(path.name for path in steps.iterdir()) == ["1", "2", "3"]


def test_a_second_run_in_the_same_folder_is_refused_and_touches_nothing(tmp_path, two_steps):
    folder = shutil.copytree(two_steps, tmp_path / "run")
    with TrainingCheckpoints(folder, model=MODEL):
        partial = folder / "checkpoints" / "3.orbax-checkpoint-tmp"  # the first run writes it now
        partial.mkdir()
        with pytest.raises(CheckpointError, match="one run at a time"):
            TrainingCheckpoints(folder, model=MODEL)
        assert partial.is_dir()
    with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
        assert checkpoints.latest_step() == 2


@pytest.mark.parametrize("strange", ["pipe", "link"])
def test_a_lock_that_is_no_ordinary_file_is_refused_at_once(tmp_path, strange):
    if strange == "pipe":
        os.mkfifo(tmp_path / ".lock")
    else:
        (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="must be writable"):
        TrainingCheckpoints(tmp_path, model=MODEL)
    assert not (tmp_path / "elsewhere").exists()


def test_checksums_cover_every_file_and_only_what_is_asked(tmp_path):
    folder = tmp_path / "state"
    save_items(folder, {"a": {"x": np.arange(4)}, "b": {"y": np.ones(3)}})
    assert verify_items(folder)
    flip(data_file(folder, "b"))
    assert verify_items(folder, ["a"])
    with pytest.raises(DamagedCheckpointError, match="state/b"):
        verify_items(folder)
    write_checksums(folder)
    assert verify_items(folder)
    (folder / CHECKSUMS).unlink()
    assert not verify_items(folder)
    np.testing.assert_array_equal(load_item(folder, "a", verified=False)["x"], np.arange(4))


def test_intact_files_that_cannot_be_read_are_no_damage(tmp_path):
    """Running out of memory while reading must not set a good checkpoint aside."""
    with pytest.raises(CheckpointError, match="files are intact") as caught:
        load_item(tmp_path, "nothing", verified=True)
    assert not isinstance(caught.value, DamagedCheckpointError)
    with pytest.raises(DamagedCheckpointError):
        load_item(tmp_path, "nothing", verified=False)


CHILD = """
import os, sys
from pathlib import Path
from talking_heads_jax.checkpoints import TrainingCheckpoints
from talking_heads_jax.errors import TalkingHeadsError
from tests.test_checkpoint_items import MODEL, state

folder = Path(sys.argv[1]) / "run"
try:
    with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
        checkpoints.save(1, state(1))
        checkpoints.save(2, state(2, size=1_000_000))  # returns: it is written in the background
        print("saving", flush=True)
        checkpoints.save(3, state(3))
except TalkingHeadsError as error:
    print("error:", error)
print("left:", sorted(os.listdir(folder / "checkpoints")))
with TrainingCheckpoints(folder, model=MODEL) as checkpoints:
    print("restored:", int(checkpoints.restore(state(0))[0]["step"]))
"""


def limited(folder):
    """A command prefix under which 1 MB is too much: a small file system, else a limit per file."""
    mount = f"mount -t tmpfs -o size=1m tmpfs {folder}"
    try:
        subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ["sh", "-c", 'ulimit -f 512; exec "$@"', "sh"], "File too large"
    return ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh"], "No space left on device"


@pytest.mark.integration
def test_a_full_disk_keeps_the_last_good_step_and_is_told_in_one_line(tmp_path, repository):
    prefix, reason = limited(tmp_path)
    result = subprocess.run(
        [*prefix, sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
    )
    lines = result.stdout.splitlines()
    # On a busy machine another write of the failed checkpoint may end after Orbax has closed its
    # loop; its storage library then prints this one traceback from a thread of its own.
    late = result.stderr.count("RuntimeError: Event loop is closed")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count("Traceback") == late, result.stderr[-3000:]
    assert lines[0] == "saving" and lines[2:] == ["left: ['1']", "restored: 1"]
    assert reason in lines[1] and "checkpoint 2" in lines[1] and "Step 1 is intact" in lines[1]
