"""The items of one checkpoint: Orbax trees beside each other, with a checksum of every file.

A step folder (or `state/` of a saved model) holds one folder per item, and `checksums.json`:
item -> {file: [bytes, CRC-32]}. It is written after the last item and before the folder gets its
name, so whoever finds the folder can tell damage (`DamagedCheckpointError`: files missing, cut
short or altered) from items that are whole but belong to another model (`CheckpointError`).
"""

import contextlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import serialization as flax_serialization

from talking_heads_jax.errors import CheckpointError, DamagedCheckpointError, requirement
from talking_heads_jax.serialization.tensors import flatten, unflatten
from talking_heads_jax.typing import PyTree

CHECKSUMS = "checksums.json"
STATE, STEPS = "state", "checkpoints"  # the folders of a saved model and of a training run
EXTRA = "extra"  # the item of JSON values in a training step
PARTIAL_MARK = ".orbax-checkpoint-tmp"  # in the name of a step that Orbax has not finished
_PARTS = ("params", "ema_params", "collections", "opt_state")
_BLOCK = 1 << 22  # bytes read at once
_USE_OLDER = "Use an older step or an intact copy."


def finished_steps(folder: Path) -> list[int]:
    """The finished checkpoints of a training run, in order.

    Args:
      folder: of the run.
    """
    steps = folder / STEPS
    if not steps.is_dir():
        return []
    names = (path.name for path in steps.iterdir())
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def write_checksums(folder: Path) -> None:
    """Writes `checksums.json` of all items in a folder.

    Args:
      folder: holds one folder per item; nothing in them changes any more.
    """
    sums = {
        item.name: {
            path.relative_to(item).as_posix(): _checksum(path)
            for path in sorted(item.rglob("*"))
            if path.is_file()
        }
        for item in sorted(folder.iterdir())
        if item.is_dir()
    }
    (folder / CHECKSUMS).write_text(json.dumps(sums), encoding="utf-8")


def verify_items(folder: Path, names: Iterable[str] | None = None) -> bool:
    """Compares files with `checksums.json`.

    Args:
      folder: a step folder or `state/`.
      names: items to look at; default: all.

    Returns:
      Whether there were checksums; folders written by older versions have none.

    Raises:
      DamagedCheckpointError: if the folder, an item or a file is missing, cut short or altered.
    """
    if not folder.is_dir():
        raise _damaged(folder, "no such folder")
    for path in folder.rglob("*"):
        if not path.is_file() and not path.is_dir():  # reading a pipe or a device would never end
            raise _damaged(path, "a pipe, a device or a broken link")
    path = folder / CHECKSUMS
    if not path.is_file():
        return False
    try:
        sums = json.loads(path.read_text(encoding="utf-8"))
        expected = {
            (str(item), str(name)): (int(size), int(crc))
            for item, files in sums.items()
            for name, (size, crc) in files.items()
        }
    except (
        OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise _damaged(path, f"no table of checksums ({type(error).__name__})") from error
    wanted = None if names is None else set(names)
    for (item, name), (size, crc) in expected.items():
        if wanted is not None and item not in wanted:
            continue
        path = folder / item / name
        try:
            found = path.stat().st_size
            if found != size:
                raise _damaged(path, f"{found} bytes instead of {size}")
            if _checksum(path)[1] != crc:
                raise _damaged(path, "other bytes than were written")
        except OSError as error:
            raise _damaged(path, error.strerror or type(error).__name__) from error
    return True


def save_items(path: Path, items: Mapping[str, PyTree]) -> None:
    """Writes items and their checksums; returns when all is on disk.

    Args:
      path: new folder.
      items: name -> arrays; empty ones are left out.
    """
    import orbax.checkpoint as ocp

    arguments = {
        name: ocp.args.StandardSave(jax.tree.map(_savable, tree))
        for name, tree in items.items()
        if jax.tree.leaves(tree)
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(path, args=ocp.args.Composite(**arguments))
    write_checksums(path)


def load_item(folder: Path, name: str, *, verified: bool, expected: PyTree | None = None) -> PyTree:
    """All arrays of an item, on the default device.

    Args:
      folder: a step folder or `state/`.
      name: of the item.
      verified: whether its checksums were right: what Orbax then says is no damage.
      expected: shapes the item must have, compared before memory is taken for them; None takes
        what is there.

    Raises:
      DamagedCheckpointError: if it cannot be read and may be damaged.
      CheckpointError: if it cannot be read although its files are intact.
    """
    with _reading(folder / name, verified):
        saved = _shapes(folder / name)
    if expected is not None:
        _require_same(folder, name, saved, flatten(expected))
    with _reading(folder / name, verified):
        return _restore(folder / name, unflatten(saved))


def load_state(folder: Path, target: PyTree, *, verified: bool) -> tuple[PyTree, dict[str, Any]]:
    """Reads a step into the structure, dtypes and shardings of a training state.

    Args:
      folder: a step folder.
      target: a state or its shapes, see `split_state`.
      verified: what `verify_items` said of the folder.

    Returns:
      (state, extra).

    Raises:
      DamagedCheckpointError: if something is missing, cut short or altered.
      CheckpointError: if all is intact but does not fit the target.
    """
    wanted = {name: tree for name, tree in split_state(target).items() if jax.tree.leaves(tree)}
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    missing = sorted(set(wanted) - present)
    if EXTRA not in present:
        raise _damaged(folder, f"no {EXTRA}")
    if missing and not verified:
        raise _damaged(folder, f"no {', '.join(missing[:3])}")
    if present - {EXTRA} != set(wanted):
        raise_mismatch(folder, missing, sorted(present - {EXTRA} - set(wanted)))
    extra = _load_extra(folder)
    restored = {}
    for name, tree in wanted.items():
        with _reading(folder / name, verified):
            saved = _shapes(folder / name)
        _require_same(folder, name, saved, flatten(tree))
        with _reading(folder / name, verified):
            restored[name] = _restore(folder / name, tree)
    return join_state(target, restored), extra


def _require_same(
    folder: Path, name: str, saved: Mapping[str, Any], target: Mapping[str, Any]
) -> None:
    clashes = [
        f"{name}/{key} {tuple(saved[key].shape)} (state: {tuple(target[key].shape)})"
        for key in sorted(set(target) & set(saved))
        if tuple(saved[key].shape) != tuple(target[key].shape)
    ]
    missing = sorted(f"{name}/{key}" for key in set(target) - set(saved))
    unknown = sorted(f"{name}/{key}" for key in set(saved) - set(target))
    if missing or clashes or unknown:
        raise_mismatch(folder, missing + clashes, unknown)


def _load_extra(folder: Path) -> dict[str, Any]:
    path = folder / EXTRA / "metadata"
    try:
        extra = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, type(error).__name__) from error
    if not isinstance(extra, dict):
        raise _damaged(path, "no JSON object")
    return extra


def raise_mismatch(path: Path, missing: list[str], unknown: list[str]) -> None:
    """Raises that an intact checkpoint belongs to another model.

    Args:
      path: its folder.
      missing: what the model has and the checkpoint has not, or in another shape.
      unknown: what only the checkpoint has.

    Raises:
      CheckpointError: always.
    """
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


def split_state(state: PyTree) -> dict[str, PyTree]:
    """Item name -> nested dictionary without empty branches.

    Args:
      state: any tree with an entry `networks`: {name: {params, collections, opt_state, ema_params}}
        (dictionaries or dataclasses); everything else goes to the item `rest`.
    """
    tree = flax_serialization.to_state_dict(state)
    items = {}
    for name, network in tree.get("networks", {}).items():
        for part in _PARTS:
            items[f"{name}.{part}"] = _pruned(network.get(part))
    items["rest"] = _pruned({key: value for key, value in tree.items() if key != "networks"})
    return items


def join_state(target: PyTree, items: Mapping[str, PyTree]) -> PyTree:
    """The inverse of `split_state`; empty branches come from the target.

    Args:
      target: a state of the same structure.
      items: item name -> nested dictionary.
    """
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


def _savable(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _shapes(path: Path) -> dict[str, Any]:
    """Path -> metadata with `shape` and `dtype` of one item."""
    import orbax.checkpoint as ocp

    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        metadata = handler.metadata(path)
    shapes = flatten(getattr(metadata, "tree", metadata))
    strange = [key for key, leaf in shapes.items() if not hasattr(leaf, "shape")]
    if strange:
        raise ValueError(f"no array under {strange[:3]}")
    return shapes


def _restore(path: Path, target: PyTree) -> PyTree:
    import orbax.checkpoint as ocp

    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None)
        if not isinstance(sharding, jax.sharding.Sharding):
            sharding = device
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        return handler.restore(path, args=ocp.args.StandardRestore(jax.tree.map(shape, target)))


@contextlib.contextmanager
def _reading(path: Path, verified: bool) -> Any:
    """Turns what Orbax, TensorStore and JSON raise into one of two errors."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes may raise anything in the libraries below
        text = f"{type(error).__name__}: {error}"
        if not verified:
            raise _damaged(path, text) from error
        raise CheckpointError(
            requirement(
                f"checkpoint {path}",
                "be readable, as its files are intact",
                text,
                "Is memory or the number of open files exhausted?",
            )
        ) from error


def _damaged(path: Path, got: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(requirement(f"checkpoint {path}", "be intact", got, _USE_OLDER))


def _checksum(path: Path) -> list[int]:
    """[bytes, CRC-32] of a file."""
    size = crc = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
            crc = zlib.crc32(block, crc)
    return [size, crc]
