"""Converted weights of a fixed network: found in the registry of assets, read, and checked."""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.assets import KNOWN_ASSETS, locate_asset
from talking_heads_jax.errors import AssetNotFoundError, ConversionError, requirement
from talking_heads_jax.serialization.tensors import flatten, read_tensors, unflatten
from talking_heads_jax.typing import PyTree


def variable_shapes(module: nn.Module, side: int) -> PyTree:
    """Shapes and dtypes of a network's variables; nothing is allocated.

    Args:
      module: takes one batch of RGB images.
      side: of an image that it accepts.
    """
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


def load_variables(name: str, module: nn.Module, side: int, path: Path | None = None) -> PyTree:
    """Reads what `talking-heads convert --model NAME` wrote, onto the default device.

    Args:
      name: of the asset, for instance 'fan'.
      module: whose variables they are.
      side: see `variable_shapes`.
      path: a converted file; None takes the one that is registered.

    Returns:
      {'params': …, 'batch_stats': …} as `module.apply` takes them.

    Raises:
      AssetNotFoundError: nothing is registered, or no such file; says where to get it and what to
        use instead.
      ConversionError: the file holds another network.
      UnsafeFileError: the file is damaged.
    """
    path = locate_asset(name) if path is None else Path(path).expanduser()
    if not path.is_file():
        remedy = KNOWN_ASSETS[name].advice()
        raise AssetNotFoundError(requirement(f"{name}'s weights", "be a file", path, remedy))
    found = flatten(read_tensors(path))
    wanted = flatten(variable_shapes(module, side))
    wrong = sorted(
        key for key, leaf in wanted.items() if getattr(found.get(key), "shape", None) != leaf.shape
    )
    if wrong or len(found) != len(wanted):
        got = f"{len(wrong)} tensors missing or of another shape, {len(found)} in all"
        raise ConversionError(
            requirement(
                f"the weights in {path}",
                f"be those of '{name}'",
                got + (f" ({', '.join(wrong[:3])})" if wrong else ""),
                f"Run: talking-heads convert --model {name} FILE.",
            )
        )
    return jax.device_put(unflatten({key: found[key].astype(wanted[key].dtype) for key in wanted}))
