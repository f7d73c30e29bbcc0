"""The language of the conversion tables: name templates both ways, and tensor layouts.

A `Rule` pairs an official tensor name with one of our paths, `collection/module/.../leaf`. Both
are templates: `{i}` stands for digits; `{scale}` for a scale, written `0-5` there and `0_5` here.
What a foreign file holds but we compute (`num_batches_tracked`, anti-aliasing kernels) is
`Recreated`.
Letters: o out, i in, d h w kernel axes.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    """A regular expression that matches the template and captures its placeholders."""
    parts, end = [], 0
    for match in _PLACEHOLDER.finditer(template):
        parts.append(re.escape(template[end : match.start()]))
        inner = r"\d+(?:[-_]\d+)?" if match[1] == "scale" else r"\d+"
        parts.append(f"(?P<{match[1]}>{inner})")
        end = match.end()
    return re.compile("".join(parts) + re.escape(template[end:]))


def _translate(name: str, template: str, other: str) -> str | None:
    """`name` rewritten from one template to another, or None if it does not match."""
    match = _pattern(template).fullmatch(name)
    if match is None:
        return None
    separator = "_" if "/" in other else "-"
    fields = match.groupdict()
    if "scale" in fields:
        fields["scale"] = re.sub("[-_]", separator, fields["scale"])
    return other.format(**fields)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A change of tensor layout.

    Attributes:
      ndim: axes of the foreign tensor.
      forward: (foreign array, our shape) -> our array; a view where possible.
      backward: our array -> foreign array.
    """

    ndim: int | None
    forward: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]


def _permutation(*axes: int) -> Layout:
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Layout(
        len(axes),
        lambda array, shape: array.transpose(axes),
        lambda array: array.transpose(inverse),
    )


def _unflatten_spectral(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) != 3 or array.size != np.prod(shape):
        return array  # the audit reports the clash
    height, width, features = shape
    return array.reshape(features, height, width).transpose(1, 2, 0)


LAYOUTS: Mapping[str, Layout] = {
    "identity": Layout(None, lambda array, shape: array, lambda array: array),
    "conv2d": _permutation(2, 3, 1, 0),  # OIHW -> HWIO
    "conv3d": _permutation(2, 3, 4, 1, 0),  # OIDHW -> DHWIO
    "linear": _permutation(1, 0),  # (out, in) -> (in, out)
    # torch views the kernel as (o, i·h·w): its right vector is flat (i, h, w), ours is (h, w, i).
    "spectral_v": Layout(1, _unflatten_spectral, lambda array: array.transpose(2, 0, 1).ravel()),
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor, both ways.

    Attributes:
      source: template of the official name.
      target: template of our path.
      layout: key of `LAYOUTS`.
      when: template of a path that must exist too, where two names share a target.
      unless: template of a path that must not.
    """

    source: str
    target: str
    layout: str = "identity"
    when: str | None = None
    unless: str | None = None

    def path(self, name: str) -> str | None:
        """Our path of an official name, or None."""
        return _translate(name, self.source, self.target)

    def name(self, path: str, paths: Mapping[str, Any]) -> str | None:
        """The official name of our path, or None; `paths` are all paths of the network."""
        return _translate(path, self.target, self.source) if self.applies(path, paths) else None

    def applies(self, path: str, paths: Mapping[str, Any]) -> bool:
        """Whether `when` and `unless` hold for one of our paths, among all paths of the network."""
        if self.when and _translate(path, self.target, self.when) not in paths:
            return False
        return not (self.unless and _translate(path, self.target, self.unless) in paths)


@dataclasses.dataclass(frozen=True)
class Recreated:
    """A tensor of the official file that we compute instead of storing.

    Attributes:
      source: template of the official name.
      anchor: template of one of our paths: the tensor exists beside it.
      value: constructor arguments of the model -> the tensor.
      tolerance: largest accepted deviation of a file's value; None accepts any. NaN always passes:
        an unused kernel.
    """

    source: str
    anchor: str
    value: Callable[[Mapping[str, Any]], np.ndarray]
    tolerance: float | None = None

    def matches(self, name: str) -> bool:
        """Whether an official name is this tensor."""
        return _pattern(self.source).fullmatch(name) is not None

    def name(self, path: str) -> str | None:
        """The official name that belongs to one of our paths, or None."""
        return _translate(path, self.anchor, self.source)


@dataclasses.dataclass(frozen=True)
class NetworkTable:
    """All tensors of one network.

    Attributes:
      rules: what is converted.
      recreated: what is computed.
      kept: regular expressions of names that we do not use but keep for the way back.
      ignored: regular expressions of names that are dropped.
    """

    rules: tuple[Rule, ...]
    recreated: tuple[Recreated, ...] = ()
    kept: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def knows(self, name: str) -> bool:
        """Whether an official name has a place in this table."""
        return (
            any(rule.path(name) is not None for rule in self.rules)
            or any(item.matches(name) for item in self.recreated)
            or any(re.fullmatch(pattern, name) for pattern in (*self.kept, *self.ignored))
        )


@dataclasses.dataclass(frozen=True)
class ModelTable:
    """A checkpoint file of one system.

    Attributes:
      networks: our network name (the file's top-level key) -> its tensors.
      required: networks a file must hold.
      ignored: regular expressions of other top-level keys, dropped and listed in the certificate.
      not_convertible: top-level keys of networks whose architecture is not public.
      infer_arguments: state dicts -> constructor arguments that their shapes tell.
      prepare: (constructor arguments, state dict of a network) -> the state dict to convert, where
        the model can be asked for in another form than the file's. The way back gives that form.
      check_way_back: constructor arguments -> None; raises ConversionError where the official code
        would make another picture of the same tensors.
      shapes: of a fixed network: () -> its variables' shapes and dtypes.
      wrapper: of a fixed network: the file's top-level key that holds it; None for files that hold
        nothing else. A file with the network alone is read as well.
    """

    networks: Mapping[str, NetworkTable]
    required: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    not_convertible: tuple[str, ...] = ()
    infer_arguments: Callable[[Mapping[str, Mapping[str, Any]]], dict[str, Any]] | None = None
    prepare: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None
    check_way_back: Callable[[Mapping[str, Any]], None] | None = None
    shapes: Callable[[], Any] | None = None
    wrapper: str | None = None


def convolution(
    source: str, target: str, layout: str = "conv2d", *, bias: bool = True
) -> Iterator[Rule]:
    """Rules of a convolution or linear layer.

    Args:
      source: official module.
      target: our module, without collection.
      layout: of the kernel.
      bias: whether it has one.
    """
    yield Rule(f"{source}.weight", f"params/{target}/kernel", layout)
    if bias:
        yield Rule(f"{source}.bias", f"params/{target}/bias")


def affine(source: str, target: str) -> Iterator[Rule]:
    """Rules of a norm's learned scale and bias."""
    yield Rule(f"{source}.weight", f"params/{target}/scale")
    yield Rule(f"{source}.bias", f"params/{target}/bias")


def batch_norm(source: str, target: str) -> Iterator[Rule | Recreated]:
    """Rules of a batch norm: affine, running statistics, and torch's call counter."""
    yield from affine(source, target)
    yield Rule(f"{source}.running_mean", f"batch_stats/{target}/mean")
    yield Rule(f"{source}.running_var", f"batch_stats/{target}/var")
    yield Recreated(
        f"{source}.num_batches_tracked",
        f"batch_stats/{target}/mean",
        lambda arguments: np.zeros((), np.int64),
    )


def residual_trunk(source: str, target: str) -> Iterator[Rule | Recreated]:
    """Rules of a ResNet without its classifier, in torchvision's names.

    Args:
      source: official module.
      target: our `networks.resnet.ResidualTrunk`, without collection.
    """
    yield from convolution(f"{source}.conv1", f"{target}/conv_1", bias=False)
    yield from batch_norm(f"{source}.bn1", f"{target}/norm_1")
    block, mine = f"{source}.layer{{s}}.{{b}}", f"{target}/layer_{{s}}_{{b}}"
    yield from convolution(f"{block}.conv{{k}}", f"{mine}/conv_{{k}}", bias=False)
    yield from batch_norm(f"{block}.bn{{k}}", f"{mine}/norm_{{k}}")
    yield from convolution(f"{block}.downsample.0", f"{mine}/shortcut_conv", bias=False)
    yield from batch_norm(f"{block}.downsample.1", f"{mine}/shortcut_norm")


def spectral_convolution(source: str, target: str) -> Iterator[Rule]:
    """Rules of a convolution with spectral norm, or the same one without."""
    vector = f"spectral/{target}/u"
    kernel = f"params/{target}/kernel"
    yield Rule(f"{source}.weight_orig", kernel, "conv2d", when=vector)
    yield Rule(f"{source}.weight", kernel, "conv2d", unless=vector)
    yield Rule(f"{source}.bias", f"params/{target}/bias")
    yield Rule(f"{source}.weight_u", vector)
    yield Rule(f"{source}.weight_v", f"spectral/{target}/v", "spectral_v")


def antialias_weight(scale: float, channels: int) -> np.ndarray:
    """The official depthwise kernel (channels, 1, side, side) of an anti-aliased downsampling.

    Args:
      scale: new size over old size.
      channels: of the image.

    Source: FOMM's anti-aliased interpolation: a normalised Gaussian, sigma = (1 / scale - 1) / 2,
      side 2 round(4 sigma) + 1. Kept apart from `ops.resize`, so that each checks the other.
    """
    sigma = (1 / scale - 1) / 2
    radius = round(4 * sigma)
    place = np.arange(-radius, radius + 1, dtype=np.float64)
    taps = np.exp(-np.square(place / sigma) / 2) if radius else np.ones(1)
    taps /= taps.sum()
    kernel = np.outer(taps, taps).astype(np.float32)
    return np.tile(kernel, (channels, 1, 1, 1))


def network_table(*parts: Any, **options: Any) -> NetworkTable:
    """Collects rules and recreated tensors, given singly or as iterators, into a table.

    Args:
      *parts: `Rule`s, `Recreated`s, or iterables of them.
      **options: further fields of `NetworkTable`.
    """
    items: list[Rule | Recreated] = []
    for part in parts:
        items.extend([part] if isinstance(part, Rule | Recreated) else part)
    return NetworkTable(
        tuple(item for item in items if isinstance(item, Rule)),
        tuple(item for item in items if isinstance(item, Recreated)),
        **options,
    )
