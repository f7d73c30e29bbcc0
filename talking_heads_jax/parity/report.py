"""Prints parity reports: the largest and the mean error of every output beside its tolerance."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import jax

from talking_heads_jax.parity import runner
from talking_heads_jax.parity.runner import CaseReport

# The limits are stated for float32 on a CPU. An accelerator sums in another order and has its own
# exponential: at highest matmul precision that costs a small factor, not digits.
_ACCELERATOR_FACTOR = 10.0
_NAME_WIDTH = 44


def format_report(report: CaseReport) -> str:
    """One case as lines of text: a headline, then a line per output."""
    lines = [f"{report.name}: {report.status} ({report.seconds:.1f} s)"]
    if report.message:
        lines.append(f"  {report.message}")
    for output in report.outputs:
        name = output.name
        if len(name) > _NAME_WIDTH:
            name = "…" + name[1 - _NAME_WIDTH :]
        relative = output.max_error / output.scale if output.scale > 0 else float("nan")
        line = (
            f"  {'ok  ' if output.passed else 'FAIL'} {name:<{_NAME_WIDTH}} "
            f"max {output.max_error:9.3e}  mean {output.mean_error:9.3e}  rel {relative:9.3e}  "
            f"tolerance {output.tolerance or '-'}"
        )
        if output.failures:
            line += f"  [{'; '.join(output.failures)}]"
        lines.append(line)
    return "\n".join(lines)


def summarize(reports: Sequence[CaseReport], *, pending: bool = False) -> str:
    """The last lines: how many cases passed, and the names of those that did not.

    Args:
      reports: of a folder.
      pending: name unsupported cases as pending.
    """
    passed = [report for report in reports if report.passed]
    lines = [f"{len(passed)} of {len(reports)} cases passed"]
    for status in (runner.FAILED, runner.BROKEN, runner.UNSUPPORTED):
        names = [report.name for report in reports if report.status == status]
        if names:
            label = "pending" if pending and status == runner.UNSUPPORTED else status
            lines.append(f"{label}: {', '.join(names)}")
    return "\n".join(lines)


def as_json(reports: Sequence[CaseReport]) -> list[dict[str, Any]]:
    """The reports as plain JSON types, for certificates and tables."""
    return [
        {
            "case": report.name,
            "status": report.status,
            "message": report.message,
            "seconds": round(report.seconds, 2),
            "outputs": {
                output.name: {
                    "passed": output.passed,
                    "max_error": output.max_error,
                    "mean_error": output.mean_error,
                    "scale": output.scale,
                    "tolerance": output.tolerance,
                    "failures": list(output.failures),
                }
                for output in report.outputs
            },
        }
        for report in reports
    ]


def run_and_print(
    folder: Path,
    patterns: Sequence[str] | None = None,
    *,
    pending: bool = False,
    tolerance_factor: float | None = None,
    stream: TextIO | None = None,
) -> int:
    """Runs the cases of a folder and prints what it finds, case by case.

    Args:
      folder: holds <case>.json and <case>.npz files.
      patterns: shell patterns of case names; none means all.
      pending: cases that no builder knows are listed as pending instead of failing.
      tolerance_factor: multiplies the limits; None: 1 on a CPU, 10 on an accelerator.
      stream: where to print; standard output by default.

    Returns:
      The exit status: 0 if every case passed (or is pending), else 1.

    Raises:
      ParityError: if the folder holds no case, or a pattern matches none.
    """
    backend = jax.default_backend()
    if tolerance_factor is None:
        tolerance_factor = 1.0 if backend == "cpu" else _ACCELERATOR_FACTOR

    def emit(text: str) -> None:
        print(text, file=stream or sys.stdout, flush=True)

    def show(report: CaseReport) -> None:
        if not (pending and report.status == runner.UNSUPPORTED):
            emit(format_report(report))

    if tolerance_factor != 1.0:
        emit(f"on {backend}: tolerances times {tolerance_factor:g}")
    reports = runner.run_folder(
        folder,
        patterns or (),
        tolerance_factor=tolerance_factor,
        on_report=show,
    )
    emit(summarize(reports, pending=pending))
    accepted = {runner.PASSED} | ({runner.UNSUPPORTED} if pending else set())
    return 0 if all(report.status in accepted for report in reports) else 1
