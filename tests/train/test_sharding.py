"""Where things lie, and one device against eight."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from talking_heads_jax.errors import ConfigError
from talking_heads_jax.train.sharding import make_mesh, prefetch, shard_batch, state_sharding

MESH = make_mesh(devices=jax.devices()[:1])
STATE = {"a": {"kernel": np.zeros((3, 3, 4, 8)), "bias": np.zeros(8)}, "step": np.zeros(())}


def specs(rules):
    tree = state_sharding(STATE, MESH, rules)
    return jax.tree.map(lambda sharding: sharding.spec, tree)


def test_state_sharding_replicates_what_no_rule_names():
    found = specs([("a/kernel", ("...", "model"))])
    assert found["a"]["kernel"] == PartitionSpec(None, None, None, "model")
    assert found["a"]["bias"] == found["step"] == PartitionSpec()


@pytest.mark.parametrize(
    "rules, message",
    [
        ([("b/.*", ("model",))], "match a leaf"),
        ([("a/kernel", ("...", "pipeline"))], "name mesh axes"),
        ([("a/bias", (None, None, "model"))], "name mesh axes"),
    ],
)
def test_state_sharding_refuses_rules_without_meaning(rules, message):
    with pytest.raises(ConfigError, match=message):
        specs(rules)


def test_make_mesh_refuses_more_devices_than_there_are():
    with pytest.raises(ConfigError, match="fit the 1 devices"):
        make_mesh(data=64, devices=jax.devices()[:1])


def test_prefetch_keeps_order_and_loses_nothing():
    batches = [({"x": np.full((2,), i)}, i) for i in range(5)]
    result = [(int(batch["x"][0]), extra) for batch, extra in prefetch(batches, MESH, depth=3)]
    assert result == [(i, i) for i in range(5)]


def test_shard_batch_keeps_values():
    batch = {"x": np.arange(6).reshape(3, 2)}
    np.testing.assert_array_equal(shard_batch(batch, MESH)["x"], batch["x"])


CHILD = """
import jax, numpy as np, optax
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import adam
from talking_heads_jax.train.rng import run_key
from talking_heads_jax.train.sharding import make_mesh, put_state, shard_batch, state_sharding
from talking_heads_jax.train.state import create_state
from talking_heads_jax.train.step import make_train_step
from talking_heads_jax.errors import ConfigError
from tests.train.toy import ToyHead, toy_batch, toy_phases

model = ToyHead(width=8)
optimizers = {name: adam(((".*", optax.constant_schedule(1e-3)),)) for name in model.networks}
ema = Ema(("generator",))

def train(mesh, rules, accumulation):
    state = create_state(model.init(jax.random.key(0)), optimizers, ema=ema)
    sharding = state_sharding(state, mesh, rules)
    state = put_state(state, sharding)
    step = make_train_step(model.networks, toy_phases(), optimizers, ema=ema, mesh=mesh,
                           state_sharding=sharding, accumulation=accumulation)
    for index in range(2):
        batch = toy_batch(16, seed=index)._replace(record_ids=None)
        state, metrics = step(state, shard_batch(batch, mesh), {}, run_key(0))
    return state, metrics

assert jax.device_count() == 8
for accumulation, mesh, rules in (
    (1, make_mesh(), ()),
    (2, make_mesh(model=2), ((".*/kernel", ("...", "model")),)),
):
    alone = train(make_mesh(devices=jax.devices()[:1]), (), accumulation)
    state, metrics = train(mesh, rules, accumulation)
    shards = state.networks["generator"].params["Conv_0"]["kernel"].addressable_shards
    assert shards[0].data.shape[-1] == (4 if rules else 8)
    for tree, other in ((state, alone[0]), (metrics, alone[1])):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        for (path, a), b in zip(leaves, jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-5, rtol=1e-5,
                                       err_msg=jax.tree_util.keystr(path))
try:
    shard_batch(toy_batch(6)._replace(record_ids=None), make_mesh())
except ConfigError as error:
    assert "divisible" in str(error)
else:
    raise SystemExit("6 examples went onto 8 devices")
print("equal")
"""


FNEVR = """
import jax, numpy as np
from configs.fnevr import vox_256
from talking_heads_jax import build
from talking_heads_jax.train.rng import run_key
from talking_heads_jax.train.restoration import stage_networks
from talking_heads_jax.train.sharding import put_state, shard_batch
from talking_heads_jax.train.state import create_state

def config(data, model, rules):
    config = vox_256.get_config("debug").unlock()
    config.data.batch_size = 8
    config.optim.ema.decay = 0.9
    config.mesh.data, config.mesh.model, config.mesh.rules = data, model, rules
    return config

first = config(1, 1, ())
model = build.build_model(first)
stage = build.build_stage(first, model, num_samples=100)
start = jax.device_get(model.init(jax.random.key(0), stage_networks(model, stage)))
helpers = jax.device_get(build.build_helpers(first, stage.phases)[1])

def train(config):
    mesh = build.build_mesh(config)
    program = build.build_program(config, mesh)
    state = create_state(start, stage.optimizers, ema=stage.ema)
    state = put_state(state, jax.tree.map(lambda x: x.sharding, program.state))
    draw = np.random.default_rng(0)
    batch = jax.tree.map(lambda x: draw.random(x.shape, np.float32), program.batch)
    state, metrics = program.step(state, shard_batch(batch, mesh), helpers, run_key(0))
    kernel = state.networks["generator"].params["decoder"]["blocks_0"]["conv_0"]["kernel"]
    return state, jax.device_get(metrics), kernel.addressable_shards[0].data.shape[-1]

alone = train(first)
assert alone[1]["nonfinite/any"] == 0
for data, model, rules in ((8, 1, ()), (4, 2, ((".*/kernel", ("...", "model")),))):
    state, metrics, width = train(config(data, model, rules))
    assert width * model == alone[2]
    for name, value in alone[1].items():
        # Random networks on noise are steep: rounding moves their gradients a thousand times more
        # than their losses.
        rtol = 1e-2 if name.startswith("grad_norm/") else 1e-5
        np.testing.assert_allclose(metrics[name], value, rtol=rtol, atol=1e-5, err_msg=name)
    for name, network in alone[0].networks.items():
        for kind in ("batch_stats", "spectral"):
            if kind in network.collections:
                jax.tree.map(
                    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                    state.networks[name].collections[kind], network.collections[kind])
assert "batch_stats" in alone[0].networks["generator"].collections
print("equal")
"""


@pytest.mark.integration
@pytest.mark.parametrize("script", [CHILD, FNEVR], ids=["toy", "fnevr"])
def test_eight_devices_equal_one_batch_statistics_included(script):
    """Sums over examples in another order: 1e-5 covers float32 rounding."""
    root = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(root),
    }
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0 and "equal" in result.stdout, result.stderr[-3000:]
