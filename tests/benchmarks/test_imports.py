"""The scripts for accelerators start where nothing but jax and its relatives is installed."""

import os
import subprocess
import sys

# What the package needs for data, media and command line.
ABSENT = (
    *("PIL", "array_record", "av", "clu", "grain", "lz4", "ml_collections", "safetensors"),
    *("skimage", "tensorflow_datasets", "tensorboardX", "tqdm"),
)
START = """
import sys
sys.modules.update(dict.fromkeys({absent}))  # an import of any of these fails
import benchmarks.inference, benchmarks.rasterizer, benchmarks.train_step
sys.argv = ["inference.py", "--model", "gdpw", "--tiny", "--counts-only"]
sys.argv += ["--arguments", '{{"morphable": "procedural"}}']
benchmarks.inference.main()
"""


def test_scripts_for_accelerators_need_few_packages(repository):
    run = subprocess.run(
        [sys.executable, "-c", START.format(absent=ABSENT)],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository), "TALKING_HEADS_TYPECHECK": "0"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "mesh procedural: 11763 vertices, 22016 triangles" in run.stdout
