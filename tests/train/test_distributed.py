"""Two processes on one machine train one model: the same as one process, and again after a restart.

The real command, `run_train.py`, on a real data set, with state and batch spread over both.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from talking_heads_jax.errors import ConfigError
from talking_heads_jax.train.distributed import join_processes
from talking_heads_jax.train.sample_log import read_sample_log

ROOT = Path(__file__).resolve().parents[2]
RULES = """((".*/(params|ema_params|mu|nu)/.*/kernel", ("...", "model")),)"""
# The shipped debug variant, with the state of wide layers divided along `model`.
CONFIG = f"""
from configs.fomm import vox_256

def get_config(arg=None):
    config = vox_256.get_config("debug").unlock()
    config.data.batch_size = 4
    config.optim.ema.decay = 0.9
    # Adam's first steps are +-lr however small a gradient is: rounding noise around zero would
    # become whole steps. A larger epsilon leaves the update a smooth function of the gradient.
    config.optim.eps = 1e-3
    config.log.images_every = 0
    config.mesh.model = 2
    config.mesh.rules = {RULES}
    return config.lock()
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Eight people of three frames each, 64 px."""
    folder = tmp_path_factory.mktemp("distributed") / "data"
    draw = np.random.default_rng(0)
    clips = []
    for number in range(8):
        coarse = draw.integers(0, 255, (3, 8, 8, 3), np.uint8)
        frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
        clips.append(ClipFrames(f"p{number}", frames, identity_id=f"p{number}"))
    recipe = {"name": "blocks of random colour"}
    write_clips(folder, clips, size=64, recipe=recipe, test_fraction=0.25, progress=False)
    return folder


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start(dataset, workdir, *, processes, devices, steps):
    """Starts the command in so many processes, each with so many devices."""
    workdir.parent.mkdir(exist_ok=True)
    config = workdir.parent / "config.py"
    config.write_text(CONFIG)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "run_train.py", f"--config={config}", f"--workdir={workdir}"]
    command += [f"--config.data.folder={dataset}", f"--config.schedule.duration={steps}.0"]
    if processes > 1:
        command += [f"--coordinator=127.0.0.1:{free_port()}", f"--num-processes={processes}"]
    running = []
    for process in range(processes):
        own = [f"--process-id={process}"] if processes > 1 else []
        running.append(
            subprocess.Popen(
                command + own,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return running


def finish(running, workdir):
    """Waits for all of them to succeed; returns the logged scalars by step."""
    outputs = [process.communicate(timeout=900)[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return logged(workdir)


def logged(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return {row["step"]: row for row in rows}


def assert_same(found, wanted, *, kind, rtol):
    """Compares the logged scalars whose name begins with `kind`."""
    names = [name for name in wanted if name.startswith(kind)]
    assert names
    for name in names:
        np.testing.assert_allclose(found[name], wanted[name], rtol=rtol, atol=1e-5, err_msg=name)


@pytest.mark.integration
def test_two_processes_train_stop_together_and_continue_on_any_number(dataset, tmp_path):
    one, two, moved = (tmp_path / name / "w" for name in ("one", "two", "moved"))
    alone = finish(start(dataset, one, processes=1, devices=4, steps=2), one)
    running = start(dataset, two, processes=2, devices=2, steps=10_000)
    while len(logged(two)) < 2 and all(process.poll() is None for process in running):
        time.sleep(0.2)
    running[1].send_signal(signal.SIGTERM)  # one is asked, both stop, after the same step
    both = finish(running, two)
    # Sums run in another order on another layout of devices: float32 rounding.
    assert_same(both[1], alone[1], kind="loss/", rtol=1e-5)
    assert_same(both[1], alone[1], kind="grad_norm/", rtol=1e-3)
    # Random tiny networks are steep: rounding of the first gradient moves the second step's.
    assert_same(both[2], alone[2], kind="loss/", rtol=1e-3)
    stopped = max(both)
    steps = sorted(int(path.name) for path in (two / "checkpoints").iterdir())
    assert steps[-1] == stopped < 10_000

    moved.parent.mkdir()
    shutil.copytree(two, moved)
    # The newest checkpoint is damaged: both processes take the one before.
    largest = max((two / "checkpoints" / f"{stopped}").rglob("*"), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    on_two = finish(start(dataset, two, processes=2, devices=2, steps=stopped + 2), two)
    on_one = finish(start(dataset, moved, processes=1, devices=4, steps=stopped + 2), moved)
    assert max(on_two) == max(on_one) == stopped + 2
    assert (two / "checkpoints" / f"{stopped}.damaged").is_dir()
    assert_same(on_two[stopped + 1], on_one[stopped + 1], kind="loss/", rtol=1e-5)

    ids = {folder: read_sample_log(folder) for folder in (one, two, moved)}
    assert sorted(ids[two]) == sorted(ids[moved]) == list(range(1, stopped + 3))
    for step, wanted in ids[moved].items():
        np.testing.assert_array_equal(ids[two][step], wanted)
    for step, wanted in ids[one].items():
        np.testing.assert_array_equal(ids[two][step], wanted)
    assert any((ids[two][1] != ids[two][2]).ravel())


@pytest.mark.parametrize(
    "coordinator, options, message",
    [
        (None, {"num_processes": 2}, "--coordinator must be given"),
        ("127.0.0.1:1", {"num_processes": 2}, "--process-id and --num-processes"),
        ("127.0.0.1:1", {"num_processes": 2, "process_id": 2}, "the first below the second"),
    ],
)
def test_join_processes_refuses_arguments_that_do_not_fit(coordinator, options, message):
    with pytest.raises(ConfigError, match=message):
        join_processes(coordinator, **options)


def test_join_processes_leaves_a_single_process_alone():
    join_processes(None)
    join_processes("")
