"""The step against a second, hand-written one, and the promises of its docstring."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from talking_heads_jax.errors import ConfigError
from talking_heads_jax.models.base import Networks, ObjectiveResult, Phase, StepContext
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import adam
from talking_heads_jax.train.rng import run_key, stream
from talking_heads_jax.train.state import create_state, network_variables
from talking_heads_jax.train.step import make_train_step
from tests.train.toy import ToyHead, generator_objective, toy_batch, toy_phases

MODEL = ToyHead()
KEY = run_key(3)
RATE = 1e-2


def optimizers(**options):
    rules = ((".*", optax.constant_schedule(RATE)),)
    return {name: adam(rules, **options) for name in MODEL.networks}


def fresh_state(optimizer=None, ema=None):
    return create_state(MODEL.init(jax.random.key(0)), optimizer or optimizers(), ema=ema)


def build(**options):
    phases = options.pop("phases", toy_phases())
    return make_train_step(
        MODEL.networks, phases, options.pop("optimizer", optimizers()), **options
    )


def batch(**options):
    return toy_batch(**options)._replace(record_ids=None)


def assert_trees_close(ours, theirs, **tolerance):
    paths = jax.tree_util.tree_leaves_with_path(ours)
    for (path, a), b in zip(paths, jax.tree.leaves(theirs), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), err_msg=name, **tolerance)


def reference_step(state, pair, optimizer):
    """Two phases written out by hand: gradients, updates and the order of things."""
    params = {name: network.params for name, network in state.networks.items()}
    collections = {name: network.collections for name, network in state.networks.items()}
    new_params, opt_states = dict(params), {}
    carry = {}
    for phase in toy_phases():
        name = phase.trains[0]

        def loss(trained, phase=phase, name=name, collections=collections, carry=carry):
            networks = Networks(MODEL.networks, {**params, name: trained}, collections)
            key = stream(KEY, phase.name, state.step, 0)
            result = phase.objective(networks, pair, StepContext(key, {}, carry, state.step))
            total = sum(jnp.mean(x) for x in result.losses.values())
            return total, (networks.collections, result.carry)

        gradient, (collections, new_carry) = jax.grad(loss, has_aux=True)(params[name])
        carry = {**carry, **new_carry}
        new_params[name], opt_states[name] = optimizer[name].update(
            gradient, state.networks[name].opt_state, params[name], state.step
        )
    return new_params, collections, opt_states


def test_step_equals_the_phases_written_out_by_hand():
    pair, optimizer = batch(), optimizers()
    state = fresh_state(optimizer)
    params, collections, opt_states = reference_step(state, pair, optimizer)
    new, metrics = build(donate=False)(state, pair, {}, KEY)
    # Same float32 arithmetic, fused differently; Adam's first step divides g by |g|, so that
    # entries with tiny gradients amplify the last bit.
    for name, network in new.networks.items():
        assert_trees_close(network.params, params[name], atol=2e-5)
        assert_trees_close(network.collections, collections[name], rtol=1e-5, atol=1e-6)
        assert_trees_close(network.opt_state, opt_states[name], rtol=1e-4, atol=1e-6)
    assert int(new.step) == 1 and float(metrics["nonfinite/any"]) == 0
    terms = metrics["loss/generator/pixel"] + metrics["loss/generator/gan"]
    assert metrics["loss/generator/total"] == pytest.approx(float(terms), rel=1e-6)


def test_discriminator_sees_the_prediction_made_before_the_generator_update():
    state = fresh_state()
    step = build(donate=False, with_gradients=True)
    _, _, details = step(state, batch(), {}, KEY)
    generator = state.networks["generator"]
    networks = Networks(
        MODEL.networks,
        {name: network.params for name, network in state.networks.items()},
        {name: network.collections for name, network in state.networks.items()},
    )
    key = stream(KEY, "generator", state.step, 0)
    stale = generator_objective(networks, batch(), StepContext(key, {}, {}, state.step))
    np.testing.assert_allclose(
        details.carry["prediction"], stale.carry["prediction"], rtol=1e-5, atol=1e-6
    )
    assert set(details.gradients["generator"]) == {"generator"}
    assert jax.tree.structure(details.gradients["generator"]["generator"]) == jax.tree.structure(
        generator.params
    )


def test_collections_advance_once_per_training_call():
    """Two calls of the discriminator per phase: its vectors move four times in a step."""
    counts = {"spectral": {"n": jnp.zeros(())}}

    class Counter(nn.Module):
        def setup(self):
            self.scale = self.param("scale", lambda _: jnp.ones(()))
            self.n = self.variable("spectral", "n", lambda: jnp.zeros(()))

        def __call__(self, x, *, train):
            if train:
                self.n.value = self.n.value + 1
            return self.scale * x

    def objective(networks, pair, context):
        x = jnp.mean(pair.source.image, axis=(1, 2, 3))
        networks("net", x, train=False)
        return ObjectiveResult(
            {"a": networks("net", networks("net", x, train=True), train=True)}, {}
        )

    phases = (Phase("one", ("net",), objective), Phase("two", ("net",), objective))
    optimizer = {"net": optimizers()["generator"]}
    state = create_state({"net": {"params": {"scale": jnp.ones(())}, **counts}}, optimizer)
    step = make_train_step({"net": Counter()}, phases, optimizer, accumulation=2)
    state, _ = step(state, batch(), {}, KEY)
    assert float(state.networks["net"].collections["spectral"]["n"]) == 2 * 2 * 2


def test_weight_zero_examples_change_neither_losses_nor_gradients():
    """Only terms that see examples one by one: batch statistics mix them by design."""

    def objective(networks, pair, context):
        logits = networks("discriminator", pair.driving.image, train=False)
        return ObjectiveResult({"a": jnp.mean(logits**2, axis=(1, 2, 3))}, {})

    phases = (Phase("only", ("discriminator",), objective),)
    step = build(phases=phases, with_gradients=True, donate=False)
    real = batch(batch_size=3)
    padded = jax.tree.map(lambda x: np.concatenate([x, 7 * x[:1]]), real)
    padded = padded._replace(weight=np.array([1, 1, 1, 0], np.float32))
    accumulated = build(phases=phases, with_gradients=True, donate=False, accumulation=2)
    _, expected, expected_details = step(fresh_state(), real, {}, KEY)
    for function in (step, accumulated):
        _, metrics, details = function(fresh_state(), padded, {}, KEY)
        assert metrics["loss/only/a"] == pytest.approx(float(expected["loss/only/a"]), rel=1e-5)
        assert_trees_close(details.gradients, expected_details.gradients, rtol=1e-4, atol=1e-6)


def test_accumulation_equals_one_batch_where_statistics_are_frozen():
    def objective(networks, pair, context):
        prediction = networks("generator", pair.source.image, pair.driving.image, train=False)
        error = jnp.mean((prediction - pair.driving.image) ** 2, axis=(1, 2, 3))
        return ObjectiveResult({"a": error}, {"prediction": prediction})

    def second(networks, pair, context):
        logits = networks("discriminator", context.carry["prediction"], train=False)
        error = jnp.mean(jnp.abs(context.carry["prediction"] - pair.driving.image), axis=(1, 2, 3))
        return ObjectiveResult({"b": error * jnp.mean(logits, axis=(1, 2, 3))}, {})

    phases = (Phase("p", ("generator",), objective), Phase("q", ("discriminator",), second))
    results = [
        build(phases=phases, donate=False, with_gradients=True, accumulation=n)(
            fresh_state(), batch(), {}, KEY
        )
        for n in (1, 2, 4)
    ]
    for _, metrics, details in results[1:]:
        # Sums in another order: float32 rounding only.
        assert_trees_close(details.gradients, results[0][2].gradients, rtol=1e-4, atol=1e-6)
        for name in ("loss/p/a", "loss/q/b"):
            assert metrics[name] == pytest.approx(float(results[0][1][name]), rel=1e-5)
    stacked = np.asarray(results[1][2].carry["prediction"])  # (microbatch, example, ...)
    whole = np.asarray(results[0][2].carry["prediction"])
    np.testing.assert_allclose(stacked[1], whole[1::2], rtol=1e-5)


def test_accumulation_threads_batch_statistics_through_microbatches():
    state, _ = build(accumulation=2)(fresh_state(), batch(), {}, KEY)
    mean = np.asarray(state.networks["generator"].collections["batch_stats"]["norm"]["mean"])
    params = MODEL.init(jax.random.key(0))["generator"]["params"]
    expected = np.zeros(4)
    for index in range(2):
        pair = jax.tree.map(lambda x, index=index: x[index::2], batch())
        noise = 0.05 * jax.random.normal(
            stream(KEY, "generator", 0, index), pair.source.image.shape
        )
        x = jnp.concatenate([pair.source.image + noise, pair.driving.image], axis=-1)
        x = jax.lax.conv_general_dilated(
            x,
            params["Conv_0"]["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        expected = 0.9 * expected + 0.1 * np.mean(x, axis=(0, 1, 2))
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)


def test_interval_runs_a_phase_at_its_multiples_only():
    def objective(networks, pair, context):
        logits = networks("discriminator", pair.driving.image, train=True)
        return ObjectiveResult({"penalty": jnp.mean(logits**2, axis=(1, 2, 3))}, {"x": logits})

    lazy = Phase("lazy", ("discriminator",), objective, interval=3)
    step = build(phases=(lazy,), donate=False)
    state, active, moved = fresh_state(), [], []
    for _ in range(5):
        new, metrics = step(state, batch(), {}, KEY)
        active.append(float(metrics["active/lazy"]))
        moved.append(
            any(
                bool(jnp.any(a != b))
                for a, b in zip(
                    jax.tree.leaves(new.networks["discriminator"].params),
                    jax.tree.leaves(state.networks["discriminator"].params),
                    strict=True,
                )
            )
        )
        state = new
    assert active == [1, 0, 0, 1, 0]
    assert moved == [True, False, False, True, False]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nonfinite_leaves_the_state_untouched_names_the_term_and_halts(where):
    def objective(networks, pair, context):
        prediction = networks("generator", pair.source.image, pair.driving.image, train=True)
        values = jnp.mean(prediction, axis=(1, 2, 3))
        bad = context.step == 1
        if where == "loss":
            broken = jnp.where(bad, jnp.nan, values)
        else:  # finite value, infinite slope
            broken = values + jnp.sqrt(jnp.where(bad, 0.0 * values, values))
        return ObjectiveResult({"good": values, "broken": broken}, {})

    phases = (toy_phases()[0], Phase("probe", ("generator",), objective))
    step = build(phases=phases, ema=Ema(("generator",)), donate=False)
    state = fresh_state(ema=Ema(("generator",)))
    state, metrics = step(state, batch(), {}, KEY)
    assert float(metrics["nonfinite/any"]) == 0
    halted, metrics = step(state, batch(seed=1), {}, KEY)
    assert float(metrics["nonfinite/any"]) == 1
    named = [name for name, x in metrics.items() if name.startswith("nonfinite/probe") and x]
    term = "nonfinite/probe/broken" if where == "loss" else "nonfinite/probe/grad_norm/generator"
    assert term in named and "nonfinite/probe/good" not in named
    assert bool(halted.halted)
    assert_trees_close(halted.networks, state.networks, rtol=0)
    later, _ = step(halted, batch(seed=2), {}, KEY)
    assert int(later.step) == 1
    assert_trees_close(later.networks, state.networks, rtol=0)


def test_ema_follows_its_recursion_and_serves_inference():
    ema = Ema(("generator",), decay=0.9, warmup=False)
    state = fresh_state(ema=ema)
    assert state.networks["discriminator"].ema_params is None
    expected = jax.tree.map(np.asarray, state.networks["generator"].params)
    step = build(ema=ema)
    for seed in range(3):
        state, _ = step(state, batch(seed=seed), {}, KEY)
        params = jax.tree.map(np.asarray, state.networks["generator"].params)
        expected = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, expected, params)
    assert_trees_close(state.networks["generator"].ema_params, expected, rtol=1e-5, atol=1e-7)
    used = network_variables(state)
    assert used["generator"]["params"] is state.networks["generator"].ema_params
    assert used["discriminator"]["params"] is state.networks["discriminator"].params
    assert set(used["generator"]) == {"params", "batch_stats"}


def test_helpers_receive_their_parameters_and_no_gradient():
    def features(params, images):
        return images * params["scale"]

    step = build(phases=toy_phases(["features"]), helpers={"features": features}, donate=False)
    losses = [
        float(step(fresh_state(), batch(), {"features": {"scale": scale}}, KEY)[1][name])
        for scale in (1.0, 2.0)
        for name in ["loss/generator/features"]
    ]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"helpers": {}}, "features"),
        ({"optimizer": {"generator": None}}, "discriminator"),
        ({"phases": ()}, "at least one"),
        ({"phases": (Phase("p", ("pose_editor",), None),)}, "pose_editor"),
        ({"accumulation": 0}, "accumulation"),
    ],
)
def test_make_train_step_refuses_what_cannot_run(change, message):
    options = {"phases": toy_phases(["features"]), "helpers": {"features": None}, **change}
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_step_refuses_a_batch_that_does_not_split():
    with pytest.raises(ConfigError, match="divisible"):
        build(accumulation=3)(fresh_state(), batch(), {}, KEY)
