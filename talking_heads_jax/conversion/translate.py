"""State dicts to variables and back, with a complete audit: every tensor has exactly one place.

What the official file holds and ours cannot give back bit for bit (call counters, stored kernels,
layers we do not use, other dtypes) is collected as `Leftovers`, which the way back reads again.
"""

import dataclasses
import functools
import importlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from talking_heads_jax.conversion.rules import LAYOUTS, ModelTable, NetworkTable, Recreated
from talking_heads_jax.errors import ConversionError, check_choice, requirement
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.serialization.tensors import array_bytes, flatten, unflatten

_TABLES = {
    "fomm": "talking_heads_jax.conversion.fomm",
    "fnevr": "talking_heads_jax.conversion.fnevr",
    "gdpw": "talking_heads_jax.conversion.gdpw",
    "vgg19": "talking_heads_jax.conversion.vgg19",
    "fan": "talking_heads_jax.conversion.fan",
    "face_parsing": "talking_heads_jax.conversion.face_parsing",
    "deca": "talking_heads_jax.conversion.deca",
    "deep3d": "talking_heads_jax.conversion.deep3d",
}
# One network, one .safetensors, registered as an asset.
FIXED_NETWORKS = ("vgg19", "fan", "face_parsing", "deca", "deep3d")
_LISTED = 10  # offending tensors that an error names
_SHOWN = 160  # characters of each
# Top-level keys of related systems' files, for a better message.
_RELATED = {
    "he_estimator": "face-vid2vid",
    "inpainting_network": "Thin-Plate-Spline Motion Model",
    "depth_encoder": "DaGAN",
    "G_ema": "StyleGAN or EG3D",
    "appearance_feature_extractor": "LivePortrait",
}
StateDict = Mapping[str, np.ndarray]


class Leftovers(NamedTuple):
    """What the way back needs besides the variables.

    Attributes:
      tensors: `<network>.<official name>` -> array, bit for bit.
      dtypes: `<network>.<official name>` -> dtype, where it was another than ours.
      absent: `<network>.<official name>` of tensors that would be recreated, but were not there.
    """

    tensors: dict[str, np.ndarray]
    dtypes: dict[str, str]
    absent: tuple[str, ...]

    def metadata(self) -> dict[str, str]:
        """The part that is not arrays, as text for a .safetensors header."""
        return {"dtypes": json.dumps(self.dtypes), "absent": json.dumps(list(self.absent))}

    @classmethod
    def read(cls, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> "Leftovers":
        """The inverse of storing `tensors` with `metadata()`."""
        dtypes = json.loads(metadata.get("dtypes", "{}"))
        return cls(dict(tensors), dtypes, tuple(json.loads(metadata.get("absent", "[]"))))


NO_LEFTOVERS = Leftovers({}, {}, ())


@dataclasses.dataclass
class _Audit:
    """Everything wrong with a state dict."""

    unused: list[str] = dataclasses.field(default_factory=list)
    unfilled: list[str] = dataclasses.field(default_factory=list)
    clashes: list[str] = dataclasses.field(default_factory=list)

    def check(self, model: str) -> None:
        """Raises `ConversionError` with the lists, unless they are empty."""
        parts = [
            f"{len(names)} {what} ({', '.join(map(_shown, names[:_LISTED]))}"
            + (", ...)" if len(names) > _LISTED else ")")
            for what, names in (
                ("unused source tensors", self.unused),
                ("unfilled targets", self.unfilled),
                ("shape clashes", self.clashes),
            )
            if names
        ]
        if parts:
            remedy = "Check --model"
            if self.clashes or self.unfilled:
                remedy += ", or give the constructor arguments the checkpoint was trained with"
            # Not `requirement`, which shortens: the list is the point of this message.
            raise ConversionError(
                f"the checkpoint must match model '{model}' tensor by tensor, got "
                f"{'; '.join(parts)}. {remedy}."
            )


@functools.cache
def model_table(model: str) -> ModelTable:
    """The name table of a model or fixed network.

    Raises:
      ArgumentError: if no converter knows it; lists those there are.
    """
    check_choice("--model", model, tuple(_TABLES))
    return importlib.import_module(_TABLES[model]).TABLE


def target_shapes(
    model: TalkingHead | str, names: Iterable[str]
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Network -> path -> shape and dtype of our variables; nothing is allocated.

    Args:
      model: a system, or the name of a fixed network.
      names: networks.
    """
    if isinstance(model, TalkingHead):
        key = json.dumps(model.arguments(), sort_keys=True)
        return {name: dict(_model_shapes(model.name, key, name)) for name in names}
    return {model: dict(_fixed_shapes(model))}


@functools.lru_cache(maxsize=8)
def _fixed_shapes(model: str) -> dict[str, jax.ShapeDtypeStruct]:
    return flatten(model_table(model).shapes())


@functools.lru_cache(maxsize=32)
def _model_shapes(model: str, arguments: str, network: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Traced once per model and network: seconds at full size."""
    built = build_model(model, **json.loads(arguments))
    trees = jax.eval_shape(lambda key: built.init(key, (network,)), jax.random.key(0))
    return flatten(trees[network])


def to_variables(
    model: TalkingHead | str,
    state_dicts: Mapping[str, StateDict],
    *,
    arguments: Mapping[str, Any] | None = None,
) -> dict[str, Variables]:
    """Official state dicts as linen variables, audited.

    Args:
      model: a system, or the name of one (built with default `arguments`), or a fixed network.
      state_dicts: network name -> {official tensor name: array}, torch layouts.
      arguments: constructor arguments, if `model` is a name.

    Returns:
      network name -> {'params': ..., 'batch_stats': ..., ...} of numpy arrays.

    Raises:
      ConversionError: lists unused and missing tensors and shape clashes.
    """
    if isinstance(model, str) and model not in FIXED_NETWORKS:
        model_table(model)
        model = build_model(model, **(arguments or {}))
    return convert_state_dicts(model, state_dicts)[0]


def convert_state_dicts(
    model: TalkingHead | str, state_dicts: Mapping[str, StateDict]
) -> tuple[dict[str, Variables], Leftovers]:
    """As `to_variables`, and what the way back needs besides.

    Args:
      model: a system, or the name of a fixed network.
      state_dicts: network name -> state dict.

    Raises:
      ConversionError: lists unused and missing tensors and shape clashes.
    """
    name, arguments = _identity(model)
    table = model_table(name)
    unknown = sorted(set(state_dicts) - set(table.networks))
    if unknown:
        known = f"Known: {', '.join(table.networks)}."
        raise ConversionError(
            requirement("networks", f"belong to '{name}'", ", ".join(unknown), known)
        )
    shapes = target_shapes(model, state_dicts)
    audit, leftovers = _Audit(), Leftovers({}, {}, ())
    variables, absent = {}, []
    for network, state in state_dicts.items():
        state = _without_prefix(state)
        if table.prepare is not None:
            state = table.prepare(arguments, state)
        prefix = "" if name in FIXED_NETWORKS else f"{network}."
        flat = _fill(table.networks[network], state, shapes[network], prefix, arguments, audit)
        variables[network] = unflatten(flat)
        if not (audit.unused or audit.unfilled or audit.clashes):
            absent += _collect_leftovers(
                table.networks[network], state, flat, prefix, arguments, leftovers
            )
    audit.check(name)
    return variables, leftovers._replace(absent=tuple(absent))


def to_state_dicts(
    model: TalkingHead | str,
    variables: Mapping[str, Variables],
    leftovers: Leftovers = NO_LEFTOVERS,
) -> dict[str, dict[str, np.ndarray]]:
    """Variables as official state dicts; the inverse of `convert_state_dicts`.

    Args:
      model: a system, or the name of a fixed network.
      variables: network name -> linen variables; networks without an official form are left out.
      leftovers: of the conversion; without them, what is not stored takes its usual value.

    Raises:
      ConversionError: if a parameter has no official name, or the official code has no such system.
    """
    name, arguments = _identity(model)
    table, result = model_table(name), {}
    if table.check_way_back is not None:
        table.check_way_back(arguments)
    for network, tree in variables.items():
        if network not in table.networks:
            continue
        prefix = "" if name in FIXED_NETWORKS else f"{network}."
        flat = {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}
        state = _export(table.networks[network], flat, arguments)
        for key, kept in leftovers.tensors.items():
            if key.startswith(prefix):
                key = key.removeprefix(prefix)
                converted = state.get(key)
                # A tensor of wider dtype is given back only if it is still the one we hold.
                if (
                    converted is None
                    or _same_values(converted, kept)
                    or _computed(table, network, key)
                ):
                    state[key] = kept
        for key, dtype in leftovers.dtypes.items():
            key = key.removeprefix(prefix) if key.startswith(prefix) else None
            if key in state:
                state[key] = state[key].astype(dtype)
        for key in leftovers.absent:
            if key.startswith(prefix):
                state.pop(key.removeprefix(prefix), None)
        result[network] = state
    return result


def group_networks(
    tree: Any, model: str
) -> tuple[dict[str, dict[str, np.ndarray]], list[str], list[str]]:
    """Sorts what a file holds by network.

    Args:
      tree: as read: {network: state dict, ...}, or flat with `<network>.` prefixes, or (fixed
        networks) one state dict.
      model: name of the model.

    Returns:
      (network -> state dict, ignored top-level keys, top-level keys of networks that cannot be
      converted).

    Raises:
      ConversionError: if the file is of another model, or lacks a network.
    """
    table = model_table(model)
    if isinstance(tree, Mapping) and isinstance(tree.get("state_dict"), Mapping):
        tree = tree["state_dict"]
    if not isinstance(tree, Mapping):
        raise _other_model(model, f"a {type(tree).__name__}")
    networks, ignored, impossible, unknown = _split(tree, model, table)
    missing = [name for name in table.required if name not in networks]
    strange = any(
        not table.networks[n].knows(key) for n, state in networks.items() for key in state
    )
    if missing or unknown or strange:
        other = _looks_like(tree, model)
        if other:
            raise _other_model(model, f"a checkpoint that looks like {other}")
        if missing:
            held = ", ".join(_shown(str(key)[:40]) for key in list(tree)[:5]) or "nothing"
            raise _other_model(model, f"no {' and no '.join(missing)} (it holds {held})")
    if unknown:
        audit = _Audit(unused=unknown)
        audit.check(model)
    return networks, ignored, impossible


def _split(
    tree: Mapping[Any, Any], model: str, table: ModelTable
) -> tuple[dict[str, dict[str, Any]], list[str], list[str], list[str]]:
    networks: dict[str, dict[str, Any]] = {}
    ignored, impossible, unknown = [], [], []
    tree = _without_prefix(tree)
    names = {name: name for name in table.networks}  # key of the file -> network
    if model in FIXED_NETWORKS:
        names = {table.wrapper: model}
        if not any(key.partition(".")[0] == table.wrapper for key in tree):
            return {model: tree}, [], [], []
    for key, value in tree.items():
        head, _, rest = key.partition(".")
        if key in names and isinstance(value, Mapping):
            _merge(networks.setdefault(names[key], {}), value)
        elif rest and head in names:
            _merge(networks.setdefault(names[head], {}), {rest: value})
        elif head in table.not_convertible:
            impossible.append(head)
        elif any(re.fullmatch(pattern, head) for pattern in table.ignored):
            ignored.append(head)
        elif any(isinstance(leaf, np.ndarray) for leaf in flatten(value).values()):
            unknown.append(key)
        else:
            ignored.append(key)
    return networks, sorted(set(ignored)), sorted(set(impossible)), unknown


def _looks_like(tree: Mapping[Any, Any], model: str) -> str | None:
    """The name of another model whose tables know every tensor of the file, or a related system."""
    for key, system in _RELATED.items():
        if key in tree:
            return system
    for other in _TABLES:
        if other == model:
            continue
        table = model_table(other)
        networks, _, _, unknown = _split(tree, other, table)
        names = [(network, key) for network, state in networks.items() for key in state]
        known = names and all(table.networks[network].knows(key) for network, key in names)
        if known and not unknown and all(name in networks for name in table.required):
            return f"'{other}'"
    return None


def _other_model(model: str, got: str) -> ConversionError:
    return ConversionError(
        requirement(
            "the checkpoint",
            f"be of model '{model}'",
            got,
            f"Give the right --model ({', '.join(_TABLES)}) or another file.",
        )
    )


def _identity(model: TalkingHead | str) -> tuple[str, dict[str, Any]]:
    return (model, {}) if isinstance(model, str) else (model.name, model.arguments())


def _without_prefix(state: Mapping[Any, Any]) -> dict[str, Any]:
    """Keys as text, without the prefix of torch's DataParallel."""
    result: dict[str, Any] = {}
    _merge(result, state)
    return result


def _merge(target: dict[str, Any], state: Mapping[Any, Any]) -> None:
    """Adds a state dict without that prefix; of two tensors for one name neither is the right one.

    Raises:
      ConversionError: if a name is there twice.
    """
    for key, value in state.items():
        name = str(key).removeprefix("module.")
        if name in target:
            raise ConversionError(
                requirement(
                    "the checkpoint",
                    "name each tensor once",
                    f"'{_shown(name)}' twice (with a prefix, or nested and flat)",
                    "Save one state dict per network.",
                )
            )
        target[name] = value


def _shown(name: str) -> str:
    """A name out of a file, safe to print: ASCII, one line, short."""
    return ascii(name[:_SHOWN])[1:-1]


def _fill(
    table: NetworkTable,
    state: Mapping[str, Any],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    prefix: str,
    arguments: Mapping[str, Any],
    audit: _Audit,
) -> dict[str, np.ndarray]:
    """Our flat variables of one network; what does not fit goes to the audit."""
    flat: dict[str, np.ndarray] = {}
    for name, array in state.items():
        rule, path = _find(table, name, shapes)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            audit.unused.append(f"{prefix}{name}")
        elif rule is not None:
            value = _place(array, LAYOUTS[rule.layout], shapes[path])
            if value is None:
                wanted = LAYOUTS[rule.layout].backward(np.empty(shapes[path].shape, np.bool_)).shape
                got = f"{tuple(array.shape)} {array.dtype}, model {tuple(wanted)}"
                audit.clashes.append(f"{prefix}{name} {got}")
                flat[path] = array
            elif path in flat:
                audit.unused.append(f"{prefix}{name}")
            else:
                flat[path] = value
        elif (recreated := _recreated(table, name)) is not None:
            problem = _deviation(recreated, array, arguments)
            if problem:
                audit.clashes.append(f"{prefix}{name} {problem}")
        elif not any(re.fullmatch(p, name) for p in (*table.kept, *table.ignored)):
            audit.unused.append(f"{prefix}{name}")
    audit.unfilled.extend(f"{prefix}{path}" for path in sorted(set(shapes) - set(flat)))
    return {path: flat[path] for path in shapes if path in flat}


def _find(table: NetworkTable, name: str, shapes: Mapping[str, Any]) -> tuple[Any, str]:
    """The rule of a name whose path our network has."""
    for rule in table.rules:
        path = rule.path(name)
        if path is not None and path in shapes and rule.applies(path, shapes):
            return rule, path
    return None, ""


def _place(array: np.ndarray, layout: Any, shape: jax.ShapeDtypeStruct) -> np.ndarray | None:
    """The array in our layout and dtype, or None if it does not fit."""
    if array.dtype.kind != "f" or layout.ndim not in (None, array.ndim):
        return None
    value = layout.forward(array, shape.shape)
    if value.shape != shape.shape:
        return None
    return np.array(value, dtype=shape.dtype, order="C")


def _recreated(table: NetworkTable, name: str) -> Recreated | None:
    return next((item for item in table.recreated if item.matches(name)), None)


def _deviation(item: Recreated, array: np.ndarray, arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with a stored tensor that we compute, or None."""
    value = item.value(arguments)
    if array.shape != value.shape:
        return f"{array.shape}, model {value.shape}"
    if item.tolerance is None or np.isnan(array).all():
        return None
    largest = float(np.max(np.abs(array.astype(np.float64) - value)))
    if not largest <= item.tolerance + _rounding(array) * float(np.max(np.abs(value))):
        return f"differs by {largest:.2g} from its closed form"
    return None


def _rounding(array: np.ndarray) -> float:
    """Relative error of the format a tensor was stored in, beyond float32's."""
    if array.dtype == np.float16:
        return 2.0**-11
    narrow = array.dtype == np.float32 and not np.any(array.view(np.uint32) & 0xFFFF)
    return 2.0**-9 if narrow else 0.0  # bfloat16 is read as float32 with 16 empty bits


def _export(
    table: NetworkTable, flat: Mapping[str, np.ndarray], arguments: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The official state dict of one network, without leftovers."""
    state: dict[str, np.ndarray] = {}
    nameless = []
    for path, array in flat.items():
        names = [(rule.name(path, flat), rule) for rule in table.rules]
        name, rule = next(((n, rule) for n, rule in names if n is not None), (None, None))
        if name is None:
            nameless.append(path)
            continue
        state[name] = np.ascontiguousarray(LAYOUTS[rule.layout].backward(array)).reshape(
            LAYOUTS[rule.layout].backward(array).shape
        )
        for item in table.recreated:
            extra = item.name(path)
            if extra is not None:
                state[extra] = item.value(arguments)
    if nameless:
        raise ConversionError(
            requirement(
                "parameters",
                "have official names to be written back",
                f"{len(nameless)} without ({', '.join(nameless[:3])})",
                "Only the released architectures can be reversed.",
            )
        )
    return state


def _collect_leftovers(
    table: NetworkTable,
    state: Mapping[str, np.ndarray],
    flat: Mapping[str, np.ndarray],
    prefix: str,
    arguments: Mapping[str, Any],
    leftovers: Leftovers,
) -> list[str]:
    """Adds what `_export` cannot reproduce; returns the names it invents."""
    exported = _export(table, flat, arguments)
    for name, array in state.items():
        if any(re.fullmatch(pattern, name) for pattern in table.ignored):
            continue
        mine = exported.get(name)
        if mine is not None and mine.dtype != array.dtype:
            cast = mine.astype(array.dtype)
            if _identical(cast, array):
                leftovers.dtypes[prefix + name] = array.dtype.name
                continue
        if mine is None or not _identical(mine, array):
            leftovers.tensors[prefix + name] = array
    return [prefix + name for name in exported if name not in state]


def _identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and array_bytes(a) == array_bytes(b)


def _same_values(mine: np.ndarray, kept: np.ndarray) -> bool:
    return mine.shape == kept.shape and _identical(kept.astype(mine.dtype), mine)


def _computed(table: ModelTable, network: str, name: str) -> bool:
    return _recreated(table.networks[network], name) is not None
