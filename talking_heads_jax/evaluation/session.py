"""What `run_eval.py` runs: protocol, data set, checkpoint and predictions, scored and reported.

Neither configs nor data sets nor checkpoints are opened here: the functions that do so are passed
in.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from talking_heads_jax.errors import (
    ArgumentError,
    ConfigError,
    DataError,
    requirement,
)
from talking_heads_jax.evaluation import report
from talking_heads_jax.evaluation.answers import MODEL_ROW, Answer
from talking_heads_jax.evaluation.clips import Clip
from talking_heads_jax.evaluation.mesh_answers import (
    checkpoint_answer,
    is_mesh_driven,
    mesh_trivial_answers,
    without_faceless,
)
from talking_heads_jax.evaluation.pair_files import read_pairs, write_pairs
from talking_heads_jax.evaluation.pairs import PairList, build_pairs, check_pairs
from talking_heads_jax.evaluation.predictions import FolderAnswer, PredictionWriter
from talking_heads_jax.evaluation.protocols import Protocol
from talking_heads_jax.evaluation.results import merge_results, read_partial, write_partial
from talking_heads_jax.evaluation.runner import (
    PROBE_ITSELF,
    evaluate_pairs,
    fitting_batch_size,
)
from talking_heads_jax.evaluation.truth import ExactTruth
from talking_heads_jax.media.limits import MediaLimits
from talking_heads_jax.metrics.recipes import RECIPES
from talking_heads_jax.networks.probe import describe_probe, load_probe

_DEFAULT_PROTOCOL = "reconstruction"
_ROW_NAME = re.compile(r"[\w.+-]+")


@dataclasses.dataclass(frozen=True)
class EvaluationRequest:
    """What a user asks for.

    Attributes:
      data: folder that `talking-heads prepare` wrote.
      output: folder of the results, new or empty.
      checkpoint: saved model or folder of a training; None scores predictions only.
      protocol: name of a file in configs/eval; None takes the training's, else 'reconstruction'.
      config: an evaluation config in place of a name.
      pairs: a pairs.json to score instead of drawing pairs.
      predictions: NAME=FOLDER or FOLDER of frames, each a row.
      save_predictions: where to write what the checkpoint predicts.
      metrics: names of recipes; empty for the protocol's.
      split: of the data; None for the config's, else the training's.
      max_clips: at most so many, spread evenly; None likewise.
      max_frames: of a clip, from its start; None for the config's.
      seed: of the pairs; None for the config's.
      batch_size: frames per call.
      round_to_bytes: round the checkpoint's predictions to 256 levels.
      shard: 'I/N': only a part of the pairs, for `merge_evaluations`.
      max_pixels: of one frame of predictions; None for the limit of `media.limits`, as below.
      max_clip_frames: of a pair's predictions.
      max_duration: seconds of a video of predictions.
    """

    data: Path
    output: Path
    checkpoint: Path | None = None
    protocol: str | None = None
    config: Mapping[str, Any] | None = None
    pairs: Path | None = None
    predictions: Sequence[str] = ()
    save_predictions: Path | None = None
    metrics: Sequence[str] = ()
    split: str | None = None
    max_clips: int | None = None
    max_frames: int | None = None
    seed: int | None = None
    batch_size: int = 4
    round_to_bytes: bool = False
    shard: str | None = None
    max_pixels: int | None = None
    max_clip_frames: int | None = None
    max_duration: float | None = None


class _Plan(NamedTuple):
    """Which clips are opened, and by what protocol; `pair_list` where it was read from a file."""

    protocol: Protocol
    pair_list: PairList | None
    data: dict[str, Any]
    metrics: tuple[str, ...]


def run_evaluation(
    request: EvaluationRequest,
    *,
    load_protocol: Callable[[str], Mapping[str, Any]],
    open_clips: Callable[..., Mapping[str, Clip]],
    load_model: Callable[[Path], Any],
    open_truth: Callable[..., ExactTruth] | None = None,
    on_pair: Callable[[], object] | None = None,
) -> tuple[str, list[Path]]:
    """Scores a checkpoint, or folders of predictions, or both, beside the trivial answers.

    Args:
      request: what is asked for.
      load_protocol: name -> config with the sections protocol, data and metrics; raises ValueError
        for an unknown name. `configs.eval.load_protocol`.
      open_clips: (folder, split, resolution, max_clips, max_frames) -> clips by name.
        `build.open_clips`.
      load_model: folder -> model, variables and info. `checkpoints.load_model`.
      open_truth: (folder, clips, split) -> pictures that a perfect system would return across
        identities, of a data set that can render them. `build.open_exact_truth`.
      on_pair: called after each pair.

    Returns:
      What to print, and the files written.

    Raises:
      TalkingHeadsError: whatever a user can repair.
    """
    shard, limits = _parse_shard(request.shard), _media_limits(request)
    report.check_output_folder(Path(request.output))
    folders = _parse_predictions(request.predictions)
    if request.checkpoint is None and not folders:
        raise ConfigError(
            requirement(
                "--checkpoint or --predictions", "be given", "neither", "Say what to score."
            )
        )
    if request.save_predictions is not None and request.checkpoint is None:
        raise ConfigError(
            requirement("--save-predictions", "come with --checkpoint", "none", "Add it.")
        )
    loaded = None if request.checkpoint is None else load_model(Path(request.checkpoint))
    training = (loaded.info.get("config") or {}) if loaded else {}
    plan = _plan(request, training, load_protocol)
    limited = plan.pair_list is None
    clips = open_clips(
        request.data,
        split=plan.data["split"],
        resolution=loaded.model.resolution if loaded else None,
        max_clips=plan.data["num_clips"] or None if limited else None,
        max_frames=plan.data["max_frames"] or None if limited else None,
    )
    pair_list = plan.pair_list or build_pairs(plan.protocol, clips.values())
    check_pairs(pair_list.pairs, clips)
    drawn, faceless = len(pair_list.pairs), ()
    if loaded is not None and plan.pair_list is None and is_mesh_driven(loaded.model):
        pair_list, faceless = without_faceless(pair_list, clips)
    truth = None
    if plan.protocol.exact_truth:
        if open_truth is None:
            raise ArgumentError(
                requirement("exact truth", "be rendered by somebody", "nobody", "Give open_truth.")
            )
        truth = open_truth(request.data, clips=clips, split=plan.data["split"])
    scored = pair_list.pairs[shard[0] :: shard[1]]
    batch_size = fitting_batch_size(pair_list, request.batch_size)
    systems: dict[str, Answer] = {}
    if loaded is not None:
        systems[MODEL_ROW] = checkpoint_answer(
            loaded.model,
            loaded.variables,
            batch_size=batch_size,
            relative=plan.protocol.relative,
            round_to_bytes=request.round_to_bytes,
        )
    for name, folder in folders.items():
        systems[name] = FolderAnswer(name, folder, scored, limits=limits)
    writer = None
    if request.save_predictions is not None:
        writer = PredictionWriter(Path(request.save_predictions), scored)
        write_pairs(Path(request.save_predictions), pair_list, plan.data)
    result = evaluate_pairs(
        systems,
        pair_list,
        clips,
        recipes=plan.metrics,
        batch_size=batch_size,
        truth=truth,
        more_trivial=None if loaded is None else mesh_trivial_answers(loaded.model),
        shard=shard,
        writer=writer,
        on_pair=on_pair,
    )
    info = _info(request, loaded, folders, plan)
    if faceless:
        some = ", ".join(faceless[:3]) + (" …" if len(faceless) > 3 else "")
        info["left out"] = (
            f"{drawn - len(pair_list.pairs)} of {drawn} pairs: no face was found in "
            f"{len(faceless)} clips ({some})"
        )
    if PROBE_ITSELF in result.references:
        info["probe"] = describe_probe(load_probe())
    if request.shard is not None:
        with report.output_folder(Path(request.output)) as folder:
            names = [path.name for path in write_partial(folder, result, info, plan.data)]
        text = f"shard {request.shard}: {len(result.pairs)} of {len(pair_list.pairs)} pairs"
        return text, [Path(request.output) / name for name in names]
    files = report.write_report(result, Path(request.output), info, data=plan.data)
    return report.as_markdown(result, info), files


def merge_evaluations(folders: Sequence[Path], output: Path) -> tuple[str, list[Path]]:
    """Joins the outputs of all shards into the report of one run.

    Args:
      folders: outputs of runs with `shard`.
      output: folder of the results, new or empty.

    Returns:
      What to print, and the files written.

    Raises:
      ArgumentError: no folder is given, or results are there already.
      DataError: a shard is missing, given twice, damaged, or of another evaluation.
    """
    if not folders:
        raise ArgumentError(
            requirement("--merge", "be followed by folders", "none", "Add the shards' outputs.")
        )
    report.check_output_folder(Path(output))
    parts = [(str(folder), *read_partial(Path(folder))) for folder in folders]
    _, _, info, data = parts[0]
    for name, _, other, other_data in parts:
        if (other, other_data) != (info, data):
            raise DataError(
                requirement(
                    f"{name}",
                    f"tell of the same checkpoint and data as {parts[0][0]}",
                    other,
                    "Merge the shards of one evaluation.",
                )
            )
    result = merge_results([(name, result) for name, result, _, _ in parts])
    files = report.write_report(result, Path(output), info, data=data)
    return report.as_markdown(result, info), files


def _plan(
    request: EvaluationRequest,
    training: Mapping[str, Any],
    load_protocol: Callable[[str], Mapping[str, Any]],
) -> _Plan:
    """What the flags say, else the config, else the training, else the protocol's file."""
    if request.pairs is not None:
        drawn = (request.protocol, request.config, request.seed)
        if any(value is not None for value in (*drawn, request.max_clips, request.max_frames)):
            raise ConfigError(
                requirement(
                    "--pairs",
                    "come without protocol, config, seed and limits",
                    "one of them",
                    "They are those of the file.",
                )
            )
        pair_list, data = read_pairs(request.pairs)
        split = request.split or data.get("split")
        if not isinstance(split, str):
            raise DataError(
                requirement(f"{request.pairs}", "name a split", split, "Add --split NAME.")
            )
        metrics = list(request.metrics) or _stored_metrics(request.pairs, data)
        data = {**data, "split": split, "metrics": metrics}
        return _Plan(pair_list.protocol, pair_list, data, tuple(metrics))
    if request.protocol is not None and request.config is not None:
        raise ConfigError(
            requirement("--protocol and --config", "exclude each other", "both", "Give one.")
        )
    trained = dict(training.get("eval") or {}) if request.config is None else {}
    config = request.config
    if config is None:
        name = request.protocol or trained.get("protocol") or _DEFAULT_PROTOCOL
        try:
            config = load_protocol(str(name))
        except ValueError as error:
            raise ArgumentError(str(error)) from None
    unknown = sorted(set(config.keys()) ^ {"protocol", "data", "metrics"})
    if unknown:
        raise ConfigError(
            requirement(
                "an evaluation config",
                "have the sections protocol, data and metrics",
                f"a difference in {unknown}",
                "Take one of configs/eval.",
            )
        )
    protocol = Protocol.from_config(config["protocol"])
    if request.seed is not None:
        protocol = dataclasses.replace(protocol, seed=request.seed)
    limits = config["data"]
    data = {
        "split": request.split or trained.get("split") or limits["split"],
        "num_clips": request.max_clips or trained.get("num_clips") or limits["num_clips"],
        "max_frames": request.max_frames or limits["max_frames"],
        "metrics": list(request.metrics or config["metrics"]),
    }
    return _Plan(protocol, None, data, tuple(data["metrics"]))


def _stored_metrics(path: Path, data: Mapping[str, Any]) -> list[str]:
    """The recipes that a pairs.json asks for; none in files of earlier versions."""
    names = data.get("metrics", [])
    if not isinstance(names, list) or not all(name in RECIPES for name in map(str, names)):
        raise DataError(
            requirement(
                f"{path}: data.metrics",
                f"be a list of {tuple(RECIPES)}",
                names,
                "Take an unchanged copy, or add --metrics NAMES.",
            )
        )
    return [str(name) for name in names]


def _media_limits(request: EvaluationRequest) -> MediaLimits:
    """What the request allows a picture or video to be; the library's limits for the others."""
    given = {
        "max_pixels": request.max_pixels,
        "max_frames": request.max_clip_frames,
        "max_duration_s": request.max_duration,
    }
    seconds = request.max_duration
    if seconds is not None and not 0 < seconds < math.inf:
        raise ArgumentError(
            requirement("--max-duration", "be positive and finite", seconds, "Give seconds.")
        )
    return MediaLimits(**{name: value for name, value in given.items() if value is not None})


def _info(
    request: EvaluationRequest,
    loaded: Any,
    folders: Mapping[str, Path],
    plan: _Plan,
) -> dict[str, Any]:
    info: dict[str, Any] = {}
    if loaded is not None:
        info = {
            "model": loaded.model.name,
            "checkpoint": str(request.checkpoint),
            "step": loaded.info.get("step"),
            "revision": loaded.info.get("revision"),
            "perceptual_weights": report.perceptual_weights(loaded.info.get("config") or {}),
            "rounded": "predictions rounded to bytes" if request.round_to_bytes else None,
        }
    info |= {f"predictions {name}": str(folder) for name, folder in folders.items()}
    info["data"] = f"{request.data} ({plan.data['split']})"
    return {key: value for key, value in info.items() if value is not None}


def _parse_shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    index, count = (int(part) for part in found.groups()) if found else (0, 0)
    if not index < count:
        raise ArgumentError(
            requirement("--shard", "be I/N with I from 0 to N - 1", text, "E.g. 0/2 and 1/2.")
        )
    return index, count


def _parse_predictions(texts: Sequence[str]) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.rpartition("=")
        name = name or Path(folder).name
        if not _ROW_NAME.fullmatch(name) or name in folders or name == MODEL_ROW:
            raise ArgumentError(
                requirement(
                    "--predictions",
                    "be NAME=FOLDER, with another name of letters and digits for each",
                    text,
                    f"'{MODEL_ROW}' is the checkpoint's row.",
                )
            )
        folders[name] = Path(folder)
    return folders
