"""Peak memory of `animate` over a short and a long clip: it must not grow with the length.

    python benchmarks/memory.py --output benchmarks/results/memory.json

Each clip is animated by a reduced model in a process of its own, which reports its peak resident
memory; the ratio of the two is printed, and the exit status is 1 when they differ by more than 5 %.
Needs PyAV.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

TOLERANCE = 0.05
SIDE = 64
SMALL = {"block_expansion": 4, "max_features": 16, "num_blocks": 3}
ARGUMENTS = {
    "resolution": SIDE,
    "keypoint_detector": SMALL,
    "generator": {
        "block_expansion": 4,
        "max_features": 16,
        "dense_motion_options": SMALL,
        "volume_options": {"channels": 4, "depth": 4, "hidden_features": 8},
        "spade_options": {"segmentation_features": 8, "block_features": [8, 8, 8, 8]},
    },
}


def write_clip(path: Path, frames: int, side: int) -> None:
    """A clip of drifting waves, frame by frame."""
    from talking_heads_jax.media.video import VideoWriter

    rows, columns = np.mgrid[:side, :side] / side
    with VideoWriter(path, 25, (side, side)) as writer:
        for index in range(frames):
            waves = [np.sin(6.3 * (columns * k + rows) + 0.1 * index * k) for k in (1, 2, 3)]
            writer.write((127 + 90 * np.stack(waves, axis=-1)).astype(np.uint8))


def animate(folder: Path, clip: str, batch_size: int) -> int:
    """Animates a clip in this process; returns its peak resident memory in bytes."""
    import jax

    from talking_heads_jax.inference.animate import AnimateOptions, animate_clip
    from talking_heads_jax.models.registry import build_model

    model = build_model("fnevr", **ARGUMENTS)
    variables = model.init(jax.random.key(0), model.inference_networks)
    result = animate_clip(
        model,
        variables,
        folder / "source.png",
        folder / f"{clip}.mp4",
        folder / f"out_{clip}_{os.getpid()}.mp4",
        options=AnimateOptions(batch_size=batch_size, side_by_side=True, keypoints=True),
        log=lambda text: None,
    )
    print(f"{result.frames} frames", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def run_child(folder: Path, clip: str, batch_size: int) -> int:
    """`animate` in a fresh process."""
    command = [sys.executable, __file__, "--child", clip, "--folder", str(folder)]
    result = subprocess.run(
        [*command, "--batch-size", str(batch_size)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(result.stdout.splitlines()[-1])["peak_bytes"]


def main() -> int:
    """Compares both clips; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", nargs=2, type=int, default=[100, 1000], metavar=("A", "B"))
    parser.add_argument("--size", type=int, default=256, help="side of the clips in pixels")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--output", type=Path, help="json file for the results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(
            json.dumps({"peak_bytes": animate(options.folder, options.child, options.batch_size)})
        )
        return 0

    from talking_heads_jax.media.image import write_image

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_image(folder / "source.png", np.full((SIDE, SIDE, 3), 100, np.uint8))
        for clip, frames in zip(("short", "long"), options.frames, strict=True):
            write_clip(folder / f"{clip}.mp4", frames, options.size)
        # The first run fills the compile cache, if there is one, so that both are alike.
        run_child(folder, "short", options.batch_size)
        peaks = [run_child(folder, clip, options.batch_size) for clip in ("short", "long")]
    ratio = peaks[1] / peaks[0]
    for frames, peak in zip(options.frames, peaks, strict=True):
        print(f"{frames:5} frames: peak {peak / 2**20:.1f} MiB")
    verdict = "yes" if abs(ratio - 1) <= TOLERANCE else "NO"
    print(f"ratio {ratio:.4f} (within {TOLERANCE:.0%}: {verdict})")
    if options.output:
        from benchmarks.measurement import describe_run, write_results

        write_results(
            options.output,
            {
                "run": describe_run(),
                "model": "fnevr",
                "arguments": ARGUMENTS,
                "frames": options.frames,
                "size": options.size,
                "batch_size": options.batch_size,
                "peak_bytes": peaks,
                "ratio": ratio,
            },
        )
    return 0 if abs(ratio - 1) <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
