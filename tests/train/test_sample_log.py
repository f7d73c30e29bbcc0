"""The log of record ids: exact after a kill, whatever number of processes continued."""

import numpy as np
import pytest

from talking_heads_jax.errors import DataError
from talking_heads_jax.train.sample_log import SampleLog, read_sample_log


def ids(step, batch=4):
    return np.arange(2 * batch).reshape(batch, 2) + 100 * step


def write(workdir, steps, *, start=None, process=0, processes=1, batch=4):
    start = steps.start - 1 if start is None else start
    local = batch // processes
    rows = range(process * local, (process + 1) * local)
    log = SampleLog(workdir, start_step=start, rows=rows, process=process, processes=processes)
    for step in steps:
        log.add(step, ids(step, batch)[rows])
    log.close()


def files(workdir):
    return {path.name: path.read_bytes() for path in (workdir / "samples").iterdir()}


def assert_steps(workdir, last, batch=4):
    found = read_sample_log(workdir)
    assert sorted(found) == list(range(1, last + 1))
    for step, pairs in found.items():
        np.testing.assert_array_equal(pairs, ids(step, batch))


@pytest.mark.parametrize("lost", [0, 1, 23, 24, 96, 97])
def test_a_continued_log_has_the_bytes_of_an_uninterrupted_one(tmp_path, lost):
    """Killed after step 5, within a row, a step or a file; restarted from checkpoint 2."""
    write(tmp_path / "whole", range(1, 8))
    write(tmp_path / "killed", range(1, 6))
    path = next((tmp_path / "killed" / "samples").iterdir())
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - lost])
    write(tmp_path / "killed", range(3, 8))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert_steps(tmp_path / "killed", 7)


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path):
    write(tmp_path / "whole", range(1, 4))
    write(tmp_path / "killed", range(1, 3))
    path = next((tmp_path / "killed" / "samples").iterdir())
    for size in (3, 40, 90):  # within the header, after it, within the first step
        path.write_bytes(path.read_bytes()[:size])
        write(tmp_path / "killed", range(1, 4))
        assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_other_process_counts_begin_new_files_in_the_same_order(tmp_path):
    write(tmp_path, range(1, 6))  # alone; killed after step 5, saved at 3
    for process in (1, 0):  # any order of starting
        write(tmp_path, range(4, 10), process=process, processes=2)
    write(tmp_path, range(7, 11))  # alone again from checkpoint 6
    assert sorted(files(tmp_path)) == [
        "from_0000000000_process_0_of_1.bin",
        "from_0000000003_process_0_of_2.bin",
        "from_0000000003_process_1_of_2.bin",
        "from_0000000006_process_0_of_1.bin",
    ]
    assert_steps(tmp_path, 10)
    write(tmp_path, range(3, 5))  # an older checkpoint: what came after it is gone
    assert list(files(tmp_path)) == ["from_0000000000_process_0_of_1.bin"]
    assert_steps(tmp_path, 4)


@pytest.mark.parametrize("shares", [((2, 3), (0, 1)), ((0, 2), (1, 3)), ((0, 1, 2, 3),) * 2])
def test_rows_come_back_in_the_order_of_the_batch(tmp_path, shares):
    """Devices may lie in any order on a mesh, and processes may share rows."""
    for process, rows in enumerate(shares):
        log = SampleLog(tmp_path, start_step=0, rows=rows, process=process, processes=2)
        log.add(1, ids(1)[list(rows)])
        log.close()
    assert_steps(tmp_path, 1)


def test_a_log_with_a_gap_or_another_batch_begins_a_new_file(tmp_path):
    write(tmp_path / "gap", range(1, 3))
    write(tmp_path / "gap", range(6, 8))  # steps 3 to 5 were not logged
    assert sorted(read_sample_log(tmp_path / "gap")) == [1, 2, 6, 7]
    write(tmp_path / "batch", range(1, 3))
    write(tmp_path / "batch", range(3, 4), batch=2)
    assert [len(pairs) for pairs in read_sample_log(tmp_path / "batch").values()] == [4, 4, 2]


def test_wrong_calls_and_damaged_files_are_errors(tmp_path):
    with pytest.raises(DataError, match="no sample log"):
        read_sample_log(tmp_path)
    log = SampleLog(tmp_path, start_step=0, rows=range(4))
    for step, pairs in ((2, ids(2)), (1, ids(1)[:3]), (1, None)):
        with pytest.raises(DataError, match="4 pairs of step 1"):
            log.add(step, pairs)
    log.add(1, ids(1))
    log.flush()
    assert_steps(tmp_path, 1)
    log.close()
    path = next((tmp_path / "samples").iterdir())
    content = path.read_bytes()
    path.write_bytes(content[:40] + b"\x07" + content[41:])
    with pytest.raises(DataError, match="out of order"):
        read_sample_log(tmp_path)
    path.write_bytes(b"THJAX" + content[5:20])
    with pytest.raises(DataError, match="header"):
        read_sample_log(tmp_path)
    write(tmp_path / "two", range(1, 3), process=1, processes=2)
    with pytest.raises(DataError, match="1 of 2 files"):
        read_sample_log(tmp_path / "two")
