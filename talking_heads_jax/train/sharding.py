"""One mesh with the axes `data` and `model`; where the batch, the state and the helpers lie on it.

The batch is split along `data`. The state is replicated unless rules, (regex, spec) pairs over the
paths of its leaves, say otherwise. Under `jit` batch statistics are those of the global batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.train.optimizers import match_rules, parameter_path
from talking_heads_jax.typing import PyTree

AXES = ("data", "model")
SpecRule = tuple[str, Sequence[str | None]]


def make_mesh(
    *, data: int = -1, model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Builds the mesh.

    Args:
      data: devices along `data`; -1 takes all that `model` leaves.
      model: devices along `model`.
      devices: default: all of all processes.

    Raises:
      ConfigError: if the axes do not multiply to at most the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    if data == -1 and model >= 1:
        data = max(1, len(devices) // model)
    if data < 1 or model < 1 or data * model > len(devices):
        raise ConfigError(
            requirement(
                "mesh.data x mesh.model",
                f"fit the {len(devices)} devices",
                f"{data} x {model}",
                "Use mesh.data=-1 to take all of them.",
            )
        )
    return jax.make_mesh(
        (data, model), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices[: data * model]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds all of it."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(state: PyTree, mesh: Mesh, rules: Sequence[SpecRule] = ()) -> PyTree:
    """The sharding of every leaf of a state.

    Args:
      state: a state, or its shapes.
      mesh: with the axes `data` and `model`.
      rules: (regex, spec) over paths such as `networks/generator/params/first/conv/kernel`; the
        regex must match the whole path, the first match wins, and leaves without one are
        replicated. A spec lists a mesh axis or None per axis of the leaf; `("...", "model")` aligns
        with the last axis, whatever comes before. Optimiser moments and averages repeat the paths
        of their parameters behind a prefix: `.*/kernel` covers them all. An axis of size 1 or one
        that the mesh axis does not divide stays whole.

    Returns:
      A tree of `NamedSharding`.

    Raises:
      ConfigError: if a rule matches nothing or names an unknown mesh axis.
    """
    patterns = [pattern for pattern, _ in rules]
    indices = match_rules(state, [*patterns, ".*"], what="leaf of the state")

    def sharding(path: Any, leaf: Any, index: int) -> NamedSharding:
        if index == len(rules):
            return replicated(mesh)
        spec = _expand(rules[index][1], len(leaf.shape), mesh, parameter_path(path))
        whole = [
            axis if axis and size % mesh.shape[axis] == 0 else None
            for axis, size in zip(spec, leaf.shape, strict=True)
        ]
        return NamedSharding(mesh, PartitionSpec(*whole))

    return jax.tree_util.tree_map_with_path(sharding, state, indices)


def _expand(spec: Sequence[str | None], rank: int, mesh: Mesh, path: str) -> list[str | None]:
    """A spec as one entry per axis of a leaf of this rank."""
    axes = list(spec)
    if axes[:1] == ["..."]:
        axes = axes[1:]
        axes = [None] * (rank - len(axes)) + axes
    axes += [None] * (rank - len(axes))
    named = [axis for axis in axes if axis is not None]
    if len(axes) != rank or any(axis not in mesh.shape for axis in named):
        raise ConfigError(
            requirement(
                f"the spec of {path} ({rank} axes)",
                f"name mesh axes ({', '.join(mesh.shape)})",
                tuple(spec),
                "Start it with '...' to align it with the last axes.",
            )
        )
    return axes


def put_state(state: PyTree, sharding: PyTree) -> PyTree:
    """Places host or device arrays as `sharding` says.

    Args:
      state: a tree of arrays, the same on every process.
      sharding: one sharding for all, or a tree of them.
    """
    if jax.process_count() == 1:
        return jax.device_put(state, sharding)
    if isinstance(sharding, NamedSharding):
        sharding = jax.tree.map(lambda _: sharding, state)
    return jax.tree.map(_put_on_all, state, sharding)


def _put_on_all(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """Every process places the parts its devices hold; nothing travels between processes."""
    if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
        return leaf
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        data = _put_on_all(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def local_rows(mesh: Mesh, batch_size: int) -> tuple[int, ...]:
    """The rows of the global batch that lie on this process's devices, in order.

    Processes whose devices differ only along `model` share rows; a mesh may place the processes in
    any order. A loader that reads these rows gives every sample the same row, and with it the same
    random draws, on any number of processes.

    Args:
      mesh: with the axis `data`.
      batch_size: examples of a step, over all processes.

    Raises:
      ConfigError: if the batch does not divide over the devices.
    """
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise ConfigError(
            requirement(
                "data.batch_size",
                f"be at least 1 and divisible by mesh.data ({mesh.shape['data']})",
                batch_size,
                "Change one of the two.",
            )
        )
    places = NamedSharding(mesh, PartitionSpec("data")).addressable_devices_indices_map(
        (batch_size,)
    )
    slices = [index[0] if index else slice(None) for index in places.values() if index is not None]
    return tuple(sorted({row for part in slices for row in range(*part.indices(batch_size))}))


def shard_batch(batch: PyTree, mesh: Mesh, batch_size: int | None = None) -> PyTree:
    """Places a batch with its first axis along `data`.

    Args:
      batch: numpy arrays; the rows of `local_rows`.
      mesh: with the axis `data`.
      batch_size: of the global batch; default: the batch is all of it.

    Raises:
      ConfigError: if the global batch does not divide over the devices.
    """
    sharding = NamedSharding(mesh, PartitionSpec("data"))

    def put(x: np.ndarray) -> jax.Array:
        x = np.asarray(x)
        total = x.shape[0] if batch_size is None else batch_size
        rows = len(local_rows(mesh, total))
        if x.shape[0] != rows:
            raise ConfigError(
                requirement(
                    "a batch of this process",
                    f"have the {rows} rows that lie on its devices",
                    x.shape[0],
                    "Give the loader the rows of `local_rows`.",
                )
            )
        return jax.make_array_from_process_local_data(sharding, x, (total, *x.shape[1:]))

    return jax.tree.map(put, batch)


def prefetch(
    batches: Iterable[PyTree], mesh: Mesh, *, batch_size: int | None = None, depth: int = 2
) -> Iterator[PyTree]:
    """Keeps `depth` batches on their way to the devices ahead of their use.

    Args:
      batches: host batches; the first element of a tuple entry `(batch, extra)` is transferred.
      mesh: where to.
      batch_size: see `shard_batch`.
      depth: how many batches are in flight.

    Yields:
      (device batch, extra).
    """
    queue = []
    for batch, extra in batches:
        queue.append((shard_batch(batch, mesh, batch_size), extra))
        if len(queue) >= depth:
            yield queue.pop(0)
    yield from queue
