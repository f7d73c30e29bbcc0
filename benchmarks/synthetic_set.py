"""Speed of the synthetic set: frames/s in bulk and one by one, by size, and what an identity costs.

    python benchmarks/synthetic_set.py --output benchmarks/results/synthetic_set_<machine>.json

Warm: identities are drawn and programs compiled before the clock starts. `bulk` is `render_many`
with a thread per core; processor seconds per frame tell what a busy machine hides. `--morphable
FILE.npz` measures another model than the built-in head.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import describe_run, print_table, write_results


def measure(heads: Any, *, identities: int, frames: int, repeats: int) -> dict[str, Any]:
    """Times of frames of clips that take turns among some identities.

    Args:
      heads: the set.
      identities: how many people.
      frames: how many frames a repeat draws.
      repeats: how many repeats.
    """
    start = time.perf_counter()
    start_cpu = time.process_time()
    for number in range(identities):
        heads.identity(number)
    identity_s = (time.perf_counter() - start) / identities
    identity_cpu_s = (time.process_time() - start_cpu) / identities
    clips = [heads.clip(number, 0, -(-frames // identities)) for number in range(identities)]
    items = [
        (number, state)
        for states in zip(*clips, strict=True)
        for number, state in enumerate(states)
    ][:frames]
    start = time.perf_counter()
    heads.render_many(items[: 2 * heads.num_threads])
    first_s = time.perf_counter() - start
    rows: dict[str, Any] = {
        "size": heads.size,
        "frames": len(items),
        "threads": heads.num_threads,
        "seconds_per_identity": identity_s,
        "processor_seconds_per_identity": identity_cpu_s,
        "first_frames_s": first_s,
    }
    runs = {
        "bulk": lambda: heads.render_many(items),
        "single": lambda: [heads.render(*item) for item in items],
    }
    for name, run in runs.items():
        walls, processors = [], []
        for _ in range(repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            run()
            walls.append((time.perf_counter() - start) / len(items))
            processors.append((time.process_time() - start_cpu) / len(items))
        rows[name] = {
            "frames_per_s_median": 1 / statistics.median(walls),
            "frames_per_s_best": 1 / min(walls),
            "processor_ms_per_frame_median": 1e3 * statistics.median(processors),
            "processor_ms_per_frame_min": 1e3 * min(processors),
            "all_s": walls,
        }
    return rows


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--frames", type=int, default=64, help="per repeat")
    parser.add_argument("--identities", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: one per core")
    parser.add_argument("--fields", nargs="+", default=[], help="besides RGB and mask")
    parser.add_argument("--morphable", default="procedural", help="a name, or a clean npz")
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    from data_pipeline.synthetic.talking_heads import SyntheticTalkingHeads
    from talking_heads_jax.morphable.registry import model_from_file

    morphable = options.morphable
    if morphable.endswith(".npz"):
        morphable = model_from_file("ict", Path(morphable))
    results = []
    for size in options.sizes:
        heads = SyntheticTalkingHeads(
            size=size, morphable=morphable, fields=options.fields, num_threads=options.threads
        )
        results.append(
            measure(
                heads,
                identities=options.identities,
                frames=options.frames,
                repeats=options.repeats,
            )
        )
    print_table(
        ["size", "frames/s bulk", "best", "one by one", "processor ms/frame", "s/identity"],
        [
            [
                f"{row['size']}",
                f"{row['bulk']['frames_per_s_median']:.1f}",
                f"{row['bulk']['frames_per_s_best']:.1f}",
                f"{row['single']['frames_per_s_median']:.1f}",
                f"{row['bulk']['processor_ms_per_frame_min']:.1f}",
                f"{row['seconds_per_identity']:.2f}",
            ]
            for row in results
        ],
    )
    if options.output:
        model = heads.model
        write_results(
            options.output,
            {
                "run": describe_run(),
                "morphable": model.name,
                "vertices": model.num_vertices,
                "triangles": len(model.faces),
                "fields": ["image", "mask", *options.fields],
                "sizes": results,
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
