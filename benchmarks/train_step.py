"""Speed of the whole training step on this machine: images/s, counted FLOPs, fraction of the peak.

    python benchmarks/train_step.py --config configs/fnevr/vox_256.py --batch-size 16 \
        --set 'model.dtype="bfloat16"' --output benchmarks/results/train_step_<machine>.json

The step is the one `run_train.py` runs, on random images that already lie on the device: all
phases, optimisers, averages, and the perceptual network with random weights. A mesh-driven system
is given the mean face of its mesh, turning. FLOPs are twice the
multiply-adds of the convolutions and matrix products of the traced step, forward and backward; the
peak is a large matrix product on the same device in the config's dtype. Several `--batch-size` are
timed in turns. Needs only jax, flax, optax, orbax and numpy (configs with `data.vertices` all that
the package needs): where ml_collections is missing, give the config as the json that
`--save-config` writes elsewhere.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

from benchmarks.inference_paths import YAW_OF_DRIVING, is_mesh_driven, make_meshes
from benchmarks.measurement import (
    describe_run,
    interleave,
    load_config,
    measure_peak,
    print_table,
    write_results,
)
from talking_heads_jax import build
from talking_heads_jax.batch import FramePair
from talking_heads_jax.inference.operation_count import GIGA, count_operations
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.train.restoration import stage_networks
from talking_heads_jax.train.rng import run_key
from talking_heads_jax.train.sharding import put_state
from talking_heads_jax.train.state import create_state


class RunningStep:
    """A compiled step with its state: every call trains once more."""

    def __init__(self, config: dict[str, Any], batch_size: int) -> None:
        """Builds, compiles, and puts everything on the device."""
        config = json.loads(json.dumps(config))
        config["data"]["batch_size"] = batch_size
        mesh = build.build_mesh(config)
        program = build.build_program(config, mesh)
        arguments = (program.state, program.batch, program.helper_params, program.key)
        self.multiply_adds = count_operations(program.step, *arguments).total
        start = time.monotonic()
        self._compiled = program.lower().compile()
        self.compile_s = time.monotonic() - start
        self.memory = self._compiled.memory_analysis()
        model = build.build_model(config)
        stage = build.build_stage(config, model, num_samples=1000)
        variables = model.init(jax.random.key(0), stage_networks(model, stage))
        state = create_state(variables, stage.optimizers, ema=stage.ema)
        self._state = put_state(state, jax.tree.map(lambda x: x.sharding, program.state))
        _, helpers = build.build_helpers(config, stage.phases)
        places = jax.tree.map(lambda x: x.sharding, program.batch)
        batch = jax.device_put(make_batch(program.batch, model), places)
        self._rest = (batch, put_state(helpers, program.key.sharding), run_key(0))

    def __call__(self) -> Any:
        """Trains one step; returns its metrics, still on the device."""
        self._state, metrics = self._compiled(self._state, *self._rest)
        return metrics


def make_batch(shapes: FramePair, model: TalkingHead) -> FramePair:
    """Random images, and meshes that can be drawn.

    Args:
      shapes: of the fields that a config's batches have.
      model: the system.
    """
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    filled = [_random(key, x) for key, x in zip(keys, leaves, strict=True)]
    batch = jax.tree.unflatten(structure, filled)
    if not is_mesh_driven(model):
        return batch
    count = len(batch.source.vertices)
    return batch._replace(
        source=batch.source._replace(vertices=make_meshes(model, count, 0.0)),
        driving=batch.driving._replace(vertices=make_meshes(model, count, YAW_OF_DRIVING)),
    )


def _random(key: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Numbers in [0, 1); for masks, a few classes."""
    if jnp.issubdtype(shape.dtype, jnp.integer):
        return jax.random.randint(key, shape.shape, 0, 10).astype(shape.dtype)
    return jax.random.uniform(key, shape.shape, shape.dtype)


def memory_in_use() -> int | None:
    """Largest number of bytes the device has held so far, where it tells."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use")


def measure(options: argparse.Namespace, config: dict[str, Any]) -> dict[str, Any]:
    """Compiles and times every batch size."""
    sizes = options.batch_size or [config["data"]["batch_size"]]
    steps = {f"batch {size}": RunningStep(config, size) for size in sizes}
    timing = interleave(steps, repeats=options.repeats, seconds=options.seconds)
    dtype = config["model"].get("dtype", "float32")
    peak = measure_peak(dtype, options.peak_size)
    devices = math.prod(build.build_mesh(config).shape.values())
    rows = {}
    for size, (name, step) in zip(sizes, steps.items(), strict=True):
        metrics = jax.device_get(step())
        seconds = timing[name]["median_s"]
        flops = 2 * step.multiply_adds
        rows[name] = {
            **timing[name],
            "batch_size": size,
            "pairs_per_s": size / seconds,
            "pairs_per_s_and_device": size / seconds / devices,
            "gflop_per_pair": flops / GIGA / size,
            "flops_per_s_and_device": flops / seconds / devices,
            "fraction_of_peak": flops / seconds / devices / peak["flops_per_s"],
            "compile_s": step.compile_s,
            "bytes": {
                "arguments": step.memory.argument_size_in_bytes,
                "temporary": step.memory.temp_size_in_bytes,
                "peak_in_use_so_far": memory_in_use(),
            },
            "finite": not bool(metrics["nonfinite/any"]),
        }
    return {"dtype": dtype, "devices": devices, "peak": peak, "steps": rows}


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="FILE.py[:VARIANTS] or config.json")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=JSON", help="change the config"
    )
    parser.add_argument("--batch-size", type=int, nargs="+", help="default: the config's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="at least, per repeat")
    # On an accelerator a small product measures how fast calls are dispatched.
    side = 2048 if jax.default_backend() == "cpu" else 8192
    parser.add_argument("--peak-size", type=int, default=side, help="side of the peak's matrices")
    parser.add_argument("--save-config", type=Path, help="only write the config as json")
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    config = load_config(options.config, options.set)
    if options.save_config:
        options.save_config.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        return 0
    build.enable_compilation_cache()
    results = measure(options, config)
    peak = results["peak"]["flops_per_s"]
    print(f"{config['name']}, {results['dtype']}, {results['devices']} x {jax.devices()[0]}")
    side = options.peak_size
    print(f"peak, a {side} x {side} matrix product: {peak / 1e12:.3f} TFLOP/s a device")
    header = ["step", "s", "pairs/s", "GFLOP a pair", "of peak", "temporary GiB"]
    rows = [
        [
            name,
            f"{row['median_s']:.4f}",
            f"{row['pairs_per_s']:.2f}",
            f"{row['gflop_per_pair']:.1f}",
            f"{row['fraction_of_peak']:.1%}",
            f"{row['bytes']['temporary'] / 2**30:.2f}",
        ]
        for name, row in results["steps"].items()
    ]
    print_table(header, rows)
    if options.output:
        info = {
            "run": describe_run(devices_used=results["devices"]),
            "config": options.config,
            "set": options.set,
        }
        write_results(options.output, {**info, "name": config["name"], **results})
    if not all(row["finite"] for row in results["steps"].values()):
        print("error: the step gave values that are not finite", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    jnp.zeros(()).block_until_ready()  # starts the device before anything is timed
    sys.exit(main())
