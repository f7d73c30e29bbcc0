"""How `prepare --track` scales with worker processes: seconds per clip, wall and CPU.

    python benchmarks/prepare_track.py --output benchmarks/results/prepare_track_<machine>.json

The clips are noise with the landmarks of the built-in head, turning; decoding, fitting, cropping
and encoding are those of real clips, finding faces is not part of it. Every run is a process of its
own, as a user's is, with a compile cache that a first run has filled; settings are run in turns.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measurement import ROOT, describe_run, print_table, write_results
from benchmarks.track_stages import turning_landmarks

SIZE = 256


def write_clips(folder: Path, clips: int, frames: int) -> None:
    """Videos of `SIZE` px and their landmark files."""
    from talking_heads_jax.media.video import VideoWriter
    from talking_heads_jax.morphable.registry import load_morphable

    model = load_morphable("procedural")
    for clip in range(clips):
        points = turning_landmarks(model, frames, SIZE, seed=clip)
        np.savez(folder / f"{clip}_landmarks.npz", landmarks68_px=points)
        rng = np.random.default_rng(clip)
        background = rng.integers(0, 255, (SIZE // 8, SIZE // 8, 3), np.uint8)
        picture = np.kron(background, np.ones((8, 8, 1), np.uint8))
        with VideoWriter(folder / f"{clip}.mp4", 25, (SIZE, SIZE)) as writer:
            for index in range(frames):
                writer.write(np.roll(picture, index, axis=1))


def run_once(videos: Path, output: Path, morphable: str, workers: int) -> tuple[float, float]:
    """Wall and CPU seconds of the command, children included."""
    command = [sys.executable, "-m", "talking_heads_jax.cli", "prepare", f"{videos}", "--output"]
    command += [f"{output}", "--track", "--morphable", morphable, "--workers", f"{workers}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def main() -> int:
    """Measures, prints, writes; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--morphable", default="procedural", help="see `talking-heads prepare`")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="json file for the results")
    options = parser.parse_args()
    measured: dict[int, list[tuple[float, float]]] = {count: [] for count in options.workers}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/xla"
        videos = Path(folder, "videos")
        videos.mkdir()
        write_clips(videos, options.clips, options.frames)
        for count in options.workers:  # fills the cache: flags differ between processes
            run_once(videos, Path(folder, f"first{count}"), options.morphable, count)
        for repeat in range(options.repeats):
            order = options.workers if repeat % 2 == 0 else options.workers[::-1]
            for count in order:
                output = Path(folder, f"out{repeat}_{count}")
                measured[count].append(run_once(videos, output, options.morphable, count))
    rows = [
        {
            "workers": count,
            "wall_s_per_clip": statistics.median(wall for wall, _ in runs) / options.clips,
            "cpu_s_per_clip": statistics.median(cpu for _, cpu in runs) / options.clips,
            "all": runs,
        }
        for count, runs in measured.items()
    ]
    print_table(
        ["workers", "s/clip", "CPU s/clip"],
        [
            [f"{row['workers']}", f"{row['wall_s_per_clip']:.2f}", f"{row['cpu_s_per_clip']:.2f}"]
            for row in rows
        ],
    )
    content = {
        **describe_run(),
        "clips": options.clips,
        "frames": options.frames,
        "morphable": options.morphable,
        "rows": rows,
    }
    write_results(options.output, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
