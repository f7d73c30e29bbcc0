"""Speed of the input pipeline: pairs/s by threads and worker processes, and what that can feed.

    python benchmarks/input_pipeline.py --data DATA --output benchmarks/results/input_<machine>.json

Batches are read, decoded, paired and augmented as in training and then dropped. The settings are
run in turns. `--consumes P` says how many pairs/s one device trains on (`benchmarks/train_step.py`
measures it: `pairs_per_s_and_device`); the table then says how many devices this host feeds.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import describe_run, load_config, print_table, write_results


def pairs_per_second(
    data: dict[str, Any], batch_size: int, seconds: float, *, threads: int, workers: int
) -> float:
    """Pairs a second after the first two batches, over at least `seconds`."""
    from data_pipeline.loaders import make_train_loader

    options = {**data, "num_threads": threads, "num_workers": workers}
    with make_train_loader(options, batch_size=batch_size, seed=0) as loader:
        batches = loader.iterate(0)
        for _ in range(2):  # threads and processes start, files are opened
            next(batches)
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(batches)
            count += batch_size
        elapsed = time.perf_counter() - start
    return count / elapsed


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder that `talking-heads prepare` wrote")
    parser.add_argument("--config", default="configs/fnevr/vox_256.py", help="its section `data`")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=JSON", help="change the config"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 16])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="at least, per repeat")
    parser.add_argument("--consumes", type=float, help="pairs/s that one device trains on")
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    config = load_config(options.config, options.set)
    data = {**config["data"], "folder": options.data}
    batch_size = data["batch_size"]
    settings = [(threads, workers) for workers in options.workers for threads in options.threads]
    rates: dict[tuple[int, int], list[float]] = {setting: [] for setting in settings}
    for repeat in range(options.repeats):
        for threads, workers in settings if repeat % 2 == 0 else settings[::-1]:
            rate = pairs_per_second(
                data, batch_size, options.seconds, threads=threads, workers=workers
            )
            rates[threads, workers].append(rate)
    rows = [
        {
            "threads": threads,
            "workers": workers,
            "pairs_per_s": statistics.median(rates[threads, workers]),
            "all": rates[threads, workers],
        }
        for threads, workers in settings
    ]
    best = max(rows, key=lambda row: row["pairs_per_s"])
    print_table(
        ["workers", "threads", "pairs/s"],
        [[str(r["workers"]), str(r["threads"]), f"{r['pairs_per_s']:.1f}"] for r in rows],
    )
    devices = None
    if options.consumes:
        devices = best["pairs_per_s"] / options.consumes
        print(f"feeds {devices:.1f} devices that train on {options.consumes:g} pairs/s each")
    if options.output:
        table = json.loads((Path(options.data) / "clips.json").read_text(encoding="utf-8"))
        write_results(
            options.output,
            {
                "run": describe_run(),
                "config": options.config,
                "set": options.set,
                "resolution": data["resolution"],
                "stored_size": table.get("size"),
                "batch_size": batch_size,
                "settings": rows,
                "best": best,
                "consumes_pairs_per_s_and_device": options.consumes,
                "feeds_devices": devices,
            },
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
