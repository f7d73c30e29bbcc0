"""`make demo`: photographs that ship with two packages → data, training, a table, a video, a page.

Command: python -m talking_heads_jax.workflows.demo --output demo
Run again, it continues where it stopped. The exit status is 0 only if the trained model beats every
trivial answer (copying the source, blurring it) on motions it never saw.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from talking_heads_jax.errors import TalkingHeadsError
from talking_heads_jax.workflows.page import Figure, Section, Table, write_page

_SEED = 0
_DRIVER_SEED = 1  # of the driving clip: a motion that neither split holds
_DRIVER_FRAMES = 72
_FPS = 12
_EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells report it
_SHOWN_PX = 256  # width of a 64 px frame on the page


class DemoSizes(NamedTuple):
    """How much data the demonstration makes.

    Attributes:
      train_clips: motions per photograph to train on.
      test_clips: held-out motions per photograph.
      num_frames: frames per clip.
    """

    train_clips: int = 12
    test_clips: int = 4
    num_frames: int = 16


_SIZES = DemoSizes()


class DemoResult(NamedTuple):
    """What came out.

    Attributes:
      page: the web page.
      gain: L1 of the best trivial answer minus the model's, mean over held-out clips.
      low: lower end of its 95 % bootstrap interval.
      seconds: wall time.
    """

    page: Path
    gain: float
    low: float
    seconds: float


def run_demo(output: Path, *, config: Any, sizes: DemoSizes = _SIZES) -> DemoResult:
    """Runs everything, or what is left of it.

    Args:
      output: folder of the data, the run, the pictures and the page; may be moved as a whole.
      config: a training config; its data folder and size are set here.
      sizes: how much data to make.

    Raises:
      TalkingHeadsError: whatever goes wrong with files, data or training.
      SystemExit: when SIGTERM stopped the training; what is done so far is saved.
    """
    from data_pipeline.synthetic.warped_photos import write_warped_photos
    from talking_heads_jax.build import build_trainer

    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    size = config.model.resolution
    print("1/4 data: smooth warps of photographs", flush=True)
    write_warped_photos(output / "data", size=size, seed=_SEED, **sizes._asdict())
    config.data.folder = str(output / "data")
    print("2/4 training", flush=True)
    state = build_trainer(config, output / "run").run()
    if int(state.step) < config.schedule.duration:
        print(f"stopped after step {int(state.step)}; the same command continues", file=sys.stderr)
        raise SystemExit(_EXIT_TERMINATED)
    print("3/4 evaluation on held-out motions", flush=True)
    result, info = _evaluate(output, config)
    print("4/4 animation", flush=True)
    media = _animate(output, size)
    from talking_heads_jax.evaluation.report import gain_over_trivial

    gain = gain_over_trivial(result, result.recipes[0])
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
    from talking_heads_jax.evaluation.runner import evaluate_pairs

    loaded = load_model(output / "run")
    protocol = Protocol.from_config(load_protocol(config.eval.protocol)["protocol"])
    clips = open_clips(
        config.data.folder, split=config.eval.split, resolution=loaded.model.resolution
    )
    batch_size = config.data.batch_size
    answer = CheckpointAnswer(loaded.model, loaded.variables, batch_size=batch_size)
    result = evaluate_pairs(
        {MODEL_ROW: answer},
        build_pairs(protocol, clips.values()),
        clips,
        batch_size=batch_size,
        recipes=("l1/unit", "psnr/peak1", "ssim/gauss11-s1.5-rgb"),
    )
    info = {
        "model": f"{loaded.model.name}, {loaded.model.resolution} px, step {loaded.info['step']}",
        "data": "held-out warps of the training photographs",
        "perceptual weights": perceptual_weights(config),
    }
    data = {"split": config.eval.split}
    write_report(result, output / "evaluation", info, data=data, replace=True)
    print(as_markdown(result, info), flush=True)
    return result, info


def _animate(output: Path, size: int) -> dict[str, Path]:
    """One photograph moved by a clip of another; returns the files."""
    from data_pipeline.synthetic.warped_photos import PHOTOGRAPHS, warped_clips
    from talking_heads_jax.inference.animate import AnimateOptions, animate_files
    from talking_heads_jax.media.image import write_image
    from talking_heads_jax.media.video import VideoWriter

    def clip(number: int, num_frames: int) -> Any:
        return next(
            warped_clips(
                split="test",
                clips_per_photograph=1,
                num_frames=num_frames,
                size=size,
                seed=_DRIVER_SEED,
                photographs=PHOTOGRAPHS[number : number + 1],
            )
        )

    folder = output / "media"
    files = {name: folder / f"{name}.mp4" for name in ("driving", "animation", "side_by_side")}
    files["source"] = folder / "source.png"
    write_image(files["source"], clip(0, 1).frames[0])
    with VideoWriter(files["driving"], _FPS, (size, size)) as writer:
        for frame in clip(1, _DRIVER_FRAMES).frames:
            writer.write(frame)
    for name in ("animation", "side_by_side"):
        options = AnimateOptions(best_frame="off", side_by_side=name == "side_by_side")
        animate_files(
            output / "run", files["source"], files["driving"], files[name], options=options
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
    best = best_trivial(result, result.recipes[0]).replace("_", " ")
    described = "; ".join(f"{key}: {value}" for key, value in info.items())
    sections = [
        Section(
            "A photograph, moved",
            "Left to right: source, driving clip, prediction. The motion is one that training "
            "never saw, of another photograph.",
            [Figure(media["side_by_side"], "source, driving, prediction", 3 * _SHOWN_PX)],
        ),
        Section(
            "Against the trivial answers",
            f"Mean over {len(result.pairs)} held-out clips. The best trivial answer is: {best}. "
            "Copying the driving frame is the perfect answer, shown for scale. " + described + ".",
            [Table(header, rows, best=0)],
        ),
        Section(
            "Held-out motions",
            "Source, driving frame, prediction, and their difference four times brighter.",
            [Figure(output / "evaluation" / "gallery.png", "one row per clip", 3 * _SHOWN_PX)],
        ),
    ]
    footer = (
        "Photographs: NASA and US Navy (public domain); S. van der Walt, L. Varshney, R. Michetti "
        "(CC0); as shipped by scikit-image and matplotlib."
    )
    title = "FNeVR at 64 px, trained from nothing"
    return write_page(output / "index.html", title=title, sections=sections, footer=footer)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demonstration.

    Args:
      argv: the arguments; None takes the process's own.

    Returns:
      0 if the model beats the trivial answers, 1 if not, 2 for a mistake of the user.
    """
    from configs.fnevr import demo_64

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    arguments = parser.parse_args(argv)
    try:
        result = run_demo(arguments.output, config=demo_64.get_config())
    except TalkingHeadsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"done in {result.seconds:.0f} s: open {result.page}")
    if result.low <= 0:
        print(f"the model does not beat the trivial answers: gain {result.gain:.4f} in L1")
        return 1
    print(
        f"L1 better than the best trivial answer by {result.gain:.4f} (at least {result.low:.4f})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
