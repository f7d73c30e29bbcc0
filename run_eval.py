"""Scores a checkpoint on the clips of a prepared data set, beside the trivial answers.

python run_eval.py --checkpoint DIR --data DATA --output OUT
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import app, flags, logging

from talking_heads_jax.errors import ConfigError, TalkingHeadsError, requirement

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Saved model, or workdir of a training.")
_DATA = flags.DEFINE_string("data", None, "Folder that `talking-heads prepare` wrote.")
_PROTOCOL = flags.DEFINE_string("protocol", "reconstruction", "What drives what.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for metrics.json, table.md, gallery.png.")
_SPLIT = flags.DEFINE_string("split", "test", "Split of the data set.")
_MAX_CLIPS = flags.DEFINE_integer("max-clips", None, "At most so many clips.", lower_bound=1)
_MAX_FRAMES = flags.DEFINE_integer("max-frames", None, "Per clip, from its start.", lower_bound=2)
_METRICS = flags.DEFINE_list("metrics", None, "Names of recipes; default: the reconstruction set.")
_BATCH_SIZE = flags.DEFINE_integer("batch-size", 4, "Frames per call.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Loads, evaluates, reports."""
    if len(argv) > 1:
        raise ConfigError(requirement("arguments", "be flags", argv[1], "Write --name=value."))
    named = (("--checkpoint", _CHECKPOINT), ("--data", _DATA), ("--output", _OUTPUT))
    for name, flag in named:
        if flag.value is None:
            raise ConfigError(requirement(name, "be given", "nothing", f"Add {name} PATH."))
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it opens
    from tqdm import tqdm

    from talking_heads_jax.build import enable_compilation_cache
    from talking_heads_jax.checkpoints import load_model
    from talking_heads_jax.evaluation import report
    from talking_heads_jax.evaluation.protocols import find_protocol
    from talking_heads_jax.evaluation.runner import evaluate_clips
    from talking_heads_jax.metrics.recipes import RECONSTRUCTION

    enable_compilation_cache()
    protocol = find_protocol(_PROTOCOL.value)
    loaded = load_model(Path(_CHECKPOINT.value))
    with tqdm(desc="clips", unit="clip") as progress:
        result = evaluate_clips(
            loaded.model,
            loaded.variables,
            _clips(loaded.model.resolution),
            protocol=protocol,
            recipes=_METRICS.value or RECONSTRUCTION,
            batch_size=_BATCH_SIZE.value,
            on_clip=lambda clip_id, frames: progress.update(),
        )
    info = {
        "model": loaded.model.name,
        "checkpoint": _CHECKPOINT.value,
        "step": loaded.info.get("step"),
        "revision": loaded.info.get("revision"),
        "perceptual_weights": report.perceptual_weights(loaded.info.get("config") or {}),
        "data": f"{_DATA.value} ({_SPLIT.value})",
    }
    info = {key: value for key, value in info.items() if value is not None}
    files = report.write_report(result, Path(_OUTPUT.value), info)
    print(report.as_markdown(result, info))
    print("written:", ", ".join(map(str, files)))


def _clips(resolution: int) -> Iterator:
    """The clips of the data set at the model's size."""
    from data_pipeline.loaders import make_eval_pairs
    from talking_heads_jax.evaluation.protocols import Clip

    clips = make_eval_pairs(
        {"folder": _DATA.value, "resolution": resolution},
        split=_SPLIT.value,
        max_clips=_MAX_CLIPS.value,
        max_frames=_MAX_FRAMES.value,
    )
    return (Clip(clip_id, frames, frames.identity_id) for clip_id, frames in clips)


def run(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and runs `main`; what a user can repair becomes one line and status 2."""
    try:
        main(flags.FLAGS(list(sys.argv if argv is None else argv)))
    except (flags.Error, TalkingHeadsError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(lambda _: sys.exit(run()), argv=sys.argv[:1])
