"""The converter: a foreign file into our formats, and one of ours back into the official one."""

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.assets import KNOWN_ASSETS, assets_folder, file_sha256, register_asset
from talking_heads_jax.checkpoints import (
    current_revision,
    load_model,
    read_description,
    save_model,
    saved_networks,
)
from talking_heads_jax.conversion.certificate import Certificate, describe_network
from talking_heads_jax.conversion.translate import (
    FIXED_NETWORKS,
    NO_LEFTOVERS,
    Leftovers,
    convert_state_dicts,
    group_networks,
    model_table,
    to_state_dicts,
    to_variables,
)
from talking_heads_jax.errors import ConversionError, requirement
from talking_heads_jax.models.base import TalkingHead, Variables
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.serialization.tensors import (
    flatten,
    read_safetensors,
    read_tensors,
    unflatten,
    write_safetensors,
)

__all__ = ["convert_checkpoint", "reverse_checkpoint", "to_state_dicts", "to_variables"]

EXTRAS = "conversion_extras.safetensors"
Reference = Callable[[TalkingHead | str, Mapping[str, Variables]], Mapping[str, Any]]


def convert_checkpoint(
    model: str,
    source: Path,
    output: Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    reference: Reference | None = None,
) -> Certificate:
    """Converts a foreign checkpoint; nothing is overwritten, and nothing in the file is run.

    Args:
      model: 'fomm', 'fnevr', 'gdpw', or a fixed network: 'vgg19', 'fan', 'face_parsing', 'deca',
        'deep3d'.
      source: torch (zip or legacy), .npz or .safetensors, in the official names and layouts.
      output: a new folder for a model; for a fixed network a new .safetensors file or a folder for
        it, or None to only register it as an asset.
      arguments: constructor arguments where they differ from the released model's; shapes that tell
        the number of keypoints or the discriminator's variant are understood without.
      reference: computes errors against known outputs, for the certificate.

    Returns:
      The certificate, also written beside the output.

    Raises:
      ConversionError: if the file is of another model, or any tensor does not fit.
      UnsafeFileError: if the file is damaged, or asks for anything but data.
      CheckpointError: if the output folder is not empty.
    """
    source = Path(source)
    model_table(model)
    output = _checked_output(model, output)
    state_dicts, ignored, impossible = group_networks(read_tensors(source), model)
    target: TalkingHead | str = model
    if model not in FIXED_NETWORKS:
        inferred = (model_table(model).infer_arguments or (lambda _: {}))(state_dicts)
        target = build_model(model, **{**inferred, **(arguments or {})})
    variables, leftovers = convert_state_dicts(target, state_dicts)
    certificate = Certificate(
        model=model,
        arguments=target.arguments() if isinstance(target, TalkingHead) else {},
        source={
            "file": source.name,
            "bytes": source.stat().st_size,
            "sha256": file_sha256(source),
        },
        networks={name: describe_network(state_dicts[name], variables[name]) for name in variables},
        ignored=ignored + _dropped(model, state_dicts),
        not_convertible=impossible,
        kept_for_reverse=len(leftovers.tensors),
        revision=current_revision(),
        errors=dict(reference(target, variables)) if reference else None,
    )
    if isinstance(target, TalkingHead):
        _save_model(output, target, variables, leftovers, certificate)
    else:
        _save_fixed(model, output, variables[model], leftovers, certificate)
    return certificate


def reverse_checkpoint(folder: Path, output: Path) -> None:
    """Writes one of our checkpoints as a .safetensors with the official names and layouts.

    A converted checkpoint comes back bit for bit. A training folder gives its newest step, averaged
    parameters where there are any; networks that have no official form are left out.

    Args:
      folder: a saved model or training folder, or the .safetensors of a fixed network.
      output: a new file.

    Raises:
      CheckpointError: if the folder cannot be read.
      ConversionError: if a parameter has no official name, or the output exists.
    """
    folder, output = Path(folder), Path(output)
    if output.exists():
        raise ConversionError(
            requirement("the output", "be a new file", output, "Nothing is overwritten.")
        )
    if folder.is_file():
        _reverse_fixed(folder, output)
        return
    info = read_description(folder)
    known = model_table(info["name"]).networks
    present = [name for name in saved_networks(folder) if name in known]
    if not present:
        raise ConversionError(
            requirement(
                f"checkpoint {folder}",
                "hold a network that has an official form",
                "none",
                "Use an intact copy, or a step that is finished.",
            )
        )
    loaded = load_model(folder, networks=present)
    leftovers = _read_leftovers(folder / EXTRAS)
    states = to_state_dicts(loaded.model, loaded.variables, leftovers)
    tensors = {
        f"{network}.{key}": a for network, state in states.items() for key, a in state.items()
    }
    metadata = {"format": "pt", "model": info["name"], "revision": current_revision()}
    write_safetensors(output, tensors, metadata)


def _checked_output(model: str, output: Path | None) -> Path | None:
    """Fails early, before anything is read, if the output cannot be written."""
    if model in FIXED_NETWORKS:
        if output is None:
            return None
        output = Path(output)
        if output.suffix != ".safetensors":
            output = output / f"{model}.safetensors"
        taken = output.exists()
    else:
        if output is None:
            raise ConversionError(
                requirement("--output", "be given", "nothing", "Name a new folder.")
            )
        output = Path(output)
        taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    if taken:
        raise ConversionError(
            requirement("the output", "be new or empty", output, "Nothing is overwritten.")
        )
    return output


def _dropped(model: str, state_dicts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names of the tensors that the tables leave out on purpose (a classifier)."""
    networks = model_table(model).networks
    return sorted(
        name
        for network, state in state_dicts.items()
        for name in state
        if any(re.fullmatch(pattern, name) for pattern in networks[network].ignored)
    )


def _save_model(
    output: Path,
    model: TalkingHead,
    variables: Mapping[str, Variables],
    leftovers: Leftovers,
    certificate: Certificate,
) -> None:
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".conversion.") as temporary:
        extras = Path(temporary) / EXTRAS
        write_safetensors(extras, leftovers.tensors, leftovers.metadata())
        save_model(
            output, model, variables, certificate=certificate.to_dict(), extra_files=[extras]
        )


def _save_fixed(
    model: str,
    output: Path | None,
    variables: Variables,
    leftovers: Leftovers,
    certificate: Certificate,
) -> None:
    """Writes and registers the parameters of a fixed network."""
    folder = assets_folder() if output is None else output.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{model}.safetensors" if output is None else output.absolute()
    with tempfile.TemporaryDirectory(dir=folder, prefix=".conversion.") as temporary:
        written = Path(temporary) / f"{model}.safetensors"
        # Without running statistics the file holds the parameters alone.
        tree = variables if len(variables) > 1 else variables["params"]
        flat = {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}
        write_safetensors(written, flat, {"network": model, "revision": certificate.revision})
        licence = KNOWN_ASSETS[model].licence
        register_asset(model, written, licence=licence, source=certificate.source["file"])
        extras = _beside(written, EXTRAS)
        write_safetensors(extras, leftovers.tensors, leftovers.metadata())
        text = json.dumps(certificate.to_dict(), indent=2, sort_keys=True) + "\n"
        _beside(written, "certificate.json").write_text(text, encoding="utf-8")
        for name in (EXTRAS, "certificate.json"):
            os.replace(_beside(written, name), _beside(final, name))
        if output is not None:
            os.replace(written, final)


def _beside(path: Path, name: str) -> Path:
    """`vgg19.safetensors` -> `vgg19.<name>` in the same folder."""
    return path.with_name(f"{path.stem}.{name}")


def _reverse_fixed(path: Path, output: Path) -> None:
    tensors, metadata = read_safetensors(path, f"file '{path.name}'")
    network = metadata.get("network")
    if network not in FIXED_NETWORKS:
        raise ConversionError(
            requirement(
                f"file '{path.name}'",
                "be a converted fixed network",
                f"network {network!r}",
                f"Give a folder, or the .safetensors of {', '.join(FIXED_NETWORKS)}.",
            )
        )
    leftovers = _read_leftovers(_beside(path, EXTRAS))
    tree = unflatten(tensors)
    variables = {network: tree if "params" in tree else {"params": tree}}
    state = to_state_dicts(network, variables, leftovers)[network]
    wrapper = model_table(network).wrapper
    if wrapper is not None:
        state = {f"{wrapper}.{name}": array for name, array in state.items()}
    write_safetensors(output, state, {"format": "pt", "model": network})


def _read_leftovers(path: Path) -> Leftovers:
    if not path.is_file():
        return NO_LEFTOVERS
    return Leftovers.read(*read_safetensors(path, f"file '{path.name}'"))
