"""Runs golden cases and compares every output: nothing passes without a number beside a limit."""

import dataclasses
import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from talking_heads_jax.errors import TalkingHeadsError
from talking_heads_jax.parity import builders, cases, tolerances

PASSED, FAILED, UNSUPPORTED, BROKEN = "passed", "failed", "unsupported", "error"

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CaseReport:
    """The outcome of one case.

    Attributes:
      name: the case.
      status: 'passed'; 'failed' (an output broke a rule); 'unsupported' (no builder knows it);
        'error' (it could not be read or run). All but the first fail.
      outputs: one report per output.
      message: why, for 'unsupported' and 'error'; one line.
      seconds: wall time, compilation included.
    """

    name: str
    status: str
    outputs: tuple[tolerances.OutputReport, ...] = ()
    message: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the case holds."""
        return self.status == PASSED


def thin_out(
    actual: np.ndarray, shape: tuple[int, ...], *, steps: Sequence[int] | None, row_step: int
) -> np.ndarray:
    """Takes the elements of a full output that a reference of `shape` holds.

    Args:
      actual: the full output.
      shape: of the reference.
      steps: step per axis where the case states them.
      row_step: otherwise, every n-th row and column (axes 1 and 2), unless the shapes agree.
    """
    if steps is not None and len(steps) == actual.ndim:
        return actual[tuple(slice(None, None, step) for step in steps)]
    if actual.shape == tuple(shape) or actual.ndim != 4:
        return actual
    return actual[:, ::row_step, ::row_step]


def run_case(
    folder: Path,
    name: str,
    *,
    tolerance_factor: float = 1.0,
    model_options: Mapping[str, Any] | None = None,
) -> CaseReport:
    """Runs one case; whatever is wrong with it ends up in the report.

    Args:
      folder: the golden folder.
      name: the case.
      tolerance_factor: multiplies the limits on errors: 1 on the CPU they were stated for.
      model_options: constructor arguments of the model, such as `implementation`.
    """
    start = time.perf_counter()
    builder = builders.find_builder(name)
    if builder is None:
        known = ", ".join(entry.pattern for entry in builders.BUILDERS)
        return CaseReport(name, UNSUPPORTED, message=f"no builder knows it; known: {known}")
    try:
        case = cases.read_case(folder, name)
        with jax.default_matmul_precision("highest"):
            produced = builder.load()(case, model_options or {})
        outputs = _compare(case, builder, produced, tolerance_factor)
    except TalkingHeadsError as error:
        return CaseReport(
            name, BROKEN, message=_one_line(error), seconds=time.perf_counter() - start
        )
    # A damaged case can break a network anywhere; the others still have to run.
    except Exception as error:
        _LOG.debug("case %s", name, exc_info=True)
        message = f"{type(error).__name__}: {_one_line(error)}"
        return CaseReport(name, BROKEN, message=message, seconds=time.perf_counter() - start)
    status = PASSED if all(output.passed for output in outputs) else FAILED
    return CaseReport(name, status, outputs, seconds=time.perf_counter() - start)


def run_folder(
    folder: Path,
    patterns: Sequence[str] = (),
    *,
    tolerance_factor: float = 1.0,
    model_options: Mapping[str, Any] | None = None,
    on_report: Callable[[CaseReport], None] | None = None,
) -> list[CaseReport]:
    """Runs the cases of a folder, one after the other.

    Args:
      folder: holds <case>.json and <case>.npz files.
      patterns: shell patterns of case names; none means all.
      tolerance_factor: see `run_case`.
      model_options: see `run_case`.
      on_report: called with each report as soon as it is there.

    Raises:
      ParityError: if the folder holds no case, or a pattern matches none.
    """
    reports = []
    for name in cases.list_cases(Path(folder), patterns):
        report = run_case(
            Path(folder), name, tolerance_factor=tolerance_factor, model_options=model_options
        )
        reports.append(report)
        if on_report is not None:
            on_report(report)
        gc.collect()  # full-size weights of one case at a time
    return reports


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else text[:397] + "..."


def _compare(
    case: cases.GoldenCase,
    builder: builders.Builder,
    produced: Mapping[str, np.ndarray],
    factor: float,
) -> tuple[tolerances.OutputReport, ...]:
    limits = {
        name: {
            rule: limit * factor if rule in ("max_abs", "mean_abs", "max_rel") else limit
            for rule, limit in rules.items()
        }
        for name, rules in case.tolerances.items()
    }
    reports = []
    for name, expected in case.expected.items():
        actual = produced.get(name)
        if actual is not None:
            actual = thin_out(
                np.asanyarray(actual),
                expected.shape,
                steps=case.subsample.get(name),
                row_step=builder.row_step(name),
            )
        reports.append(tolerances.compare_output(name, actual, expected, limits))
    for pattern in tolerances.unmatched_tolerances(limits, case.expected):
        reports.append(
            tolerances.OutputReport(
                pattern,
                False,
                *[float("nan")] * 3,
                str(limits[pattern]),
                ("the npz holds no such output",),
            )
        )
    return tuple(reports)
