"""Protocols."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.evaluation.protocols import Clip, find_protocol


def _clip(name, length):
    return Clip(name, (np.full((4, 4, 3), 10 * i, np.uint8) for i in range(length)))


def test_reconstruction_drives_the_first_frame_by_all_others():
    tasks = find_protocol("reconstruction").tasks([_clip("a", 3), _clip("b", 1), _clip("c", 0)])
    (task,) = [(t.clip_id, t.identity_id, t.source, list(t.driving)) for t in tasks]
    assert task[:2] == ("a", "a")
    assert task[2].dtype == np.float32
    np.testing.assert_array_equal(task[2], 0)
    np.testing.assert_allclose([frame[0, 0, 0] for frame in task[3]], [10 / 255, 20 / 255])


def test_reconstruction_fomm_scores_the_source_frame_too():
    tasks = list(find_protocol("reconstruction-fomm").tasks([_clip("a", 2), _clip("b", 1)]))
    assert [len(list(task.driving)) for task in tasks] == [2, 1]


def test_tasks_read_clips_lazily():
    read = []

    def frames():
        for i in range(100):
            read.append(i)
            yield np.zeros((4, 4, 3), np.float32)

    task = next(find_protocol("reconstruction").tasks([Clip("a", frames())]))
    next(task.driving)
    assert len(read) == 2


def test_find_protocol_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="reconstruction"):
        find_protocol("nonsense")
