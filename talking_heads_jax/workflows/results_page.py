"""Writes the tables of docs/results.md from the json files of finished rows.

Only what stands between `<!-- results:NAME -->` and `<!-- end:NAME -->` is written; the words
around it are a person's. A row without a json file is 'not yet measured'.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.serialization.atomic_file import replace_text
from talking_heads_jax.workflows.result_rows import (
    ABSENT_ROWS,
    PICTURES,
    ROWS,
    TABLES,
    DataRow,
    Row,
    TrainingRow,
)

_UNKNOWN = "not yet measured"
_MARKED = re.compile(r"(<!-- results:([\w-]+) -->\n).*?(<!-- end:\2 -->)", re.DOTALL)
_SAME, _CROSS = "synthetic_same", "synthetic_cross"


class Column(NamedTuple):
    """One column of a table of rows.

    Attributes:
      title: above it.
      read: protocol report -> cell; raises KeyError where the report lacks the number.
    """

    title: str
    read: Callable[[dict[str, Any]], str]


def _mean(recipe: str, row: str = "model", digits: int = 4) -> Callable[[dict[str, Any]], str]:
    return lambda report: _number(report["rows"][row][recipe]["mean"], digits)


def _below_mesh_warp(report: dict[str, Any]) -> str:
    from talking_heads_jax.evaluation.mesh_answers import MESH_WARP  # heavy: a table is not

    return _interval(report["share_below"][MESH_WARP]["l1/masked-face"], 100.0, 1)


def _mean_with_interval(recipe: str, digits: int) -> Callable[[dict[str, Any]], str]:
    return lambda report: _interval(report["rows"]["model"][recipe], 1.0, digits)


def _below(recipe: str, *, blur: bool) -> Callable[[dict[str, Any]], str]:
    """How far the error lies below the copied source, or the best blurred one, in percent."""

    def read(report: dict[str, Any]) -> str:
        rows = [name for name in report["share_below"] if name.startswith("blur_source")]
        rows = rows if blur else ["copy_source"]
        if not rows:
            raise KeyError(recipe)
        shares = [report["share_below"][row][recipe] for row in rows]
        known = [share for share in shares if share["mean"] is not None] or shares[:1]
        return _interval(min(known, key=lambda share: share["mean"]), 100.0, 1)

    return read


COLUMNS = (
    Column("face L1 ↓", _mean("l1/masked-face")),
    Column("below copy, %", _below("l1/masked-face", blur=False)),
    Column("below mesh warp, %", _below_mesh_warp),
    Column("mouth below blur, %", _below("l1/masked-mouth", blur=True)),
    Column("eyes below blur, %", _below("l1/masked-eyes", blur=True)),
    Column("retrieval mouth ↑", _mean("retrieval_mouth", digits=2)),
    Column("retrieval eyes ↑", _mean("retrieval_eyes", digits=2)),
    Column("SSIM face ↑", _mean("ssim/masked-face", digits=3)),
    Column("probe landmarks, px ↓", _mean("probe_landmarks_px", digits=2)),
    Column("probe angles, ° ↓", _mean("probe_angles_deg", digits=2)),
    Column("probe expression ↓", _mean("probe_expression", digits=3)),
    Column("probe identity ↑", _mean("probe_identity", digits=3)),
    Column("shape kept ↑", _mean_with_interval("shape_kept", digits=2)),
)


class Difference(NamedTuple):
    """One column of a table of differences.

    Attributes:
      title: above it.
      recipe: what is compared, pair by pair.
      digits: behind the point.
    """

    title: str
    recipe: str
    digits: int


DIFFERENCES = (
    Difference("face L1 ↓", "l1/masked-face", 4),
    Difference("mouth L1 ↓", "l1/masked-mouth", 4),
    Difference("eyes L1 ↓", "l1/masked-eyes", 4),
    Difference("SSIM face ↑", "ssim/masked-face", 3),
    Difference("probe landmarks, px ↓", "probe_landmarks_px", 2),
    Difference("probe angles, ° ↓", "probe_angles_deg", 2),
    Difference("probe expression ↓", "probe_expression", 3),
    Difference("probe identity ↑", "probe_identity", 3),
    Difference("shape kept ↑", "shape_kept", 2),
)


def write_results_page(page: Path, results: Path, rows: Sequence[Row] = ROWS) -> None:
    """Renews every marked part of the page.

    Args:
      page: docs/results.md.
      results: folder of the json files.
      rows: what there is to measure.

    Raises:
      ArgumentError: for a page without the marks of a table, or with unknown ones.
    """
    text = page.read_text(encoding="utf-8")
    found = {name for _, name, _ in _MARKED.findall(text)}
    wanted = {*TABLES, "pose-editor", "pictures", "rows"}
    if found != wanted:
        raise ArgumentError(
            requirement(
                f"{page}",
                "mark its parts by <!-- results:NAME --> and <!-- end:NAME -->",
                ", ".join(sorted(found ^ wanted)) + " missing or unknown",
                f"Names: {', '.join(sorted(wanted))}.",
            )
        )
    reports = {row.name: _read(results / f"{row.name}.json") for row in rows}

    def part(match: re.Match[str]) -> str:
        name = match[2]
        if name == "pose-editor":
            lines = _pose_table(rows, reports)
        elif name == "pictures":
            lines = _pictures(rows, results, page)
        elif name == "rows":
            lines = _rows_table(rows, reports)
        else:
            lines = _result_tables(name, rows, reports)
        return match[1] + "\n" + "\n".join(lines) + "\n\n" + match[3]

    renewed = _MARKED.sub(part, text)
    if renewed != text:
        replace_text(page, renewed)


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _result_tables(
    table: str, rows: Sequence[Row], reports: dict[str, dict[str, Any] | None]
) -> list[str]:
    """Same identity, then across identities where a row of the table measures it."""
    members = [row for row in rows if isinstance(row, TrainingRow) and row.table == table]
    protocols = [
        name for name in (_SAME, _CROSS) if any(name in member.protocols for member in members)
    ]
    titles = {_SAME: "same identity", _CROSS: "across identities"}
    lines: list[str] = []
    for protocol in protocols:
        lines += ["", f"{TABLES[table]}, {titles[protocol]}:", ""]
        lines += _header([column.title for column in COLUMNS])
        answers: dict[str, dict[str, Any]] = {}  # of each kind of heads: they are other pictures
        for member in members:
            report = reports[member.name]
            if report is None:
                lines.append(_line(member.label, [_UNKNOWN] + [""] * (len(COLUMNS) - 1)))
                continue
            shown = report["protocols"][protocol]
            lines.append(_line(member.label, [_cell(column.read, shown) for column in COLUMNS]))
            found = answers.setdefault(member.heads, {"rows": {}, "references": {}})
            for kind, rows_of_kind in found.items():
                rows_of_kind.update(shown[kind])
        for absent in ABSENT_ROWS:
            if absent.table == table:
                lines.append(_line(absent.label, [absent.reason] + [""] * (len(COLUMNS) - 1)))
        for heads, found in answers.items():
            lines += _reference_lines(found, heads)
        lines += _gain_lines(protocol, members, reports)
        lines += _difference_lines(protocol, members, reports)
    return lines[1:]


def _gain_lines(
    protocol: str,
    members: Sequence[TrainingRow],
    reports: dict[str, dict[str, Any] | None],
) -> list[str]:
    """How much better than the best trivial answer of each column the rows are."""
    rows = {}
    for member in members:
        report = reports[member.name]
        if report is not None:
            gains = report["protocols"][protocol]["gain_over_best_trivial"]
            rows[member.label] = [
                _decided(gains[column.recipe], column.digits) if column.recipe in gains else "–"
                for column in DIFFERENCES
            ]
    title = "Better than the best trivial answer by, pair by pair; **bold** where zero is left out:"
    return _compared(title, [column.title.rstrip("↓↑ ") for column in DIFFERENCES], rows)


def _difference_lines(
    protocol: str,
    members: Sequence[TrainingRow],
    reports: dict[str, dict[str, Any] | None],
) -> list[str]:
    """How much rows differ from the rows they are compared with."""
    labels = {member.name: member.label for member in members}
    rows = {}
    for member in members:
        for versus in member.versus:
            own, other = reports.get(member.name), reports.get(versus)
            if own is None or other is None:
                continue
            both = own["protocols"][protocol], other["protocols"][protocol]
            cells = [_difference(*both, column) for column in DIFFERENCES]
            rows[f"{member.label} − {labels[versus]}"] = cells
    title = "Differences, pair by pair; **bold** where zero is left out:"
    return _compared(title, [column.title for column in DIFFERENCES], rows)


def _compared(title: str, titles: Sequence[str], rows: dict[str, list[str]]) -> list[str]:
    """A table of the columns that some row has."""
    kept = [i for i in range(len(titles)) if any(cells[i] != "–" for cells in rows.values())]
    if not kept:
        return []
    lines = [_line(name, [cells[i] for i in kept]) for name, cells in rows.items()]
    return ["", title, "", *_header([titles[i] for i in kept]), *lines]


def _difference(own: dict[str, Any], other: dict[str, Any], column: Difference) -> str:
    """The mean of the differences with its interval; '–' where one lacks the recipe."""
    from talking_heads_jax.evaluation.intervals import bootstrap_interval  # heavy: a table is not

    values = {pair["name"]: pair["model"].get(column.recipe) for pair in other.get("pairs", ())}
    both = [
        (pair["identities"], pair["model"].get(column.recipe), values.get(pair["name"]))
        for pair in own.get("pairs", ())  # reports of earlier versions have none
    ]
    both = [(people, a, b) for people, a, b in both if a is not None and b is not None]
    if not both:
        return "–"
    sources, driving = zip(*(people for people, _, _ in both), strict=True)
    interval = bootstrap_interval([a - b for _, a, b in both], sources, driving)
    return _decided(interval._asdict(), column.digits)


def _decided(values: dict[str, float | None], digits: int) -> str:
    """An interval, bold where it leaves out zero."""
    text, low, high = _interval(values, 1.0, digits), values["low"], values["high"]
    if low is None or high is None or low <= 0 <= high:
        return text
    return f"**{text}**"


def _reference_lines(found: dict[str, Any], heads: str) -> list[str]:
    """The trivial answers, and the probe's own error; `heads` names heads that are not built in."""
    lines, heads = [], f", {heads} heads" if heads else ""
    recipes = {column.title: column.read for column in COLUMNS}
    for row, columns in found["rows"].items():
        if row == "model":
            continue
        moved = {"rows": {"model": columns}, "share_below": {}}
        cells = [_cell(read, moved) for read in recipes.values()]
        lines.append(_line(f"*{row.replace('_', ' ')}*{heads}", cells))
    for row, values in found["references"].items():
        moved = {"rows": {"model": {name: {"mean": value} for name, value in values.items()}}}
        cells = [_cell(read, {**moved, "share_below": {}}) for read in recipes.values()]
        lines.append(_line(f"*{row.replace('_', ' ')}*{heads}", cells))
    return lines


def _pose_table(rows: Sequence[Row], reports: dict[str, dict[str, Any] | None]) -> list[str]:
    lines = _header(["mean", "yaw", "pitch", "roll"])
    names = {"edited": "turned by the editor", "source": "left as it is", "probe": "probe itself"}
    for row in rows:
        if not (isinstance(row, TrainingRow) and row.pose_error):
            continue
        report = reports[row.name]
        if report is None:
            lines.append(_line(row.label, [_UNKNOWN, "", "", ""]))
            continue
        for key, title in names.items():
            values = report["pose_editor_deg"][key]
            cells = [_interval(values, 1.0, 2)]
            cells += [_number(values[angle], 2) for angle in ("yaw", "pitch", "roll")]
            lines.append(_line(f"{row.label}: {title}", cells))
    return lines


def _pictures(rows: Sequence[Row], results: Path, page: Path) -> list[str]:
    lines = []
    for row in rows:
        if not isinstance(row, TrainingRow):
            continue
        for suffix, what in PICTURES.items():
            path = results / f"{row.name}{suffix}.png"
            if path.is_file():
                link = Path(os.path.relpath(path, page.parent)).as_posix()
                lines += [f"`{row.name}`: {what}", "", f"![{row.name}{suffix}]({link})", ""]
    return lines[:-1] or [_UNKNOWN]


def _rows_table(rows: Sequence[Row], reports: dict[str, dict[str, Any] | None]) -> list[str]:
    lines = _header(["what", "minutes", "steps", "parameters", "machine, date, revision"], "row")
    for row in rows:
        what = f"{row.size} px set" if isinstance(row, DataRow) else "evaluation probe"
        if isinstance(row, TrainingRow):
            what = f"`{row.config}`, seed {row.seed}"
        report = reports[row.name]
        if report is None:
            lines.append(_line(f"`{row.name}`", [what, _UNKNOWN, "", "", ""]))
            continue
        training = report.get("training", {})
        count = sum(training.get("parameters", {}).values())
        where = f"{report['machine']}, {report['date']}, {_short(report['revision'])}"
        if again := report.get("measured"):
            where += f"; measured again {again['date']}, {_short(again['revision'])}"
        cells = [what, _number(report["seconds"] / 60, 1), str(training.get("steps", ""))]
        cells += [f"{count / 1e6:.2f} M" if count else "", where]
        lines.append(_line(f"`{row.name}`", cells))
    return lines


def _short(revision: str) -> str:
    """A commit by its first letters; anything else as it is."""
    return revision[:9] if re.fullmatch("[0-9a-f]{40}", revision) else revision


def _header(titles: Sequence[str], first: str = "") -> list[str]:
    return [_line(first, titles), "|---" * (len(titles) + 1) + "|"]


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _cell(read: Callable[[dict[str, Any]], str], report: dict[str, Any]) -> str:
    try:
        return read(report)
    except KeyError:
        return "–"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(values: dict[str, float | None], scale: float, digits: int) -> str:
    mean, low, high = (values[name] for name in ("mean", "low", "high"))
    if mean is None:
        return "–"
    text = f"{scale * mean:.{digits}f}"
    if low is None or high is None:
        return text
    return f"{text} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
