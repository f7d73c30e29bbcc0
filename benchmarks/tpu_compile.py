"""Does the training step fit a TPU? Compiles it ahead of time for a topology, on a machine without.

    JAX_PLATFORMS=cpu python benchmarks/tpu_compile.py --config configs/fnevr/vox_256.py \
        --topology v5e:4x4 --output benchmarks/results/tpu_compile_fnevr_v5e_4x4.json

The step is the one `run_train.py` runs: all phases, their optimisers, averages, frozen networks.
Bytes, FLOPs and collectives are the compiler's own figures for one chip; no time is predicted. With
`--batch-per-chip N` that batch is compiled; without, the largest that the compiler accepts is
searched, and after `--minutes` the largest that compiled is reported. Weights of frozen networks do
not matter here: VGG19 is taken as random. Meshes do: where a config's are of a licensed face model,
compile for the built-in head, which has more triangles than FLAME, by `--set
'model.morphable="procedural"' --set 'data.source="synthetic"'`. Needs the package installed with
the extra `tpu-compile`.
"""

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

GIB = 2**30
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
# The compiler's refusals of a program that does not fit: what it would need, and what there is.
OUT_OF_MEMORY = (
    re.compile(r"Used (?P<needed>[\d.]+[KMG]) of (?P<limit>[\d.]+[KMG]) hbm"),
    re.compile(
        r"HLO temporaries \((?P<needed>[\d.]+[KMG])\) exceeds available HBM "
        r"\((?P<limit>[\d.]+[KMG])\)"
    ),
)
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
LARGEST_BATCH = 4096
# Bytes a program may use on one chip, by the first part of the topology's name: only the search's
# first guess, the compiler decides. v5e as its refusals state it, the others nominal.
CAPACITY = {"v4": 32 * GIB, "v5e": 15.75 * GIB, "v5p": 95 * GIB, "v6e": 32 * GIB}


class Attempt(NamedTuple):
    """One batch a chip, as the compiler judged it.

    Attributes:
      batch: examples a chip.
      status: 'fits', 'too large', 'no time' or 'failed'.
      needed: bytes a chip, as far as known.
      limit: bytes a chip may use, as far as known.
      report: what the compiled program says of itself; empty where there is none.
    """

    batch: int
    status: str
    needed: float | None
    limit: float | None
    report: dict[str, Any]


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Kind -> how many of them a compiled program has, and the bytes they return.

    Args:
      text: the program's HLO.
    """
    found: dict[str, dict[str, int]] = {}
    pattern = re.compile(rf"= (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(")
    for shapes, kind, _ in pattern.findall(text):
        size = 0
        for dtype, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            count = math.prod(int(side) for side in dimensions.split(",") if side)
            size += count * BYTES.get(dtype, 4)
        entry = found.setdefault(kind, {"count": 0, "bytes": 0})
        entry["count"] += 1
        entry["bytes"] += size
    return found


def compile_step(config: dict[str, Any], topology: str, batch: int) -> dict[str, Any]:
    """Compiles one batch a chip in this process; returns the program's figures.

    Args:
      config: of the training.
      topology: as libtpu names it, e.g. 'v5e:4x4'.
      batch: examples a chip.
    """
    import jax
    from jax.experimental import topologies

    from talking_heads_jax import build
    from talking_heads_jax.inference.operation_count import count_operations
    from talking_heads_jax.ops.platform import compiling_for

    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = build.build_mesh(config, devices)
    with compiling_for("tpu"):
        start = time.monotonic()
        program = build.build_program(config, mesh, batch_size=batch * mesh.shape["data"])
        counted = count_operations(
            program.step, program.state, program.batch, program.helper_params, program.key
        )
        lowered = program.lower()
        traced = time.monotonic()
        compiled = lowered.compile()
    memory = compiled.memory_analysis()
    cost = compiled.cost_analysis()
    state_bytes = sum(
        leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
        for leaf in jax.tree.leaves(program.state)
    )
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    total = (
        arguments
        + outputs
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )
    return {
        "device": devices[0].device_kind,
        "chips": len(devices),
        "mesh": dict(mesh.shape),
        "batch_per_chip": batch,
        "global_batch": batch * mesh.shape["data"],
        "bytes_per_chip": {
            "total": total,
            "state": state_bytes,
            "arguments": arguments,
            "temporary": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
            "outputs": outputs,
            "outputs_in_place_of_arguments": memory.alias_size_in_bytes,
        },
        "flops_per_chip": cost.get("flops"),
        "bytes_accessed_per_chip": cost.get("bytes accessed"),
        "multiply_adds_traced_global": counted.total,
        "collectives": collectives(compiled.as_text()),
        "trace_s": traced - start,
        "compile_s": time.monotonic() - traced,
    }


def attempt(options: argparse.Namespace, batch: int, seconds: float) -> Attempt:
    """Compiles one batch in a process of its own, which ends with the time left."""
    command = [sys.executable, __file__, "--child", "--batch-per-chip", str(batch)]
    command += ["--config", options.config, "--topology", options.topology]
    command += [part for override in options.set for part in ("--set", override)]
    start = time.monotonic()
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1.0))
    except subprocess.TimeoutExpired:
        print(f"batch {batch:4} a chip: no time left ({seconds / 60:.0f} min)", flush=True)
        return Attempt(batch, "no time", None, None, {})
    minutes = (time.monotonic() - start) / 60
    if result.returncode == 0:
        report = json.loads(result.stdout.splitlines()[-1])
        needed = report["bytes_per_chip"]["total"]
        print(
            f"batch {batch:4} a chip: fits, {needed / GIB:.2f} GiB, {minutes:.1f} min", flush=True
        )
        return Attempt(batch, "fits", needed, None, report)
    if "RESOURCE_EXHAUSTED" not in result.stderr:
        # For instance this machine's memory: what compiled before still counts.
        print(f"batch {batch:4} a chip: compiling failed, status {result.returncode}", flush=True)
        print(result.stderr[-3000:], file=sys.stderr)
        return Attempt(batch, "failed", None, None, {})
    needed, limit = refused_sizes(result.stderr)
    says = f"needs {needed / GIB:.2f} of {limit / GIB:.2f} GiB" if limit else "does not fit"
    print(f"batch {batch:4} a chip: {says}, {minutes:.1f} min", flush=True)
    return Attempt(batch, "too large", needed, limit, {})


def refused_sizes(message: str) -> tuple[float | None, float | None]:
    """Bytes needed and available, from the compiler's refusal; None where it does not tell.

    Args:
      message: what it printed. Some versions state the temporaries only, without the arguments.
    """
    for pattern in OUT_OF_MEMORY:
        if found := pattern.search(message):
            sizes = (found["needed"], found["limit"])
            needed, limit = (float(size[:-1]) * UNITS[size[-1]] for size in sizes)
            return needed, limit
    return None, None


def next_batch(attempts: list[Attempt], capacity: float | None = None) -> int | None:
    """The batch to try next; None when the largest that fits is known.

    Memory grows linearly with the batch, from what the program needs besides temporaries. Without a
    prediction the batch doubles, or the gap between what fits and what does not is halved.

    Args:
      attempts: so far.
      capacity: bytes of a chip, if known; what a refusal stated counts more.
    """
    fits = max((a.batch for a in attempts if a.status == "fits"), default=0)
    fails = min((a.batch for a in attempts if a.status == "too large"), default=LARGEST_BATCH + 1)
    if fails - fits <= 1:
        return None
    known = [(a.batch, a.needed) for a in attempts if a.needed]
    known += [(0, a.needed - a.report["bytes_per_chip"]["temporary"]) for a in attempts if a.report]
    limit = next((a.limit for a in attempts if a.limit), capacity)
    if len(known) >= 2 and limit:
        (first, low), (second, high) = min(known), max(known)
        slope = (high - low) / (second - first) if second > first else 0.0
        if slope > 0:
            predicted = int(first + (limit - low) / slope)
            return min(max(predicted, fits + 1), fails - 1)
    if fails > LARGEST_BATCH:
        return min(max(2 * fits, 1), LARGEST_BATCH)
    return (fits + fails) // 2


def search(options: argparse.Namespace) -> list[Attempt]:
    """Compiles until the largest batch is known, or the time is over."""
    deadline = time.monotonic() + 60 * options.minutes
    attempts: list[Attempt] = []
    batch: int | None = options.batch_per_chip or options.first_batch
    while batch is not None:
        attempts.append(attempt(options, batch, deadline - time.monotonic()))
        if attempts[-1].status in ("no time", "failed") or options.batch_per_chip:
            break
        batch = next_batch(attempts, CAPACITY.get(options.topology.partition(":")[0]))
    return attempts


def main() -> int:
    """Compiles, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", required=True, help="FILE.py[:VARIANTS], or a run's config.json"
    )
    parser.add_argument("--topology", default="v5e:4x4", help="as libtpu names it")
    parser.add_argument("--batch-per-chip", type=int, help="compile this one; default: search")
    parser.add_argument("--first-batch", type=int, default=1, help="where the search starts")
    parser.add_argument("--minutes", type=float, default=45.0, help="the search ends by then")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=JSON", help="change the config"
    )
    parser.add_argument("--output", type=Path, help="json file for the results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if importlib.util.find_spec("libtpu") is None:
        print("error: libtpu must be installed. Run: pip install libtpu", file=sys.stderr)
        return 2
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no metadata server to ask
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no chip is opened
    from benchmarks.measurement import describe_run, load_config, write_results

    config = load_config(options.config, options.set)
    if options.child:
        print(json.dumps(compile_step(config, options.topology, options.batch_per_chip)))
        return 0
    attempts = search(options)
    best = max((a for a in attempts if a.status == "fits"), default=None, key=lambda a: a.batch)
    fails = [a.batch for a in attempts if a.status == "too large"]
    largest = best is not None and best.batch + 1 in fails
    if best is not None:
        print_report(best.report, largest)
    if options.output:
        results = {
            "run": describe_run(devices_used=0),
            "config": options.config,
            "set": options.set,
            "topology": options.topology,
            "attempts": [a._asdict() | {"report": None} for a in attempts],
            "is_the_largest_batch": largest,
            "largest": best.report if best else None,
        }
        write_results(options.output, results)
    return 0 if best is not None else 1


def print_report(report: dict[str, Any], largest: bool) -> None:
    """Says what the compiled program needs."""
    sizes = report["bytes_per_chip"]
    print(
        f"{report['chips']} x {report['device']}, mesh {report['mesh']}: "
        f"{report['batch_per_chip']} examples a chip, {report['global_batch']} in all"
        + (" (the next larger batch does not fit)" if largest else "")
    )
    for name in ("total", "state", "arguments", "temporary", "code"):
        print(f"  {name:10} {sizes[name] / GIB:8.3f} GiB a chip")
    if report["flops_per_chip"]:
        print(f"  {report['flops_per_chip'] / 1e12:.3f} TFLOP a chip and step, by the compiler")
    print(f"  {2 * report['multiply_adds_traced_global'] / 1e12:.3f} TFLOP in all, as traced")
    for kind, entry in report["collectives"].items():
        print(f"  {kind}: {entry['count']}, {entry['bytes'] / 2**20:.1f} MiB")
    print(f"  traced in {report['trace_s']:.0f} s, compiled in {report['compile_s']:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
