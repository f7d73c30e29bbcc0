"""The verb `prepare`: a folder of videos, or GDPW's official data, → a data set."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from talking_heads_jax.cli_options import (
    DETECTORS,
    MORPHABLES,
    RECIPES,
    add_limits,
    media_limits,
    positive,
    use_compile_cache,
)
from talking_heads_jax.errors import ArgumentError, requirement

_EXIT_OK = 0
# Options that say how to track: they need --track, so that nobody waits for what never comes.
_TRACKING = ("morphable", "detector", "recipe", "smooth", "camera", "shots", "vertices")
_VIDEOS, _GDPW = "videos", "gdpw"
# GDPW's official data come with meshes, and their folder holds training people only.
_TEST_FRACTION = {_VIDEOS: 0.2, _GDPW: 0.0}
_OFFICIAL_MESH = "flame2020"
_OF_EVERY_LAYOUT = ("size", "image_format", "quality", "test_fraction", "split_seed")


def add_prepare(verbs: argparse._SubParsersAction) -> None:
    """Adds the verb.

    Args:
      verbs: of the program's parser.
    """
    verb = verbs.add_parser("prepare", help="turn a folder of videos into a training set")
    verb.set_defaults(run=_prepare, default_of=verb.get_default)
    verb.add_argument(
        "videos",
        type=Path,
        help="folder of videos, or of folders of frames; with --layout gdpw of PERSON/VIDEO/CLIP",
    )
    verb.add_argument(
        "--layout",
        choices=(_VIDEOS, _GDPW),
        default=_VIDEOS,
        help="what lies in the folder (videos); gdpw: the official 256 px crops NNNNNNN_img.jpg, "
        "each with the mesh of --morphable (flame2020) in NNNNNNN_posed_vertx.lz4",
    )
    verb.add_argument("--output", type=Path, required=True, help="folder of the data set")
    verb.add_argument("--size", type=positive, default=256, help="side of the crops, pixels (256)")
    verb.add_argument("--boxes", type=Path, help="csv or json of one crop box per clip")
    verb.add_argument(
        "--landmarks",
        type=Path,
        help="folder of <clip>_landmarks.npz files (with --track also .csv)",
    )
    verb.add_argument("--identities", type=Path, help="csv or json of who each clip shows")
    verb.add_argument("--image-format", choices=("jpeg", "png"), default="jpeg")
    verb.add_argument("--quality", type=positive, default=95, help="of jpeg (95)")
    verb.add_argument("--frame-stride", type=positive, default=1, help="keep every n-th frame")
    verb.add_argument("--max-frames", type=positive, help="frames kept of a clip (all)")
    verb.add_argument("--folder-fps", type=float, default=25.0, help="of folders of images (25)")
    verb.add_argument(
        "--test-fraction", type=float, help="share of identities to test on (0.2; gdpw: 0)"
    )
    verb.add_argument("--test-clips", nargs="+", metavar="GLOB", help="instead: these clips")
    verb.add_argument("--split-seed", type=int, default=0, help="of the random split (0)")
    verb.add_argument("--workers", type=int, help="processes (one per core); 0: none")
    _add_tracking(verb)
    add_limits(verb, "--max-clip-frames")


def _add_tracking(verb: argparse.ArgumentParser) -> None:
    group = verb.add_argument_group("tracking", "follow the face and write what is found")
    group.add_argument(
        "--track",
        action="store_true",
        help="landmarks, pose, coefficients and cameras into the records, and a quality report",
    )
    group.add_argument(
        "--morphable",
        choices=MORPHABLES,
        help="the face model that is fitted (procedural, built in); none: landmarks only",
    )
    group.add_argument(
        "--detector",
        choices=DETECTORS,
        help="what finds faces where no landmark file is given (auto: the first installed)",
    )
    group.add_argument("--recipe", choices=RECIPES, help="how crops lie about the face (prepare)")
    group.add_argument(
        "--smooth",
        choices=("none", "one-euro", "gaussian"),
        help="of the landmarks over time, before the fit (none)",
    )
    group.add_argument("--camera", choices=("weak_perspective", "perspective"), help="of the fit")
    group.add_argument(
        "--shots", choices=("longest", "all"), help="kept of a clip with cuts (longest)"
    )
    group.add_argument("--vertices", action="store_true", help="the mesh's vertices as well")


def _prepare(arguments: argparse.Namespace) -> int:
    if arguments.test_fraction is None:
        arguments.test_fraction = _TEST_FRACTION[arguments.layout]
    if arguments.layout == _GDPW:
        return _import_gdpw(arguments)
    from data_pipeline.preprocess.prepare import prepare_dataset

    names = (
        *_OF_EVERY_LAYOUT,
        *("boxes", "landmarks", "identities", "frame_stride", "max_frames", "folder_fps"),
        *("test_clips", "workers"),
    )
    options = _values(arguments, names)
    options |= {"limits": media_limits(arguments), "track": None}
    given = {name: value for name, value in _values(arguments, _TRACKING).items() if value}
    if arguments.track:
        use_compile_cache()
        from data_pipeline.preprocess.track_request import TrackRequest

        if "smooth" in given:
            given["smooth"] = given["smooth"].replace("-", "_")
        options["track"] = TrackRequest(**given)
    elif given:
        raise ArgumentError(requirement(_flags(given), "come with --track", "none", "Add it."))
    prepare_dataset(arguments.videos, arguments.output, **options)
    return _EXIT_OK


def _import_gdpw(arguments: argparse.Namespace) -> int:
    """Reads the official layout; refuses what says how videos are cropped, read or tracked."""
    ours = {"run", "verb", "default_of", "layout", "videos", "output", "morphable"}
    known = ours.union(_OF_EVERY_LAYOUT)
    useless = [
        name
        for name, value in vars(arguments).items()
        if name not in known and value != arguments.default_of(name)
    ]
    if useless:
        remedy = "Leave them out: crops and meshes are taken as they are."
        raise ArgumentError(
            requirement(_flags(useless), "come with --layout videos", "--layout gdpw", remedy)
        )
    if arguments.morphable == "none":
        raise ArgumentError(
            requirement("--morphable", "name a face model", "none", "The files hold its meshes.")
        )
    from data_pipeline.preprocess.gdpw_layout import import_gdpw
    from talking_heads_jax.morphable.registry import load_morphable

    model = load_morphable(arguments.morphable or _OFFICIAL_MESH)
    options = _values(arguments, _OF_EVERY_LAYOUT)
    import_gdpw(arguments.videos, arguments.output, model=model, **options)
    return _EXIT_OK


def _values(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in names}


def _flags(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
