"""Kills real trainings with SIGKILL and asserts that, restarted, they end as if nothing had been.

Command: python -m talking_heads_jax.workflows.kill_campaign --output DIR --kills 5 --save-kills 1

It trains the debug variant of the shipped FNeVR config (discriminator, averages and equivariance
transform on) through `run_train.py` once without interruption. Then, for each kill, it starts the
same command in a fresh folder, kills it (at a random time, or while a checkpoint is being written),
starts it again, and compares everything it left with the first run, bit for bit. A control run, in
which one sample is exchanged for another, must not compare equal. Writes DIR/report.json.
"""

import argparse
import atexit
import itertools
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import talking_heads_jax
from talking_heads_jax.checkpoint_items import PARTIAL_MARK, STEPS, finished_steps
from talking_heads_jax.errors import TalkingHeadsError
from talking_heads_jax.workflows.run_comparison import Comparison, compare_runs

_ROOT = Path(talking_heads_jax.__file__).resolve().parent.parent
_SIZE = 64  # pixels: the debug variant's
_SAVE_EVERY = 2
_POLL_S = 0.001
_TIMEOUT_S = 900.0  # of one start of the training
_STARTUP_SHARE = 0.2  # of the random kills: before the first step; the others spread over the rest
_ATTEMPTS = 6  # to catch a save, or a process that is still running


class CampaignError(TalkingHeadsError):
    """A training of the campaign failed for another reason than being killed."""


class Kill(NamedTuple):
    """One SIGKILL.

    Attributes:
      kind: 'random' or 'save'.
      seconds: after the start of the process.
      logged_step: the newest step this start had logged; 0 for none.
      finished: checkpoints that were finished.
      partial: the checkpoint that was being written, and how many files it had; None if none.
    """

    kind: str
    seconds: float
    logged_step: int
    finished: list[int]
    partial: str | None


class Campaign:
    """Folders, environment and timing that all runs of a campaign share."""

    def __init__(self, output: Path, *, steps: int, seed: int) -> None:
        """Makes the data and trains without interruption.

        Args:
          output: new folder.
          steps: of each training.
          seed: of the times of the kills.

        Raises:
          TalkingHeadsError: if the folder cannot be used, or the training fails.
        """
        from data_pipeline.synthetic.writing import write_talking_heads

        self.output, self.steps = output.absolute(), steps
        self.random = random.Random(seed)
        output.mkdir(parents=True, exist_ok=True)
        people = {"train": 2, "test": 1}
        write_talking_heads(
            self.output / "data", size=_SIZE, identities=people, num_frames=4, extras=()
        )
        self.expected = self.output / "uninterrupted"
        shutil.rmtree(self.expected, ignore_errors=True)
        watch = _Watch(self.expected)
        process = self.launch(self.expected)
        self.first_step_s = watch.until_logged(process, 1) - watch.started
        last = watch.until_logged(process, steps)
        self.step_s = (last - watch.started - self.first_step_s) / (steps - 1)
        self.finish(process, self.expected)

    def launch(self, workdir: Path, prefix: Sequence[str] = ()) -> subprocess.Popen:
        """Starts the training command in a folder.

        Args:
          workdir: of the run.
          prefix: what stands before its arguments; default: `run_train.py`.
        """
        settings = {
            "data.folder": self.output / "data",
            "schedule.duration": float(self.steps),
            "checkpoint.every": _SAVE_EVERY,
            "optim.ema.decay": 0.9,
            "log.images_every": 0,
        }
        command = [
            sys.executable,
            *(prefix or [str(_ROOT / "run_train.py")]),
            f"--config={_ROOT / 'configs' / 'fnevr' / 'vox_256.py'}:debug",
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ]
        with _console(workdir).open("ab") as console:
            process = subprocess.Popen(
                command, cwd=_ROOT, env=self._environment(), stdout=console, stderr=console
            )
        atexit.register(process.kill)  # nothing runs on when the campaign is interrupted
        return process

    def _environment(self) -> dict[str, str]:
        defaults = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(self.output / "xla"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        fixed = {
            "PYTHONPATH": str(_ROOT),
            "TALKING_HEADS_HOME": str(self.output / "home"),
            "TALKING_HEADS_TYPECHECK": "0",  # as in production; it only slows the tracing
        }
        return {**defaults, **os.environ, **fixed}

    def finish(self, process: subprocess.Popen, workdir: Path) -> None:
        """Waits for a training that nobody kills.

        Args:
          process: of `launch`.
          workdir: of the run.

        Raises:
          CampaignError: if it does not end well.
        """
        try:
            status = process.wait(_TIMEOUT_S)
        finally:
            process.kill()
        if status != 0 or finished_steps(workdir)[-1:] != [self.steps]:
            raise CampaignError(
                f"training in {workdir} must reach step {self.steps}, got exit status {status}. "
                f"Read {_console(workdir)}."
            )

    def random_kill(self, workdir: Path, moment: float) -> Kill | None:
        """Kills at a moment of the run.

        Args:
          workdir: of the run.
          moment: in [0, 1): the first part lies before the first step, the rest after it.

        Returns:
          None if the process had already ended.
        """
        begun = (finished_steps(workdir) or [0])[-1]
        watch, process = _Watch(workdir), self.launch(workdir)
        if moment < _STARTUP_SHARE:
            until = watch.started + moment / _STARTUP_SHARE * self.first_step_s
            # Not later than the first step, if this start is faster than the first one was.
            while time.monotonic() < until and watch.runs(process) and not watch.logged():
                time.sleep(_POLL_S)
        else:
            share = (moment - _STARTUP_SHARE) / (1 - _STARTUP_SHARE)
            whole, part = divmod(share * (self.steps - begun - 1), 1.0)
            first = watch.until_logged(process, begun + 1)
            # The uninterrupted run compiled; what is compiled once starts faster.
            self.first_step_s = min(self.first_step_s, first - watch.started)
            watch.until_logged(process, begun + 1 + int(whole))
            time.sleep(part * self.step_s)
        return self._kill(process, watch, "random")

    def save_kill(self, workdir: Path, after_step: int) -> Kill | None:
        """Kills when a checkpoint is seen half-written.

        Args:
          workdir: of the run.
          after_step: the checkpoint must be of a later step.

        Returns:
          None if it was finished before the process died, or the process had ended.
        """
        watch, process = _Watch(workdir), self.launch(workdir)
        while watch.runs(process) and not any(step > after_step for step, _ in watch.partial()):
            time.sleep(_POLL_S)
        kill = self._kill(process, watch, "save")
        return kill if kill is not None and kill.partial is not None else None

    def _kill(self, process: subprocess.Popen, watch: "_Watch", kind: str) -> Kill | None:
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            return None
        partial = [
            f"step {step}, {sum(1 for path in folder.rglob('*') if path.is_file())} files"
            for step, folder in watch.partial()
        ]
        return Kill(
            kind,
            time.monotonic() - watch.started,
            watch.logged(),
            finished_steps(watch.workdir),
            partial[0] if partial else None,
        )

    def killed_run(self, number: int, kinds: Sequence[tuple[str, float]]) -> "KilledRun":
        """Kills a run once per entry, lets it end, and compares.

        Args:
          number: of the run, in its folder's name.
          kinds: ('random', moment) or ('save', share of the steps before the save).

        Raises:
          CampaignError: if no kill was possible, or a restart fails.
        """
        workdir = self.output / f"killed_{number}"
        for _ in range(_ATTEMPTS):
            shutil.rmtree(workdir, ignore_errors=True)
            kills = []
            for kind, moment in kinds:
                if kind == "random":
                    kill = self.random_kill(workdir, moment)
                else:
                    kill = self._caught_save(workdir, int(moment * (self.steps - _SAVE_EVERY)))
                if kill is None:
                    break
                kills.append(kill)
            if len(kills) == len(kinds):
                self.finish(self.launch(workdir), workdir)
                return KilledRun(kills, compare_runs(workdir, self.expected))
        raise CampaignError(
            f"training in {workdir} must run long enough to be killed, got an end before that in "
            f"{_ATTEMPTS} attempts. Use more --steps."
        )

    def _caught_save(self, workdir: Path, after_step: int) -> Kill | None:
        """Tries again at a later save, until the run is over."""
        while True:
            kill = self.save_kill(workdir, after_step)
            steps = finished_steps(workdir)
            if kill is not None or steps[-1:] == [self.steps]:
                return kill
            after_step = max([after_step, *steps])

    def control(self) -> Comparison:
        """Repeats the end of the uninterrupted run with one sample exchanged for another."""
        workdir = self.output / "control"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(self.expected, workdir)
        last = finished_steps(workdir)[-1]
        shutil.rmtree(workdir / STEPS / str(last))
        prefix = ["-m", "talking_heads_jax.workflows.kill_campaign", f"--exchange-at={last - 1}"]
        self.finish(self.launch(workdir, prefix), workdir)
        return compare_runs(workdir, self.expected)


class KilledRun(NamedTuple):
    """A run that was killed and restarted until it ended.

    Attributes:
      kills: what was done to it, in order.
      comparison: with the uninterrupted run.
    """

    kills: list[Kill]
    comparison: Comparison


def _console(workdir: Path) -> Path:
    return workdir.with_name(f"{workdir.name}.console.txt")


class _Watch:
    """What one start of a training does in its folder, told from what an earlier one left there."""

    def __init__(self, workdir: Path) -> None:
        """Begins before the start."""
        self.workdir, self.started = workdir, time.monotonic()
        self._log = workdir / "metrics.jsonl"
        self._old_log = _inode(self._log)
        self._left_over = bool(_partial(workdir))

    def logged(self) -> int:
        """The newest step of this start in metrics.jsonl; 0 if there is none.

        A resumed run replaces the file, without the steps that it will repeat.
        """
        try:
            if _inode(self._log) == self._old_log:
                return 0
            return json.loads(self._log.read_text(encoding="utf-8").splitlines()[-1])["step"]
        except (OSError, ValueError, IndexError):
            return 0

    def runs(self, process: subprocess.Popen) -> bool:
        """Whether the process is alive; one that hangs is an error."""
        if time.monotonic() - self.started > _TIMEOUT_S:
            process.kill()
            raise CampaignError(
                f"training in {self.workdir} must end within {_TIMEOUT_S:.0f} s, got none. "
                f"Read {_console(self.workdir)}."
            )
        return process.poll() is None

    def until_logged(self, process: subprocess.Popen, step: int) -> float:
        """Waits for a step, or the end of the process; returns the time."""
        while self.runs(process) and self.logged() < step:
            time.sleep(_POLL_S)
        return time.monotonic()

    def partial(self) -> list[tuple[int, Path]]:
        """(step, folder) of checkpoints that this start is writing.

        A run removes what was left over before it writes anything.
        """
        found = _partial(self.workdir)
        self._left_over = self._left_over and bool(found)
        return [] if self._left_over else found


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _partial(workdir: Path) -> list[tuple[int, Path]]:
    try:
        names = os.listdir(workdir / STEPS)
    except OSError:
        return []
    found = ((name.partition(PARTIAL_MARK), name) for name in names)
    return [
        (int(step), workdir / STEPS / name)
        for (step, mark, _), name in found
        if mark and step.isascii() and step.isdigit()
    ]


def run_campaign(
    output: Path, *, kills: int, save_kills: int, seed: int, steps: int, chain: int = 1
) -> dict[str, Any]:
    """Runs everything and writes `report.json`.

    Args:
      output: folder of data, runs and report; what an earlier campaign left there is replaced.
      kills: how many at random times.
      save_kills: how many while a checkpoint is being written.
      seed: of the times.
      steps: of each training, at least 6.
      chain: how many of the kills hit the same run, one after the other.

    Returns:
      The report; `equal` says whether all runs equal the uninterrupted one, and `control_differs`
      whether the control does not.

    Raises:
      TalkingHeadsError: if a training fails.
    """
    started = time.monotonic()
    campaign = Campaign(output, steps=steps, seed=seed)
    _say(
        f"uninterrupted: first step after {campaign.first_step_s:.1f} s, then "
        f"{campaign.step_s:.2f} s a step"
    )
    draw = campaign.random.random
    # The latest first: they tell how long a start takes, before one is interrupted.
    plan = [("random", (index + draw()) / kills) for index in reversed(range(kills))]
    plan += [("save", draw()) for _ in range(save_kills)]
    runs = []
    for number, first in enumerate(range(0, len(plan), chain)):
        run = campaign.killed_run(number, plan[first : first + chain])
        runs.append(run)
        for kill in run.kills:
            _say(
                f"{kill.kind:>6}  {kill.seconds:7.2f} s  step {kill.logged_step:>3}  "
                f"finished {kill.finished}  writing {kill.partial or '-'}"
            )
        _say(f"        {_verdict(run.comparison)}")
    control = campaign.control()
    _say(f"control: one sample exchanged: {_verdict(control)}")
    report = {
        "seed": seed,
        "steps": steps,
        "save_every": _SAVE_EVERY,
        "first_step_s": campaign.first_step_s,
        "step_s": campaign.step_s,
        "runs": [
            {"kills": [kill._asdict() for kill in run.kills], **_as_dict(run.comparison)}
            for run in runs
        ],
        "control": _as_dict(control),
        "equal": not any(run.comparison.differences for run in runs),
        "control_differs": _feels_the_sample(control),
        "seconds": time.monotonic() - started,
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _feels_the_sample(control: Comparison) -> bool:
    """Whether one other sample is seen in the log and in the parameters."""
    logged = any(line.startswith("sample log") for line in control.differences)
    return logged and any(".params/" in line for line in control.differences)


def _verdict(comparison: Comparison) -> str:
    counted = (
        f"{comparison.num_arrays} arrays ({comparison.num_bytes} bytes) of {comparison.num_items} "
        f"items, extra, {comparison.num_samples} samples, metrics"
    )
    if not comparison.differences:
        return f"equal: {counted}"
    shown = "; ".join(comparison.differences[:3])
    return f"DIFFERENT in {len(comparison.differences)} of {counted}: {shown}"


def _as_dict(comparison: Comparison) -> Mapping[str, Any]:
    return comparison._asdict()


def _say(line: str) -> None:
    print(line, flush=True)


def _train_with_exchanged_sample(step: int, arguments: Sequence[str]) -> None:
    """The control's process: `run_train.py` whose loader gives another first sample at a step."""
    from talking_heads_jax import build

    real = build.build_loader

    class Exchanging:
        """A loader with one other sample."""

        def __init__(self, *arguments: Any) -> None:
            self._loader = real(*arguments)
            self.num_samples = self._loader.num_samples
            self.fingerprint = self._loader.fingerprint

        def iterate(self, start_step: int) -> Iterator[Any]:
            """Batches; that of the chosen step begins with the first sample of a later one."""
            import jax

            for index, pair in enumerate(self._loader.iterate(start_step), start_step + 1):
                if index == step:
                    later = (self._loader.batch(number) for number in itertools.count(index))
                    mine = pair.record_ids[0].tolist()
                    # The set is small: the next step may show the same two frames again.
                    other = next(batch for batch in later if batch.record_ids[0].tolist() != mine)
                    jax.tree.map(lambda mine, its: mine.__setitem__(0, its[0]), pair, other)
                yield pair

        def close(self) -> None:
            """Ends the threads."""
            self._loader.close()

    build.build_loader = Exchanging
    sys.argv = [str(_ROOT / "run_train.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the campaign.

    Args:
      argv: the arguments; None takes the process's own.

    Returns:
      0 if all runs are equal and the control is not, 1 if not, 2 if a training failed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0].startswith("--exchange-at="):
        _train_with_exchanged_sample(int(arguments[0].partition("=")[2]), arguments[1:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--save-kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--chain", type=int, default=1, help="kills per run")
    options = vars(parser.parse_args(arguments))
    if options["steps"] < 6 or options["chain"] < 1:
        parser.error("--steps must be at least 6, --chain at least 1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    try:
        report = run_campaign(options.pop("output"), **options)
    except TalkingHeadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    good = report["equal"] and report["control_differs"]
    _say(f"{'passed' if good else 'FAILED'} in {report['seconds']:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
