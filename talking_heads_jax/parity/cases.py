"""Reader of golden cases: `<case>.json` beside `<case>.npz`, from a folder nobody has to trust.

The json holds `tensors`, `tolerance`, the weight rule's parameters and `uses`; the npz holds
`in/...`, `out/...` and `const/...`. Two keys exist for reduced copies that fit in a repository:
`subsample` {output: steps per axis} and `inputs_from` {input: ["<file>/<array>", ...]}, arrays of
another npz of the folder, joined along the batch axis. Unknown json keys are comments: whatever
they might change, the digest and the expected outputs would tell. Every inconsistency is a
`ParityError`.
"""

import dataclasses
import fnmatch
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import ParityError, requirement
from talking_heads_jax.parity import weights

_MAX_TENSOR_ELEMENTS = 2**30  # of a rebuilt state dict: 4 GiB of float32
_MAX_ARRAY_BYTES = 2**31  # of one npz, unpacked
_MAX_JSON_BYTES = 2**25
_MAX_AXES = 8


@dataclasses.dataclass(frozen=True)
class GoldenCase:
    """One case, read and checked.

    Attributes:
      name: its file name without extension.
      folder: where it lies; the cases of `uses` lie beside it.
      shapes: official tensor name -> shape, in state-dict order; empty for cases without weights.
      rule: keyword arguments of `weights.build_state_dict`.
      digest: expected SHA-256 of the state dict.
      tolerances: output name or pattern -> {rule: limit}.
      uses: names of cases whose weights this one needs.
      subsample: output -> step per axis at which the reference was stored.
      note: what the author says about it.
      inputs: name -> array.
      expected: name -> array.
    """

    name: str
    folder: Path
    shapes: dict[str, tuple[int, ...]]
    rule: dict[str, Any]
    digest: str
    tolerances: dict[str, dict[str, float]]
    uses: tuple[str, ...]
    subsample: dict[str, tuple[int, ...]]
    note: str
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Rebuilds the official state dict and verifies its digest.

        Raises:
          ParityError: if the case has no weights, or they are not the reference's.
        """
        if not self.shapes:
            raise _malformed(self.name, "'tensors' of the json", "name at least one tensor", "none")
        state = weights.build_state_dict(self.shapes, **self.rule)
        weights.check_digest(self.name, state, self.digest)
        return state

    def input(self, name: str, shape: Sequence[int | None] | None = None) -> np.ndarray:
        """One input array.

        Args:
          name: without the `in/` prefix.
          shape: expected sizes; None matches any.

        Raises:
          ParityError: if it is absent, not finite, or of another shape.
        """
        if name not in self.inputs:
            raise _malformed(
                self.name, "the npz", f"hold 'in/{name}'", f"only {', '.join(self.inputs) or '-'}"
            )
        value = self.inputs[name]
        if shape is not None:
            fits = value.ndim == len(shape) and all(
                want in (None, have) for want, have in zip(shape, value.shape, strict=True)
            )
            if not fits:
                wanted = ", ".join("*" if size is None else str(size) for size in shape)
                raise _malformed(self.name, f"'in/{name}'", f"have shape ({wanted})", value.shape)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise _malformed(self.name, f"'in/{name}'", "be finite", "NaN or infinity")
        return value

    def image(self, name: str) -> np.ndarray:
        """An image input as float32 in [0, 1]; stored bytes are divided by 255."""
        value = self.input(name, (None, None, None, None))
        if value.dtype == np.uint8:
            return value.astype(np.float32) / np.float32(255)
        return value.astype(np.float32)

    def other(self, name: str) -> "GoldenCase":
        """A case named in `uses`.

        Raises:
          ParityError: if it is not named there, missing or malformed.
        """
        if name not in self.uses:
            raise _malformed(self.name, "'uses' of the json", f"name '{name}'", self.uses)
        return read_case(self.folder, name)


def list_cases(folder: Path, patterns: Sequence[str] = ()) -> list[str]:
    """Names of the cases of a folder, sorted.

    Args:
      folder: holds json and npz files.
      patterns: shell patterns; none means all.

    Raises:
      ParityError: if the folder holds no case, or a pattern matches none.
    """
    folder = Path(folder)
    remedy = "Give a folder with <case>.json and <case>.npz files."
    if not folder.is_dir():
        raise ParityError(requirement("the golden folder", "exist", folder, remedy))
    names = sorted(path.stem for path in folder.glob("*.json"))
    if not names:
        raise ParityError(
            requirement("the golden folder", "hold cases", f"{folder}: no json", remedy)
        )
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ParityError(
                requirement(
                    f"--case '{pattern}'", "match a case", "no match", f"Cases: {', '.join(names)}."
                )
            )
    if not patterns:
        return names
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def read_case(folder: Path, name: str) -> GoldenCase:
    """Reads one case and checks that its two files agree.

    Args:
      folder: where it lies.
      name: without extension.

    Raises:
      ParityError: if a file is missing, unreadable or inconsistent.
    """
    folder = Path(folder)
    _check_plain_name(name, name, "a case name")
    document = _read_json(folder, name)
    arrays = _read_npz(folder, name, f"{name}.npz")
    stray = [key for key in arrays if key.split("/", 1)[0] not in ("in", "out", "const")]
    if stray:
        raise _malformed(
            name, "arrays of the npz", "be named in/..., out/... or const/...", ", ".join(stray)
        )
    parts = {
        prefix: {k.split("/", 1)[1]: v for k, v in arrays.items() if k.startswith(prefix + "/")}
        for prefix in ("in", "out", "const")
    }
    if not parts["out"]:
        raise _malformed(name, "the npz", "hold expected outputs", "no out/... array")
    shapes = _tensor_shapes(name, document.get("tensors", {}), parts["const"])
    rule = {
        "salt": _typed(name, document, "salt", str, ""),
        "unit_gain": frozenset(_names(name, document, "unit_gain")),
        "scale": _numbers(name, document, "scale"),
        "offset": _numbers(name, document, "offset"),
        "constants": {k: v for k, v in parts["const"].items() if k in shapes},
    }
    digest = _typed(name, document, "weights_sha256", str, "")
    if shapes and not digest:
        raise _malformed(name, "the json", "hold 'weights_sha256'", "none")
    uses = tuple(_names(name, document, "uses"))
    for used in uses:
        _check_plain_name(name, used, "a name in 'uses'")
    return GoldenCase(
        name=name,
        folder=folder,
        shapes=shapes,
        rule=rule,
        digest=digest,
        tolerances=_tolerances(name, document),
        uses=uses,
        subsample=_subsample(name, document, parts["out"]),
        note=_typed(name, document, "note", str, ""),
        inputs=parts["in"] | _foreign_inputs(name, folder, document),
        expected=parts["out"],
    )


def _malformed(case: str, what: str, constraint: str, got: object) -> ParityError:
    return ParityError(
        requirement(f"{what} in case '{case}'", constraint, got, "Fetch or write the case again.")
    )


def _check_plain_name(case: str, name: str, what: str) -> None:
    if not name or name != Path(name).name or name.startswith("."):
        raise _malformed(case, what, "be a plain file name", repr(name))


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise _malformed(name, path.name, "be smaller than 32 MiB", path.stat().st_size)
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _malformed(name, path.name, "be readable json", error) from error
    if not isinstance(document, dict):
        raise _malformed(name, path.name, "be a json object", type(document).__name__)
    return document


def _read_npz(folder: Path, case: str, file_name: str) -> dict[str, np.ndarray]:
    path = folder / file_name
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MAX_ARRAY_BYTES:
            raise _malformed(case, file_name, "unpack to less than 2 GiB", f"{size} bytes")
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, ParityError):
            raise
        raise _malformed(case, file_name, "be a readable npz of plain arrays", error) from error


def _typed(case: str, document: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    value = document.get(key, default)
    if not isinstance(value, kind):
        raise _malformed(case, f"'{key}' of the json", f"be a {kind.__name__}", repr(value))
    return value


def _names(case: str, document: Mapping[str, Any], key: str) -> list[str]:
    value = _typed(case, document, key, list, [])
    if not all(isinstance(item, str) for item in value):
        raise _malformed(case, f"'{key}' of the json", "list names", value)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(case: str, document: Mapping[str, Any], key: str) -> dict[str, float]:
    value = _typed(case, document, key, dict, {})
    if not all(_is_number(number) for number in value.values()):
        raise _malformed(case, f"'{key}' of the json", "map names to finite numbers", value)
    return value


def _tensor_shapes(
    case: str, document: Any, constants: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    if not isinstance(document, dict):
        raise _malformed(case, "'tensors' of the json", "map names to shapes", repr(document))
    shapes, total = {}, 0
    for name, shape in document.items():
        fits = isinstance(shape, list) and len(shape) <= _MAX_AXES
        if not fits or not all(type(size) is int and size >= 0 for size in shape):
            raise _malformed(case, f"the shape of '{name}'", "list sizes", shape)
        shapes[name] = tuple(shape)
        total += math.prod(shape)
        if total > _MAX_TENSOR_ELEMENTS:
            raise _malformed(case, "'tensors' of the json", "hold at most 2**30 numbers", total)
        if name in constants and constants[name].shape != shapes[name]:
            raise _malformed(
                case, f"'const/{name}'", f"have shape {shapes[name]}", constants[name].shape
            )
    return shapes


def _tolerances(case: str, document: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    value = _typed(case, document, "tolerance", dict, {})
    for output, rules in value.items():
        if not isinstance(rules, dict) or not all(
            _is_number(limit) and limit >= 0 for limit in rules.values()
        ):
            raise _malformed(
                case, f"the tolerance of '{output}'", "map rules to numbers ≥ 0", rules
            )
    return value


def _subsample(
    case: str, document: Mapping[str, Any], expected: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    value = _typed(case, document, "subsample", dict, {})
    for output, steps in value.items():
        if output not in expected:
            raise _malformed(case, "'subsample' of the json", "name outputs", output)
        fits = isinstance(steps, list) and len(steps) == expected[output].ndim
        if not fits or not all(type(step) is int and step > 0 for step in steps):
            raise _malformed(
                case, f"'subsample' of '{output}'", "list one step per axis of the output", steps
            )
    return {output: tuple(steps) for output, steps in value.items()}


def _foreign_inputs(case: str, folder: Path, document: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays that several reduced cases share, from other npz files of the folder."""
    inputs, files = {}, {}
    for name, addresses in _typed(case, document, "inputs_from", dict, {}).items():
        if not isinstance(addresses, list) or not addresses:
            raise _malformed(case, f"'inputs_from' of '{name}'", "list arrays", addresses)
        parts = []
        for address in addresses:
            file_name, _, key = str(address).partition("/")
            _check_plain_name(case, file_name, "a file in 'inputs_from'")
            if file_name not in files:
                files[file_name] = _read_npz(folder, case, f"{file_name}.npz")
            if key not in files[file_name]:
                raise _malformed(case, f"{file_name}.npz", f"hold '{key}'", list(files[file_name]))
            parts.append(files[file_name][key])
        try:
            inputs[name] = np.concatenate(parts)
        except ValueError as error:
            raise _malformed(case, f"'inputs_from' of '{name}'", "fit together", error) from error
    return inputs
