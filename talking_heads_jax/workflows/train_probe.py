"""Trains the evaluation probe on the split `probe` of a synthetic data set, and stores it.

    talking-heads synthesize --output DATA --size 64 ...
    python -m talking_heads_jax.workflows.train_probe --data DATA --output FILE

Its own errors, on people of the split `val` that it has never seen, are stored with it: every table
with `probe_*` columns prints them.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from talking_heads_jax.errors import ArgumentError, DataError, TalkingHeadsError, requirement

TRAINED_ON, MEASURED_ON = "probe", "val"
DEFAULT_STEPS = 2000
_LEARNING_RATE = 2e-3
_PRINT_EVERY = 100


def train_probe(
    data: Path,
    *,
    steps: int = DEFAULT_STEPS,
    people_per_batch: int = 16,
    frames_per_person: int = 4,
    seed: int = 0,
    say: Callable[[str], object] = print,
) -> Any:
    """Trains a probe.

    Args:
      data: folder of a synthetic data set with the splits `probe` and `val`.
      steps: of the training.
      people_per_batch: different people in a batch, at most as many as there are.
      frames_per_person: pictures of each.
      seed: of initialisation, batches and damage.
      say: takes lines about the progress.

    Returns:
      A `networks.probe.Probe`, rounded to the precision it is stored in.

    Raises:
      ArgumentError: numbers that leave nothing to train or to compare.
      DataError: the data set lacks a split or a column.
    """
    import jax
    import numpy as np

    from talking_heads_jax import build
    from talking_heads_jax.networks.probe import PROBE_SIDE, Probe
    from talking_heads_jax.workflows import probe_training as training

    if min(steps, people_per_batch - 1, frames_per_person - 1) < 1:
        raise ArgumentError(
            requirement(
                "steps, people and frames of a batch",
                "be at least 1, 2 and 2",
                (steps, people_per_batch, frames_per_person),
                "Raise them.",
            )
        )
    splits = {
        split: training.read_frames(build.open_clips(data, split=split, resolution=PROBE_SIDE))
        for split in (TRAINED_ON, MEASURED_ON)
    }
    frames = splits[TRAINED_ON]
    people = {split: len(np.unique(found.person)) for split, found in splits.items()}
    for split, count in people.items():
        if count < 2:
            raise DataError(
                requirement(
                    f"split {split} of {data}", "show 2 people or more", count, "Make it larger."
                )
            )
    say(f"{people[TRAINED_ON]} people, {len(frames.images)} frames")
    statistics = training.target_statistics(frames)
    initial, step = training.make_step(statistics, learning_rate=_LEARNING_RATE, num_steps=steps)
    start, key = time.perf_counter(), jax.random.key(seed)
    params, state = initial(jax.random.fold_in(key, steps))
    batches = training.draw_batches(
        frames.person,
        people=min(people_per_batch, people[TRAINED_ON]),
        frames=frames_per_person,
        seed=seed,
    )
    for number in range(steps):
        rows = next(batches)
        batch = training.ProbeFrames(*(column[rows] for column in frames))
        params, state, losses = step(params, state, jax.random.fold_in(key, number), batch)
        if (number + 1) % _PRINT_EVERY == 0 or number + 1 == steps:
            text = ", ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
            say(f"step {number + 1}, {time.perf_counter() - start:.0f} s: {text}")
    # Half precision is what tables use: the errors are those of the stored numbers.
    params = jax.tree.map(lambda x: np.float32(np.float16(x)), params)
    info = {
        "people": {"train": people[TRAINED_ON], "unseen": people[MEASURED_ON]},
        "frames": {split: len(found.images) for split, found in splits.items()},
        "command": "python -m talking_heads_jax.workflows.train_probe --data DATA "
        f"--steps {steps} --people {people_per_batch} --frames {frames_per_person} --seed {seed}",
    }
    probe = Probe(params, statistics, info)
    errors = training.own_errors(probe, splits[MEASURED_ON])
    return probe._replace(info={**info, "own_errors": errors})


def main(argv: Sequence[str] | None = None) -> int:
    """Trains and stores a probe, and prints its own errors.

    Args:
      argv: the arguments; None takes the process's own.

    Returns:
      0, or 2 for a mistake of the user.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Folder of a synthetic data set.")
    parser.add_argument("--output", type=Path, required=True, help="A .safetensors file.")
    parser.add_argument("--replace", action="store_true", help="Take the place of that file.")
    parser.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    parser.add_argument("--people", type=int, default=16, help="Per batch.")
    parser.add_argument("--frames", type=int, default=4, help="Of each of them.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    output = arguments.output
    try:
        if output.exists() and not arguments.replace:
            raise ArgumentError(
                requirement("--output", "be a new file", output, "Add --replace, or rename it.")
            )
        from talking_heads_jax import build
        from talking_heads_jax.networks.probe import save_probe
        from talking_heads_jax.serialization.atomic_file import replacing

        build.enable_compilation_cache()
        probe = train_probe(
            arguments.data,
            steps=arguments.steps,
            people_per_batch=arguments.people,
            frames_per_person=arguments.frames,
            seed=arguments.seed,
        )
        with replacing(output) as partial:
            save_probe(partial, probe)
    except TalkingHeadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{output}: {output.stat().st_size / 1e6:.2f} MB; on unseen people:")
    for name, value in probe.own_errors.items():
        print(f"  {name}: {value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
