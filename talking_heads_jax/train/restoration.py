"""Where a run starts: its own newest checkpoint, another run, given networks, or from nothing."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from talking_heads_jax.checkpoints import TrainingCheckpoints, load_model, restore_other_run
from talking_heads_jax.errors import CheckpointError, ConfigError, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.train.phases import trained_networks
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.rng import run_key, stream
from talking_heads_jax.train.sharding import SpecRule, put_state, state_sharding
from talking_heads_jax.train.state import TrainState, create_state
from talking_heads_jax.typing import PyTree


class Start(NamedTuple):
    """The state a run starts from.

    Attributes:
      state: on the mesh.
      sharding: of its leaves.
      origin: one line for the log.
    """

    state: TrainState
    sharding: PyTree
    origin: str


def stage_networks(model: TalkingHead, stage: Stage) -> tuple[str, ...]:
    """The networks in the state: those of inference and those that a phase trains.

    Args:
      model: the system.
      stage: what is trained.
    """
    return tuple(dict.fromkeys((*model.inference_networks, *trained_networks(stage.phases))))


def state_shapes(model: TalkingHead, stage: Stage) -> TrainState:
    """The state of a stage as shapes, without computing anything.

    Args:
      model: the system.
      stage: what is trained.
    """
    return jax.eval_shape(functools.partial(_create, model, stage), jax.random.key(0))


def _create(model: TalkingHead, stage: Stage, key: jax.Array) -> TrainState:
    variables = model.init(key, stage_networks(model, stage))
    return create_state(variables, stage.optimizers, ema=stage.ema)


def position(
    stage: Stage, seed: int, step: int, data_fingerprint: str | None = None
) -> dict[str, Any]:
    """What a checkpoint says beside the state: where data and random streams stand.

    Args:
      stage: what is trained.
      seed: of the run.
      step: number of finished steps.
      data_fingerprint: of what decides the order and content of the samples, if the loader tells.
    """
    known = {} if data_fingerprint is None else {"data_fingerprint": data_fingerprint}
    return {
        **known,
        "stage": stage.name,
        "seed": seed,
        "data_step": step,
        "batch_size": stage.batch_size,
        "samples": step * stage.batch_size,
    }


def start(
    model: TalkingHead,
    stage: Stage,
    checkpoints: TrainingCheckpoints,
    *,
    mesh: Mesh,
    rules: Sequence[SpecRule] = (),
    seed: int,
    data_fingerprint: str | None = None,
) -> Start:
    """Restores or creates the state.

    The order: 1. the run's own newest checkpoint; 2. `stage.resume_from`, the whole state of
    another run; 3. `stage.init_from`, single networks; 4. fresh parameters from the seed.

    Args:
      model: the system.
      stage: what is trained.
      checkpoints: of this run.
      mesh: the devices.
      rules: see `state_sharding`.
      seed: of the run.
      data_fingerprint: see `position`.

    Raises:
      ConfigError: if the run's own checkpoint was made with another seed, batch size or data.
      CheckpointError: if a named checkpoint is missing or does not fit.
    """
    shapes = state_shapes(model, stage)
    sharding = state_sharding(shapes, mesh, rules)
    target = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, sharding
    )
    if checkpoints.latest_step() is not None:
        state, extra = checkpoints.restore(target)
        _check_position(extra, position(stage, seed, int(state.step), data_fingerprint))
        return Start(put_state(state, sharding), sharding, f"step {int(state.step)} of this run")
    if stage.resume_from:
        state, _ = restore_other_run(Path(stage.resume_from), target, model=model)
        origin = f"step {int(state.step)} of {stage.resume_from}"
        return Start(put_state(state, sharding), sharding, origin)
    names = stage_networks(model, stage)
    variables = model.init(stream(run_key(seed), "init"), names)
    for name, folder in stage.init_from.items():
        variables[name] = _load_network(name, Path(folder), variables)
    create = functools.partial(create_state, optimizers=stage.optimizers, ema=stage.ema)
    state = put_state(create(variables), sharding)
    taken = ", ".join(f"{name} from {folder}" for name, folder in stage.init_from.items())
    return Start(state, sharding, f"fresh parameters{', ' if taken else ''}{taken}")


def _check_position(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    remedy = "Choose another --workdir and set checkpoint.resume_from to this one."
    for key in ("seed", "batch_size"):
        if key in found and found[key] != wanted[key]:
            raise ConfigError(
                requirement(
                    f"{key} of a resumed run",
                    f"stay {found[key]}, so that the data and the random streams continue",
                    wanted[key],
                    remedy,
                )
            )
    key = "data_fingerprint"
    if key in found and key in wanted and found[key] != wanted[key]:
        raise ConfigError(
            requirement(
                "data of a resumed run",
                "stay the same clips, chosen and changed in the same way",
                "another data set or other options in the section data",
                remedy,
            )
        )


def _load_network(name: str, folder: Path, fresh: Mapping[str, PyTree]) -> PyTree:
    """A network's variables from a checkpoint, compared with what the model expects."""
    if name not in fresh:
        raise ConfigError(
            requirement(
                "checkpoint.init_from",
                "name networks that take part in training",
                name,
                f"Known: {', '.join(fresh)}.",
            )
        )
    loaded = load_model(folder, networks=[name]).variables[name]
    ours, theirs = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (fresh[name], loaded))
    )
    if ours != theirs:
        different = sorted(
            key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
        )
        raise CheckpointError(
            requirement(
                f"'{name}' of {folder}",
                "have the shapes of the config's model",
                f"{len(different)} that differ, {', '.join(different[:3])}",
                "Give the model section the sizes of that checkpoint's model.json.",
            )
        )
    return loaded
