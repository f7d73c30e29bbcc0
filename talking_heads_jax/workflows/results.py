"""`make results`: all small trainings behind docs/results.md, row by row.

    python -m talking_heads_jax.workflows.results [--row NAME] [--again | --remeasure] [--list]

A row ends in results/NAME.json; where that exists nothing is done again. A row that was killed
goes on where it stopped: data clip by clip, trainings from their newest checkpoint. Rows that a row
needs run first. After each, the tables of docs/results.md are written anew from all json files.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.schema import CLIP_TABLE
from talking_heads_jax.errors import ArgumentError, TalkingHeadsError, requirement
from talking_heads_jax.serialization.atomic_file import replace_text, replacing
from talking_heads_jax.workflows.result_rows import (
    PICTURES,
    ROWS,
    DataRow,
    ProbeRow,
    Row,
    TrainingRow,
)

EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells report it
_CLOCK = "seconds.json"  # of a row's work folder: time that earlier attempts took


class Places(NamedTuple):
    """Where things go.

    Attributes:
      work: data sets, training folders, evaluations: large, not kept in the repository.
      output: the json files, pictures and reduced checkpoints: kept.
      page: docs/results.md.
    """

    work: Path
    output: Path
    page: Path

    def data(self, name: str) -> Path:
        """The folder of a data row."""
        return self.work / "data" / name

    def run(self, name: str) -> Path:
        """The folder of a training row."""
        return self.work / "runs" / name

    def report(self, name: str) -> Path:
        """The json that says a row is finished."""
        return self.output / f"{name}.json"


def find_row(name: str, rows: Sequence[Row] = ROWS) -> Row:
    """The row of a name.

    Args:
      name: of the row.
      rows: to look in.

    Raises:
      ArgumentError: if there is none; lists the names.
    """
    for row in rows:
        if row.name == name:
            return row
    names = ", ".join(row.name for row in rows)
    raise ArgumentError(requirement("--row", "name a row", name, f"Rows: {names}."))


def needed_rows(row: Row) -> tuple[str, ...]:
    """Names of the rows that must be finished before a row, its data among them."""
    data = () if isinstance(row, DataRow) else (row.data,)
    return (*data, *row.needs)


def is_finished(row: Row, places: Places) -> bool:
    """Whether nothing is left to do of a row.

    Args:
      row: any.
      places: where its json file is, and its data, which is not kept in the repository: it may be
        missing, or half rendered, where the json file is there.
    """
    if not places.report(row.name).is_file():
        return False
    # The clip table is written when all records are.
    return not isinstance(row, DataRow) or (places.data(row.name) / CLIP_TABLE).is_file()


def in_order(
    names: Sequence[str],
    rows: Sequence[Row] = ROWS,
    *,
    finished: Callable[[Row], bool] = lambda _: False,
) -> list[Row]:
    """The named rows and all that unfinished ones need, each after what it needs.

    Args:
      names: of rows; none takes all but data sets, which others need or nobody.
      rows: to look in.
      finished: whether a row needs nothing any more.

    Raises:
      ArgumentError: for an unknown name, or rows that need each other.
    """
    ordered: list[Row] = []

    def visit(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            circle = " -> ".join((*waiting, name))
            raise ArgumentError(requirement("rows", "not need each other", circle, "Cut one."))
        row = find_row(name, rows)
        if row not in ordered:
            for needed in () if finished(row) else needed_rows(row):
                visit(needed, (*waiting, name))
            ordered.append(row)

    for name in names or [row.name for row in rows if not isinstance(row, DataRow)]:
        visit(name, ())
    return ordered


def run_rows(
    rows: Sequence[Row],
    places: Places,
    *,
    again: Sequence[str] = (),
    remeasured: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> None:
    """Runs what is not finished yet, and writes the page after every row.

    Args:
      rows: in the order of their needs.
      places: where things go.
      again: names of rows to start from nothing.
      remeasured: names of finished trainings to evaluate anew, after a change of the measures.
      say: takes lines about the progress.

    Raises:
      TalkingHeadsError: whatever goes wrong with files, data or training.
      SystemExit: when SIGTERM stopped a training; what is done so far is saved.
    """
    from talking_heads_jax.workflows.results_page import write_results_page

    places.output.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row.name in remeasured:
            _remeasure(row, places)
            say(f"{row.name}: measured again")
            write_results_page(places.page, places.output)
            continue
        if is_finished(row, places) and row.name not in again:
            say(f"{row.name}: finished")
            continue
        if not has_asset(row):  # what was measured where the file is stays
            say(f"{row.name}: left out, needs the file '{row.asset}' (talking-heads assets list)")
            continue
        if row.name in again:
            forget(row, places)
        say(f"{row.name}: begun, at most {row.minutes:g} minutes on two cores")
        with _Stopwatch(places.run(row.name)) as elapsed:
            report = _run_row(row, places, say)
            seconds = elapsed()
        over = "" if seconds <= 60 * row.minutes else f", over its {row.minutes:g}"
        say(f"{row.name}: {seconds / 60:.1f} minutes{over}")
        report = {"row": row.name, **report, "seconds": round(seconds, 1), **_describe_run()}
        _write_json(places.report(row.name), report)
        write_results_page(places.page, places.output)
    write_results_page(places.page, places.output)


def _remeasure(row: Row, places: Places) -> None:
    """Evaluates a finished training anew; how long it took, where and when, stays.

    Raises:
      ArgumentError: for a row that is no finished training, or whose folder is gone.
    """
    run, path = places.run(row.name), places.report(row.name)
    if not (isinstance(row, TrainingRow) and path.is_file() and run.is_dir()):
        raise ArgumentError(
            requirement(
                f"--remeasure {row.name}",
                f"name a training that is finished, with {run} and {path}",
                "none",
                "Run it from nothing: --again.",
            )
        )
    from talking_heads_jax.workflows.result_measurements import measure_training

    shutil.rmtree(run / "evaluation", ignore_errors=True)
    report = measure_training(row, run, places.data(row.data), places.output)
    former = json.loads(path.read_text(encoding="utf-8"))
    now = _describe_run()
    kept = {key: former[key] for key in ("seconds", *now)}
    measured = {"date": now["date"], "revision": now["revision"]}
    _write_json(path, {"row": row.name, **report, **kept, "measured": measured})


def has_asset(row: Row) -> bool:
    """Whether the registered file that a row needs is there; most rows need none.

    Args:
      row: any.
    """
    from talking_heads_jax.assets import registered_assets

    name = getattr(row, "asset", "")
    return not name or name in registered_assets()


def forget(row: Row, places: Places) -> None:
    """Removes what a row left behind.

    Args:
      row: to run from nothing.
      places: where it went.
    """
    places.report(row.name).unlink(missing_ok=True)
    for picture in places.output.glob(f"{row.name}*.png"):
        if picture.stem in {f"{row.name}{suffix}" for suffix in PICTURES}:
            picture.unlink()
    for folder in (places.run(row.name), places.output / row.name):
        shutil.rmtree(folder, ignore_errors=True)
    if isinstance(row, DataRow):
        shutil.rmtree(places.data(row.name), ignore_errors=True)


def list_rows(places: Places, rows: Sequence[Row] = ROWS) -> Iterator[str]:
    """A line per row: its name, what it is, and whether it is finished.

    Args:
      places: where the json files are.
      rows: to list.
    """
    for row in rows:
        what = row.config if isinstance(row, TrainingRow) else type(row).__name__
        path = places.report(row.name)
        state = "not yet measured"
        if path.is_file():
            minutes = json.loads(path.read_text(encoding="utf-8"))["seconds"] / 60
            state = f"{minutes:.1f} minutes"
        yield f"{row.name:20} {what:44} {state}"


def _run_row(row: Row, places: Places, say: Callable[[str], object]) -> dict[str, Any]:
    if isinstance(row, DataRow):
        return _render(row, places)
    if isinstance(row, ProbeRow):
        return _train_probe(row, places, say)
    from talking_heads_jax.workflows.result_measurements import measure_training

    _train(row, places)
    return measure_training(row, places.run(row.name), places.data(row.data), places.output)


def _render(row: DataRow, places: Places) -> dict[str, Any]:
    from data_pipeline.synthetic.writing import write_talking_heads

    identities = dict(row.identities)
    summary = write_talking_heads(
        places.data(row.name),
        size=row.size,
        identities=identities,
        num_frames=row.num_frames,
        stride=row.stride,
        morphable=row.morphable,
    )
    return {"records": dict(summary.records), "identities": identities, "size": row.size}


def _train_probe(row: ProbeRow, places: Places, say: Callable[[str], object]) -> dict[str, Any]:
    from talking_heads_jax.build import enable_compilation_cache
    from talking_heads_jax.networks.probe import PROBE_FILE, save_probe
    from talking_heads_jax.workflows.train_probe import train_probe

    enable_compilation_cache()
    probe = train_probe(places.data(row.data), steps=row.steps, say=say)
    with replacing(PROBE_FILE) as partial:
        save_probe(partial, probe)
    return {"info": dict(probe.info)}


def training_config(row: TrainingRow, data: Path) -> Any:
    """The config of a row, as `run_train.py` would make it from its command line.

    Args:
      row: names the file, the variant and the overrides.
      data: folder of the data set.

    Raises:
      ArgumentError: if an override names no key of the config.
    """
    import importlib

    path, _, variant = row.config.partition(":")
    module = importlib.import_module("configs." + path.removesuffix(".py").replace("/", "."))
    config = module.get_config(variant or None)
    values = {"data.folder": str(data), "seed": row.seed, **row.overrides}
    with config.unlocked():
        for key, value in values.items():
            *sections, last = key.split(".")
            section = config
            for name in sections:
                section = section.get(name, {})
            if last not in section:
                raise ArgumentError(
                    requirement(f"override of {row.name}", "be a config key", key, "See the file.")
                )
            section[last] = value
    return config


def _train(row: TrainingRow, places: Places) -> None:
    from talking_heads_jax.build import build_trainer

    config = training_config(row, places.data(row.data))
    trainer = build_trainer(config, places.run(row.name))
    state = trainer.run()
    if int(state.step) < config.schedule.duration:
        print(f"stopped after step {int(state.step)}; the same command continues", file=sys.stderr)
        raise SystemExit(EXIT_TERMINATED)


class _Stopwatch:
    """Wall time of a row over all its attempts; one that was killed outright is not counted."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / _CLOCK

    def __enter__(self) -> Callable[[], float]:
        self._before = 0.0
        if self._path.is_file():
            self._before = float(json.loads(self._path.read_text(encoding="utf-8")))
        self._start = time.monotonic()
        return self._elapsed

    def _elapsed(self) -> float:
        return self._before + time.monotonic() - self._start

    def __exit__(self, *_: object) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        _write_json(self._path, self._elapsed())


def _describe_run() -> dict[str, Any]:
    """Where and when a row was measured."""
    import platform

    import jax

    from talking_heads_jax.checkpoints import current_revision

    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {
        "machine": f"{processor}, {len(os.sched_getaffinity(0))} cores",
        "backend": jax.default_backend(),
        "date": time.strftime("%Y-%m-%d"),
        "revision": current_revision(),
    }


def _write_json(path: Path, value: Any) -> None:
    replace_text(path, json.dumps(value, indent=1) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs rows, or lists them.

    Args:
      argv: the arguments; None takes the process's own.

    Returns:
      0, or 2 for a mistake of the user.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", nargs="+", action="extend", default=[], metavar="NAME")
    anew = parser.add_mutually_exclusive_group()
    anew.add_argument("--again", action="store_true", help="run the named rows from nothing")
    anew.add_argument(
        "--remeasure", action="store_true", help="evaluate the named finished trainings anew"
    )
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    parser.add_argument("--work", type=Path, default=Path("results-work"))
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    arguments = parser.parse_args(argv)
    places = Places(arguments.work, arguments.output, arguments.page)
    try:
        if arguments.list:
            for line in list_rows(places):
                print(line)
            return 0
        for flag in ("again", "remeasure"):
            if getattr(arguments, flag) and not arguments.row:
                raise ArgumentError(
                    requirement(f"--{flag}", "come with --row", "none", "Name rows.")
                )
        again = arguments.row if arguments.again else []
        remeasured = arguments.row if arguments.remeasure else []
        rows = in_order(
            arguments.row,
            finished=lambda row: (
                (row.name not in again and is_finished(row, places)) or not has_asset(row)
            ),
        )
        run_rows(rows, places, again=again, remeasured=remeasured)
    except TalkingHeadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
