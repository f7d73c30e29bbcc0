"""`make demo`: built-in heads are rendered → data, training, a table, videos, a page.

Command: python -m talking_heads_jax.workflows.demo --output demo
Run again, it continues where it stopped. The exit status is 0 only if the trained model beats every
trivial answer (the source copied, blurred, or moved by its silhouette) on the faces of people it
never saw.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from talking_heads_jax.errors import TalkingHeadsError
from talking_heads_jax.workflows.page import Figure, Section, Table, write_page

_STEPS = 1200.0
_SEED = 0
_PROTOCOL = "synthetic_same"
_FACE = "l1/masked-face"
_SHOWN = (
    *("l1/masked-face", "l1/masked-mouth", "l1/masked-eyes", "psnr/masked-face"),
    *("retrieval_mouth", "retrieval_eyes"),
)
_SOURCE, _DRIVER = 20_000, 20_001  # test people
_DRIVER_TAKE = 1  # a clip that the evaluation does not hold
_DRIVER_FRAMES = 75
_EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells report it
_SHOWN_PX = 256  # width of a 64 px frame on the page
_SWEEP_STEPS = 7
_BATCH_SIZE = 8


class DemoSizes(NamedTuple):
    """How much data the demonstration makes.

    Attributes:
      train_people: to train on.
      test_people: to evaluate on.
      num_frames: of each clip; there is one of each person.
    """

    train_people: int = 200
    test_people: int = 24
    num_frames: int = 8


_SIZES = DemoSizes()


class DemoResult(NamedTuple):
    """What came out.

    Attributes:
      page: the web page.
      gain: face L1 of the best trivial answer minus the model's, mean over test clips.
      low: lower end of its 95 % bootstrap interval.
      seconds: wall time.
    """

    page: Path
    gain: float
    low: float
    seconds: float


def demo_config() -> Any:
    """FNeVR's small training on the synthetic set, cut to the length of a demonstration."""
    from configs.fnevr import synthetic_64

    config = synthetic_64.get_config()
    with config.unlocked():
        config.name += "_demo"
        config.schedule.duration = _STEPS
        config.checkpoint.every = 200
    return config


def run_demo(output: Path, *, config: Any, sizes: DemoSizes = _SIZES) -> DemoResult:
    """Runs everything, or what is left of it.

    Args:
      output: folder of the data, the run, the pictures and the page; may be moved as a whole.
      config: a training config; its data folder is set here.
      sizes: how much data to make.

    Raises:
      TalkingHeadsError: whatever goes wrong with files, data or training.
      SystemExit: when SIGTERM stopped the training; what is done so far is saved.
    """
    from data_pipeline.synthetic.writing import write_talking_heads
    from talking_heads_jax.build import build_trainer
    from talking_heads_jax.evaluation.report import gain_over_trivial

    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    print("1/4 data: rendering people", flush=True)
    write_talking_heads(
        output / "data",
        size=config.model.resolution,
        identities={"train": sizes.train_people, "test": sizes.test_people},
        num_frames=sizes.num_frames,
        seed=_SEED,
    )
    config.data.folder = str(output / "data")
    print("2/4 training", flush=True)
    state = build_trainer(config, output / "run").run()
    if int(state.step) < config.schedule.duration:
        print(f"stopped after step {int(state.step)}; the same command continues", file=sys.stderr)
        raise SystemExit(_EXIT_TERMINATED)
    print("3/4 evaluation on people the model never saw", flush=True)
    result, info = _evaluate(output, config)
    print("4/4 animation", flush=True)
    media = _animate(output, config.model.resolution)
    face = next(recipe for recipe in result.recipes if recipe.name == _FACE)
    gain = gain_over_trivial(result, face)
    page = _write_page(output, result, info, media)
    return DemoResult(page, gain.mean, gain.low, time.monotonic() - started)


def _evaluate(output: Path, config: Any) -> tuple[Any, Mapping[str, Any]]:
    """Scores the trained model beside the trivial answers; writes and prints the table."""
    from configs.eval import load_protocol
    from talking_heads_jax.build import open_clips
    from talking_heads_jax.checkpoints import load_model
    from talking_heads_jax.evaluation.answers import MODEL_ROW, CheckpointAnswer
    from talking_heads_jax.evaluation.pairs import build_pairs
    from talking_heads_jax.evaluation.protocols import Protocol
    from talking_heads_jax.evaluation.report import as_markdown, perceptual_weights, write_report
    from talking_heads_jax.evaluation.runner import evaluate_pairs, fitting_batch_size

    loaded = load_model(output / "run")
    protocol = Protocol.from_config(load_protocol(_PROTOCOL)["protocol"])
    clips = open_clips(config.data.folder, split="test", resolution=loaded.model.resolution)
    pair_list = build_pairs(protocol, clips.values())
    batch_size = fitting_batch_size(pair_list, _BATCH_SIZE)
    answer = CheckpointAnswer(loaded.model, loaded.variables, batch_size=batch_size)
    result = evaluate_pairs(
        {MODEL_ROW: answer}, pair_list, clips, batch_size=batch_size, recipes=_SHOWN
    )
    info = {
        "model": f"{loaded.model.name}, {loaded.model.resolution} px, step {loaded.info['step']}",
        "data": "rendered people that training never saw",
        "perceptual weights": perceptual_weights(config),
    }
    write_report(result, output / "evaluation", info, data={"split": "test"}, replace=True)
    print(as_markdown(result, info), flush=True)
    return result, info


def _animate(output: Path, size: int) -> dict[str, Path]:
    """One test person moved by another's clip, and turned by the pose editor; returns the files."""
    from data_pipeline.synthetic.talking_heads import SyntheticTalkingHeads
    from talking_heads_jax.inference.animate import AnimateOptions, animate_files
    from talking_heads_jax.inference.pose_sweep import SweepOptions, sweep_files
    from talking_heads_jax.media.image import write_image
    from talking_heads_jax.media.video import VideoWriter

    folder = output / "media"
    names = ("driving", "animation", "side_by_side", "swing")
    files = {name: folder / f"{name}.mp4" for name in names}
    files |= {name: folder / f"{name}.png" for name in ("source", "sweep")}
    heads = SyntheticTalkingHeads(size=size, seed=_SEED)
    portrait = heads.render(_SOURCE, heads.clip(_SOURCE, 0, 1)[0])
    states = heads.clip(_DRIVER, _DRIVER_TAKE, _DRIVER_FRAMES)
    write_image(files["source"], portrait.image)
    with VideoWriter(files["driving"], heads.fps, (size, size)) as writer:
        for frame in heads.render_many([(_DRIVER, state) for state in states]):
            writer.write(frame.image)
    run, source = output / "run", files["source"]
    for name in ("animation", "side_by_side"):
        options = AnimateOptions(best_frame="off", side_by_side=name == "side_by_side")
        animate_files(run, source, files["driving"], files[name], options=options)
    sweep_files(
        run,
        source,
        files["sweep"],
        options=SweepOptions(steps=_SWEEP_STEPS),
        video=files["swing"],
    )
    return files


def _write_page(
    output: Path, result: Any, info: Mapping[str, Any], media: Mapping[str, Path]
) -> Path:
    from talking_heads_jax.evaluation.report import best_trivial, bootstrap_interval

    header = [
        "answer",
        *(f"{recipe.key} {'↑' if recipe.higher_is_better else '↓'}" for recipe in result.recipes),
    ]
    rows = []
    for name, columns in result.values.items():
        means = [bootstrap_interval(columns[recipe.name]).mean for recipe in result.recipes]
        rows.append([name.replace("_", " "), *(f"{mean:.4f}" for mean in means)])
    face = next(recipe for recipe in result.recipes if recipe.name == _FACE)
    best = best_trivial(result, face).replace("_", " ")
    described = "; ".join(f"{key}: {value}" for key, value in info.items())
    sections = [
        Section(
            "A person, moved by another",
            "Left to right: source, driving clip, prediction. Training saw neither of the two.",
            [Figure(media["side_by_side"], "source, driving, prediction", 3 * _SHOWN_PX)],
        ),
        Section(
            "A head, turned",
            "The pose editor alone: yaw, pitch and roll, each swept separately, no driving video.",
            [
                Figure(media["swing"], "yaw, pitch, roll", 3 * _SHOWN_PX),
                Figure(media["sweep"], "degrees to the source's pose", 3 * _SHOWN_PX),
            ],
        ),
        Section(
            "Against the trivial answers",
            f"Mean over {len(result.pairs)} test clips, inside the face, the mouth and the eyes. "
            f"The best trivial answer in the face is: {best}. Copying the driving frame is the "
            "perfect answer, shown for scale. Retrieval: whose mouth or eyes match their own "
            "driving frame best, of three. " + described + ".",
            [Table(header, rows, best=0)],
        ),
        Section(
            "People training never saw",
            "Source, driving frame, prediction, and their difference four times brighter.",
            [Figure(output / "evaluation" / "gallery.png", "one row per clip", 3 * _SHOWN_PX)],
        ),
    ]
    footer = "Everybody on this page is rendered by the package itself; nobody of them exists."
    title = "FNeVR at 64 px, trained from nothing"
    return write_page(output / "index.html", title=title, sections=sections, footer=footer)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demonstration.

    Args:
      argv: the arguments; None takes the process's own.

    Returns:
      0 if the model beats the trivial answers, 1 if not, 2 for a mistake of the user.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    arguments = parser.parse_args(argv)
    try:
        result = run_demo(arguments.output, config=demo_config())
    except TalkingHeadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"done in {result.seconds:.0f} s: open {result.page}")
    if result.low <= 0:
        print(f"the model does not beat the trivial answers: gain {result.gain:.4f} in face L1")
        return 1
    print(
        f"face L1 better than the best trivial answer by {result.gain:.4f} "
        f"(at least {result.low:.4f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
