"""What a trained row is measured by: protocols, the pose editor; and what is kept of it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talking_heads_jax.errors import CheckpointError, requirement
from talking_heads_jax.workflows.code_pictures import draw_codes
from talking_heads_jax.workflows.result_pictures import copy_enlarged, draw_sweep, draw_worst
from talking_heads_jax.workflows.result_rows import (
    CODES_SUFFIX,
    SWEEP_SUFFIX,
    WORST_SUFFIXES,
    TrainingRow,
)

_BATCH_SIZE = 8  # frames per call
_MAX_BYTES = 4_000_000  # of a kept checkpoint


def measure_training(row: TrainingRow, run: Path, data: Path, output: Path) -> dict[str, Any]:
    """Evaluates a finished training and keeps what the page shows of it.

    Args:
      row: that was trained.
      run: its training folder; evaluations go there too, and are not repeated.
      data: folder of its data set.
      output: where pictures and the reduced checkpoint go.

    Returns:
      JSON values: how it was trained, and its numbers per protocol.

    Raises:
      TalkingHeadsError: whatever is wrong with files.
    """
    from talking_heads_jax import build
    from talking_heads_jax.checkpoints import load_model

    build.enable_compilation_cache()
    loaded = load_model(run)
    report: dict[str, Any] = {
        "config": row.config,
        "seed": row.seed,
        "overrides": dict(row.overrides),
        "training": _training_facts(run, loaded),
        "protocols": {
            name: _evaluate(name, run, data, seen_by_probe=not row.heads) for name in row.protocols
        },
    }
    if row.pose_error:
        report["pose_editor_deg"] = pose_editor_error(loaded.model, loaded.variables, data)
    gallery = run / "evaluation" / row.protocols[0] / "gallery.png"
    if gallery.is_file() and not row.heads:  # whose face model it is decides on its pictures
        copy_enlarged(gallery, output / f"{row.name}.png", size=loaded.model.resolution)
    if row.headline:
        _keep_checkpoint(loaded, output / row.name)
        draw_pictures(row, data, output)
    return report


def draw_pictures(row: TrainingRow, data: Path, output: Path) -> None:
    """Draws what the kept checkpoint of a headline row does: its worst pairs, its sweep or codes.

    Args:
      row: whose checkpoint lies in `output`.
      data: folder of its data set.
      output: where the pictures go.

    Raises:
      TalkingHeadsError: whatever is wrong with files.
    """
    from talking_heads_jax.checkpoints import load_model

    loaded = load_model(output / row.name)
    for protocol in row.protocols:
        suffix = WORST_SUFFIXES[protocol]
        draw_worst(loaded, data, output / f"{row.name}{suffix}.png", protocol=protocol)
    if row.pose_error:
        draw_sweep(loaded, data, output / f"{row.name}{SWEEP_SUFFIX}.png")
    if "codes" in loaded.variables.get("generator", {}).get("params", {}):
        draw_codes(loaded.model, loaded.variables, output / f"{row.name}{CODES_SUFFIX}.png")


def _training_facts(run: Path, loaded: Any) -> dict[str, Any]:
    """Steps, batch, parameters, and the time spent in steps (without compiling and saving)."""
    from talking_heads_jax.models.base import count_parameters

    config = loaded.info["config"]
    batch = config["data"]["batch_size"]
    seconds, last = 0.0, 0
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    for values in map(json.loads, lines):
        speed = values.get("perf/images_per_second")
        if speed:
            seconds += (values["step"] - last) * batch / speed
            last = values["step"]
    return {
        "steps": loaded.info["step"],
        "batch": batch,
        "parameters": {
            name: count_parameters(trees["params"]) for name, trees in loaded.variables.items()
        },
        "minutes_in_steps": round(seconds / 60, 2),
        "checkpoint": dict(loaded.info["parameters"]),
    }


def row_metrics(protocol: str, *, seen_by_probe: bool) -> tuple[str, ...]:
    """The recipes of a protocol; without the probe's for heads that are not the built-in one.

    The probe knows no other face, and another model has other expressions.

    Args:
      protocol: name of a file in configs/eval.
      seen_by_probe: whether the built-in head is shown.
    """
    from configs.eval import load_protocol
    from talking_heads_jax.metrics.recipes import PROBE, select_recipes

    recipes = select_recipes(load_protocol(protocol).metrics)
    return tuple(recipe.name for recipe in recipes if seen_by_probe or recipe.compares != PROBE)


def _evaluate(protocol: str, run: Path, data: Path, *, seen_by_probe: bool) -> dict[str, Any]:
    """Rows and shares of one protocol, from its metrics.json, which is written where it is not."""
    from configs.eval import load_protocol
    from talking_heads_jax import build, checkpoints
    from talking_heads_jax.evaluation.session import EvaluationRequest, run_evaluation

    folder = run / "evaluation" / protocol
    if not (folder / "metrics.json").is_file():
        request = EvaluationRequest(
            data=data,
            output=folder,
            checkpoint=run,
            protocol=protocol,
            metrics=row_metrics(protocol, seen_by_probe=seen_by_probe),
            batch_size=_BATCH_SIZE,
        )
        table, _ = run_evaluation(
            request,
            load_protocol=load_protocol,
            open_clips=build.open_clips,
            load_model=checkpoints.load_model,
            open_truth=build.open_exact_truth,
        )
        print(table, flush=True)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    kept = ("num_pairs", "num_frames", "num_identities", "truth", "rows", "references")
    report = {name: metrics[name] for name in kept}
    report["share_below"] = metrics["share_below"].get("model", {})
    report["gain_over_best_trivial"] = metrics["gain_over_best_trivial"].get("model", {})
    report["pairs"] = [
        {key: pair[key] for key in ("name", "identities", "model")} for pair in metrics["pairs"]
    ]
    return report


def pose_editor_error(
    model: Any, variables: Mapping[str, Any], data: Path, *, split: str = "test"
) -> dict[str, Any]:
    """How far heads that the editor turned are from the pose they were asked for, in degrees.

    The first frame of each clip is turned by the exact difference of angles to every other frame;
    the evaluation probe measures where the head then looks.

    Args:
      model: a system with a pose editor.
      variables: of its networks.
      data: folder of a set with exact angles.
      split: of it.

    Returns:
      Row -> {'mean', 'low', 'high' of the mean over the three angles; 'yaw', 'pitch', 'roll'}:
      `edited`; `source`, left as it is; `probe` itself, on the real driving frames.
    """
    import jax
    import numpy as np

    from talking_heads_jax import build
    from talking_heads_jax.evaluation.clips import as_unit_float
    from talking_heads_jax.evaluation.intervals import bootstrap_interval
    from talking_heads_jax.inference.animator import check_pose_editor
    from talking_heads_jax.inference.pose_sweep import turn_heads
    from talking_heads_jax.networks.probe import load_probe, run_probe

    check_pose_editor(model, variables)
    probe = load_probe()
    look = jax.jit(lambda images: run_probe(probe.params, probe.statistics, images).angles)
    errors: dict[str, list[np.ndarray]] = {"edited": [], "source": [], "probe": []}
    people = []
    clips = build.open_clips(data, split=split, resolution=model.resolution)
    for clip in clips.values():
        frames = np.stack([as_unit_float(frame) for frame in clip.frames])
        angles = np.stack([np.asarray(values, np.float32) for values in clip.angles])
        driving, wanted = frames[1:], angles[1:]
        source = np.repeat(frames[:1], len(driving), axis=0)
        edited = turn_heads(model, variables, source, wanted - angles[:1])
        for name, images in (("edited", edited), ("source", source), ("probe", driving)):
            seen = np.asarray(look(images))
            errors[name].append(np.rad2deg(np.abs(seen - wanted)).mean(axis=0))
        people.append(clip.person)
    report = {}
    for name, columns in errors.items():
        table = np.stack(columns)
        interval = bootstrap_interval(table.mean(axis=1), people)
        report[name] = interval._asdict() | dict(
            zip(("yaw", "pitch", "roll"), table.mean(axis=0).tolist(), strict=True)
        )
    return report


def _keep_checkpoint(loaded: Any, folder: Path) -> None:
    """The networks of inference in bfloat16, in place of what was kept before.

    Raises:
      CheckpointError: if it is larger than the repository takes.
    """
    from talking_heads_jax.checkpoints import save_model

    shutil.rmtree(folder, ignore_errors=True)
    save_model(folder, loaded.model, loaded.variables, config=loaded.info["config"], reduced=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > _MAX_BYTES:
        shutil.rmtree(folder)
        raise CheckpointError(
            requirement(f"{folder}", f"have at most {_MAX_BYTES} bytes", size, "Narrow the model.")
        )
