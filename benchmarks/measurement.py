"""What the benchmarks share: naming the machine, interleaved timing, the device's measured peak.

Needs only jax and numpy.
"""

import datetime
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from talking_heads_jax.serialization.atomic_file import replace_text

ROOT = Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def describe_run(*, devices_used: int = 1) -> dict[str, Any]:
    """Machine, date, commit, versions, and how busy the machine is.

    Args:
      devices_used: how many of the kind that is named; 0 where nothing ran on one.
    """
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _git("status", "--porcelain") not in ("", "unknown"),
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices_used": devices_used,
        "processor": _processor(),
        "cores": cores,
        "system": platform.platform(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "matmul_precision": str(jax.config.jax_default_matmul_precision),
        "load_average": list(os.getloadavg()),
        "command": " ".join(["python", *sys.argv]),
    }


def time_calls(
    function: Callable[[], Any], seconds: float, *, wait_each: bool
) -> tuple[float, float]:
    """Seconds and processor seconds per call, over at least `seconds` of wall time.

    With `wait_each` every call is waited for (latency); otherwise only the last one, so that the
    host prepares the next call while the device works (throughput). XLA's CPU backend is always
    waited for, as it could run independent calls at the same time.
    """
    wait_each = wait_each or jax.default_backend() == "cpu"
    calls = 0
    start, start_cpu = time.perf_counter(), time.process_time()
    while True:
        result = function()
        calls += 1
        if wait_each:
            jax.block_until_ready(result)
        elif calls % 32 == 0:
            jax.block_until_ready(result)  # bounds what is in flight
        if time.perf_counter() - start >= seconds:
            break
    jax.block_until_ready(result)
    return (
        (time.perf_counter() - start) / calls,
        (time.process_time() - start_cpu) / calls,
    )


def interleave(
    cases: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    seconds: float,
    wait_each: bool = False,
) -> dict[str, dict[str, Any]]:
    """Times cases in turns, so that a busy minute hits all of them alike.

    Returns:
      Case -> median, minimum and all of its times per call, and the median processor time.
    """
    for function in cases.values():
        jax.block_until_ready(function())  # compiles
        jax.block_until_ready(function())
    wall: dict[str, list[float]] = {name: [] for name in cases}
    processor: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats):
        names = list(cases) if repeat % 2 == 0 else list(cases)[::-1]
        for name in names:
            elapsed, busy = time_calls(cases[name], seconds, wait_each=wait_each)
            wall[name].append(elapsed)
            processor[name].append(busy)
    return {
        name: {
            "median_s": statistics.median(wall[name]),
            "min_s": min(wall[name]),
            "all_s": wall[name],
            "processor_median_s": statistics.median(processor[name]),
        }
        for name in cases
    }


def measure_peak(dtype: str, size: int, *, repeats: int = 5) -> dict[str, Any]:
    """FLOP/s of one large square matrix product in `dtype`: the peak that fractions refer to."""
    keys = jax.random.split(jax.random.key(0))
    left, right = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
    product = jax.jit(jnp.matmul)
    timing = interleave({"product": lambda: product(left, right)}, repeats=repeats, seconds=0.5)
    return {
        "dtype": dtype,
        "matrix_size": size,
        "flops_per_s": 2 * size**3 / timing["product"]["min_s"],
    }


def load_config(argument: str, overrides: list[str]) -> dict[str, Any]:
    """A training config as nested dictionaries; the weights of frozen networks are random ones.

    Args:
      argument: FILE.py[:VARIANTS], or the config.json of a run, which needs no ml_collections.
      overrides: section.key=value, values in JSON.
    """
    name, _, variants = argument.partition(":")
    path = Path(name)
    if path.suffix == ".json":
        config = json.loads(path.read_text(encoding="utf-8"))
    else:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = json.loads(json.dumps(module.get_config(variants or None).to_dict()))
    for override in overrides:
        keys, _, value = override.partition("=")
        *parents, last = keys.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        if last not in section:
            raise SystemExit(f"error: the config has no {keys}")
        section[last] = json.loads(value)
    config["objectives"]["perceptual"]["weights"] = "random"
    return config


def write_results(path: Path | None, results: Mapping[str, Any]) -> None:
    """Writes results as json, complete or not at all; without a path prints them."""
    if path is None:
        print(json.dumps(results, indent=2))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(results, indent=2) + "\n")
    print(f"written: {path}")


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """A Markdown table, first column left, others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    print(line(header))
    print(
        "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    )
    for row in rows:
        print(line(row))
