"""The training state: everything that changes from step to step, and nothing else."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import Optimizer
from talking_heads_jax.typing import Array, PyTree


@flax.struct.dataclass
class NetworkState:
    """One network while it is trained.

    Attributes:
      params: float32 parameters.
      collections: mutable collections by name: `batch_stats`, `spectral`, ...
      opt_state: optimiser state; None for a network that no phase trains.
      ema_params: averaged parameters; None for a network that is not averaged.
    """

    params: PyTree
    collections: dict[str, PyTree]
    opt_state: PyTree = None
    ema_params: PyTree = None


@flax.struct.dataclass
class TrainState:
    """All networks, and how far training is.

    Attributes:
      step: () int32, number of finished steps; also the position in the data and in the streams.
      networks: network name -> its state.
      halted: () bool, a loss or gradient was not finite: the state is the last good one and further
        steps leave it untouched. A host that reads its metrics late therefore loses nothing.
    """

    step: Array
    networks: dict[str, NetworkState]
    halted: Array


def create_state(
    variables: Mapping[str, Mapping[str, PyTree]],
    optimizers: Mapping[str, Optimizer],
    *,
    ema: Ema | None = None,
    step: int = 0,
) -> TrainState:
    """The state of a run that starts from given variables; works under `jax.eval_shape`.

    Args:
      variables: network name -> linen variables (`params` and collections).
      optimizers: network name -> optimiser, for the networks that are trained.
      ema: which networks are averaged; the averages start at the parameters.
      step: number of steps already finished.

    Raises:
      ConfigError: if an optimiser or an average is asked for a network that does not exist.
    """
    asked = set(optimizers) | set(ema.networks if ema is not None else ())
    unknown = sorted(asked - set(variables))
    if unknown:
        raise ConfigError(
            requirement(
                "networks with an optimiser or an average",
                "be networks of the model",
                ", ".join(unknown),
                f"The model has {', '.join(sorted(variables))}.",
            )
        )
    networks = {}
    for name, trees in variables.items():
        params = trees["params"]
        collections = {key: tree for key, tree in trees.items() if key != "params"}
        averaged = ema is not None and ema.covers(name)
        networks[name] = NetworkState(
            params=params,
            collections=collections,
            opt_state=optimizers[name].init(params) if name in optimizers else None,
            # A copy: the step donates the state, and a buffer cannot be donated twice.
            ema_params=jax.tree.map(lambda x: jnp.array(x, copy=True), params)
            if averaged
            else None,
        )
    return TrainState(
        step=jnp.asarray(step, jnp.int32), networks=networks, halted=jnp.asarray(False)
    )


def network_variables(
    state: TrainState, *, use_ema: bool = True, names: Iterable[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Linen variables of the networks, as inference wants them.

    Args:
      state: a training state.
      use_ema: averaged parameters where there are any.
      names: which networks; default all.
    """
    result = {}
    for name in state.networks if names is None else names:
        network = state.networks[name]
        averaged = use_ema and network.ema_params is not None
        result[name] = {
            "params": network.ema_params if averaged else network.params,
            **network.collections,
        }
    return result
