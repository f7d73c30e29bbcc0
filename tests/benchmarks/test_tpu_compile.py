"""The search for the largest batch, and what is read of a compiled program. Nothing compiles."""

import json

import pytest

from benchmarks import tpu_compile
from benchmarks.measurement import load_config

GIB = tpu_compile.GIB


def search_with(needed, limit, first, capacity=None):
    """Runs the search against a made-up compiler; returns the batches it asked for."""
    fixed = needed(0)
    attempts, asked, batch = [], [], first
    while batch is not None:
        asked.append(batch)
        fits = needed(batch) <= limit
        size = needed(batch)
        report = {"bytes_per_chip": {"temporary": size - fixed}}
        attempts.append(
            tpu_compile.Attempt(batch, "fits", size, None, report)
            if fits
            else tpu_compile.Attempt(batch, "too large", size, limit, {})
        )
        batch = tpu_compile.next_batch(attempts, capacity)
        assert len(asked) < 30
    return asked


@pytest.mark.parametrize("first", [1, 4, 16])
@pytest.mark.parametrize("largest", [0, 1, 5, 13, 100])
def test_search_finds_the_largest_batch(largest, first):
    def needed(batch):
        return (1.0 + 0.125 * batch) * GIB

    asked = search_with(needed, needed(largest) + 1, first)
    assert max((batch for batch in asked if batch <= largest), default=0) == largest
    assert largest + 1 in asked
    assert len(asked) <= 10


def test_known_capacity_leads_to_the_answer_in_three_attempts():
    def needed(batch):
        return (1.0 + 2.1 * batch) * GIB

    assert search_with(needed, 15.75 * GIB, 4, capacity=15.75 * GIB) == [4, 7, 8]


def test_search_survives_a_compiler_whose_memory_is_not_linear():
    def needed(batch):
        return (1.0 + 0.1 * batch + 0.3 * (batch % 3)) * GIB

    asked = search_with(needed, 3 * GIB, 4)
    fits = [batch for batch in asked if needed(batch) <= 3 * GIB]
    assert needed(max(fits) + 1) > 3 * GIB and max(fits) + 1 in asked


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.",
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (20.50G) exceeds available HBM (15.75G).",
    ],
)
def test_refusals_of_the_compiler_are_understood(message):
    assert tpu_compile.refused_sizes(message) == (20.5 * GIB, 15.75 * GIB)
    assert tpu_compile.refused_sizes("RESOURCE_EXHAUSTED") == (None, None)


def test_collectives_count_operations_and_bytes():
    text = """
  %all-reduce.1 = f32[4,2]{1,0} all-reduce(f32[4,2]{1,0} %x), replica_groups={}
  %ar = (f32[8]{0}, bf16[3]{0}) all-reduce-start(f32[8]{0} %y, bf16[3]{0} %z)
  %done = f32[8]{0} all-reduce-done((f32[8]{0}, bf16[3]{0}) %ar)
  %g = f32[16]{0} all-gather(f32[2]{0} %w), dimensions={0}
  %f = f32[4]{0} fusion(f32[4]{0} %all-reduce.1), kind=kLoop
"""
    assert tpu_compile.collectives(text) == {
        "all-reduce": {"count": 2, "bytes": 4 * 8 + 4 * 8 + 2 * 3},
        "all-gather": {"count": 1, "bytes": 64},
    }


def test_load_config_reads_python_and_json_and_applies_changes(tmp_path, repository):
    python = repository / "configs/fnevr/vox_256.py"
    config = load_config(f"{python}:debug", ["data.batch_size=6", 'model.dtype="bfloat16"'])
    assert config["data"]["batch_size"] == 6 and config["model"]["dtype"] == "bfloat16"
    assert config["objectives"]["perceptual"]["weights"] == "random"
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert load_config(str(path), []) == config
    with pytest.raises(SystemExit, match=r"no data\.speed"):
        load_config(str(path), ["data.speed=1"])
