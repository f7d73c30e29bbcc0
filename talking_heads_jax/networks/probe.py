"""The evaluation probe: a small network that says what a picture of a head shows.

No detector's weights come with this package, yet tables need landmarks, pose, expression and
identity of generated pictures. The probe is trained once on synthetic people of a split that is
used for nothing else (`workflows/train_probe.py`), frozen, and stored beside this file in half
precision. Its columns are named `probe_*`: it is no replacement for the papers' estimators, and its
own error on people it has never seen is part of the file. Letters: b batch, h w image, d features.
"""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talking_heads_jax.errors import (
    ArgumentError,
    AssetNotFoundError,
    UnsafeFileError,
    check_file,
    requirement,
)
from talking_heads_jax.serialization.safetensors_file import read_safetensors, write_safetensors
from talking_heads_jax.serialization.tensors import flatten, unflatten
from talking_heads_jax.typing import Array, Float, PyTree

PROBE_FILE = Path(__file__).with_name("probe.safetensors")
#: Pictures of any size are resized to so many pixels on each side.
PROBE_SIDE = 64
EMBEDDING_WIDTH = 32
#: Joints of a morphable model whose rotations belong to the expression: all but root and neck.
_POSE_JOINTS = 2
_NUM_LANDMARKS = 68
_WIDTHS = (24, 48, 80, 80)
_HIDDEN = 128
_GROUPS = 8
_MAX_FILE_BYTES = 3 << 20
_FORMAT = "talking_heads_jax evaluation probe 1"
_TRAIN_COMMAND = "python -m talking_heads_jax.workflows.train_probe --data DATA --output FILE"


class ProbeOutputs(NamedTuple):
    """What the probe sees in pictures.

    Attributes:
      landmarks: (b 68 2) x, y over width and height of the picture; Multi-PIE order.
      angles: (b 3) yaw, pitch, roll in radians.
      expression: (b d) see `expression_vector`.
      embedding: (b 32) of unit length; its cosines tell people apart.
    """

    landmarks: Any
    angles: Any
    expression: Any
    embedding: Any


class Probe(NamedTuple):
    """A trained probe.

    Attributes:
      params: of `ProbeNetwork`.
      statistics: mean and deviation of each target over the training frames:
        '<target>_mean', '<target>_deviation' for landmarks, angles and expression.
      info: what it was trained on, its own errors, and the command.
    """

    params: PyTree
    statistics: Mapping[str, Any]
    info: Mapping[str, Any]

    @property
    def num_expression(self) -> int:
        """Components of the expression it estimates."""
        return int(self.statistics["expression_mean"].shape[0])

    @property
    def own_errors(self) -> dict[str, float]:
        """Metric name -> its own error on unseen people, in the metric's unit."""
        return {str(key): float(value) for key, value in self.info["own_errors"].items()}


class _ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and their input.

    Attributes:
      features: channels.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Adds what it finds to `x`."""
        y = nn.relu(nn.GroupNorm(_GROUPS)(_conv(self.features)(x)))
        return nn.relu(x + nn.GroupNorm(_GROUPS)(_conv(self.features)(y)))


class ProbeNetwork(nn.Module):
    """Four strided convolutions, residual blocks at two scales, and a head per target.

    Targets are in units of their training deviation, about their mean.

    Attributes:
      num_expression: components of the expression.
    """

    num_expression: int

    @nn.compact
    def __call__(self, images: Float[Array, "b 64 64 3"]) -> ProbeOutputs:
        """Estimates of pictures in [0, 1]; the embedding is not normalised yet."""
        x = images - 0.5
        for stage, width in enumerate(_WIDTHS):
            x = nn.relu(nn.GroupNorm(_GROUPS)(_conv(width, stride=2)(x)))
            if stage in (1, 2):
                x = _ResidualBlock(width)(x)
        x = x.reshape(x.shape[0], -1)
        hidden = nn.relu(nn.Dense(_HIDDEN, name="hidden")(x))
        landmarks = nn.Dense(2 * _NUM_LANDMARKS, name="landmarks")(hidden)
        return ProbeOutputs(
            landmarks.reshape(-1, _NUM_LANDMARKS, 2),
            nn.Dense(3, name="angles")(hidden),
            nn.Dense(self.num_expression, name="expression")(hidden),
            nn.Dense(EMBEDDING_WIDTH, name="embedding")(x),
        )


def _conv(features: int, *, stride: int = 1) -> nn.Conv:
    # Explicit padding: 'SAME' would pad strided layers on one side only.
    return nn.Conv(features, (3, 3), strides=stride, padding=1)


def expression_vector(
    expression_coeffs: np.ndarray, joint_pose: np.ndarray | None = None
) -> np.ndarray:
    """What the probe calls an expression: coefficients, and rotations of the jaw and the eyes.

    Args:
      expression_coeffs: (... d).
      joint_pose: (... 3 j) axis-angle per joint in the models' order (root, neck, jaw, eyes); root
        and neck are pose. None leaves the joints out.

    Returns:
      (... e) float32.
    """
    vectors = [np.asarray(expression_coeffs, np.float32)]
    if joint_pose is not None:
        vectors.append(np.asarray(joint_pose, np.float32)[..., 3 * _POSE_JOINTS :])
    return np.concatenate(vectors, axis=-1)


def resize_for_probe(images: Float[Array, "b h w 3"]) -> Float[Array, "b 64 64 3"]:
    """Pictures at the probe's size: linear, antialiased, pixel areas aligned.

    Args:
      images: of any size.
    """
    shape = (images.shape[0], PROBE_SIDE, PROBE_SIDE, images.shape[3])
    if images.shape == shape:
        return images
    return jax.image.resize(images, shape, "linear", antialias=True)


def run_probe(
    params: PyTree, statistics: Mapping[str, Any], images: Float[Array, "b h w 3"]
) -> ProbeOutputs:
    """Looks at pictures.

    Args:
      params: of a `Probe`.
      statistics: of a `Probe`.
      images: in [0, 1], of any size.
    """
    count = statistics["expression_mean"].shape[0]
    seen = ProbeNetwork(count).apply({"params": params}, resize_for_probe(images))
    targets = {
        name: getattr(seen, name) * statistics[f"{name}_deviation"] + statistics[f"{name}_mean"]
        for name in ("landmarks", "angles", "expression")
    }
    length = jnp.sqrt(jnp.square(seen.embedding).sum(axis=-1, keepdims=True) + 1e-12)
    return ProbeOutputs(**targets, embedding=seen.embedding / length)


def save_probe(path: Path, probe: Probe) -> None:
    """Writes a probe in half precision.

    Args:
      path: a new file.
      probe: trained.

    Raises:
      ArgumentError: the file exists, or would have more than 3 MiB.
    """
    tensors = {f"params/{name}": value for name, value in flatten(probe.params).items()}
    tensors = {name: np.asarray(value, np.float16) for name, value in tensors.items()}
    size = sum(value.nbytes for value in tensors.values())
    if size > _MAX_FILE_BYTES:
        raise ArgumentError(
            requirement("a probe", f"have at most {_MAX_FILE_BYTES} bytes", size, "Narrow it.")
        )
    tensors |= {
        f"statistics/{name}": np.asarray(value, np.float32)
        for name, value in probe.statistics.items()
    }
    metadata = {"format": _FORMAT, "info": json.dumps(probe.info, sort_keys=True)}
    write_safetensors(path, tensors, metadata)


def load_probe(path: Path = PROBE_FILE) -> Probe:
    """Reads a probe, once for each state of a file; the one of the package by default.

    Args:
      path: a file that `save_probe` wrote.

    Raises:
      AssetNotFoundError: there is no such file.
      UnsafeFileError: the file is damaged, or something else.
    """
    path = Path(path)
    if not path.exists():
        raise AssetNotFoundError(
            requirement("the evaluation probe", "be stored", path, f"Run: {_TRAIN_COMMAND}.")
        )
    check_file(path, UnsafeFileError, max_bytes=2 * _MAX_FILE_BYTES)
    state = path.stat()
    return _read_probe(path, (state.st_mtime_ns, state.st_size, state.st_ino))


@functools.lru_cache(maxsize=4)
def _read_probe(path: Path, state: tuple[int, ...]) -> Probe:
    del state  # another file under this name is another probe
    tensors, metadata = read_safetensors(path, f"{path}")
    try:
        if metadata["format"] != _FORMAT:
            raise ValueError("another format")
        info = json.loads(metadata["info"])
        tree = unflatten({name: np.asarray(value, np.float32) for name, value in tensors.items()})
        probe = Probe(tree["params"], tree["statistics"], info)
        expected = _shapes(probe.num_expression)
        found = {name: value.shape for name, value in flatten(probe.params).items()}
        if found != expected or not {"own_errors", "people", "command"} <= set(info):
            raise ValueError("tensors or fields of another network")
        return probe
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UnsafeFileError(
            requirement(f"{path}", "be an evaluation probe", error, f"Run: {_TRAIN_COMMAND}.")
        ) from error


def describe_probe(probe: Probe) -> str:
    """One line for reports: on whom it was trained, and on whom its own errors were measured.

    Args:
      probe: trained.
    """
    people = probe.info["people"]
    return (
        f"trained on {people['train']} synthetic people for nothing else, its own errors measured "
        f"on {people['unseen']} others; landmarks in px of a frame 256 px wide"
    )


def _shapes(num_expression: int) -> dict[str, tuple[int, ...]]:
    images = jax.ShapeDtypeStruct((1, PROBE_SIDE, PROBE_SIDE, 3), jnp.float32)
    network = ProbeNetwork(num_expression)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    return {name: value.shape for name, value in flatten(variables["params"]).items()}
