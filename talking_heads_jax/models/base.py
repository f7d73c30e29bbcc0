"""The protocol every talking head offers, and the data of its training (`Phase`).

A system is a `TalkingHead`: named networks (linen modules), the three inference calls
`encode_source`, `encode_driving`, `animate_frame`, and constructor arguments that survive a trip
through JSON. What is trained by what is stated as a list of `Phase`s in the slice's
`objectives.py`; a phase holds no optimizer and no loop.
"""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
from flax import linen as nn

from talking_heads_jax.batch import FaceInputs, FramePair
from talking_heads_jax.errors import ArgumentError, CheckpointError, ConfigError, requirement
from talking_heads_jax.typing import Array, PyTree

Variables = Mapping[str, PyTree]  # of one network: {'params': ..., 'batch_stats': ..., ...}


class FrameOutput(NamedTuple):
    """One animated frame.

    Attributes:
      prediction: (b h w 3) float32 RGB in [0, 1].
      intermediates: named arrays that explain it (`deformation`, `occlusion_map`, ...); empty when
        they were not asked for.
    """

    prediction: Array
    intermediates: Mapping[str, Array]


class ObjectiveResult(NamedTuple):
    """What an objective returns.

    Attributes:
      losses: term name -> (b,) already weighted per-example values, or a scalar; the phase's loss
        is the sum of their means. A term whose weight is zero is absent.
      carry: arrays that later phases of the same step may read; no gradient flows through them.
    """

    losses: dict[str, Array]
    carry: dict[str, PyTree]


class StepContext(NamedTuple):
    """What an objective may use besides the networks and the batch.

    Attributes:
      rng: a key that is unique to (seed, step, phase, accumulation index).
      helpers: frozen helper networks by name, each a function of images.
      carry: what earlier phases of this step returned.
      step: () int32, number of finished training steps.
    """

    rng: Array
    helpers: Mapping[str, Callable[..., Any]]
    carry: Mapping[str, PyTree]
    step: Array


class Networks:
    """Applies named networks while one trace runs, threading their mutable collections.

    Calls in training mode read the collections the previous call left, so that three forwards of a
    detector update its running statistics three times, in that order. The object lives inside one
    trace; nothing leaks out of it but what `collections` returns.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        params: Mapping[str, PyTree],
        collections: Mapping[str, Mapping[str, PyTree]],
    ) -> None:
        """Keeps references; copies nothing.

        Args:
          modules: network name -> linen module.
          params: network name -> parameters.
          collections: network name -> {collection name -> tree}.
        """
        self._modules = modules
        self._params = params
        self._collections = {name: dict(trees) for name, trees in collections.items()}

    def __call__(
        self, network: str, *args: Any, train: bool, method: str | None = None, **kwargs: Any
    ) -> Any:
        """Applies a network; in training mode its collections are updated for the next call.

        Args:
          network: its name.
          *args: positional arguments of the module.
          train: batch statistics and a power iteration (True), or the stored state (False).
          method: a method of the module other than `__call__`.
          **kwargs: keyword arguments of the module.

        Raises:
          ArgumentError: if no network has that name.
        """
        if network not in self._modules:
            raise ArgumentError(
                requirement(
                    "network", "exist", network, f"Known: {', '.join(sorted(self._modules))}."
                )
            )
        module = self._modules[network]
        state = self._collections.get(network, {})
        variables = {"params": self._params.get(network, {}), **state}
        if not train or not state:
            return module.apply(variables, *args, train=train, method=method, **kwargs)
        result, updated = module.apply(
            variables, *args, train=True, method=method, mutable=list(state), **kwargs
        )
        self._collections[network] = {**state, **updated}
        return result

    @property
    def collections(self) -> dict[str, dict[str, PyTree]]:
        """Network name -> collections after all calls so far."""
        return {name: dict(trees) for name, trees in self._collections.items()}


Objective = Callable[[Networks, FramePair, StepContext], ObjectiveResult]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One entry of a training step, as data.

    Attributes:
      name: prefix of its loss names, `loss/<name>/<term>`.
      trains: the networks whose parameters receive the gradient of the summed losses.
      objective: `(networks, batch, context) -> ObjectiveResult`.
      interval: runs at steps divisible by it (lazy regularisers).
      helpers: names of frozen helper networks the objective calls.
      inputs: fields of `FaceInputs` the objective reads besides `image`; the data must have them.
    """

    name: str
    trains: tuple[str, ...]
    objective: Objective
    interval: int = 1
    helpers: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


class TalkingHead(abc.ABC):
    """A one-shot talking-head system: one source image, a stream of driving inputs, frames out.

    All images are float32 RGB in [0, 1], NHWC, square, `resolution` pixels a side. `variables` is
    {network name: linen variables}. All methods are pure and can be jitted.
    """

    name: ClassVar[str]
    required_inputs: ClassVar[frozenset[str]] = frozenset({"image"})
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    inference_networks: ClassVar[tuple[str, ...]]
    optional_inference_networks: ClassVar[tuple[str, ...]] = ()  # used when a checkpoint has them
    resolution: int

    @property
    @abc.abstractmethod
    def networks(self) -> Mapping[str, nn.Module]:
        """Every network of the system by name, those of training (discriminator) included."""

    @abc.abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments, as JSON types: `type(self)(**arguments)` is the model."""

    @abc.abstractmethod
    def init(self, rng: Array, names: Iterable[str] | None = None) -> dict[str, Variables]:
        """Fresh variables of the named networks (default: all); works under `jax.eval_shape`."""

    @abc.abstractmethod
    def encode_source(self, variables: Mapping[str, Variables], source: FaceInputs) -> PyTree:
        """Everything about the source that does not change from frame to frame."""

    @abc.abstractmethod
    def encode_driving(self, variables: Mapping[str, Variables], driving: FaceInputs) -> PyTree:
        """The motion of one driving frame (for keypoint systems: `Keypoints`)."""

    @abc.abstractmethod
    def animate_frame(
        self,
        variables: Mapping[str, Variables],
        source_encoding: PyTree,
        motion: PyTree,
        *,
        with_intermediates: bool = False,
    ) -> FrameOutput:
        """The source moved by `motion`; skips what only training or pictures need by default."""

    def panels(self, variables: Mapping[str, Variables], pair: FramePair) -> dict[str, Array]:
        """Named (b h w 3) pictures in [0, 1] of one reconstruction, for logs and galleries."""
        encoding = self.encode_source(variables, pair.source)
        motion = self.encode_driving(variables, pair.driving)
        output = self.animate_frame(variables, encoding, motion)
        return {
            "source": pair.source.image,
            "driving": pair.driving.image,
            "prediction": output.prediction,
        }


def configure(
    module: type[nn.Module], section: str, options: Mapping[str, Any] | None, **fixed: Any
) -> nn.Module:
    """Builds a module from a config section: its keys are the module's field names.

    Args:
      module: a linen module class.
      section: name of the section, for the message.
      options: keys and JSON values; lists become tuples.
      **fixed: fields the model decides, which the section may not set.

    Raises:
      ConfigError: for a key the module does not have, or one the model decides.
    """
    fields = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
    options = dict(options or {})
    unknown = sorted(set(options) - (fields - set(fixed)))
    if unknown:
        raise ConfigError(
            requirement(
                f"keys of `{section}`",
                "be fields of its module",
                ", ".join(unknown),
                f"Known: {', '.join(sorted(fields - set(fixed)))}.",
            )
        )
    values = {key: _hashable(value) for key, value in options.items()}
    return module(**values, **fixed)


def _hashable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hashable(item) for key, item in value.items()}
    return tuple(_hashable(item) for item in value) if isinstance(value, (list, tuple)) else value


def check_inference_networks(model: TalkingHead, variables: Mapping[str, Any]) -> None:
    """Raises unless all networks that inference uses are there.

    Args:
      model: the system.
      variables: network name -> linen variables.

    Raises:
      CheckpointError: naming those that are missing.
    """
    missing = sorted(set(model.inference_networks) - set(variables))
    if missing:
        raise CheckpointError(
            requirement(
                "checkpoint",
                "hold every network inference needs",
                f"none of {missing}",
                "Convert or train the whole system.",
            )
        )


def run_once(function: Callable[[Array], PyTree], key: Array) -> PyTree:
    """`function(key)`, compiled for a single run; for initialisers.

    Under jit the forward pass whose result nobody reads is dropped. On a CPU a hundred small random
    draws otherwise spend most of their time in the optimiser of the code generator (47 s against
    10 s of CPU time for a small FNeVR generator), which one run never earns back.
    """
    tracing = isinstance(key, jax.core.Tracer)
    if tracing or jax.default_backend() != "cpu":
        return jax.jit(function)(key)
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})(key)


def count_parameters(params: PyTree) -> int:
    """Number of scalars in a parameter tree (arrays or shape structs)."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
