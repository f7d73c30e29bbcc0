"""Writes small golden cases of our own networks: they test the harness, not the networks."""

import json

import jax
import numpy as np

from talking_heads_jax.conversion.apply import to_state_dicts, to_variables
from talking_heads_jax.parity import weights

_KERNELS = ("down.weight",)


def write_case(
    folder,
    name,
    *,
    outputs,
    inputs=None,
    state=None,
    tolerance=None,
    salt="s",
    constant=_KERNELS,
    **keys,
):
    """Writes one case; `state` gives the tensor names and shapes, the rule gives the values.

    Tensors whose names end in one of `constant` keep the values of `state`.
    """
    shapes = {key: list(np.shape(value)) for key, value in (state or {}).items()}
    document = {
        "tensors": shapes,
        "salt": salt,
        "tolerance": tolerance or {key: {"max_abs": 1e-5} for key in outputs},
        **keys,
    }
    constants = {key: value for key, value in (state or {}).items() if key.endswith(constant)}
    if shapes:
        rebuilt = weights.build_state_dict(shapes, salt=salt, constants=constants)
        document.setdefault("weights_sha256", weights.state_dict_digest(rebuilt))
    arrays = {f"out/{key}": value for key, value in outputs.items()}
    arrays |= {f"in/{key}": value for key, value in (inputs or {}).items()}
    arrays |= {f"const/{key}": value for key, value in constants.items()}
    (folder / f"{name}.json").write_text(json.dumps(document))
    np.savez(folder / f"{name}.npz", **arrays)


def golden_variables(model, network, salt="s"):
    """The official state dict of a network and the variables that the weight rule gives it."""
    # Shapes are enough: the rule gives the values, and drawing them under jit compiles for long.
    shapes = jax.eval_shape(lambda key: model.init(key, [network]), jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = to_state_dicts(model, zeros)[network]
    constants = {key: value for key, value in state.items() if key.endswith("down.weight")}
    shapes = {key: np.shape(value) for key, value in state.items()}
    values = weights.build_state_dict(shapes, salt=salt, constants=constants)
    return state, to_variables(model, {network: values})


def random_image(seed, size, batch=1):
    """uint8 (batch size size 3), smooth enough to be an image."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    waves = [np.sin(2 * np.pi * (a * rows + b * columns)) for a, b in rng.uniform(0.3, 3, (3, 2))]
    image = 0.5 + 0.4 * np.stack(waves, axis=-1)
    noise = 0.05 * rng.standard_normal((batch, size, size, 3))
    return np.rint(255 * np.clip(image + noise, 0, 1)).astype(np.uint8)


def random_keypoints(seed, count, batch=1):
    """value (batch count 2) and Jacobians near the identity."""
    rng = np.random.default_rng(seed)
    value = rng.uniform(-0.8, 0.8, (batch, count, 2)).astype(np.float32)
    jacobian = np.eye(2) + 0.2 * rng.standard_normal((batch, count, 2, 2))
    return value, jacobian.astype(np.float32)
