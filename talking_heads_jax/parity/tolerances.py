"""Tolerances of golden cases: which rule applies to which output, and whether it holds.

Rules: `max_abs`, `mean_abs`; `max_rel`, the largest error over the largest magnitude of the
reference; `quantile` q, which makes the two maxima the q-quantile of the error;
`min_agreement_foreground`, the share of equal elements where either side is not background (-1). A
pattern such as `loss/*` holds for each output it matches, on its own; an exact name overrides it.
Nothing passes by default: an output without a tolerance, without a value, of another shape or with
a value that is not finite fails.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping

import numpy as np

_LIMITS = ("max_abs", "mean_abs", "max_rel", "min_agreement_foreground")
RULES = (*_LIMITS, "quantile")
_BACKGROUND = -1
_MOST_LEFT_OUT = 0.2  # share of an output that a builder may declare undetermined


@dataclasses.dataclass(frozen=True)
class OutputReport:
    """How one output compares with its reference.

    Attributes:
      name: the output.
      passed: every rule holds.
      max_error: largest absolute error; NaN when there was nothing to compare.
      mean_error: mean absolute error.
      scale: largest magnitude of the reference.
      tolerance: the rules that applied, as text.
      failures: one phrase per rule that does not hold; empty when passed.
    """

    name: str
    passed: bool
    max_error: float
    mean_error: float
    scale: float
    tolerance: str
    failures: tuple[str, ...]


def matching_rules(
    name: str, tolerances: Mapping[str, Mapping[str, float]]
) -> list[Mapping[str, float]]:
    """The tolerances of an output: its own entry, else those of every pattern it matches."""
    if name in tolerances:
        return [tolerances[name]]
    return [rules for pattern, rules in tolerances.items() if fnmatch.fnmatchcase(name, pattern)]


def compare_output(
    name: str,
    actual: np.ndarray | None,
    expected: np.ndarray,
    tolerances: Mapping[str, Mapping[str, float]],
) -> OutputReport:
    """Compares one output with its reference under all rules that apply to it.

    Args:
      name: the output.
      actual: our value; None if it was not produced. Masked elements are not compared, and the
        report says how many: the builder masks what the reference leaves to rounding.
      expected: the reference.
      tolerances: name or pattern -> {rule: limit}.
    """
    entries = matching_rules(name, tolerances)
    text = "; ".join(", ".join(f"{k} {v:g}" for k, v in rules.items()) for rules in entries)
    nan = float("nan")

    def failed(reason: str) -> OutputReport:
        return OutputReport(name, False, nan, nan, nan, text, (reason,))

    if actual is None:
        return failed("not produced")
    actual = np.asanyarray(actual)
    expected = np.asarray(expected)
    if actual.shape != expected.shape:
        return failed(f"shape {actual.shape} instead of {expected.shape}")
    if expected.size == 0:
        return failed("the reference is empty")
    if expected.dtype.kind not in "biuf" or actual.dtype.kind not in "biuf":
        return failed(f"cannot compare {actual.dtype} with {expected.dtype}")
    left_out = np.ma.getmaskarray(actual)
    if left_out.any():
        text += f" ({np.count_nonzero(left_out)} of {left_out.size} values undetermined: left out)"
        if left_out.mean() > _MOST_LEFT_OUT:
            return failed("too little of the reference is determined")
        actual, expected = np.asarray(actual)[~left_out], expected[~left_out]
    actual, expected = np.asarray(actual, np.float64), expected.astype(np.float64)
    if not np.isfinite(expected).all():
        return failed("the reference is not finite")
    if not np.isfinite(actual).all():
        return failed(f"{np.count_nonzero(~np.isfinite(actual))} values are not finite")
    error = np.abs(actual - expected)
    scale = float(np.abs(expected).max())
    failures = [] if entries else ["no tolerance is stated for it"]
    for rules in entries:
        failures += _broken_rules(rules, actual, expected, error, scale)
    return OutputReport(
        name, not failures, float(error.max()), float(error.mean()), scale, text, tuple(failures)
    )


def _broken_rules(
    rules: Mapping[str, float],
    actual: np.ndarray,
    expected: np.ndarray,
    error: np.ndarray,
    scale: float,
) -> list[str]:
    """Phrases for the rules that do not hold."""
    unknown = sorted(set(rules) - set(RULES))
    if unknown:
        return [f"unknown rule {', '.join(unknown)}; known: {', '.join(RULES)}"]
    if not any(rule in rules for rule in _LIMITS):
        return ["its tolerance states no limit"]
    quantile = rules.get("quantile", 1.0)
    if not 0.0 < quantile <= 1.0:
        return [f"quantile must lie in (0, 1], got {quantile:g}"]
    if "quantile" in rules and "max_abs" not in rules and "max_rel" not in rules:
        return ["quantile needs max_abs or max_rel"]
    # An order statistic without interpolation: no element of the share may exceed the limit.
    largest = float(np.quantile(error, quantile, method="higher"))
    measured: dict[str, float] = {"max_abs": largest, "mean_abs": float(error.mean())}
    if "max_rel" in rules:
        measured["max_rel"] = largest / scale if scale > 0 else (np.inf if largest > 0 else 0.0)
    broken = [
        f"{rule} {value:.3g} > {rules[rule]:g}"
        for rule, value in measured.items()
        if rule in rules and not value <= rules[rule]
    ]
    if "min_agreement_foreground" in rules:
        foreground = (actual != _BACKGROUND) | (expected != _BACKGROUND)
        if not foreground.any():
            return [*broken, "neither side has foreground"]
        agreement = float((actual == expected)[foreground].mean())
        if agreement < rules["min_agreement_foreground"]:
            limit = rules["min_agreement_foreground"]
            broken.append(f"agreement {agreement:.6f} < {limit:g}")
    return broken


def unmatched_tolerances(
    tolerances: Mapping[str, Mapping[str, float]], outputs: Mapping[str, np.ndarray]
) -> list[str]:
    """Names and patterns of tolerances that match no expected output: something was lost."""
    return [
        pattern
        for pattern in tolerances
        if pattern not in outputs and not fnmatch.filter(outputs, pattern)
    ]
