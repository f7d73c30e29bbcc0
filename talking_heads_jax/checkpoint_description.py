"""What a checkpoint folder says about itself: `model.json`, `config.json` and `revision`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import talking_heads_jax
from talking_heads_jax.errors import CheckpointError, TalkingHeadsError, requirement
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.models.registry import build_model

SCHEMA = 1  # of model.json


def current_revision() -> str:
    """The commit this package runs from, or its version where it is not a git checkout."""
    fallback = f"talking_heads_jax {talking_heads_jax.__version__}"
    git = Path(talking_heads_jax.__file__).resolve().parent.parent / ".git"
    try:
        own = git  # of a linked working tree: HEAD there, branches in the repository
        if git.is_file():
            own = git.parent / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
            git = own / (own / "commondir").read_text(encoding="utf-8").strip()
        head = (own / "HEAD").read_text(encoding="utf-8").strip()
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
    """The contents of model.json.

    Args:
      model: the system.
    """
    arguments = model.arguments()
    return {
        "schema": SCHEMA,
        "name": model.name,
        "arguments": arguments,
        "value_range": list(model.value_range),
        "resolution": model.resolution,
        "dtype": arguments.get("dtype", "float32"),
    }


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
    info = read_json(folder / "model.json")
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
    if not isinstance(info["name"], str) or not isinstance(info["arguments"], dict):
        raise CheckpointError(
            requirement(
                f"{folder / 'model.json'}", "name a model and its arguments", "other types", remedy
            )
        )
    for name in ("config", "certificate"):
        path = folder / f"{name}.json"
        info[name] = read_json(path) if path.is_file() else None
    revision = folder / "revision"
    if revision.is_file():
        info["revision"] = revision.read_text(encoding="utf-8", errors="replace").strip()
    else:
        info["revision"] = None
    return info


def build_described(folder: Path, info: Mapping[str, Any]) -> TalkingHead:
    """The model that a model.json describes.

    Args:
      folder: of the checkpoint.
      info: of `read_description`.

    Raises:
      CheckpointError: if this version has no such model.
    """
    try:
        return build_model(info["name"], **info["arguments"])
    except (TalkingHeadsError, TypeError, AttributeError) as error:
        raise CheckpointError(
            requirement(
                f"{folder / 'model.json'}",
                "describe a model of this version",
                str(error),
                f"It was written by revision {info.get('revision')}: use that, or convert again.",
            )
        ) from error


def require_same_model(info: Mapping[str, Any], model: TalkingHead, folder: Path) -> None:
    """Raises unless a folder belongs to a model.

    Args:
      info: of `read_description`.
      model: of the config.
      folder: of the run.

    Raises:
      CheckpointError: if it is another one.
    """
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


def write_description(folder: Path, model: TalkingHead, config: Mapping[str, Any] | None) -> None:
    """Writes model.json, config.json and revision, each complete or not at all.

    Args:
      folder: that exists.
      model: the system.
      config: of the run, as JSON types.

    Raises:
      CheckpointError: if the config holds anything else.
    """
    write_json(folder / "model.json", describe_model(model))
    write_json(folder / "config.json", dict(config or {}))
    _write_text(folder / "revision", current_revision() + "\n")


def write_json(path: Path, value: Any) -> None:
    """Writes a file, complete or not at all.

    Args:
      path: of the file.
      value: JSON types.

    Raises:
      CheckpointError: if it holds anything else.
    """
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


def read_json(path: Path) -> Any:
    """Reads a file.

    Args:
      path: of the file.

    Raises:
      CheckpointError: if it is not readable JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            requirement(str(path), "be readable JSON", type(error).__name__, "Use an intact copy.")
        ) from error
