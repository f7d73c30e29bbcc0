"""Bootstrap intervals: whole people are drawn, frames and clips of one are not independent."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
_SEED = 0


class Interval(NamedTuple):
    """A mean over pairs, or a ratio of two, with its bootstrap interval.

    Attributes:
      mean: over pairs, each counting once; NaN when there is none.
      low: lower end.
      high: upper end.
    """

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float],
    groups: Sequence[str] | None = None,
    others: Sequence[str] | None = None,
    *,
    over: Sequence[float] | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = _SEED,
) -> Interval:
    """Percentile bootstrap of a mean, or of a ratio of means; whole groups are drawn.

    Args:
      values: one per pair; NaN ones (no frame had a value) are left out.
      groups: what each belongs to, an identity; None: every value is its own group. With a single
        group nothing is known about the spread: the ends are NaN.
      others: a second grouping, of crossed designs (sources x driving clips): both are drawn
        independently, and a pair weighs the product of how often its two groups were drawn. Equal
        groupings are one.
      over: denominators of a ratio, one per pair: the mean of `values` over the mean of these, both
        of the same draw.
      level: coverage.
      resamples: number of draws.
      seed: of the draws.

    Source: of two groupings, Owen, The pigeonhole bootstrap (Annals of Applied Statistics 2007);
      it is conservative, and where nobody is in two pairs of one role (a ring, not a grid) up to
      the square root of three too wide.
    """
    values = np.asarray(values, np.float64)
    below = np.ones_like(values) if over is None else np.asarray(over, np.float64)
    kept = np.isfinite(values) & np.isfinite(below)
    names = np.arange(values.size) if groups is None else np.asarray(groups)
    crossed = others is not None and list(others) != list(names)
    designs = [names, np.asarray(others)] if crossed else [names]
    if not kept.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    values, below = values[kept], below[kept]
    mean = float(values.sum() / below.sum())
    members = [np.unique(design[kept], return_inverse=True)[1] for design in designs]
    counts = [int(member.max()) + 1 for member in members]
    if min(counts) < 2:
        return Interval(mean, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    if not crossed:
        sums, sizes = (
            np.bincount(members[0], weights=column, minlength=counts[0])
            for column in (values, below)
        )
        draws = rng.integers(0, counts[0], (resamples, counts[0]))
        means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    else:
        weights = np.ones((resamples, values.size))
        for member, count in zip(members, counts, strict=True):
            times = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples)
            weights *= times[:, member]
        # A draw in which no pair is left says nothing about the mean.
        weights = weights[weights.sum(axis=1) > 0]
        means = weights @ values / (weights @ below)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(mean, float(low), float(high))
