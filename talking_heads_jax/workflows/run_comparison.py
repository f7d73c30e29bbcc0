"""Whether two training runs left the same behind, bit for bit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from talking_heads_jax.checkpoint_items import (
    EXTRA,
    STEPS,
    finished_steps,
    load_item,
    verify_items,
)
from talking_heads_jax.errors import CheckpointError, requirement
from talking_heads_jax.serialization.tensors import flatten
from talking_heads_jax.train.sample_log import FOLDER as SAMPLES
from talking_heads_jax.train.sample_log import read_sample_log


class Comparison(NamedTuple):
    """What was compared, and what differs.

    Attributes:
      step: of the final checkpoint.
      num_items: Orbax items of it.
      num_arrays: arrays in them.
      num_bytes: of these arrays.
      num_samples: samples in the log.
      differences: one line each; empty for equal runs.
    """

    step: int
    num_items: int
    num_arrays: int
    num_bytes: int
    num_samples: int
    differences: tuple[str, ...]


def compare_runs(workdir: Path, expected: Path) -> Comparison:
    """Compares the final checkpoints, the sample logs and the metrics of two runs.

    Args:
      workdir: of a run.
      expected: of the run it should equal.

    Raises:
      TalkingHeadsError: if a run left no readable checkpoint or sample log.
    """
    ours, theirs = (_final_arrays(folder) for folder in (workdir, expected))
    differences = []
    for key in sorted(ours.arrays.keys() | theirs.arrays.keys()):
        if key not in ours.arrays or key not in theirs.arrays:
            differences.append(f"{key}: only in one run")
        elif not _same_bits(ours.arrays[key], theirs.arrays[key]):
            differences.append(f"{key}: other values")
    if (ours.step, ours.extra) != (theirs.step, theirs.extra):
        differences.append(f"step and extra: {ours.extra} instead of {theirs.extra}")
    differences += _compare_logs(workdir, expected)
    left = [path.name for path in sorted((workdir / STEPS).iterdir()) if not path.name.isdigit()]
    if left:
        differences.append(f"left over in {STEPS}: {', '.join(left)}")
    return Comparison(
        theirs.step,
        theirs.num_items,
        len(theirs.arrays),
        sum(array.nbytes for array in theirs.arrays.values()),
        sum(len(ids) for ids in read_sample_log(expected).values()),
        tuple(differences),
    )


class _Final(NamedTuple):
    step: int
    num_items: int
    arrays: dict[str, np.ndarray]
    extra: Any


def _final_arrays(workdir: Path) -> _Final:
    steps = finished_steps(workdir)
    if not steps:
        raise CheckpointError(
            requirement(f"run {workdir}", "hold a finished checkpoint", "none", "See its log.")
        )
    folder = workdir / STEPS / str(steps[-1])
    verified = verify_items(folder)
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != EXTRA)
    arrays = {
        f"{name}/{key}": np.asarray(value)
        for name in names
        for key, value in flatten(load_item(folder, name, verified=verified)).items()
    }
    extra = json.loads((folder / EXTRA / "metadata").read_text(encoding="utf-8"))
    return _Final(steps[-1], len(names), arrays, extra)


def _same_bits(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equality that tells -0 from 0 and NaN from NaN."""
    same_kind = (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return same_kind and ours.tobytes() == theirs.tobytes()


def _compare_logs(workdir: Path, expected: Path) -> list[str]:
    differences = []
    files = [
        {path.name: path.read_bytes() for path in (folder / SAMPLES).iterdir()}
        for folder in (workdir, expected)
    ]
    if files[0] != files[1]:
        ours, theirs = read_sample_log(workdir), read_sample_log(expected)
        steps = [
            step
            for step in sorted(ours.keys() | theirs.keys())
            if not np.array_equal(ours.get(step), theirs.get(step))
        ]
        differences.append(f"sample log: other bytes, other ids at steps {steps[:5]}")
    if _metrics(workdir) != _metrics(expected):
        differences.append("metrics.jsonl: other numbers")
    return differences


def _metrics(workdir: Path) -> list[Mapping[str, Any]]:
    """What a run logged, without the times."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in rows]
