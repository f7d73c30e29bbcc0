"""A training step with the shapes and places of its arguments: it can be compiled without data.

Benchmarks and ahead-of-time compilation lower it; nothing is computed and no array is made.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from talking_heads_jax.batch import FramePair
from talking_heads_jax.errors import ConfigError, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.restoration import state_shapes
from talking_heads_jax.train.rng import run_key
from talking_heads_jax.train.sharding import SpecRule, replicated, state_sharding
from talking_heads_jax.train.state import TrainState
from talking_heads_jax.train.step import HelperFn, make_train_step
from talking_heads_jax.typing import PyTree


class StepProgram(NamedTuple):
    """What `make_train_step` builds, and `jax.ShapeDtypeStruct`s to lower it with.

    Attributes:
      step: the jitted, donated step.
      state: of the networks, placed as the rules say.
      batch: the global batch, its first axis along `data`.
      helper_params: of the frozen networks, on every device.
      key: the run's random key.
    """

    step: Callable[..., tuple]
    state: TrainState
    batch: FramePair
    helper_params: PyTree
    key: jax.ShapeDtypeStruct

    def lower(self) -> jax.stages.Lowered:
        """The step, traced and lowered for the mesh's devices."""
        return self.step.lower(self.state, self.batch, self.helper_params, self.key)


def make_program(
    model: TalkingHead,
    stage: Stage,
    batch: FramePair,
    *,
    mesh: Mesh,
    rules: Sequence[SpecRule] = (),
    helpers: Mapping[str, HelperFn] | None = None,
    helper_params: Mapping[str, PyTree] | None = None,
) -> StepProgram:
    """The step of a stage on a mesh, whose devices need not exist here.

    Args:
      model: the system.
      stage: what is trained.
      batch: shapes of the global batch.
      mesh: the devices.
      rules: see `state_sharding`.
      helpers: frozen networks by name.
      helper_params: their parameters, or the shapes of them.

    Raises:
      ConfigError: if the batch does not divide over the devices and microbatches.
    """
    size = batch.source.image.shape[0]
    parts = mesh.shape["data"] * stage.accumulation
    if size % parts:
        raise ConfigError(
            requirement(
                "the batch",
                f"be divisible by mesh.data x optim.accumulation ({parts})",
                size,
                "Change one of them.",
            )
        )
    shapes = state_shapes(model, stage)
    sharding = state_sharding(shapes, mesh, rules)
    step = make_train_step(
        model.networks,
        stage.phases,
        stage.optimizers,
        ema=stage.ema,
        helpers=helpers,
        accumulation=stage.accumulation,
        mesh=mesh,
        state_sharding=sharding,
    )
    along_data = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = replicated(mesh)
    return StepProgram(
        step,
        jax.tree.map(_placed, shapes, sharding),
        jax.tree.map(lambda x: _placed(x, along_data), batch),
        jax.tree.map(lambda x: _placed(x, everywhere), dict(helper_params or {})),
        _placed(jax.eval_shape(lambda: run_key(0)), everywhere),
    )


def _placed(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
