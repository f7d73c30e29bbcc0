"""Real checkpoint files for the fuzzer to damage, written without PyTorch.

A small FOMM in every form that the package reads: torch zip and torch legacy files as the official
code saves them, npz, safetensors, a saved model and a training folder of two steps.
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from talking_heads_jax.checkpoints import TrainingCheckpoints, save_model
from talking_heads_jax.conversion.translate import to_state_dicts
from talking_heads_jax.models.base import TalkingHead
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.serialization.tensors import write_safetensors

#: Names of the single files, each made of the same weights; a second of each is there to splice.
FILES = ("torch.pth.tar", "legacy.pth.tar", "weights.npz", "weights.safetensors")
#: Names of the folders.
FOLDERS = ("model", "training")

_NETWORKS = ("kp_detector", "generator", "discriminator")
_ARGUMENTS = {
    "resolution": 32,
    "num_keypoints": 2,
    "keypoint_detector": {"block_expansion": 2, "max_features": 2, "num_blocks": 1},
    "generator": {
        "block_expansion": 2,
        "max_features": 2,
        "num_bottleneck_blocks": 1,
        "dense_motion_options": {"block_expansion": 2, "max_features": 2, "num_blocks": 1},
    },
    "discriminator": {"block_expansion": 2, "max_features": 2, "num_blocks": 1},
}
_STORAGES = {"f4": "FloatStorage", "i8": "LongStorage"}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class Corpus(NamedTuple):
    """What lies in the corpus folder.

    Attributes:
      folder: holds `FILES`, `FOLDERS` and `other/` with a second set of `FILES`.
      model: the system of all of them.
      state: a training state of it: what restoring takes as its target.
    """

    folder: Path
    model: TalkingHead
    state: dict[str, Any]


def write_corpus(folder: Path) -> Corpus:
    """Writes the checkpoints.

    Args:
      folder: new or empty.

    Returns:
      Where they are, and what they hold.
    """
    corpus = open_corpus(folder)
    for number, target in enumerate((folder, folder / "other")):
        target.mkdir(parents=True, exist_ok=True)
        variables = _variables(corpus.model, seed=number)
        states = to_state_dicts(corpus.model, variables)
        flat = {f"{net}.{key}": a for net, state in states.items() for key, a in state.items()}
        (target / FILES[0]).write_bytes(_torch_zip(states))
        (target / FILES[1]).write_bytes(_torch_legacy(states))
        np.savez(target / FILES[2], **flat)
        write_safetensors(target / FILES[3], flat, {"format": "pt"})
    save_model(folder / FOLDERS[0], corpus.model, _variables(corpus.model, seed=2), config={"a": 1})
    with TrainingCheckpoints(folder / FOLDERS[1], model=corpus.model) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, corpus.state, {"step": step})
    return corpus


def open_corpus(folder: Path) -> Corpus:
    """The corpus of a folder that `write_corpus` has filled; writes nothing.

    Args:
      folder: where it lies.
    """
    model = build_model("fomm", **_ARGUMENTS)
    networks = {
        name: {
            "params": trees["params"],
            "collections": {key: tree for key, tree in trees.items() if key != "params"},
            "opt_state": {"count": np.int32(3), "mu": trees["params"]},
            "ema_params": trees["params"],
        }
        for name, trees in _variables(model, seed=3).items()
        if name == "kp_detector"  # one is enough, and half the time
    }
    return Corpus(folder, model, {"step": np.int32(1), "networks": networks})


def _variables(model: TalkingHead, *, seed: int) -> dict[str, Any]:
    shapes = jax.eval_shape(lambda key: model.init(key, _NETWORKS), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), shapes)


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def _tensor(key: str, array: np.ndarray, *, legacy: bool) -> bytes:
    """The opcodes by which torch pickles a tensor that fills its storage."""
    storage = _global("torch", _STORAGES[array.dtype.str[1:]])
    identity = b"(" + _text("storage") + storage + _text(key) + _text("cpu")
    identity += _number(array.size) + (b"N" if legacy else b"") + b"tQ"
    strides = [step // array.itemsize for step in array.strides]
    view = [b"(" + b"".join(map(_number, values)) + b"t" for values in (array.shape, strides)]
    hooks = _global("collections", "OrderedDict") + b")R"
    arguments = b"(" + identity + _number(0) + b"".join(view) + b"\x89" + hooks + b"t"
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def _checkpoint(states: Mapping[str, Any], *, legacy: bool) -> tuple[bytes, dict[str, np.ndarray]]:
    """Opcodes of {network: OrderedDict of tensors, 'epoch': 7}, and the storages by key."""
    storages: dict[str, np.ndarray] = {}
    body = b"}("
    for network, state in states.items():
        body += _text(network) + _global("collections", "OrderedDict") + b")R("
        for name, value in state.items():
            key, array = str(len(storages)), np.array(value, order="C")
            storages[key] = array
            body += _text(name) + _tensor(key, array, legacy=legacy)
        body += b"u"
    return body + _text("epoch") + _number(7) + b"u", storages


def _torch_zip(states: Mapping[str, Any]) -> bytes:
    body, storages = _checkpoint(states, legacy=False)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", _pickled(body))
        archive.writestr("archive/byteorder", b"little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def _torch_legacy(states: Mapping[str, Any]) -> bytes:
    body, storages = _checkpoint(states, legacy=True)
    system = b"}(" + _text("protocol_version") + _number(_LEGACY_PROTOCOL)
    system += _text("little_endian") + b"\x88u"
    parts = [
        _pickled(b"\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")),
        _pickled(_number(_LEGACY_PROTOCOL)),
        _pickled(system),
        _pickled(body),
        _pickled(b"](" + b"".join(map(_text, storages)) + b"e"),
    ]
    parts += [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    return b"".join(parts)
