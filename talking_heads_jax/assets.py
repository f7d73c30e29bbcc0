"""The registry of files a user supplies: where they lie, their checksum, licence and origin.

Nothing is ever downloaded. A registered file is copied to `$TALKING_HEADS_HOME/assets`, and
`assets.json` beside it says what it is. A converted fixed network (VGG19, …) is one .safetensors
file there, written by `talking-heads convert`.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from talking_heads_jax.errors import ArgumentError, AssetNotFoundError, requirement
from talking_heads_jax.serialization.atomic_file import replace_text, replacing

_INDEX = "assets.json"
_CHUNK = 2**20


@dataclasses.dataclass(frozen=True)
class KnownAsset:
    """A file that some part of the package can use.

    Attributes:
      what: what it is, in a few words.
      licence: of the file as published, as far as known; its page decides.
      source: the file's name as published.
      page: where it is published and its licence stands.
      remedy: how to register it.
      alternative: what does the same without it; empty for none.
    """

    what: str
    licence: str
    source: str
    page: str
    remedy: str
    alternative: str = ""

    def advice(self) -> str:
        """How to register it, or what to use instead."""
        return f"{self.remedy} Or use {self.alternative}." if self.alternative else self.remedy


_OPEN_MODELS = "the built-in head 'procedural', which needs no file, or 'ict' (MIT)"
_FLAME_PAGE = "https://flame.is.tue.mpg.de"
_FLAME_TERMS = "sign-up; terms differ between versions, read the page"
_BFM_PAGE = "https://faces.dmi.unibas.ch/bfm/"


def _converted(name: str, file: str, page: str, **fields: str) -> KnownAsset:
    """A network whose published file `talking-heads convert` reads."""
    remedy = f"Get {file} from {page} and run: talking-heads convert --model {name} {file}."
    return KnownAsset(source=file, page=page, remedy=remedy, **fields)


KNOWN_ASSETS: Mapping[str, KnownAsset] = MappingProxyType(
    {
        "vgg19": KnownAsset(
            what="VGG19 trained on ImageNet, for the perceptual losses",
            licence="BSD-3-Clause",
            source="torchvision's vgg19-dcbb9e9d.pth",
            page="https://pytorch.org/vision",
            remedy="Get vgg19-dcbb9e9d.pth from torchvision's model page and run: talking-heads "
            "convert --model vgg19 vgg19-dcbb9e9d.pth.",
            alternative="perceptual.weights='random' in the config",
        ),
        "fan": _converted(
            "fan",
            "2DFAN4-11f355bf06.pth.tar",
            "https://github.com/1adrianb/face-alignment",
            what="the face alignment network, for 68 landmarks",
            licence="BSD-3-Clause code; weights trained on 300W-LP, research data",
            alternative="a file of landmarks that another tool wrote",
        ),
        "face_parsing": _converted(
            "face_parsing",
            "79999_iter.pth",
            "https://github.com/zllrunning/face-parsing.PyTorch",
            what="BiSeNet face parsing, for masks of hair, skin, eyes and mouth",
            licence="MIT code; weights trained on CelebAMask-HQ, non-commercial research",
            alternative="no masks",
        ),
        "deca": _converted(
            "deca",
            "deca_model.tar",
            "https://github.com/yfeng95/DECA",
            what="DECA's coarse encoder, from a face to FLAME's coefficients",
            licence="non-commercial research, the Max Planck Institute's terms",
            alternative="a face model fitted to landmarks",
        ),
        "deep3d": _converted(
            "deep3d",
            "epoch_20.pth",
            "https://github.com/sicxu/Deep3DFaceRecon_pytorch",
            what="Deep3DFaceRecon's regressor, from a face to the Basel model's coefficients",
            licence="MIT code; weights tied to the Basel model, non-commercial research",
            alternative="a face model fitted to landmarks",
        ),
        "flame2020": KnownAsset(
            what="the FLAME head model of 2020",
            licence=_FLAME_TERMS,
            source="generic_model.pkl",
            page=_FLAME_PAGE,
            remedy=f"Get generic_model.pkl from {_FLAME_PAGE} and run: talking-heads assets add "
            "generic_model.pkl.",
            alternative=_OPEN_MODELS,
        ),
        "flame2023": KnownAsset(
            what="the FLAME head model of 2023",
            licence=f"{_FLAME_TERMS}; the Open variant is reported as CC-BY-4.0",
            source="flame2023.pkl",
            page=_FLAME_PAGE,
            remedy=f"Get flame2023.pkl from {_FLAME_PAGE} and run: talking-heads assets add "
            "flame2023.pkl.",
            alternative=_OPEN_MODELS,
        ),
        "flame_landmarks": KnownAsset(
            what="FLAME's landmark embedding",
            licence="as the release it came with (DECA's: non-commercial)",
            source="landmark_embedding.npy",
            page=_FLAME_PAGE,
            remedy=f"It comes with DECA and with FLAME ({_FLAME_PAGE}): talking-heads assets add "
            "landmark_embedding.npy.",
            alternative=_OPEN_MODELS,
        ),
        "flame_uv": KnownAsset(
            what="FLAME's template mesh with texture coordinates",
            licence="as the release it came with (DECA's: non-commercial)",
            source="head_template.obj",
            page=_FLAME_PAGE,
            remedy=f"It comes with DECA and with FLAME ({_FLAME_PAGE}): talking-heads assets add "
            "head_template.obj.",
            alternative=_OPEN_MODELS,
        ),
        "bfm09": KnownAsset(
            what="the Basel face model of 2009, as Deep3DFaceRecon uses it",
            licence="signed terms, non-commercial research",
            source="BFM_model_front.mat, or 01_MorphableModel.mat and its companions",
            page=_BFM_PAGE,
            remedy=f"Get the model from {_BFM_PAGE}, prepare BFM_model_front.mat as "
            "Deep3DFaceRecon describes, and run: talking-heads assets add BFM_model_front.mat.",
            alternative=_OPEN_MODELS,
        ),
        "ict": KnownAsset(
            what="ICT-FaceKit, the light face model",
            licence="MIT",
            source="the FaceXModel folder",
            page="https://github.com/ICT-VGL/ICT-FaceKit",
            remedy="Clone https://github.com/ICT-VGL/ICT-FaceKit and run: talking-heads assets add "
            "ICT-FaceKit/FaceXModel.",
            alternative="the built-in head 'procedural', which needs no file",
        ),
    }
)


@dataclasses.dataclass(frozen=True)
class Asset:
    """A registered file, as `assets.json` states it.

    Attributes:
      name: how the package asks for it.
      file: name inside the assets folder.
      sha256: of the file's bytes.
      bytes: its size.
      licence: as far as known.
      source: where it came from.
    """

    name: str
    file: str
    sha256: str
    bytes: int
    licence: str
    source: str


def home_folder() -> Path:
    """`$TALKING_HEADS_HOME`, default `~/.cache/talking_heads_jax`; it may not exist yet."""
    chosen = os.environ.get("TALKING_HEADS_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "talking_heads_jax"


def assets_folder() -> Path:
    """The folder of registered files; it may not exist yet."""
    return home_folder() / "assets"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def registered_assets() -> dict[str, Asset]:
    """All registered assets by name.

    Raises:
      AssetNotFoundError: if `assets.json` cannot be read.
    """
    path = assets_folder() / _INDEX
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = {name: Asset(name=name, **entry) for name, entry in document.items()}
        if not all(_is_plain(asset) for asset in found.values()):
            raise ValueError("an entry of another type, or one that points outside")
        return found
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AssetNotFoundError(
            requirement(
                f"the registry {path}",
                "be readable JSON",
                type(error).__name__,
                "Remove it and register the files again.",
            )
        ) from error


def _is_plain(asset: Asset) -> bool:
    """Whether an entry is of the types it should be and names a file of the assets folder."""
    texts = (asset.file, asset.sha256, asset.licence, asset.source)
    return (
        all(type(text) is str for text in texts)
        and type(asset.bytes) is int
        and asset.file not in ("", ".", "..")
        and Path(asset.file).name == asset.file
    )


def locate_asset(name: str, *, verify: bool = False) -> Path:
    """Finds a registered file.

    Args:
      name: of the asset, for instance 'vgg19'.
      verify: also compare the file's checksum with the registry's.

    Raises:
      AssetNotFoundError: if it is not registered, or the file is gone or changed; says how to get
        it.
    """
    known = KNOWN_ASSETS.get(name)
    remedy = (
        known.advice() if known else f"Register it: talking-heads assets add FILE --name {name}."
    )
    asset = registered_assets().get(name)
    if asset is None:
        where = f"nothing of that name in {assets_folder()}"
        raise AssetNotFoundError(requirement(f"asset '{name}'", "be registered", where, remedy))
    path = assets_folder() / asset.file
    if not path.is_file() or path.stat().st_size != asset.bytes:
        problem = f"a missing or changed {path}"
        raise AssetNotFoundError(requirement(f"asset '{name}'", "be intact", problem, remedy))
    if verify and file_sha256(path) != asset.sha256:
        problem = f"another checksum of {path}"
        raise AssetNotFoundError(requirement(f"asset '{name}'", "be intact", problem, remedy))
    return path


def register_asset(
    name: str, path: Path, *, licence: str | None = None, source: str | None = None
) -> Asset:
    """Copies a file into the assets folder and lists it; registering it twice changes nothing.

    Args:
      name: how the package asks for it: lower-case letters, digits, '_' and '-'.
      path: the file.
      licence: default: that of the known asset, else 'unknown'.
      source: where it came from; default: the known source, else the file's name.

    Raises:
      ArgumentError: if the name is malformed, the file is missing, or another file already has
        that name.
    """
    path = Path(path)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise ArgumentError(
            requirement(
                "the asset's name", "be lower-case letters, digits, _ or -", name, "Rename it."
            )
        )
    if not path.is_file():
        raise ArgumentError(requirement("the asset", "be a file", path, "Check the path."))
    known = KNOWN_ASSETS.get(name)
    folder = assets_folder()
    folder.mkdir(parents=True, exist_ok=True)
    asset = Asset(
        name=name,
        file=name + path.suffix,
        sha256=file_sha256(path),
        bytes=path.stat().st_size,
        licence=licence or (known.licence if known else "unknown"),
        source=source or (known.source if known else path.name),
    )
    index = registered_assets()
    target = folder / asset.file
    previous = index.get(name)
    if previous is not None and previous.sha256 != asset.sha256:
        previous_path = folder / previous.file
        if previous_path.exists() and previous_path.resolve() != path.resolve():
            raise ArgumentError(
                requirement(
                    f"asset '{name}'",
                    "be registered once",
                    f"a different file than {previous_path}",
                    "Remove that file first if you mean to replace it.",
                )
            )
    if target.resolve() != path.resolve():
        with replacing(target) as partial:
            shutil.copyfile(path, partial)
    index[name] = asset
    document = {entry.name: _without_name(entry) for entry in index.values()}
    replace_text(folder / _INDEX, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return asset


def describe_assets() -> list[str]:
    """The licence matrix as lines: state, what it is, licence, page, and what to use instead."""
    index = registered_assets()
    lines = []
    for name in sorted({*KNOWN_ASSETS, *index}):
        asset, known = index.get(name), KNOWN_ASSETS.get(name)
        state = f"registered, {assets_folder() / asset.file}" if asset else "not registered"
        lines.append(f"{name}: {state}")
        if known is None:
            lines.append(f"  licence: {asset.licence}; from {asset.source}")
            continue
        lines.append(f"  {known.what}; file: {known.source}")
        lines.append(f"  licence: {known.licence}; {known.page}")
        if known.alternative:
            lines.append(f"  instead: {known.alternative}")
        if asset is None:
            lines.append(f"  {known.remedy}")
    lines.append("procedural: built in, made by code, no file (licence of this package)")
    return lines


def _without_name(asset: Asset) -> dict[str, Any]:
    fields = dataclasses.asdict(asset)
    del fields["name"]
    return fields
