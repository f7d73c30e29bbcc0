"""Speed of the rasteriser: heads of the sizes of FLAME, ICT-FaceKit and BFM, by implementation.

    python benchmarks/rasterizer.py --output benchmarks/results/rasterizer_<machine>.json
    JAX_PLATFORMS=cpu python benchmarks/rasterizer.py --compile-for v5e:2x2 --output FILE

The meshes are ellipsoids of as many triangles as these models have, as large in the frame as a
portrait's head, turned a little; `--ict FILE` adds the real ICT-FaceKit mesh of a converted
`ict_face.npz`. Nothing is culled, so that front and back are drawn. A call gives face numbers,
barycentrics and depth. Times are of calls in turns; the processor time counts all threads.

With `--compile-for` nothing is run: the program that a TPU of that topology gets is compiled ahead
of time (needs libtpu), its size reported, and with `--chips N`, which share the batch as training
does, what they tell each other meanwhile. Needs only jax, jaxtyping and numpy.
"""

import argparse
import functools
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measurement import describe_run, interleave, print_table, write_results
from benchmarks.tpu_compile import collectives
from talking_heads_jax.ops import rasterizer
from talking_heads_jax.ops.platform import compiling_for

MODELS = {"FLAME": 9976, "ICT-FaceKit": 48836, "BFM": 70789}  # triangles
HALF_AXES = (0.55, 0.75, 0.65)  # of the image's half side: a head of 75 % of the frame
YAW = 0.3


def make_head(num_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid: positions (v 3) as `rasterize` takes them, and about `num_faces` faces.

    Args:
      num_faces: of the model that it stands for.
    """
    rows = round(math.sqrt(num_faces / 4)) + 1
    columns = round(num_faces / (2 * rows - 2))
    polar = np.linspace(0, np.pi, rows + 1)[:, None]
    around = np.arange(columns) * 2 * np.pi / columns
    points = np.broadcast_arrays(
        np.sin(polar) * np.cos(around), -np.cos(polar), np.sin(polar) * np.sin(around)
    )
    positions = (np.stack(points, axis=-1) * HALF_AXES).reshape(-1, 3)
    a = (np.arange(rows)[:, None] * columns + np.arange(columns)).reshape(-1)
    b = (np.arange(rows)[:, None] * columns + (np.arange(columns) + 1) % columns).reshape(-1)
    upper, lower = [a, b, b + columns], [a, b + columns, a + columns]
    # The first and the last ring of squares are triangles: their corners at the pole coincide.
    faces = [np.stack(upper, axis=1)[columns:], np.stack(lower, axis=1)[:-columns]]
    return turn(positions), np.concatenate(faces).astype(np.int32)


def load_ict(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The neutral head of a converted ICT-FaceKit file, fitted to the frame.

    Args:
      path: ict_face.npz.
    """
    with np.load(path, allow_pickle=False) as arrays:
        positions, faces = arrays["v_template"].astype(np.float64), arrays["faces"]
    positions -= (positions.min(axis=0) + positions.max(axis=0)) / 2
    positions *= HALF_AXES[1] / np.abs(positions[:, 1]).max()
    return turn(positions * [1, -1, -1]), faces.astype(np.int32)


def turn(positions: np.ndarray) -> np.ndarray:
    """Positions turned about the vertical axis by `YAW`.

    Args:
      positions: (v 3).
    """
    cosine, sine = math.cos(YAW), math.sin(YAW)
    rotation = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    return (positions @ rotation.T).astype(np.float32)


def time_meshes(
    meshes: dict[str, tuple[np.ndarray, np.ndarray]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One entry per mesh, batch and implementation.

    Args:
      meshes: name -> positions, faces.
      options: of the command line.
    """
    cases, entries = {}, []
    for name, (positions, faces) in meshes.items():
        for batch in options.batch:
            # Slightly different meshes, as the frames of a clip are.
            scale = 1 - 0.1 * np.arange(batch, dtype=np.float32) / max(batch, 1)
            points = jnp.asarray(positions * scale[:, None, None])
            for implementation in options.implementation:
                program = jax.jit(
                    functools.partial(
                        rasterizer.rasterize,
                        faces=jnp.asarray(faces),
                        height=options.size,
                        width=options.size,
                        implementation=implementation,
                    )
                )
                start = time.perf_counter()
                compiled = program.lower(points).compile()
                compile_s = time.perf_counter() - start
                fragments = rasterizer.require_complete(compiled(points))
                key = f"{name}, batch {batch}, {implementation}"
                cases[key] = functools.partial(compiled, points)
                entries.append(
                    {
                        "case": key,
                        "mesh": name,
                        "vertices": len(positions),
                        "faces": len(faces),
                        "batch": batch,
                        "implementation": implementation,
                        "foreground": float((np.asarray(fragments.face_id) >= 0).mean()),
                        "compile_s": compile_s,
                    }
                )
    timings = interleave(cases, repeats=options.repeats, seconds=options.seconds, wait_each=True)
    return [entry | timings[entry["case"]] for entry in entries]


def compile_for_tpu(
    meshes: dict[str, tuple[np.ndarray, np.ndarray]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Compiles the program that a TPU chooses by itself, the batch split over the chips.

    Args:
      meshes: name -> positions, faces.
      options: of the command line.
    """
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no metadata server to ask
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # no chip is opened
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=options.compile_for
    ).devices
    mesh = jax.sharding.Mesh(np.array(devices[: options.chips]), ("data",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    entries = []
    for name, (positions, faces) in meshes.items():
        for batch in options.batch:

            def draw(points: jax.Array, faces: np.ndarray = faces) -> rasterizer.Fragments:
                return rasterizer.rasterize(points, faces, height=options.size, width=options.size)

            if batch % options.chips:
                raise SystemExit(f"error: {options.chips} chips must divide batch {batch}")
            shape = jax.ShapeDtypeStruct((batch, *positions.shape), jnp.float32)
            start = time.perf_counter()
            with compiling_for("tpu"):
                program = jax.jit(draw, in_shardings=split, out_shardings=split)
                compiled = program.lower(shape).compile()
            memory = compiled.memory_analysis()
            entries.append(
                {
                    "case": f"{name}, batch {batch}",
                    "faces": len(faces),
                    "batch": batch,
                    "device": devices[0].device_kind,
                    "chips": options.chips,
                    "collectives": collectives(compiled.as_text()),
                    "compile_s": time.perf_counter() - start,
                    "temporary_bytes": memory.temp_size_in_bytes,
                    "code_bytes": memory.generated_code_size_in_bytes,
                }
            )
    return entries


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="side of the image in pixels")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="meshes a call")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument(
        "--implementation", nargs="+", default=["scatter", "tiles"], choices=["scatter", "tiles"]
    )
    parser.add_argument("--ict", type=Path, help="ict_face.npz: draw that mesh too")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--seconds", type=float, default=0.3, help="at least, a case and turn")
    parser.add_argument("--compile-for", metavar="TOPOLOGY", help="such as v5e:2x2; runs nothing")
    parser.add_argument("--chips", type=int, default=1, help="that share the batch (1)")
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()

    meshes = {name: make_head(MODELS[name]) for name in options.models}
    if options.ict:
        meshes["ICT-FaceKit file"] = load_ict(options.ict)
    if options.compile_for:
        entries = compile_for_tpu(meshes, options)
        header = ["mesh", "triangles", "compile s", "temporary MiB", "code MiB", "collectives"]
        columns = ("temporary_bytes", "code_bytes")
        rows = [
            [entry["case"], str(entry["faces"]), f"{entry['compile_s']:.1f}"]
            + [f"{entry[column] / 2**20:.1f}" for column in columns]
            + [str(sum(kind["count"] for kind in entry["collectives"].values()))]
            for entry in entries
        ]
    else:
        entries = time_meshes(meshes, options)
        header = ["mesh", "triangles", "min ms", "median ms", "processor ms", "compile s"]
        columns = ("min_s", "median_s", "processor_median_s")
        rows = [
            [entry["case"], str(entry["faces"])]
            + [f"{1e3 * entry[column]:.2f}" for column in columns]
            + [f"{entry['compile_s']:.2f}"]
            for entry in entries
        ]
    print_table(header, rows)
    if options.output:
        run = describe_run(devices_used=0 if options.compile_for else 1)
        results = {"run": run, "size": options.size, "compiled_for": options.compile_for}
        write_results(options.output, results | {"entries": entries})
    return 0


if __name__ == "__main__":
    sys.exit(main())
