"""Tables and pictures of an evaluation, and the folder they are written to.

Intervals are bootstrapped over identities, see `intervals`. A difference between two rows is taken
pair by pair before it is resampled.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import ArgumentError, DataError, requirement
from talking_heads_jax.evaluation.answers import BLUR_SOURCE, COPY_DRIVING
from talking_heads_jax.evaluation.intervals import LEVEL, RESAMPLES, Interval, bootstrap_interval
from talking_heads_jax.evaluation.pair_files import PAIRS_FILE, pairs_text
from talking_heads_jax.evaluation.pairs import Pair
from talking_heads_jax.evaluation.results import EvaluationResult
from talking_heads_jax.media.image import write_image
from talking_heads_jax.metrics.recipes import IDENTITY, MOTION, PICTURE, PROBE, RIVAL, Recipe

METRICS_FILE, TABLE_FILE, GALLERY_FILE = "metrics.json", "table.md", "gallery.png"
NO_TRUTH = (
    "No truth exists for these pairs: nobody filmed the source's person making the driving motion. "
    "Hence no L1, PSNR or SSIM here, and no trivial answers to compare with; see the pictures."
)
_GAP_PX = 4


def perceptual_weights(config: Mapping[str, Any]) -> str:
    """What the perceptual loss of a training compared: a table must say `random` where it was that.

    Args:
      config: the training's config; without objectives nothing is known.

    Returns:
      'vgg19', 'random', a file, 'none (pixel loss)' when no feature map had a weight, or 'unknown'.
    """
    section = dict(config).get("objectives", {}).get("perceptual")
    if section is None:
        return "unknown"
    return section["weights"] if any(section["taps"]) else "none (pixel loss)"


def interval_of(
    result: EvaluationResult, values: Sequence[float], over: Sequence[float] | None = None
) -> Interval:
    """The mean of a column with its interval over the identities of sources and driving clips.

    Args:
      result: whose pairs the values belong to.
      values: one per pair.
      over: another column: the interval is that of the ratio of the two means.
    """
    people = result.identity_ids, result.driving_identity_ids
    return bootstrap_interval(values, *people, over=over)


def best_trivial(result: EvaluationResult, recipe: Recipe) -> str:
    """The trivial row with the best mean; a row that knows the answer does not compete.

    Args:
      result: of an evaluation with a truth.
      recipe: the column. Where motion is graded the copy of the driving frame knows the answer,
        across identities too.
    """
    knowing = {result.oracle, COPY_DRIVING if recipe.aspect == MOTION else result.oracle}
    rows = [row for row in result.values if row not in knowing | set(result.systems)]
    means = {row: interval_of(result, result.values[row][recipe.name]).mean for row in rows}
    return (max if recipe.higher_is_better else min)(means, key=means.__getitem__)


def gain_over_trivial(
    result: EvaluationResult, recipe: Recipe, system: str | None = None
) -> Interval:
    """How much better a system is than the best trivial answer; above zero is better.

    Args:
      result: of an evaluation with a truth.
      recipe: the column.
      system: its row; None for the first.

    Returns:
      NaN where the identity is graded: a copy of the source is the right person, and beating it
      would mean nothing.
    """
    if recipe.aspect == IDENTITY:
        return Interval(float("nan"), float("nan"), float("nan"))
    sign = 1.0 if recipe.higher_is_better else -1.0
    own = np.asarray(result.values[system or result.systems[0]][recipe.name])
    other = np.asarray(result.values[best_trivial(result, recipe)][recipe.name])
    return interval_of(result, sign * (own - other))


def share_below(
    result: EvaluationResult, recipe: Recipe, row: str, system: str | None = None
) -> Interval:
    """How far a system's error lies below another row's, as a share of that row's.

    Args:
      result: of an evaluation with a truth.
      recipe: a column of which less is better.
      row: the other one.
      system: its row; None for the first.

    Returns:
      1 - the ratio of the two means over the pairs that have both.
    """
    own = np.asarray(result.values[system or result.systems[0]][recipe.name])
    other = np.asarray(result.values[row][recipe.name])
    return interval_of(result, other - own, over=other)


def mean_over_frames(result: EvaluationResult, row: str, recipe: Recipe) -> float | None:
    """The mean over all frames, in which a long pair weighs more than a short one.

    Args:
      result: of an evaluation with a truth.
      row: of the table.
      recipe: the column.

    Returns:
      The mean; NaN where no pair has a value; None for a recipe with a mask, for it is not known
      how many frames of a pair show its region, and for those of the probe or with a rival,
      likewise.
    """
    if recipe.needs_mask or recipe.compares in (PROBE, RIVAL):
        return None
    values = np.asarray(result.values[row][recipe.name], np.float64)
    frames = np.where(np.isfinite(values), np.asarray(result.num_frames, np.float64), np.nan)
    if np.isnan(frames).all():
        return float("nan")
    return float(np.nansum(values * frames) / np.nansum(frames))


def as_json(result: EvaluationResult, info: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a table needs, as plain JSON types.

    Args:
      result: of an evaluation.
      info: what was evaluated: checkpoint, step, data, revision, stand-ins such as random weights.
    """
    recipes = [recipe.name for recipe in result.recipes]
    protocol = result.pair_list.protocol
    return {
        **info,
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "seed": protocol.seed,
        "truth": result.truth or None,
        "note": None if result.truth else NO_TRUTH,
        "num_pairs": len(result.pairs),
        "num_clips": len({pair.driving_clip for pair in result.pairs}),
        "num_frames": int(sum(result.num_frames)),
        "num_identities": len({*result.identity_ids, *result.driving_identity_ids}),
        "interval": f"{LEVEL:g} percentile bootstrap over identities, {RESAMPLES} resamples",
        "rows": {
            row: {recipe.name: _column(result, row, recipe) for recipe in result.recipes}
            for row in result.values
        },
        "gain_over_best_trivial": {
            system: {
                recipe.name: {
                    "trivial": best_trivial(result, recipe),
                    **gain_over_trivial(result, recipe, system)._asdict(),
                }
                for recipe in result.recipes
                if recipe.aspect != IDENTITY
            }
            for system in (result.systems if result.recipes else ())
        },
        "share_below": {
            system: {
                row: {
                    recipe.name: share_below(result, recipe, row, system)._asdict()
                    for recipe in _errors_of_pictures(result)
                }
                for row in result.values
                if row not in (*result.systems, result.oracle)
            }
            for system in (result.systems if _errors_of_pictures(result) else ())
        },
        "references": result.references,
        "pairs": [
            {
                "name": pair.name,
                "frames": len(pair.driving_frames),
                "identities": [source, driver],
                **{
                    f"initial_frame/{row}": column[i]
                    for row, column in result.initial_frames.items()
                },
                **({"initial_frame_by": _chosen_by(pair)} if result.initial_frames else {}),
                **{
                    row: {name: columns[name][i] for name in recipes}
                    for row, columns in result.values.items()
                },
            }
            for i, (pair, source, driver) in enumerate(
                zip(result.pairs, result.identity_ids, result.driving_identity_ids, strict=True)
            )
        ],
    }


def as_markdown(result: EvaluationResult, info: Mapping[str, Any]) -> str:
    """A table with a row per answer and a column per recipe; ↓ and ↑ say what is better.

    Args:
      result: of an evaluation.
      info: named above the table.
    """
    protocol = result.pair_list.protocol
    known = {
        "protocol": f"{protocol.description} (version {protocol.version}, seed {protocol.seed})",
        **info,
    }
    if result.truth:
        known["truth"] = result.truth
    if result.gallery:
        known["pictures"] = ", ".join(result.gallery[0].images)
    lines = [
        f"{protocol.name}: {len(result.pairs)} pairs, {sum(result.num_frames)} frames; "
        f"mean over pairs [{100 * LEVEL:g} % bootstrap interval over identities]",
        "",
        *(f"- {key}: {value}" for key, value in known.items()),
        "",
    ]
    if not result.truth:
        return "\n".join([*lines, NO_TRUTH]) + "\n"
    header = [
        f"{recipe.name} {'↑' if recipe.higher_is_better else '↓'}" for recipe in result.recipes
    ]
    lines += ["| | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]
    for row, columns in result.values.items():
        cells = [_cell(result, columns[recipe.name]) for recipe in result.recipes]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    for row, values in result.references.items():
        numbers = [values.get(recipe.name) for recipe in result.recipes]
        cells = ["–" if number is None else f"{number:.4f}" for number in numbers]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    if protocol.include_source:  # FOMM's script, which takes the mean of all frames
        for system in result.systems:
            means = [mean_over_frames(result, system, recipe) for recipe in result.recipes]
            cells = ["–" if mean is None or np.isnan(mean) else f"{mean:.4f}" for mean in means]
            lines.append(f"| {system}, mean over all frames | " + " | ".join(cells) + " |")
    for system in result.systems:
        gains = [_text(gain_over_trivial(result, recipe, system)) for recipe in result.recipes]
        name = "gain" if len(result.systems) == 1 else f"gain of {system}"
        lines.append(f"| {name} over the best trivial answer | " + " | ".join(gains) + " |")
        errors = _errors_of_pictures(result)
        for trivial, rows in (("copy_source", ("copy_source",)), ("the best blur", _blurs(result))):
            if not errors or not rows:
                continue
            cells = []
            for recipe in result.recipes:
                shares = [share_below(result, recipe, row, system) for row in rows]
                least = min(shares, key=lambda share: share.mean)
                cells.append(_percent(least) if recipe in errors else "–")
            name = "below" if len(result.systems) == 1 else f"{system} below"
            lines.append(f"| {name} {trivial}, % | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def picture_grid(result: EvaluationResult) -> np.ndarray | None:
    """One line of pictures per pair of the gallery: source, driving, predictions, error.

    Returns:
      (h w 3) uint8, or None when the gallery is empty.
    """
    if not result.gallery:
        return None
    rows = [_join(list(row.images.values()), axis=1, gap=_GAP_PX) for row in result.gallery]
    return _join(rows, axis=0, gap=_GAP_PX)


def check_output_folder(output: Path) -> None:
    """Raises if a folder of results is there already, or none can be made; before any work.

    Args:
      output: where results will go.

    Raises:
      ArgumentError: it exists and is not empty, is a file, or lies where nothing can be written.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ArgumentError(
            requirement("the output folder", "be new or empty", output, "Give another name.")
        )
    parent = output.absolute().parent
    while not parent.exists():
        parent = parent.parent
    try:
        os.rmdir(tempfile.mkdtemp(dir=parent, prefix=".evaluation."))
    except OSError as error:
        raise ArgumentError(
            requirement(
                "the output folder",
                "lie where folders can be made",
                f"{parent}: {error.strerror or error}",
                "Give another name, or free the folder.",
            )
        ) from error


@contextlib.contextmanager
def output_folder(output: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder that appears under its name, whole, when the block ends without an error.

    Args:
      output: where to; its parents are created.
      replace: take the place of an earlier folder of that name.

    Yields:
      A temporary folder beside it to write to.

    Raises:
      ArgumentError: something is there and is not to be replaced.
      DataError: the folder cannot be written.
    """
    output = Path(output).absolute()
    if not replace:
        check_output_folder(output)
    partial = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        yield partial
        partial.chmod(0o755)
        if output.exists():
            former = output.with_name(f".{output.name}.{os.getpid()}.former")
            output.rename(former)
            partial.rename(output)
            shutil.rmtree(former)
        else:
            partial.rename(output)
    except OSError as error:
        raise DataError(
            requirement(f"{output}", "be writable", error.strerror or error, "Free it.")
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def write_report(
    result: EvaluationResult,
    output: Path,
    info: Mapping[str, Any],
    *,
    data: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> list[Path]:
    """Writes `metrics.json`, `table.md`, `pairs.json` and, with pictures, `gallery.png`.

    Args:
      result: of a whole evaluation.
      output: a folder, new or empty; it appears when everything is written.
      info: see `as_json`.
      data: what the pair list says about the data, see `pair_files.pairs_document`.
      replace: take the place of the results that are there.

    Returns:
      The files written.

    Raises:
      ArgumentError: there are results already, and they are not to be replaced.
      DataError: the folder cannot be written.
    """
    output = Path(output)
    names = [METRICS_FILE, TABLE_FILE, PAIRS_FILE]
    with output_folder(output, replace=replace) as folder:
        document = _without_nan(as_json(result, info))
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (folder / METRICS_FILE).write_text(text, encoding="utf-8")
        (folder / TABLE_FILE).write_text(as_markdown(result, info), encoding="utf-8")
        (folder / PAIRS_FILE).write_text(pairs_text(result.pair_list, data or {}), encoding="utf-8")
        grid = picture_grid(result)
        if grid is not None:
            names.append(GALLERY_FILE)
            write_image(folder / GALLERY_FILE, grid)
    return [output / name for name in names]


def _column(result: EvaluationResult, row: str, recipe: Recipe) -> dict[str, float]:
    column = interval_of(result, result.values[row][recipe.name])._asdict()
    mean = mean_over_frames(result, row, recipe)
    return column if mean is None else {**column, "mean_over_frames": mean}


def _chosen_by(pair: Pair) -> str:
    """By what a pair's rest frame was found most like the source, see `pairs` and `answers`."""
    return "keypoints" if pair.initial_frame is None else "landmarks"


def _cell(result: EvaluationResult, values: Sequence[float]) -> str:
    text = _text(interval_of(result, values))
    kept = int(np.isfinite(values).sum())
    return text if kept == len(values) else f"{text} ({kept} of {len(values)} pairs)"


def _text(interval: Interval) -> str:
    if np.isnan(interval.mean):
        return "–"
    if np.isnan(interval.low):
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _errors_of_pictures(result: EvaluationResult) -> list[Recipe]:
    """The columns of which a share means something: less is better, and zero is perfect."""
    return [
        recipe
        for recipe in result.recipes
        if recipe.aspect == PICTURE and not recipe.higher_is_better
    ]


def _blurs(result: EvaluationResult) -> list[str]:
    return [row for row in result.values if row.startswith(BLUR_SOURCE)]


def _percent(share: Interval) -> str:
    if np.isnan(share.mean):
        return "–"
    if np.isnan(share.low):
        return f"{100 * share.mean:.1f}"
    return f"{100 * share.mean:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _join(images: Sequence[np.ndarray], *, axis: int, gap: int) -> np.ndarray:
    """uint8 images side by side (axis 1) or stacked (axis 0), white between them."""
    shape = list(images[0].shape)
    shape[axis] = gap
    white = np.full(shape, 255, np.uint8)
    parts = [part for image in images for part in (image, white)][:-1]
    return np.concatenate(parts, axis=axis)


def _without_nan(value: Any) -> Any:
    """NaN is no JSON: unknown becomes null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
