"""The one reader and writer of checkpoint folders.

A saved model:    model.json config.json revision [certificate.json] state/<item>/
A training run:   model.json config.json revision checkpoints/<step>/<item>/

An item is one Orbax tree: `<network>.params`, `.ema_params`, `.collections`, `.opt_state`, and
`rest` and `extra` of a training state. Inference therefore reads the averaged (else the raw)
parameters and the collections of the networks it needs, and never touches an optimiser state.
Saved models are written beside their final place and renamed; nothing is overwritten.
"""

import contextlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import serialization as flax_serialization

import talking_heads_jax
from talking_heads_jax.errors import CheckpointError, TalkingHeadsError, requirement
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.serialization.tensors import flatten, unflatten
from talking_heads_jax.typing import PyTree

SCHEMA = 1  # of model.json
_PARTS = ("params", "ema_params", "collections", "opt_state")
_STATE, _STEPS = "state", "checkpoints"


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


def current_revision() -> str:
    """The commit this package runs from, or its version where it is not a git checkout."""
    fallback = f"talking_heads_jax {talking_heads_jax.__version__}"
    git = Path(talking_heads_jax.__file__).resolve().parent.parent / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not head.startswith("ref: "):
            return head or fallback
        reference = head.removeprefix("ref: ")
        if (git / reference).is_file():
            return (git / reference).read_text(encoding="utf-8").strip() or fallback
        for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
            commit, _, name = line.partition(" ")
            if name == reference:
                return commit
    except OSError:
        pass
    return fallback


def describe_model(model: TalkingHead) -> dict[str, Any]:
    """The contents of model.json."""
    arguments = model.arguments()
    return {
        "schema": SCHEMA,
        "name": model.name,
        "arguments": arguments,
        "value_range": list(model.value_range),
        "resolution": model.resolution,
        "dtype": arguments.get("dtype", "float32"),
    }


def save_model(
    folder: Path,
    model: TalkingHead,
    variables: Mapping[str, Variables],
    *,
    config: Mapping[str, Any] | None = None,
    certificate: Mapping[str, Any] | None = None,
    extra_files: Iterable[Path] = (),
) -> None:
    """Writes a model for inference; the folder appears complete or not at all.

    Args:
      folder: new or empty.
      model: what the variables belong to.
      variables: network name -> linen variables; networks may be missing.
      config: of the training run, as JSON types.
      certificate: of the conversion.
      extra_files: files to move beside the state.

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
        _write_description(temporary, model, config)
        if certificate is not None:
            _write_json(temporary / "certificate.json", certificate)
        items = {}
        for name, trees in variables.items():
            items[f"{name}.params"] = trees.get("params", {})
            items[f"{name}.collections"] = {k: v for k, v in trees.items() if k != "params"}
        _save_items(temporary / _STATE, items)
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
    model = _build(folder, info)
    required = tuple(model.inference_networks if networks is None else networks)
    optional = getattr(model, "optional_inference_networks", ()) if networks is None else ()
    if (folder / _STATE).is_dir():
        candidates = [(None, folder / _STATE)]
    else:
        candidates = [(step, folder / _STEPS / str(step)) for step in _steps(folder)]
    problem: Exception | None = None
    for step, path in reversed(candidates):
        try:
            variables, used = _load_variables(path, model, required, optional)
        except (CheckpointError, *_ORBAX_ERRORS) as error:
            problem = error
            logging.getLogger(__name__).warning("checkpoint %s cannot be read: %s", path, error)
            continue
        return LoadedModel(model, variables, {**info, "step": step, "parameters": used})
    if isinstance(problem, CheckpointError):
        raise problem
    raise CheckpointError(
        requirement(
            f"checkpoint {folder}",
            "hold a readable state",
            f"{type(problem).__name__}: {problem}" if problem else "no finished step",
            "Convert or train it again, or use another copy.",
        )
    ) from problem


def saved_networks(folder: Path) -> tuple[str, ...]:
    """Names of the networks whose parameters a folder holds, in its newest step."""
    folder = Path(folder)
    path = folder / _STATE
    if not path.is_dir():
        steps = _steps(folder)
        path = folder / _STEPS / str(steps[-1]) if steps else folder
    return tuple(sorted(item.name.removesuffix(".params") for item in path.glob("*.params")))


def read_description(folder: Path) -> dict[str, Any]:
    """model.json of a folder, with `config`, `revision` and `certificate` where present.

    Raises:
      CheckpointError: if it is missing, unreadable or of another schema.
    """
    folder = Path(folder)
    remedy = "Give a folder written by talking-heads convert or run_train.py."
    if not (folder / "model.json").is_file():
        got = f"no model.json in {folder}" if folder.is_dir() else f"no folder {folder}"
        raise CheckpointError(requirement("the checkpoint", "be a checkpoint folder", got, remedy))
    info = _read_json(folder / "model.json")
    fields = {"schema", "name", "arguments", "value_range", "resolution", "dtype"}
    if not isinstance(info, dict) or not fields <= set(info):
        raise CheckpointError(
            requirement(
                f"{folder / 'model.json'}", f"hold {', '.join(sorted(fields))}", "less", remedy
            )
        )
    if info["schema"] != SCHEMA:
        raise CheckpointError(
            requirement(
                f"{folder / 'model.json'}",
                f"be of schema {SCHEMA}",
                info["schema"],
                "Use the version of talking_heads_jax that wrote it, or convert it again.",
            )
        )
    for name in ("config", "certificate"):
        path = folder / f"{name}.json"
        info[name] = _read_json(path) if path.is_file() else None
    revision = folder / "revision"
    info["revision"] = revision.read_text(encoding="utf-8").strip() if revision.is_file() else None
    return info


class TrainingCheckpoints:
    """The checkpoints of one training run, written in the background.

    A state is any tree with an entry `networks`: {name: {params, collections, opt_state,
    ema_params}} (dictionaries or dataclasses); everything else of it is kept as it is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: TalkingHead,
        config: Mapping[str, Any] | None = None,
        keep: int = 3,
        keep_period: int | None = None,
    ) -> None:
        """Opens or creates the run's folder.

        Args:
          folder: the work directory; it may hold logs, and earlier checkpoints of the same model.
          model: written to model.json, or compared with it.
          config: written to config.json, the latest run's.
          keep: number of newest checkpoints to keep.
          keep_period: also keep every step divisible by it.

        Raises:
          CheckpointError: if the folder holds a saved model, or a run of another model.
        """
        import orbax.checkpoint as ocp

        self._folder = Path(folder).absolute()
        if (self._folder / _STATE).exists():
            raise CheckpointError(
                requirement(
                    "the training folder",
                    "be new or hold a training run",
                    f"a saved model in {self._folder}",
                    "Choose another --workdir.",
                )
            )
        if (self._folder / "model.json").exists():
            _require_same_model(read_description(self._folder), model, self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        # A run that is only read keeps its description; the first save renews it.
        self._description: tuple[TalkingHead, Mapping[str, Any] | None] | None = (model, config)
        if not (self._folder / "model.json").exists():
            self._describe()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_period, create=True
        )
        self._manager = ocp.CheckpointManager(self._folder / _STEPS, options=options)

    def _describe(self) -> None:
        if self._description is not None and jax.process_index() == 0:
            _write_description(self._folder, *self._description)
        self._description = None

    def save(self, step: int, state_tree: PyTree, extra: Mapping[str, Any] | None = None) -> None:
        """Starts writing a checkpoint; returns once the arrays are copied.

        Args:
          step: number of finished steps; a step that exists is not written again.
          state_tree: the training state.
          extra: JSON values that belong to it, for instance the data position.
        """
        import orbax.checkpoint as ocp

        if step in self._manager.all_steps():
            return
        self._describe()
        items = {
            name: ocp.args.StandardSave(tree)
            for name, tree in _split_state(state_tree).items()
            if jax.tree.leaves(tree)
        }
        composite = ocp.args.Composite(extra=ocp.args.JsonSave(dict(extra or {})), **items)
        self._manager.save(step, args=composite, force=True)

    def latest_step(self) -> int | None:
        """The newest finished step, or None."""
        return self._manager.latest_step()

    def restore(
        self, target_tree: PyTree, step: int | None = None
    ) -> tuple[PyTree, dict[str, Any]]:
        """Reads a checkpoint into the structure, dtypes and shardings of a state.

        Args:
          target_tree: a state, or its shapes (`jax.ShapeDtypeStruct`, with shardings if wanted).
          step: which; default: the newest that can be read.

        Returns:
          (state, extra).

        Raises:
          CheckpointError: if there is none, it cannot be read, or it does not fit the target.
        """
        self.wait()
        steps = sorted(self._manager.all_steps()) if step is None else [step]
        if not steps:
            raise CheckpointError(
                requirement(
                    f"training folder {self._folder}",
                    "hold a finished checkpoint",
                    "none",
                    "Train first, or check --workdir.",
                )
            )
        problem: Exception | None = None
        for candidate in reversed(steps):
            try:
                return self._restore_step(target_tree, candidate)
            except _ORBAX_ERRORS as error:
                problem = error
                logging.getLogger(__name__).warning(
                    "checkpoint %d cannot be read: %s", candidate, error
                )
        raise CheckpointError(
            requirement(
                f"checkpoint {self._folder / _STEPS / str(steps[-1])}",
                "be readable",
                f"{type(problem).__name__}: {problem}",
                "Remove it and resume from an older one, or start again.",
            )
        ) from problem

    def _restore_step(self, target_tree: PyTree, step: int) -> tuple[PyTree, dict[str, Any]]:
        folder = self._folder / _STEPS / str(step)
        wanted = {
            name: tree for name, tree in _split_state(target_tree).items() if jax.tree.leaves(tree)
        }
        present = {path.name for path in folder.iterdir() if path.is_dir()} - {"extra"}
        if present != set(wanted):
            _raise_mismatch(folder, sorted(set(wanted) - present), sorted(present - set(wanted)))
        restored = {}
        for name, tree in wanted.items():
            saved = _item_shapes(folder / name)
            target = flatten(tree)
            if set(saved) != set(target):
                missing = sorted(f"{name}/{key}" for key in set(target) - set(saved))
                _raise_mismatch(
                    folder, missing, sorted(f"{name}/{k}" for k in set(saved) - set(target))
                )
            clashes = [
                f"{name}/{key} {tuple(saved[key].shape)} (state: {tuple(target[key].shape)})"
                for key in target
                if tuple(saved[key].shape) != tuple(target[key].shape)
            ]
            if clashes:
                _raise_mismatch(folder, clashes, [])
            restored[name] = _restore_item(folder / name, tree)
        extra = _read_json(folder / "extra" / "metadata")
        return _join_state(target_tree, restored), extra

    def wait(self) -> None:
        """Blocks until every started checkpoint is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and releases the background threads."""
        self._manager.wait_until_finished()
        self._manager.close()

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


# What Orbax, TensorStore and JSON raise on damaged or truncated checkpoints.
_ORBAX_ERRORS = (OSError, ValueError, KeyError, RuntimeError)


def _split_state(state: PyTree) -> dict[str, PyTree]:
    """Item name -> nested dictionary without empty branches."""
    tree = flax_serialization.to_state_dict(state)
    items = {}
    for name, network in tree.get("networks", {}).items():
        for part in _PARTS:
            items[f"{name}.{part}"] = _pruned(network.get(part))
    items["rest"] = _pruned({key: value for key, value in tree.items() if key != "networks"})
    return items


def _join_state(target: PyTree, items: Mapping[str, PyTree]) -> PyTree:
    """The inverse of `_split_state`; empty branches come from the target."""
    tree = flax_serialization.to_state_dict(target)
    joined = dict(tree)
    for key in tree:
        if key != "networks":
            joined[key] = _grafted(tree[key], items.get("rest", {}).get(key))
    joined["networks"] = {
        name: {
            part: _grafted(value, items.get(f"{name}.{part}")) for part, value in network.items()
        }
        for name, network in tree.get("networks", {}).items()
    }
    return flax_serialization.from_state_dict(target, joined)


def _pruned(tree: PyTree) -> PyTree:
    """Without None and empty dictionaries, which Orbax cannot tell apart."""
    if not isinstance(tree, Mapping):
        return tree if tree is not None else {}
    children = {key: _pruned(value) for key, value in tree.items() if value is not None}
    return {k: v for k, v in children.items() if not (isinstance(v, Mapping) and not v)}


def _grafted(target: PyTree, restored: PyTree) -> PyTree:
    if isinstance(target, Mapping):
        return {key: _grafted(value, (restored or {}).get(key)) for key, value in target.items()}
    return target if restored is None else restored


def _load_variables(
    path: Path, model: TalkingHead, required: Iterable[str], optional: Iterable[str]
) -> tuple[dict[str, Variables], dict[str, str]]:
    names = list(required)
    names += [
        name
        for name in optional
        if (path / f"{name}.params").is_dir()
        and (path.name == _STATE or (path / f"{name}.opt_state").is_dir())
    ]
    missing = [name for name in names if not (path / f"{name}.params").is_dir()]
    if missing:
        raise CheckpointError(
            requirement(
                f"checkpoint {path}",
                "hold every network that is asked for",
                f"no {', '.join(missing)}",
                "Convert or train the whole model.",
            )
        )
    shapes = jax.eval_shape(lambda key: model.init(key, names), jax.random.key(0))
    variables, used = {}, {}
    for name in names:
        part = "ema_params" if (path / f"{name}.ema_params").is_dir() else "params"
        used[name] = part
        tree = {"params": _restore_saved(path / f"{name}.{part}")}
        if (path / f"{name}.collections").is_dir():
            tree |= _restore_saved(path / f"{name}.collections")
        _check_shapes(path, name, tree, shapes[name])
        variables[name] = tree
    return variables, used


def _check_shapes(path: Path, name: str, tree: PyTree, expected: PyTree) -> None:
    have, want = flatten(tree), flatten(expected)
    missing, unknown = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    clashes = [
        f"{key} {tuple(have[key].shape)} (model: {tuple(want[key].shape)})"
        for key in sorted(set(want) & set(have))
        if tuple(have[key].shape) != tuple(want[key].shape)
    ]
    if missing or unknown or clashes:
        _raise_mismatch(path, [f"{name}/{key}" for key in missing + clashes], unknown)


def _raise_mismatch(path: Path, missing: list[str], unknown: list[str]) -> None:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing or of another shape: {', '.join(missing[:3])}")
    if unknown:
        parts.append(f"{len(unknown)} unknown: {', '.join(unknown[:3])}")
    raise CheckpointError(
        requirement(
            f"checkpoint {path}",
            "fit the model of model.json",
            "; ".join(parts),
            "Use the config it was written with.",
        )
    )


def _save_items(path: Path, items: Mapping[str, PyTree]) -> None:
    import orbax.checkpoint as ocp

    arguments = {
        name: ocp.args.StandardSave(jax.tree.map(_savable, tree))
        for name, tree in items.items()
        if jax.tree.leaves(tree)
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**arguments))


def _savable(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _item_shapes(path: Path) -> dict[str, Any]:
    """Path -> metadata with `shape` and `dtype` of one Orbax item."""
    import orbax.checkpoint as ocp

    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        metadata = handler.metadata(path)
    return flatten(getattr(metadata, "tree", metadata))


def _restore_saved(path: Path) -> PyTree:
    """All arrays of an item, on the default device."""
    return _restore_item(path, unflatten(_item_shapes(path)))


def _restore_item(path: Path, target: PyTree) -> PyTree:
    import orbax.checkpoint as ocp

    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None)
        if not isinstance(sharding, jax.sharding.Sharding):
            sharding = device
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        return handler.restore(path, args=ocp.args.StandardRestore(jax.tree.map(shape, target)))


def _steps(folder: Path) -> list[int]:
    steps = folder / _STEPS
    if not steps.is_dir():
        return []
    return sorted(int(path.name) for path in steps.iterdir() if path.name.isdigit())


def _build(folder: Path, info: Mapping[str, Any]) -> TalkingHead:
    try:
        return build_model(info["name"], **info["arguments"])
    except (TalkingHeadsError, TypeError) as error:
        raise CheckpointError(
            requirement(
                f"{folder / 'model.json'}",
                "describe a model of this version",
                str(error),
                f"It was written by revision {info.get('revision')}: use that, or convert again.",
            )
        ) from error


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


def _require_same_model(info: Mapping[str, Any], model: TalkingHead, folder: Path) -> None:
    mine = json.loads(json.dumps(describe_model(model)))
    different = [key for key in mine if info.get(key) != mine[key]]
    if different:
        raise CheckpointError(
            requirement(
                f"training folder {folder}",
                "belong to the model of the config",
                f"another {', '.join(different)}",
                "Choose another --workdir, or resume with the config it was started with.",
            )
        )


def _write_description(folder: Path, model: TalkingHead, config: Mapping[str, Any] | None) -> None:
    _write_json(folder / "model.json", describe_model(model))
    _write_json(folder / "config.json", dict(config or {}))
    _write_text(folder / "revision", current_revision() + "\n")


def _write_json(path: Path, value: Any) -> None:
    try:
        text = json.dumps(value, indent=2, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            requirement(path.name, "hold JSON values", error, "Use numbers, text, lists, dicts.")
        ) from error
    _write_text(path, text + "\n")


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            requirement(str(path), "be readable JSON", type(error).__name__, "Use an intact copy.")
        ) from error
