"""The verb `track`: one photograph or video → landmarks, pose, coefficients, camera, quality."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_heads_jax.cli_options import (
    DETECTORS,
    MORPHABLES,
    add_limits,
    media_limits,
    positive,
    use_compile_cache,
)
from talking_heads_jax.errors import ArgumentError, check_file, one_line, requirement

if TYPE_CHECKING:
    import numpy as np

    from talking_heads_jax.morphable.base import MorphableModel
    from talking_heads_jax.tracking.track import ClipTrack

_MESHES_AT_ONCE = 16
_SMOOTHINGS = ("none", "one-euro", "gaussian")


def add_track(verbs: argparse._SubParsersAction) -> None:
    """Adds the verb.

    Args:
      verbs: of the program's parser.
    """
    verb = verbs.add_parser("track", help="find and follow the face of a photograph or video")
    verb.set_defaults(run=_track)
    verb.add_argument("clip", type=Path, metavar="IMAGE|VIDEO")
    face = verb.add_argument_group("the face", "where it is")
    face.add_argument(
        "--landmarks", type=Path, metavar="FILE", help="npz, or MediaPipe's or OpenFace's csv"
    )
    face.add_argument(
        "--detector",
        choices=DETECTORS,
        default="auto",
        help="what finds its box (auto: the first that is installed)",
    )
    face.add_argument(
        "--box",
        type=float,
        nargs=4,
        metavar=("X0", "Y0", "X1", "Y1"),
        help="instead: pixels, brows to chin, the same in every frame",
    )
    face.add_argument(
        "--detect-every", type=positive, default=5, metavar="N", help="frames between looks (5)"
    )
    face.add_argument(
        "--landmarker",
        choices=("auto", "fan", "none"),
        default="auto",
        help="what finds landmarks where no file is given (auto: FAN if its weights are there)",
    )
    model = verb.add_argument_group("the face model")
    model.add_argument(
        "--morphable",
        choices=MORPHABLES,
        default="procedural",
        help="what is fitted (procedural: built in; the others are assets; none: landmarks only)",
    )
    model.add_argument("--ict", type=Path, metavar="FILE", help="the ICT model's npz (the asset)")
    model.add_argument(
        "--camera", choices=("weak_perspective", "perspective"), default="weak_perspective"
    )
    model.add_argument(
        "--focal", type=float, metavar="PX", help="of the perspective camera (from the face's size)"
    )
    steady = verb.add_argument_group("smoothing over time")
    steady.add_argument("--smooth", choices=_SMOOTHINGS, default="none")
    steady.add_argument(
        "--min-cutoff", type=float, metavar="HZ", help="of one-euro: lower is steadier (2)"
    )
    steady.add_argument(
        "--speed-coefficient",
        type=float,
        metavar="X",
        help="of one-euro: higher keeps quick movements (6)",
    )
    steady.add_argument("--sigma", type=float, metavar="FRAMES", help="of gaussian (1)")
    results = verb.add_argument_group("results")
    results.add_argument("--save", type=Path, metavar="NPZ", help="the motion file")
    results.add_argument("--overlay", type=Path, metavar="FILE", help=".mp4; .png for one picture")
    results.add_argument("--report", type=Path, metavar="JSON", help="the quality, for programs")
    add_limits(verb, "--max-clip-frames", "--max-frames")


def _track(arguments: argparse.Namespace) -> int:
    _check_combinations(arguments)
    _check_outputs(arguments)
    use_compile_cache()
    from talking_heads_jax.tracking.tracker import track_file

    model = _ict(arguments)
    track = track_file(
        arguments.clip, _options(arguments), limits=media_limits(arguments), model=model
    )
    if arguments.save is not None:
        from talking_heads_jax.tracking.motion_file import save_motion

        save_motion(arguments.save, track)
    quality = {"file": arguments.clip.name, **track.quality()}
    if arguments.report is not None:
        from talking_heads_jax.serialization.atomic_file import replace_text

        replace_text(arguments.report, json.dumps(quality, indent=2) + "\n")
    if arguments.overlay is not None:
        _write_overlay(arguments, track, model)
    for line in summary(quality, track):
        print(one_line(line))
    return 0


def summary(quality: dict[str, Any], track: "ClipTrack") -> Iterator[str]:
    """The lines a person reads after `track`.

    Args:
      quality: of the track, and its file's name.
      track: the track.

    Yields:
      One line each.
    """
    height, width = track.frame_size
    plural = "frame" if len(track) == 1 else f"frames at {track.fps:.4g} a second"
    yield f"{quality['file']}: {len(track)} {plural}, {width}x{height}"
    yield f"face: in {int(track.face.sum())} of {len(track)} frames"
    known = quality["landmark_source"]
    yield f"landmarks: {known}" + _jitter_text(quality)
    if track.fitted:
        yield f"fit: {track.morphable}, {track.camera}" + _error_text(quality)
    for note in track.notes:
        yield f"note: {note}"


def _error_text(quality: dict[str, Any]) -> str:
    error, share = quality["reprojection_px"], quality["reprojection_share"]
    if error is None:
        return ""
    text = f"; misses the landmarks by {error:.2f} px"
    if share is not None:  # no frame may have both eye corners
        text += f", {100 * share:.1f} % of the outer eye corners' distance"
    return f"{text} (median)"


def _jitter_text(quality: dict[str, Any]) -> str:
    raw, left = quality["jitter_raw"], quality["jitter"]
    if raw is None or left is None:
        return ""
    text = f"; jitter {100 * raw:.2f} % of the outer eye corners' distance"
    return text + (f", {100 * left:.2f} % when smoothed" if left != raw else "")


def _options(arguments: argparse.Namespace) -> Any:
    from talking_heads_jax.tracking.tracker import TrackOptions

    optional = {
        "min_cutoff_hz": arguments.min_cutoff,
        "speed_coefficient": arguments.speed_coefficient,
        "sigma_frames": arguments.sigma,
    }
    if arguments.focal is not None:
        from talking_heads_jax.tracking.fitting import FitOptions

        optional["fit"] = FitOptions(camera=arguments.camera, focal_px=arguments.focal)
    return TrackOptions(
        detector=arguments.detector,
        box=tuple(arguments.box) if arguments.box else None,
        detect_every=arguments.detect_every,
        landmarks=arguments.landmarks,
        landmarker=arguments.landmarker,
        morphable=arguments.morphable,
        camera=arguments.camera,
        smooth=arguments.smooth.replace("-", "_"),
        **{name: value for name, value in optional.items() if value is not None},
    )


def _ict(arguments: argparse.Namespace) -> "MorphableModel | None":
    if arguments.ict is None:
        return None
    if arguments.morphable != "ict":
        raise ArgumentError(
            requirement("--ict", "come with --morphable ict", arguments.morphable, "Add it.")
        )
    from talking_heads_jax.morphable.registry import model_from_file

    check_file(arguments.ict, ArgumentError)
    return model_from_file("ict", arguments.ict)


def _check_combinations(arguments: argparse.Namespace) -> None:
    """Raises for an option that another one would leave without effect."""
    needs = (
        ("--focal", arguments.focal, "--camera", arguments.camera, "perspective"),
        ("--sigma", arguments.sigma, "--smooth", arguments.smooth, "gaussian"),
        ("--min-cutoff", arguments.min_cutoff, "--smooth", arguments.smooth, "one-euro"),
        (
            *("--speed-coefficient", arguments.speed_coefficient),
            *("--smooth", arguments.smooth, "one-euro"),
        ),
    )
    for flag, value, other, given, wanted in needs:
        if value is not None and given != wanted:
            raise ArgumentError(requirement(flag, f"come with {other} {wanted}", given, "Add it."))


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Raises before any work if a result could not be written, or would destroy an input."""
    from talking_heads_jax.media.image import IMAGE_SUFFIXES

    endings = {"save": (".npz",), "overlay": (".mp4", *IMAGE_SUFFIXES), "report": (".json",)}
    for name, legal in endings.items():
        path = getattr(arguments, name)
        if path is None:
            continue
        if path.suffix.lower() not in legal:
            remedy = f"End it in {' or '.join(legal[:2])}."
            raise ArgumentError(requirement(f"--{name}", "have a fitting name", path, remedy))
        if not path.absolute().parent.is_dir():
            remedy = "Create the folder first."
            raise ArgumentError(requirement(f"--{name}", "lie in an existing folder", path, remedy))
        if path.is_dir():
            remedy = "Give another name."
            raise ArgumentError(requirement(f"--{name}", "be a file", f"folder {path}", remedy))
        inputs = (arguments.clip, arguments.landmarks, arguments.ict)
        if any(file and file.exists() and path.exists() and path.samefile(file) for file in inputs):
            raise ArgumentError(
                requirement(f"--{name}", "differ from the inputs", path, "Give another name.")
            )


def _write_overlay(
    arguments: argparse.Namespace, track: "ClipTrack", model: "MorphableModel | None"
) -> None:
    """Draws the track on every frame, or on the clip's middle one for a picture."""
    from talking_heads_jax.media.image import IMAGE_SUFFIXES, write_image
    from talking_heads_jax.tracking.overlay import draw_track, enlargement
    from talking_heads_jax.tracking.tracker import open_clip

    picture = arguments.overlay.suffix.lower() in IMAGE_SUFFIXES
    only = len(track) // 2 if picture else None
    shown = track.slice(only, only + 1) if picture else track
    faces, vertices = _meshes(shown, model)
    with open_clip(arguments.clip, media_limits(arguments)) as clip:

        def drawn() -> Iterator["np.ndarray"]:
            for index, frame in enumerate(clip.frames()):
                if only is None or index == only:
                    row = 0 if picture else index
                    mesh = None if vertices is None else vertices(row)
                    yield draw_track(frame, shown, row, vertices_px=mesh, faces=faces)

        if picture:
            write_image(arguments.overlay, next(drawn()))
            return
        from talking_heads_jax.media.video import VideoWriter

        times = enlargement(track.frame_size)
        size = (track.frame_size[0] * times, track.frame_size[1] * times)
        with VideoWriter(arguments.overlay, track.fps, size) as writer:
            for frame in drawn():
                writer.write(frame)


def _meshes(track: "ClipTrack", model: "MorphableModel | None") -> tuple[Any, Any]:
    """The fitted model's faces, and a function row → its vertices (v 3); None, None without one."""
    if not track.fitted:
        return None, None
    from talking_heads_jax.morphable.registry import load_morphable
    from talking_heads_jax.tracking.fitting import fit_vertices_px
    from talking_heads_jax.tracking.tracker import fit_of

    known = load_morphable(track.morphable) if model is None else model
    batch: dict[int, np.ndarray] = {}

    def vertices(row: int) -> "np.ndarray":
        start = row - row % _MESHES_AT_ONCE
        if start not in batch:
            batch.clear()
            part = track.slice(start, min(start + _MESHES_AT_ONCE, len(track)))
            batch[start] = fit_vertices_px(known, fit_of(part))
        return batch[start][row - start]

    return known.faces, vertices
