"""Speed of animation: the fast path against the plain one, with what each of them computes.

    python benchmarks/inference.py --output benchmarks/results/inference_<machine>.json
    python benchmarks/inference.py --model gdpw --arguments '{"morphable": "procedural"}'

*Plain* is what the official module does for a frame: the source is encoded again, every
convolution is computed as written, the training-only image head and the warped source too. *Fast*
is what `FrameAnimator` and `MeshAnimator` do: the source is encoded once per clip, exact savings
are taken, only the prediction is computed. Both give the same picture; the difference is printed.

`generator` is given the motion: keypoints, or drawn maps; `network` adds finding it: the keypoint
detector on the driving frame, or drawing the driving mesh (plain: the source's too). `guidance
pyramid`, of mesh-driven systems, is that part alone, literal against strided. `end to end` is
`animate_clip`: decode, resize, network, encode (needs PyAV and a system that is driven by images,
else it is left out). Meshes are the mean face of `morphable`, turning. Weights are random, scaled
so that activations keep their size. Times are medians of interleaved repeats. Multiply-adds are
those of the traced shapes (`inference/operation_count.py`); the peak is a large matrix product on
the same device in the same dtype. Needs only jax, flax, optax, orbax and numpy.
"""

import argparse
import functools
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inference_paths import (
    PYRAMID,
    is_mesh_driven,
    make_frames,
    make_inputs,
    make_variables,
    paths_of,
    pyramid_of,
    shapes_of,
)
from benchmarks.measurement import (
    describe_run,
    interleave,
    measure_peak,
    print_table,
    write_results,
)
from talking_heads_jax.inference.operation_count import GIGA, count_operations
from talking_heads_jax.models.base import TalkingHead, count_parameters
from talking_heads_jax.models.registry import build_model

TINY_SIDE = {"block_expansion": 4, "max_features": 16, "num_blocks": 3}
TINY_GENERATOR = {"block_expansion": 4, "max_features": 16, "dense_motion_options": TINY_SIDE}
TINY_VOLUME = {
    "volume_options": {"channels": 4, "depth": 4, "hidden_features": 8},
    "spade_options": {"segmentation_features": 8, "block_features": [8, 8, 8, 8]},
    "image_head_features": 8,
}
TINY_MESH = {"num_levels": 4, "block_expansion": 4, "max_features": 8}


def build(options: argparse.Namespace, implementation: str, dtype: str) -> TalkingHead:
    """The model to measure."""
    arguments: dict[str, Any] = {}
    if options.tiny:
        extra = TINY_VOLUME if options.model == "fnevr" else {}
        generator = TINY_GENERATOR | extra
        arguments = {"resolution": 64, "keypoint_detector": TINY_SIDE, "generator": generator}
        if options.model == "gdpw":
            arguments = {"resolution": 64, "num_codes": 4, "generator": TINY_MESH}
    arguments |= json.loads(options.arguments)
    return build_model(options.model, **arguments, implementation=implementation, dtype=dtype)


def count_all(options: argparse.Namespace) -> dict[str, Any]:
    """Multiply-adds of one frame by component, and parameters; nothing is run."""
    counts = {}
    for implementation in ("plain", "fast"):
        model = build(options, implementation, "float32")
        paths = paths_of(model)
        variables = shapes_of(model)
        source, driving = jax.eval_shape(functools.partial(make_inputs, model, 1))
        if implementation == "plain":
            motion = paths.official_motion, (variables, source, driving)
            own = jax.eval_shape(paths.own, variables, source)
            generator = paths.official_generator, (variables, source, own)
        else:
            encoding = jax.eval_shape(paths.encode, variables, source)
            motion = paths.served_motion, (variables, encoding, driving)
            generator = paths.served_generator, (variables, encoding)
        found = jax.eval_shape(motion[0], *motion[1])
        counts[implementation] = {
            paths.motion_label: count_operations(motion[0], *motion[1]).total,
            **count_operations(generator[0], *generator[1], found).grouped(paths.components),
        }
        parameters = {name: count_parameters(tree["params"]) for name, tree in variables.items()}
    return {"parameters": parameters, "multiply_adds": counts}


def print_counts(counts: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Prints the tables; returns multiply-adds of generator and network per path."""
    print_table(
        ["network", "parameters"],
        [[name, f"{count:,}"] for name, count in counts["parameters"].items()]
        + [["total", f"{sum(counts['parameters'].values()):,}"]],
    )
    plain, fast = counts["multiply_adds"]["plain"], counts["multiply_adds"]["fast"]
    labels = [label for label in {**plain, **fast} if plain.get(label, 0) or fast.get(label, 0)]
    motion_label = next(iter(plain))
    totals = {
        path: {
            "network": sum(macs.values()),
            "generator": sum(macs.values()) - macs[motion_label],
            PYRAMID: macs.get(PYRAMID, 0),
        }
        for path, macs in counts["multiply_adds"].items()
    }

    def row(label: str, before: int, after: int) -> list[str]:
        saved = f"{(before - after) / GIGA:.3f}"
        return [label, f"{before / GIGA:.3f}", f"{after / GIGA:.3f}", saved]

    print()
    print_table(
        ["GMAC a frame", "plain", "fast", "saved"],
        [row(label, plain.get(label, 0), fast.get(label, 0)) for label in labels]
        + [
            row(f"**{scope}**", totals["plain"][scope], totals["fast"][scope])
            for scope in ("generator", "network")
        ],
    )
    print("(banded 3-D convolutions do more multiply-adds than plain ones, in less time)\n")
    return totals


def make_cases(
    options: argparse.Namespace, implementation: str, dtype: str, batch: int, variables: Any
) -> dict[str, Callable[[], Any]]:
    """The scopes of one path, with inputs on the device."""
    model = build(options, implementation, dtype)
    paths = paths_of(model)
    source, driving = jax.device_put(make_inputs(model, batch))
    # One set of motions for all dtypes, so that errors of the generator are its own.
    exact = paths_of(build(options, implementation, "float32"))
    own = jax.jit(exact.own)(variables, source)
    if implementation == "plain":
        # The official module takes a source for every frame.
        source, own = jax.tree.map(lambda leaf: jnp.repeat(leaf, batch, axis=0), (source, own))
        motion = jax.jit(exact.official_motion)(variables, source, driving)
        generator, network = jax.jit(paths.official_generator), jax.jit(paths.official_network)
        cases = {
            "generator": lambda: generator(variables, source, own, motion),
            "network": lambda: network(variables, source, own, driving),
        }
    else:
        encoding = jax.jit(paths.encode)(variables, source)
        motion = jax.jit(exact.served_motion)(variables, encoding, driving)
        generator, network = jax.jit(paths.served_generator), jax.jit(paths.served_network)
        cases = {
            "generator": lambda: generator(variables, encoding, motion),
            "network": lambda: network(variables, encoding, driving),
        }
    if is_mesh_driven(model):
        pyramid = jax.jit(pyramid_of(model, implementation))
        cases[PYRAMID] = lambda: pyramid(motion)
    return {scope: cases[scope] for scope in options.scopes if scope in cases}


def time_network(
    options: argparse.Namespace, totals: dict[str, dict[str, int]], peaks: dict[str, float]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Generator and network, plain against fast, for every dtype and batch."""
    variables = jax.device_put(make_variables(build(options, "fast", "float32")))
    results = []
    predictions: dict[tuple[str, str, str], np.ndarray] = {}
    for dtype in options.dtype:
        for batch in options.device_batch:
            cases = {
                path: make_cases(options, path, dtype, batch, variables) for path in options.paths
            }
            for scope in cases[options.paths[0]]:
                for path in options.paths if batch == options.device_batch[0] else ():
                    predictions[scope, path, dtype] = _flat(cases[path][scope]())
                timed = {path: cases[path][scope] for path in options.paths}
                timing = interleave(timed, repeats=options.repeats, seconds=options.seconds)
                latency = (
                    interleave(
                        timed, repeats=options.repeats, seconds=options.seconds / 2, wait_each=True
                    )
                    if jax.default_backend() != "cpu"
                    else timing
                )
                entry: dict[str, Any] = {"scope": scope, "dtype": dtype, "batch": batch}
                for path, times in timing.items():
                    flops = 2 * totals[path][scope] * batch
                    entry[path] = times | {
                        "frames_per_s": batch / times["median_s"],
                        "latency_median_s": latency[path]["median_s"],
                        "fraction_of_peak": flops / times["median_s"] / peaks[dtype],
                    }
                if len(timing) == 2:
                    pairs = zip(timing["fast"]["all_s"], timing["plain"]["all_s"], strict=True)
                    entry["fast_over_plain"] = (
                        timing["fast"]["median_s"] / timing["plain"]["median_s"]
                    )
                    entry["fast_over_plain_of_pairs"] = statistics.median(f / p for f, p in pairs)
                results.append(entry)
                print(_timing_line(entry), flush=True)
    return results, compare(predictions)


def _flat(output: Any) -> np.ndarray:
    """What is compared: the prediction, or all levels of a pyramid."""
    leaves = jax.tree.leaves(getattr(output, "prediction", output))
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])


def _timing_line(entry: dict[str, Any]) -> str:
    parts = [f"{entry['scope']:16} {entry['dtype']:8} batch {entry['batch']:3}:"]
    for path in ("plain", "fast"):
        if path in entry:
            times = entry[path]
            parts.append(
                f"{path} {1000 * times['median_s']:.2f} ms "
                f"({times['frames_per_s']:.2f} frames/s, "
                f"{100 * times['fraction_of_peak']:.1f} % of peak)"
            )
    if "fast_over_plain" in entry:
        parts.append(f"ratio {entry['fast_over_plain']:.3f}")
    return " ".join(parts)


def compare(predictions: dict[tuple[str, str, str], np.ndarray]) -> dict[str, Any]:
    """Largest and mean difference of predictions: fast to plain, bfloat16 to float32."""
    errors: dict[str, Any] = {}
    pairs = {
        "fast_to_plain_float32": (("fast", "float32"), ("plain", "float32")),
        "fast_bfloat16_to_float32": (("fast", "bfloat16"), ("fast", "float32")),
        "plain_bfloat16_to_float32": (("plain", "bfloat16"), ("plain", "float32")),
    }
    for scope in dict.fromkeys(scope for scope, *_ in predictions):
        for name, (first, second) in pairs.items():
            if (scope, *first) in predictions and (scope, *second) in predictions:
                exact = predictions[(scope, *second)]
                difference = np.abs(predictions[(scope, *first)] - exact)
                largest, mean = float(difference.max()), float(difference.mean())
                errors[f"{scope}/{name}"] = {
                    "max": largest,
                    "mean": mean,
                    "standard_deviation_of_prediction": float(exact.std()),
                }
                print(f"{scope} {name}: max {largest:.3g}, mean {mean:.3g}")
    return errors


def time_end_to_end(options: argparse.Namespace) -> list[dict[str, Any]] | dict[str, str]:
    """Frames per second of `animate_clip` on a written clip, after one warm-up run."""
    if importlib.util.find_spec("av") is None:
        print("end to end: left out, PyAV is not installed")
        return {"left_out": "PyAV is not installed"}
    from talking_heads_jax.inference.animate import AnimateOptions, animate_clip
    from talking_heads_jax.media.image import write_image
    from talking_heads_jax.media.video import VideoWriter

    if is_mesh_driven(build(options, "fast", "float32")):
        print("end to end: left out, the system is not driven by images")
        return {"left_out": "the system is not driven by images"}
    results = []
    for dtype in options.dtype:
        model = build(options, "fast", dtype)
        variables = make_variables(model)
        side = model.resolution
        for batch in options.device_batch:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                write_image(folder / "source.png", make_frames(1, side, 1)[0])
                count = max(options.clip_frames, 2 * batch)
                for clip, length in (("warm", batch + 1), ("clip", count)):
                    with VideoWriter(folder / f"{clip}.mp4", 25, (side, side)) as writer:
                        for frame in make_frames(length, side, 2):
                            writer.write(frame)
                settings = AnimateOptions(batch_size=batch, best_frame="off")

                def run(
                    clip: str, folder=folder, model=model, settings=settings, variables=variables
                ):
                    start = time.perf_counter()
                    animate_clip(
                        model, variables, folder / "source.png", folder / f"{clip}.mp4",
                        folder / "out.mp4", options=settings, log=lambda text: None,
                    )  # fmt: skip
                    return time.perf_counter() - start

                run("warm")
                seconds = statistics.median(run("clip") for _ in range(options.end_to_end_repeats))
            results.append(
                {"dtype": dtype, "batch": batch, "frames": count, "frames_per_s": count / seconds}
            )
            print(f"end to end {dtype} batch {batch}: {count / seconds:.2f} frames/s", flush=True)
    return results


def main() -> None:
    """Measures what the options ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fnevr")
    parser.add_argument("--arguments", default="{}", help="constructor arguments, json")
    parser.add_argument("--tiny", action="store_true", help="a reduced model, to try the script")
    parser.add_argument("--paths", nargs="+", default=["plain", "fast"], choices=["plain", "fast"])
    scopes = ["generator", "network", PYRAMID]
    parser.add_argument("--scopes", nargs="+", default=scopes, choices=scopes, help="what to time")
    parser.add_argument("--device-batch", nargs="+", type=int, default=[1])
    parser.add_argument(
        "--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"]
    )
    parser.add_argument("--repeats", type=int, default=5, help="interleaved pairs")
    parser.add_argument("--seconds", type=float, default=1.0, help="least time of one measurement")
    parser.add_argument("--peak-size", type=int, help="side of the peak's matrices")
    parser.add_argument("--clip-frames", type=int, default=24, help="end to end; 0 leaves it out")
    parser.add_argument("--end-to-end-repeats", type=int, default=3)
    parser.add_argument("--matmul-precision", help="jax_default_matmul_precision, e.g. highest")
    parser.add_argument("--counts-only", action="store_true", help="run nothing on the device")
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    if options.matmul_precision:
        jax.config.update("jax_default_matmul_precision", options.matmul_precision)

    results = {"run": describe_run(), "model": options.model, "counts": count_all(options)}
    model = build(options, "fast", "float32")
    results["arguments"] = model.arguments()
    if is_mesh_driven(model):
        mesh = {"name": model.mesh.name, "vertices": model.mesh.num_vertices}
        results["mesh"] = mesh | {"faces": len(model.mesh.faces)}
        print("mesh {name}: {vertices} vertices, {faces} triangles".format(**results["mesh"]))
    totals = print_counts(results["counts"])
    if not options.counts_only:
        size = options.peak_size or (1024 if jax.default_backend() == "cpu" else 8192)
        results["peak"] = [measure_peak(dtype, size) for dtype in options.dtype]
        for peak in results["peak"]:
            print(f"peak {peak['dtype']}: {peak['flops_per_s'] / 1e12:.3f} TFLOP/s (side {size})")
        peaks = {peak["dtype"]: peak["flops_per_s"] for peak in results["peak"]}
        results["network_only"], results["errors"] = time_network(options, totals, peaks)
        if options.clip_frames:
            results["end_to_end"] = time_end_to_end(options)
        results["run"]["load_average_at_end"] = describe_run()["load_average"]
    if options.output:
        write_results(options.output, results)


if __name__ == "__main__":
    main()
