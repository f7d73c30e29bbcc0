"""One training step: all phases of a recipe in order, as one jitted, donated function over a mesh.

A phase takes the gradient of its summed mean losses with respect to the networks it trains, and
applies it, before the next phase starts. What a later phase sees of an earlier one is its `carry`,
made with the parameters from before that update: a discriminator phase that reads the prediction
from the carry trains on the same images the generator was judged by. Mutable collections thread
through all calls of all phases.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from talking_heads_jax.batch import FramePair
from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.losses.combine import total_loss
from talking_heads_jax.models.base import Networks, Phase, StepContext
from talking_heads_jax.train.ema import Ema, ema_decay, update_ema
from talking_heads_jax.train.optimizers import Optimizer
from talking_heads_jax.train.phases import check_phases
from talking_heads_jax.train.rng import stream
from talking_heads_jax.train.state import NetworkState, TrainState
from talking_heads_jax.typing import Array, PyTree

HelperFn = Callable[[PyTree, Array], Any]
Metrics = dict[str, Array]


class StepDetails(NamedTuple):
    """What `make_train_step(..., with_gradients=True)` returns besides state and metrics.

    Attributes:
      gradients: phase name -> network name -> gradient of the phase's total loss.
      carry: what the phases handed on, e.g. the prediction; microbatches are stacked in front when
        gradients are accumulated.
    """

    gradients: dict[str, dict[str, PyTree]]
    carry: dict[str, PyTree]


class _PhaseGradient(NamedTuple):
    """Sum over microbatches of one phase: all shares add up to one."""

    gradients: dict[str, PyTree]
    losses: dict[str, Array]
    total: Array
    finite: dict[str, Array]


class _PhaseResult(NamedTuple):
    """What one phase leaves behind."""

    params: dict[str, PyTree]
    opt_states: dict[str, PyTree]
    collections: dict[str, dict[str, PyTree]]
    metrics: Metrics
    gradients: dict[str, PyTree]


def make_train_step(
    modules: Mapping[str, nn.Module],
    phases: Sequence[Phase],
    optimizers: Mapping[str, Optimizer],
    *,
    ema: Ema | None = None,
    helpers: Mapping[str, HelperFn] | None = None,
    accumulation: int = 1,
    with_gradients: bool = False,
    donate: bool = True,
    mesh: Mesh | None = None,
    state_sharding: PyTree | None = None,
) -> Callable[..., tuple]:
    """Builds `step(state, batch, helper_params, key) -> (state, metrics)`.

    `key` is the run's key, the same at every step: the step folds its own number in. `metrics` is a
    flat dict of scalars: `loss/<phase>/<term>` and `loss/<phase>/total`,
    `grad_norm/<phase>/<network>`, `nonfinite/<phase>/<term or grad_norm/network>` (1 where a value
    was not finite), `nonfinite/any`, `learning_rate/<network>`, and `active/<phase>` (0 when an
    interval skipped it). If anything is not finite, the returned state is the given one with
    `halted` set, and further steps change nothing.

    Args:
      modules: network name -> linen module.
      phases: in the order in which they run within the step.
      optimizers: network name -> optimiser, for every network that a phase trains.
      ema: which networks are averaged; must be what the state was created with.
      helpers: frozen helper networks by name, `(params, images) -> anything`; `helper_params` given
        to the step holds their parameters under the same names.
      accumulation: number of microbatches the batch is split into; each phase runs over all of
        them before it updates its networks. Batch statistics are those of the microbatches.
      with_gradients: also return `StepDetails`.
      donate: reuse the memory of the state given to the step, which becomes unusable.
      mesh: the devices; the batch's first axis lies on its axis `data`.
      state_sharding: shardings of the state on that mesh; None replicates it.

    Returns:
      The jitted step; it can be lowered with shapes only.

    Raises:
      ConfigError: if a phase trains a network without an optimiser, or asks for a helper that is
        not given.
    """
    helpers = dict(helpers or {})
    check_phases(phases, modules, optimizers, helpers)
    if accumulation < 1:
        raise ConfigError(
            requirement("accumulation", "be at least 1", accumulation, "1 means no accumulation.")
        )
    microbatch_sharding = None
    if mesh is not None and accumulation > 1:
        microbatch_sharding = NamedSharding(mesh, PartitionSpec(None, "data"))

    def step(
        state: TrainState, batch: FramePair, helper_params: Mapping[str, PyTree], key: Array
    ) -> tuple:
        bound = {name: functools.partial(helpers[name], helper_params[name]) for name in helpers}
        microbatches = _split(batch, accumulation, microbatch_sharding)
        shares = _shares(microbatches.weight, accumulation)
        collections = {name: network.collections for name, network in state.networks.items()}
        networks = dict(state.networks)
        carry: dict[str, PyTree] = {}
        metrics: Metrics = {}
        gradients: dict[str, dict[str, PyTree]] = {}

        for phase in phases:
            run = functools.partial(
                _run_phase, phase, modules, optimizers, bound, accumulation=accumulation
            )
            arguments = (networks, collections, microbatches, shares, carry, state.step, key)
            if phase.interval == 1:
                result, new_carry = run(*arguments)
                carry = {**carry, **new_carry}
            else:
                result = _run_at_interval(phase, run, arguments)
            for name in phase.trains:
                networks[name] = networks[name].replace(
                    params=result.params[name], opt_state=result.opt_states[name]
                )
            collections = result.collections
            metrics.update(result.metrics)
            gradients[phase.name] = result.gradients

        new_networks = {
            name: _finish(name, networks[name], collections[name], ema, state.step)
            for name in networks
        }
        bad = [value for name, value in metrics.items() if name.startswith("nonfinite/")]
        finite = sum(bad, start=jnp.zeros(())) == 0
        metrics["nonfinite/any"] = 1.0 - finite.astype(jnp.float32)
        metrics.update(_learning_rates(optimizers, state.step))
        new_state = TrainState(step=state.step + 1, networks=new_networks, halted=state.halted)
        keep = finite & ~state.halted
        new_state = jax.tree.map(lambda new, old: jnp.where(keep, new, old), new_state, state)
        new_state = new_state.replace(halted=state.halted | ~finite)
        if with_gradients:
            if accumulation == 1:
                carry = jax.tree.map(lambda x: x[0], carry)
            return new_state, metrics, StepDetails(gradients, carry)
        return new_state, metrics

    options: dict[str, Any] = {"donate_argnums": (0,)} if donate else {}
    if mesh is not None:
        replicated = NamedSharding(mesh, PartitionSpec())
        state_out = replicated if state_sharding is None else state_sharding
        details = (None,) if with_gradients else ()
        options["out_shardings"] = (state_out, replicated, *details)
    return jax.jit(step, **options)


def _split(batch: FramePair, accumulation: int, sharding: NamedSharding | None) -> FramePair:
    """Adds a leading microbatch axis; example i goes to microbatch i mod accumulation.

    Taking every n-th example leaves each on its device: a block of consecutive examples would lie
    on few of them.
    """

    def split(x: Array) -> Array:
        if x.shape[0] % accumulation:
            raise ConfigError(
                requirement(
                    "batch size",
                    f"be divisible by accumulation ({accumulation})",
                    x.shape[0],
                    "Change one of the two.",
                )
            )
        x = x.reshape(x.shape[0] // accumulation, accumulation, *x.shape[1:]).swapaxes(0, 1)
        return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(split, batch)


def _shares(weight: Array | None, accumulation: int) -> Array:
    """The factor of each microbatch's mean loss, so that the sum is the mean over the batch."""
    if weight is None:
        return jnp.full((accumulation,), 1.0 / accumulation)
    totals = jnp.sum(weight, axis=1)
    return totals / jnp.maximum(jnp.sum(totals), jnp.finfo(totals.dtype).tiny)


def _run_phase(
    phase: Phase,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, Optimizer],
    helpers: Mapping[str, Callable[..., Any]],
    networks: Mapping[str, NetworkState],
    collections: dict[str, dict[str, PyTree]],
    microbatches: FramePair,
    shares: Array,
    carry: Mapping[str, PyTree],
    step: Array,
    key: Array,
    *,
    accumulation: int,
) -> tuple[_PhaseResult, dict[str, PyTree]]:
    """Gradient over all microbatches, then one update of the phase's networks."""
    trained = {name: networks[name].params for name in phase.trains}
    constant = {
        name: network.params for name, network in networks.items() if name not in phase.trains
    }
    used_helpers = {name: helpers[name] for name in phase.helpers}

    def loss_fn(
        params: dict,
        collections: dict,
        microbatch: FramePair,
        share: Array,
        carry: dict,
        index: Any,
    ) -> tuple[Array, tuple]:
        applied = Networks(modules, {**constant, **params}, collections)
        context = StepContext(
            rng=stream(key, phase.name, step, index), helpers=used_helpers, carry=carry, step=step
        )
        result = phase.objective(applied, microbatch, context)
        total, means = total_loss(result.losses, microbatch.weight)
        finite = {
            name: _is_finite(values, microbatch.weight) for name, values in result.losses.items()
        }
        losses = {name: share * mean for name, mean in means.items()}
        detached = jax.lax.stop_gradient((applied.collections, result.carry))
        return share * total, (losses, finite, *detached)

    differentiate = jax.value_and_grad(loss_fn, has_aux=True)

    def run(collections: dict, inputs: tuple) -> tuple[_PhaseGradient, dict, dict]:
        microbatch, share, carry, index = inputs
        (total, (losses, finite, collections, new_carry)), gradients = differentiate(
            trained, collections, microbatch, share, carry, index
        )
        return _PhaseGradient(gradients, losses, total, finite), collections, new_carry

    inputs = (microbatches, shares, carry, jnp.arange(accumulation))
    if accumulation == 1:
        summed, collections, new_carry = run(collections, jax.tree.map(lambda x: x[0], inputs))
        new_carry = jax.tree.map(lambda x: x[None], new_carry)
    else:
        summed, collections, new_carry = _accumulate(run, collections, inputs)
    return _update(phase, optimizers, networks, collections, summed, step), new_carry


def _accumulate(run: Callable, collections: dict, inputs: tuple) -> tuple:
    """Runs the microbatches one after the other, threading collections and adding gradients."""
    first = jax.tree.map(lambda x: x[0], inputs)
    shapes = jax.eval_shape(run, collections, first)[0]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zeros = zeros._replace(finite=jax.tree.map(lambda x: jnp.ones_like(x), zeros.finite))

    def body(accumulated: tuple, inputs: tuple) -> tuple[tuple, dict]:
        summed, collections = accumulated
        new, collections, carry = run(collections, inputs)
        finite = jax.tree.map(jnp.logical_and, summed.finite, new.finite)
        new = jax.tree.map(jnp.add, summed._replace(finite={}), new._replace(finite={}))
        return (new._replace(finite=finite), collections), carry

    (summed, collections), carry = jax.lax.scan(body, (zeros, collections), inputs)
    return summed, collections, carry


def _update(
    phase: Phase,
    optimizers: Mapping[str, Optimizer],
    networks: Mapping[str, NetworkState],
    collections: dict,
    summed: _PhaseGradient,
    step: Array,
) -> _PhaseResult:
    """Applies a phase's gradients and writes its metrics."""
    metrics = {f"loss/{phase.name}/{term}": value for term, value in summed.losses.items()}
    metrics[f"loss/{phase.name}/total"] = summed.total
    for term, finite in summed.finite.items():
        metrics[f"nonfinite/{phase.name}/{term}"] = 1.0 - finite.astype(jnp.float32)
    params, opt_states = {}, {}
    for name in phase.trains:
        network, optimizer = networks[name], optimizers[name]
        gradients = summed.gradients[name]
        norm = _global_norm(gradients, optimizer.trainable(network.params))
        metrics[f"grad_norm/{phase.name}/{name}"] = norm
        metrics[f"nonfinite/{phase.name}/grad_norm/{name}"] = 1.0 - jnp.isfinite(norm).astype(
            jnp.float32
        )
        params[name], opt_states[name] = optimizer.update(
            gradients, network.opt_state, network.params, step
        )
    if phase.interval > 1:
        metrics[f"active/{phase.name}"] = jnp.ones(())
    return _PhaseResult(params, opt_states, collections, metrics, summed.gradients)


def _run_at_interval(phase: Phase, run: Callable, arguments: tuple) -> _PhaseResult:
    """Runs a phase at steps divisible by its interval; at others it changes nothing.

    Its carry is dropped: at most steps there would be none.
    """
    networks, collections, step = arguments[0], arguments[1], arguments[5]
    shapes = jax.eval_shape(lambda *a: run(*a)[0], *arguments)

    def skip(*_: Any) -> _PhaseResult:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return zeros._replace(
            params={name: networks[name].params for name in phase.trains},
            opt_states={name: networks[name].opt_state for name in phase.trains},
            collections=collections,
        )

    return jax.lax.cond(step % phase.interval == 0, lambda *a: run(*a)[0], skip, *arguments)


def _finish(
    name: str, network: NetworkState, collections: dict, ema: Ema | None, step: Array
) -> NetworkState:
    """The state of a network after all phases: collections and averages brought up to date."""
    averaged = network.ema_params
    if averaged is not None and ema is not None and ema.covers(name):
        averaged = update_ema(averaged, network.params, ema_decay(ema, step))
    return network.replace(collections=collections, ema_params=averaged)


def _is_finite(values: Array, weight: Array | None) -> Array:
    """Whether all values of real examples are finite."""
    finite = jnp.isfinite(values)
    if weight is not None and values.ndim:
        finite = finite | (weight == 0)
    return jnp.all(finite)


def _global_norm(gradients: PyTree, trainable: PyTree) -> Array:
    """2-norm over the leaves that are trained."""
    squares = jax.tree.map(
        lambda gradient, used: jnp.sum(jnp.square(gradient)) if used else jnp.zeros(()),
        gradients,
        trainable,
    )
    return jnp.sqrt(sum(jax.tree.leaves(squares), start=jnp.zeros(())))


def _learning_rates(optimizers: Mapping[str, Optimizer], step: Array) -> Metrics:
    """`learning_rate/<network>`, with the rule's number appended where there are several."""
    metrics = {}
    for name, optimizer in optimizers.items():
        rates = optimizer.learning_rates(step)
        for index, rate in enumerate(rates):
            suffix = f"/{index}" if len(rates) > 1 else ""
            metrics[f"learning_rate/{name}{suffix}"] = rate
    return metrics
