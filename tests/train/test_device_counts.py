"""A run continues on another number of devices, with the same samples in the same order."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from talking_heads_jax.train.sample_log import read_sample_log

# One process with eight devices: whole on one; 2 steps on one, then two; 2 on eight, then one.
CHILD = """
import sys
from pathlib import Path
import jax, optax
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import adam
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.sharding import make_mesh
from talking_heads_jax.train.trainer import Trainer
from tests.train.toy import ToyHead, ToyLoader, toy_phases

model = ToyHead(width=8)
optimizers = {name: adam(((".*", optax.constant_schedule(1e-3)),)) for name in model.networks}

def train(name, devices, steps, rules=()):
    stage = Stage(name="toy", phases=toy_phases(), optimizers=optimizers, num_steps=steps,
                  batch_size=8, ema=Ema(("generator",)))
    state = Trainer(
        model=model, stage=stage, workdir=Path(sys.argv[1]) / name, config={},
        mesh=make_mesh(devices=jax.devices()[:devices], model=2 if rules else 1),
        loader=ToyLoader(batch_size=8), seed=0, sharding_rules=rules, log_every=1, images_every=0,
        save_every=2, progress=False,
    ).run()
    assert len(state.step.sharding.device_set) == devices

train("whole", 1, 4)
train("grown", 1, 2)
train("grown", 2, 4)
train("shrunk", 8, 2, ((".*/kernel", ("...", "model")),))
train("shrunk", 1, 4)
"""


@pytest.mark.integration
def test_a_run_continues_on_another_number_of_devices(tmp_path, repository):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(repository),
    }
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    result = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    whole, expected = tmp_path / "whole", read_sample_log(tmp_path / "whole")
    assert sorted(expected) == [1, 2, 3, 4]
    for name in ("grown", "shrunk"):
        found = read_sample_log(tmp_path / name)
        assert sorted(found) == [1, 2, 3, 4]
        for step, ids in expected.items():
            np.testing.assert_array_equal(found[step], ids)
        for mine, its in zip(rows(tmp_path / name), rows(whole), strict=True):
            losses = [key for key in its if key.startswith("loss/")]
            assert mine["step"] == its["step"] and len(losses) >= 5
            # Sums over examples in another order: float32 rounding of losses up to about 10.
            np.testing.assert_allclose(
                [mine[key] for key in losses], [its[key] for key in losses], rtol=1e-5, atol=1e-5
            )


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
