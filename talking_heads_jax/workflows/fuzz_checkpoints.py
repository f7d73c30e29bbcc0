r"""Damages real checkpoints and asserts that nothing but the documented errors comes out.

Command: python -m talking_heads_jax.workflows.fuzz_checkpoints --seed 0 --mutations 10000 \
    --output report.json [--seconds N] [--only CASE]

Every case is read in a worker process with a limit on memory and time. A case fails if the reader
raises anything but a `TalkingHeadsError`, runs out of memory, does not end, dies, runs code that a
file names, touches a file outside its folder, or returns other numbers than were saved although the
checksums beside them are the true ones. Case n depends on the seed, n and the corpus
alone; the corpus is kept beside the report (`report.corpus/`), and so is what a failing case read
(`report.failures/<n>/`), so that `--only n` repeats it. Exit status: 0, or 1 if a case failed.
"""

import argparse
import collections
import functools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from talking_heads_jax.checkpoint_items import CHECKSUMS, write_checksums
from talking_heads_jax.errors import ArgumentError, TalkingHeadsError, requirement
from talking_heads_jax.workflows.fuzz_corpus import (
    FILES,
    FOLDERS,
    Corpus,
    open_corpus,
    write_corpus,
)
from talking_heads_jax.workflows.fuzz_mutations import mutate_bytes, mutate_folder

_MEMORY_MARGIN = 2 << 30  # bytes a worker may map beyond what it holds when it is warm
_CASE_SECONDS = 30.0  # of wall time, on a busy machine; a case takes 0.01 to 0.4
_START_SECONDS = 300.0  # imports and compilation before the first case
_CASES_PER_WORKER = 1000
_FOLDER_SHARE = 0.3  # of the cases: folders take twenty times as long as files
_MAX_FAILURES = 50  # listed in full
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
# Events of Python's audit hook that no reader of data may cause.
_FORBIDDEN_EVENTS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen",
    "pickle.find_class", "socket.connect", "socket.bind", "ctypes.dlopen", "shutil.rmtree",
)  # fmt: skip


class SilentDamageError(Exception):
    """Arrays came back changed although the checksums would have told."""


class FuzzReport(NamedTuple):
    """What came out.

    Attributes:
      cases: how many were read.
      seconds: wall time.
      tally: outcome -> number: names of error types, and 'read' where the damage did no harm.
      failures: each with `case`, `target`, `mutation`, `outcome`, `message`.
    """

    cases: int
    seconds: float
    tally: dict[str, int]
    failures: list[dict[str, Any]]


def fuzz_checkpoints(
    output: Path,
    *,
    seed: int = 0,
    mutations: int = 10_000,
    seconds: float | None = None,
    only: int | None = None,
    progress: bool = True,
) -> FuzzReport:
    """Runs the cases 0 to `mutations`, or one.

    Args:
      output: the report to write, a .json file.
      seed: of all cases.
      mutations: number of cases.
      seconds: stop after so much time, whatever has been done.
      only: number of the one case to run.
      progress: print a line now and then.

    Raises:
      ArgumentError: for a number that makes no sense.
    """
    if mutations < 1 or (only is not None and only < 0):
        raise ArgumentError(
            requirement("--mutations and --only", "count from 1 and 0", (mutations, only), "Mend.")
        )
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    corpus = output.with_suffix(".corpus")
    if not corpus.is_dir():
        write_corpus(corpus)
    started = time.monotonic()
    cases = [only] if only is not None else list(range(mutations))
    tally: collections.Counter[str] = collections.Counter()
    failures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="fuzz_checkpoints.") as scratch:
        for result in _results(corpus, Path(scratch), seed, cases):
            tally[result["outcome"]] += 1
            if result["failed"]:
                _keep(output, result, Path(scratch))
                if len(failures) < _MAX_FAILURES:
                    failures.append({k: v for k, v in result.items() if k != "failed"})
                print(f"FAILED {json.dumps(failures[-1])}", file=sys.stderr, flush=True)
            done = sum(tally.values())
            if progress and done % 500 == 0:
                print(f"{done} cases, {time.monotonic() - started:.0f} s", flush=True)
            if seconds is not None and time.monotonic() - started > seconds:
                break
    report = FuzzReport(
        sum(tally.values()), time.monotonic() - started, dict(tally.most_common()), failures
    )
    document = {"seed": seed, **report._asdict()}
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return report


def _keep(output: Path, result: dict[str, Any], scratch: Path) -> None:
    """Copies what a failing case read beside the report."""
    case = scratch / "inside" / str(result["case"])
    target = output.with_suffix(".failures") / str(result["case"])
    if case.is_dir() and not target.exists():
        shutil.copytree(case, target, symlinks=True, ignore=_special)


def _special(folder: str, names: list[str]) -> list[str]:
    """Pipes, which copying would wait for."""
    paths = [(name, Path(folder, name)) for name in names]
    return [n for n, p in paths if not (p.is_symlink() or p.is_file() or p.is_dir())]


def _results(
    corpus: Path, scratch: Path, seed: int, cases: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Results in order; a worker that dies or hangs costs its case only."""
    position = 0
    while position < len(cases):
        batch = cases[position : position + _CASES_PER_WORKER]
        worker = _Worker(corpus, scratch, seed, batch)
        try:
            for case in batch:
                result = worker.next_result()
                position += 1
                if isinstance(result, str):
                    yield {"case": case, "failed": True, "outcome": result, **worker.state()}
                    break
                yield result
                shutil.rmtree(scratch / "inside" / str(case), ignore_errors=True)
        finally:
            worker.stop()


class _Worker:
    """A process that reads damaged checkpoints and reports line by line."""

    def __init__(self, corpus: Path, scratch: Path, seed: int, cases: Sequence[int]) -> None:
        for part in ("inside", "outside", "temporary"):
            (scratch / part).mkdir(exist_ok=True)
        command = [sys.executable, "-m", __name__ if __name__ != "__main__" else _MODULE]
        command += ["--worker", str(corpus), str(scratch), str(seed)]
        self._errors = (scratch / "stderr.txt").open("w+b")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "TMPDIR": str(scratch / "temporary")},
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._collect, daemon=True).start()
        self._process.stdin.write(json.dumps(list(cases)) + "\n")
        self._process.stdin.close()
        self._first = True
        self._begun: dict[str, Any] = {}

    def _collect(self) -> None:
        for line in self._process.stdout:
            if line.startswith("{"):
                self._lines.put(line)
        self._lines.put(None)

    def next_result(self) -> dict[str, Any] | str:
        """The next case's result, or how the process ended instead."""
        while True:
            limit = _CASE_SECONDS + (_START_SECONDS if self._first else 0.0)
            self._first = False
            try:
                line = self._lines.get(timeout=limit)
            except queue.Empty:
                return "hang"
            if line is None:
                return f"crash (status {self._process.wait()})"
            result = json.loads(line)
            if "outcome" in result:
                self._begun = {}
                return result
            self._begun = result  # announced, not read yet

    def state(self) -> dict[str, Any]:
        """What is known of the case that never reported."""
        self._errors.seek(0)
        tail = self._errors.read()[-1000:].decode("utf-8", "replace")
        return {"target": "", "mutation": "", **self._begun, "message": tail}

    def stop(self) -> None:
        """Ends the process, if it still runs."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


_MODULE = "talking_heads_jax.workflows.fuzz_checkpoints"


def _work(corpus_folder: Path, scratch: Path, seed: int) -> None:
    """The worker: reads cases from standard input, writes a line of JSON for each."""
    cases = json.loads(sys.stdin.readline())
    import logging

    logging.disable(logging.CRITICAL)
    reader = _Reader(open_corpus(corpus_folder), scratch, seed)
    reader.warm_up()
    sys.addaudithook(reader.audit)  # for good: Python has no way to remove one
    _limit_memory()
    for case in cases:
        print(json.dumps(reader.run(case)), flush=True)
    sys.stdout.flush()
    os._exit(0)  # without waiting for threads that a damaged file left behind


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows: no limit
        return
    state = Path("/proc/self/statm")
    if not state.is_file():  # what this process holds is told on Linux only
        return
    pages = int(state.read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _MEMORY_MARGIN
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class _Reader:
    """Makes cases and reads them as the package's users do."""

    def __init__(self, corpus: Corpus, scratch: Path, seed: int) -> None:
        self._corpus, self._scratch, self._seed = corpus, scratch, seed
        self._inside, self._outside = scratch / "inside", scratch / "outside"
        (self._outside / "canary").write_bytes(b"untouched")
        self._events: list[str] = []
        self._watching = False
        self._variables: Any = None

    def warm_up(self) -> None:
        """Reads the intact corpus, so that whatever is lazily imported or compiled is there."""
        for name in FILES:
            self._read_file(self._corpus.folder / name)
        for name in FOLDERS:
            folder = self._inside / f"warm-{name}"
            shutil.copytree(self._corpus.folder / name, folder)
            self._read_folder(folder, name)
            shutil.rmtree(folder)

    def run(self, case: int) -> dict[str, Any]:
        """Makes a case and reads it.

        Args:
          case: its number.

        Returns:
          `case`, `target`, `mutation`, `outcome`, `message`, `failed`.
        """
        rng = np.random.default_rng([self._seed, case])
        folder = self._inside / str(case)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if rng.random() < _FOLDER_SHARE:
            target = FOLDERS[int(rng.integers(len(FOLDERS)))]
            shutil.copytree(self._corpus.folder / target, folder / target)
            mutation = mutate_folder(folder / target, rng)
            mutation += _settle_checksums(folder / target, rng)
            read = functools.partial(self._read_folder, folder / target, target)
        else:
            target = FILES[int(rng.integers(len(FILES)))]
            data, other = (
                (place / target).read_bytes()
                for place in (self._corpus.folder, self._corpus.folder / "other")
            )
            data, mutation = mutate_bytes(data, other, target, rng)
            (folder / target).write_bytes(data)
            read = functools.partial(self._read_file, folder / target)
        made = {"case": case, "target": target, "mutation": mutation[:500]}
        print(json.dumps(made), flush=True)
        return {**made, **self._watch(read)}

    def _watch(self, read: Callable[[], None]) -> dict[str, Any]:
        self._events.clear()
        self._watching, error = True, None
        try:
            read()
        except Exception as raised:
            error = raised
        finally:
            self._watching = False
        message = "" if error is None else f"{error}"
        outcome = "read" if error is None else type(error).__name__
        failed = error is not None and not isinstance(error, TalkingHeadsError)
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, MemoryError):  # an allocation that nothing had bounded
                outcome, failed = "allocation", True
            cause = cause.__cause__ or cause.__context__
        if "\n" in message or not message.isprintable():
            outcome, failed = f"{outcome} of several lines", True
        if self._events:
            outcome, failed, message = "code", True, "; ".join(self._events[:5])
        left = sorted(path.name for path in self._scratch.iterdir())
        canaries = [path.name for path in self._outside.iterdir()]
        intact = canaries == ["canary"] and (self._outside / "canary").read_bytes() == b"untouched"
        if not intact or left != ["inside", "outside", "stderr.txt", "temporary"]:
            outcome, failed, message = "outside", True, f"{left} {canaries}"
        return {"outcome": outcome, "message": message[:500], "failed": failed}

    def audit(self, event: str, arguments: tuple) -> None:
        """Python's audit hook: notes what no reader of data may do, while a case is read."""
        if not self._watching:
            return
        if event.startswith(_FORBIDDEN_EVENTS) and event != "shutil.rmtree":
            self._events.append(f"{event} {str(arguments)[:80]}")
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            if isinstance(arguments[0], int):  # a file that is open already
                return
            path = os.path.realpath(os.fsdecode(arguments[0])) if arguments[0] else ""
            if not path.startswith((str(self._inside), str(self._scratch / "temporary"), "/dev/")):
                self._events.append(f"open {path} {arguments[1]}")

    def _read_file(self, path: Path) -> None:
        from talking_heads_jax.conversion.translate import convert_state_dicts, group_networks
        from talking_heads_jax.serialization.tensors import read_tensors

        states, _, _ = group_networks(read_tensors(path), self._corpus.model.name)
        convert_state_dicts(self._corpus.model, states)

    def _read_folder(self, folder: Path, target: str) -> None:
        from talking_heads_jax.checkpoints import TrainingCheckpoints, load_model

        sealed = self._sums(folder) == self._sums(self._corpus.folder / target)
        if target == FOLDERS[0]:
            found = load_model(folder).variables
            expected = self._variables = self._variables or found  # of the intact one, at first
        else:
            expected = self._corpus.state
            with TrainingCheckpoints(folder, model=self._corpus.model) as checkpoints:
                found, _ = checkpoints.restore(expected)
        if sealed and not _equal(found, expected):
            raise SilentDamageError(f"{target} was read with other numbers than it was saved with")

    def _sums(self, folder: Path) -> dict[str, bytes]:
        """The files of checksums below a folder."""
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob(CHECKSUMS))
            if path.is_file()
        }


def _equal(first: Any, second: Any) -> bool:
    leaves = [jax.tree.leaves(tree) for tree in (first, second)]
    return len(leaves[0]) == len(leaves[1]) and all(map(np.array_equal, *leaves))


def _settle_checksums(folder: Path, rng: np.random.Generator) -> str:
    """Leaves the checksums, removes them (an old folder), or makes them agree with the damage."""
    choice = rng.random()
    if choice < 0.3:
        return ""
    for path in sorted(folder.rglob(CHECKSUMS)):
        if not path.is_file():  # a folder or a pipe since a mutation
            continue
        if choice < 0.6:
            path.unlink()
        elif not any(_is_endless(inner) for inner in path.parent.rglob("*")):
            write_checksums(path.parent)
    return ", checksums removed" if choice < 0.6 else ", checksums made to agree"


def _is_endless(path: Path) -> bool:
    return path.exists() and not (path.is_file() or path.is_dir())


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the arguments, runs, prints the tally.

    Args:
      argv: the arguments after the program's name; None takes the process's own.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["--worker"]:
        _work(Path(argv[1]), Path(argv[2]), int(argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutations", type=int, default=10_000, help="number of cases (10000)")
    parser.add_argument("--seconds", type=float, help="stop after so much time")
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone")
    parser.add_argument("--output", type=Path, required=True, help="report, a .json file")
    arguments = parser.parse_args(argv)
    try:
        report = fuzz_checkpoints(**vars(arguments))
    except TalkingHeadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    print(f"{report.cases} cases in {report.seconds:.0f} s, seed {arguments.seed}")
    for outcome, count in report.tally.items():
        print(f"{count:8d}  {outcome}")
    print(f"{len(report.failures)} failures")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
