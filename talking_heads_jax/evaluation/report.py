"""Tables, intervals and pictures of an evaluation.

Intervals are bootstrapped over identities: frames of one clip, and clips of one person, are not
independent. A difference between two rows is taken clip by clip before it is resampled.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from talking_heads_jax.evaluation.runner import MODEL_ROW, EvaluationResult
from talking_heads_jax.media.image import write_image
from talking_heads_jax.metrics.recipes import Recipe

_RESAMPLES = 2000
_LEVEL = 0.95
_SEED = 0
_ORACLE_ROW = "copy_driving"  # knows the answer: no row competes with it
_GAP_PX = 4


class Interval(NamedTuple):
    """A mean over clips with its bootstrap interval.

    Attributes:
      mean: over clips, each clip counting once.
      low: lower end.
      high: upper end.
    """

    mean: float
    low: float
    high: float


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


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str] | None = None,
    *,
    level: float = _LEVEL,
    resamples: int = _RESAMPLES,
    seed: int = _SEED,
) -> Interval:
    """Percentile bootstrap of the mean; whole groups are drawn with replacement.

    Args:
      values: one per clip.
      groups: what each belongs to, an identity; None: every value is its own group. With a single
        group nothing is known about the spread: the ends are NaN.
      level: coverage.
      resamples: number of draws.
      seed: of the draws.
    """
    values = np.asarray(values, np.float64)
    names = np.arange(values.size) if groups is None else np.asarray(groups)
    members = np.unique(names, return_inverse=True)[1]
    count = int(members.max()) + 1
    mean = float(values.mean())
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    sums = np.bincount(members, weights=values, minlength=count)
    sizes = np.bincount(members, minlength=count)
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high))


def best_trivial(result: EvaluationResult, recipe: Recipe) -> str:
    """The trivial row with the best mean, `copy_driving` excepted."""
    rows = [row for row in result.values if row not in (MODEL_ROW, _ORACLE_ROW)]
    means = {row: float(np.mean(result.values[row][recipe.name])) for row in rows}
    return (max if recipe.higher_is_better else min)(means, key=means.__getitem__)


def gain_over_trivial(result: EvaluationResult, recipe: Recipe) -> Interval:
    """How much better the model is than the best trivial answer; above zero is better."""
    sign = 1.0 if recipe.higher_is_better else -1.0
    own = np.asarray(result.values[MODEL_ROW][recipe.name])
    other = np.asarray(result.values[best_trivial(result, recipe)][recipe.name])
    return bootstrap_interval(sign * (own - other), result.identity_ids)


def as_json(result: EvaluationResult, info: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a table needs, as plain JSON types.

    Args:
      result: of an evaluation.
      info: what was evaluated: checkpoint, step, data, revision, stand-ins such as random weights.
    """
    recipes = [recipe.name for recipe in result.recipes]
    return {
        **info,
        "protocol": result.protocol,
        "num_clips": len(result.clip_ids),
        "num_frames": int(sum(result.num_frames)),
        "num_identities": len(set(result.identity_ids)),
        "interval": f"{_LEVEL:g} percentile bootstrap over identities, {_RESAMPLES} resamples",
        "rows": {
            row: {
                name: bootstrap_interval(columns[name], result.identity_ids)._asdict()
                for name in recipes
            }
            for row, columns in result.values.items()
        },
        "gain_over_best_trivial": {
            recipe.name: {
                "trivial": best_trivial(result, recipe),
                **gain_over_trivial(result, recipe)._asdict(),
            }
            for recipe in result.recipes
        },
        "clips": [
            {
                "clip_id": clip_id,
                "frames": frames,
                **{
                    row: {name: columns[name][i] for name in recipes}
                    for row, columns in result.values.items()
                },
            }
            for i, (clip_id, frames) in enumerate(
                zip(result.clip_ids, result.num_frames, strict=True)
            )
        ],
    }


def as_markdown(result: EvaluationResult, info: Mapping[str, Any]) -> str:
    """A table with a row per answer and a column per recipe; ↓ and ↑ say what is better.

    Args:
      result: of an evaluation.
      info: named above the table.
    """
    header = [
        f"{recipe.name} {'↑' if recipe.higher_is_better else '↓'}" for recipe in result.recipes
    ]
    lines = [
        f"{result.protocol}: {len(result.clip_ids)} clips, {sum(result.num_frames)} frames; "
        f"mean over clips [{100 * _LEVEL:g} % bootstrap interval over identities]",
        "",
        *(f"- {key}: {value}" for key, value in info.items()),
        "",
        "| | " + " | ".join(header) + " |",
        "|---" * (len(header) + 1) + "|",
    ]
    for row, columns in result.values.items():
        cells = [
            _cell(bootstrap_interval(columns[recipe.name], result.identity_ids))
            for recipe in result.recipes
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    gains = [_cell(gain_over_trivial(result, recipe)) for recipe in result.recipes]
    lines.append("| gain over the best trivial answer | " + " | ".join(gains) + " |")
    return "\n".join(lines) + "\n"


def picture_grid(result: EvaluationResult) -> np.ndarray | None:
    """One line of pictures per clip of the gallery: source, driving, prediction, error.

    Returns:
      (h w 3) uint8, or None when the gallery is empty.
    """
    if not result.gallery:
        return None
    rows = [
        _join([row.images[name] for name in row.images], axis=1, gap=_GAP_PX)
        for row in result.gallery
    ]
    return np.rint(255.0 * np.clip(_join(rows, axis=0, gap=_GAP_PX), 0.0, 1.0)).astype(np.uint8)


def write_report(result: EvaluationResult, output: Path, info: Mapping[str, Any]) -> list[Path]:
    """Writes `metrics.json`, `table.md` and, with pictures, `gallery.png`.

    Args:
      result: of an evaluation.
      output: a folder; created.
      info: see `as_json`.

    Returns:
      The files written.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    files = [output / "metrics.json", output / "table.md"]
    document = _without_nan(as_json(result, info))
    files[0].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    files[1].write_text(as_markdown(result, info), encoding="utf-8")
    grid = picture_grid(result)
    if grid is not None:
        files.append(output / "gallery.png")
        write_image(files[-1], grid)
    return files


def _cell(interval: Interval) -> str:
    if np.isnan(interval.low):
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _join(images: Sequence[np.ndarray], *, axis: int, gap: int) -> np.ndarray:
    """Images side by side (axis 1) or stacked (axis 0), white between them."""
    shape = list(images[0].shape)
    shape[axis] = gap
    white = np.ones(shape, np.float32)
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
