"""The one reader and writer of checkpoint folders.

A saved model:    model.json config.json revision [certificate.json] state/<item>/
A training run:   model.json config.json revision checkpoints/<step>/<item>/

An item is one Orbax tree: `<network>.params`, `.ema_params`, `.collections`, `.opt_state`, and
`rest` and `extra` of a training state. Inference therefore reads the averaged (else the raw)
parameters and the collections of the networks it needs, and never touches an optimiser state.
Everything is written beside its final place and renamed; nothing is overwritten. A step that turns
out to be damaged is skipped for the one before and set aside as `<step>.damaged`.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from talking_heads_jax.checkpoint_description import (
    build_described,
    current_revision,
    describe_model,
    read_description,
    write_description,
    write_json,
)
from talking_heads_jax.checkpoint_items import (
    STATE,
    STEPS,
    finished_steps,
    load_item,
    raise_mismatch,
    save_items,
    verify_items,
)
from talking_heads_jax.errors import CheckpointError, DamagedCheckpointError, requirement
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.serialization.tensors import flatten
from talking_heads_jax.training_checkpoints import TrainingCheckpoints, restore_other_run
from talking_heads_jax.typing import PyTree

__all__ = [
    "LoadedModel",
    "TrainingCheckpoints",
    "current_revision",
    "describe_model",
    "load_model",
    "read_description",
    "restore_other_run",
    "save_model",
    "saved_networks",
]

_log = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """A model ready for inference.

    Attributes:
      model: built from model.json.
      variables: network name -> linen variables on the default device.
      info: contents of model.json, and `config`, `revision`, `certificate`, `step`,
        `parameters` ({network: 'ema_params' or 'params'}).
    """

    model: TalkingHead
    variables: dict[str, Variables]
    info: dict[str, Any]


def save_model(
    folder: Path,
    model: TalkingHead,
    variables: Mapping[str, Variables],
    *,
    config: Mapping[str, Any] | None = None,
    certificate: Mapping[str, Any] | None = None,
    extra_files: Iterable[Path] = (),
    reduced: bool = False,
) -> None:
    """Writes a model for inference; the folder appears complete or not at all.

    Args:
      folder: new or empty.
      model: what the variables belong to.
      variables: network name -> linen variables; networks may be missing.
      config: of the training run, as JSON types.
      certificate: of the conversion.
      extra_files: files to move beside the state.
      reduced: store float32 parameters as bfloat16, in half the space; reading widens them again.

    Raises:
      CheckpointError: if the folder is not empty, or a network is not one of the model's.
    """
    folder = Path(folder).absolute()
    _require_empty(folder)
    unknown = sorted(set(variables) - set(model.networks))
    if unknown:
        raise CheckpointError(
            requirement(
                "saved networks",
                f"be networks of '{model.name}'",
                ", ".join(unknown),
                f"It has {', '.join(model.networks)}.",
            )
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        os.chmod(temporary, 0o755)
        write_description(temporary, model, config)
        if certificate is not None:
            write_json(temporary / "certificate.json", certificate)
        items = {}
        for name, trees in variables.items():
            params = trees.get("params", {})
            items[f"{name}.params"] = jax.tree.map(_as_bfloat16, params) if reduced else params
            items[f"{name}.collections"] = {k: v for k, v in trees.items() if k != "params"}
        save_items(temporary / STATE, items)
        for path in extra_files:
            shutil.move(path, temporary / Path(path).name)
        if folder.exists():
            folder.rmdir()  # it is empty; fails if someone else filled it meanwhile
        os.rename(temporary, folder)
    except OSError as error:
        raise CheckpointError(
            requirement("the checkpoint", "be writable", f"{folder}: {error}", "Free the folder.")
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: Path, *, networks: Iterable[str] | None = None) -> LoadedModel:
    """Loads a saved model, or the newest readable step of a training run, for inference.

    Args:
      folder: a saved model or a training folder.
      networks: which to load; default: `model.inference_networks`, and those of
        `model.optional_inference_networks` (if it has that attribute) that were trained.

    Raises:
      CheckpointError: if the folder is missing, incomplete, damaged, of another schema, or its
        parameters do not fit the model.
    """
    folder = Path(folder).absolute()
    info = read_description(folder)
    model = build_described(folder, info)
    required = tuple(model.inference_networks if networks is None else networks)
    optional = getattr(model, "optional_inference_networks", ()) if networks is None else ()
    if (folder / STATE).is_dir():
        candidates = [(None, folder / STATE)]
    else:
        candidates = [(step, folder / STEPS / str(step)) for step in finished_steps(folder)]
    problem: CheckpointError | None = None
    for step, path in reversed(candidates):
        try:
            variables, used = _load_variables(path, model, required, optional)
        except DamagedCheckpointError as error:
            problem = problem or error
            if step is not None:
                _log.warning("skipping a damaged checkpoint: %s", error)
            continue
        return LoadedModel(model, variables, {**info, "step": step, "parameters": used})
    if len(candidates) == 1 and problem is not None:
        raise problem
    raise _nothing_readable(folder, problem) from problem


def _nothing_readable(folder: Path, problem: CheckpointError | None) -> CheckpointError:
    return CheckpointError(
        requirement(
            f"checkpoint {folder}",
            "hold a readable state",
            f"in the newest step: {problem}" if problem else "no finished step",
            "Convert or train it again, or use another copy.",
        )
    )


def saved_networks(folder: Path) -> tuple[str, ...]:
    """Names of the networks whose parameters a folder holds, in its newest step."""
    folder = Path(folder)
    path = folder / STATE
    if not path.is_dir():
        steps = finished_steps(folder)
        path = folder / STEPS / str(steps[-1]) if steps else folder
    return tuple(sorted(item.name.removesuffix(".params") for item in path.glob("*.params")))


def _load_variables(
    path: Path, model: TalkingHead, required: Iterable[str], optional: Iterable[str]
) -> tuple[dict[str, Variables], dict[str, str]]:
    names = list(required)
    names += [
        name
        for name in optional
        if (path / f"{name}.params").is_dir()
        and (path.name == STATE or (path / f"{name}.opt_state").is_dir())
    ]
    parts = ("params", "ema_params", "collections")
    looked_at = [f"{name}.{part}" for name in (*names, *optional) for part in parts]
    verified = verify_items(path, looked_at)
    missing = [name for name in names if not (path / f"{name}.params").is_dir()]
    if missing:
        # Without checksums nobody knows whether a network was lost or never there.
        raise (CheckpointError if verified else DamagedCheckpointError)(
            requirement(
                f"checkpoint {path}",
                "hold every network that is asked for",
                f"no {', '.join(missing)}",
                "Convert or train the whole model.",
            )
        )
    shapes = _shapes_of(path, model, names)
    variables, used = {}, {}
    for name in names:
        part = "ema_params" if (path / f"{name}.ema_params").is_dir() else "params"
        used[name] = part
        # The shapes are compared before memory is spent on what a file claims.
        params = shapes[name].get("params", {})
        others = {key: tree for key, tree in shapes[name].items() if key != "params"}
        tree = {"params": load_item(path, f"{name}.{part}", verified=verified, expected=params)}
        if (path / f"{name}.collections").is_dir():
            tree |= load_item(path, f"{name}.collections", verified=verified, expected=others)
        _check_shapes(path, name, tree, shapes[name])
        variables[name] = tree | {"params": jax.tree.map(_widened, tree["params"])}
    return variables, used


def _shapes_of(path: Path, model: TalkingHead, names: list[str]) -> dict[str, PyTree]:
    """The variables that the description asks for; it may describe what cannot be computed."""
    try:
        return jax.eval_shape(lambda key: model.init(key, names), jax.random.key(0))
    except Exception as error:  # arguments from a file may break any layer, each in its own way
        raise CheckpointError(
            requirement(
                f"checkpoint {path}",
                "belong to a model that can be built",
                f"{type(error).__name__}: {error}",
                "Its model.json is damaged: use an intact copy, or convert it again.",
            )
        ) from error


def _as_bfloat16(leaf: Any) -> Any:
    return leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf


def _widened(leaf: Any) -> Any:
    """A parameter that was stored reduced, in the dtype parameters have."""
    return leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf


def _check_shapes(path: Path, name: str, tree: PyTree, expected: PyTree) -> None:
    have, want = flatten(tree), flatten(expected)
    missing, unknown = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    clashes = [
        f"{key} {tuple(have[key].shape)} (model: {tuple(want[key].shape)})"
        for key in sorted(set(want) & set(have))
        if tuple(have[key].shape) != tuple(want[key].shape)
    ]
    if missing or unknown or clashes:
        raise_mismatch(path, [f"{name}/{key}" for key in missing + clashes], unknown)


def _require_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            requirement(
                "the output folder",
                "be new or empty",
                folder,
                "Choose another folder: nothing is overwritten.",
            )
        )
