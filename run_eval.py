"""Scores a checkpoint, or anyone's frames, on a prepared data set, beside the trivial answers.

python run_eval.py --checkpoint DIR --data DATA --output OUT [--protocol NAME]
python run_eval.py --predictions NAME=FOLDER --pairs OUT/pairs.json --data DATA --output OUT2
python run_eval.py --output OUT --merge SHARD0 SHARD1
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from talking_heads_jax.errors import (
    ConfigError,
    TalkingHeadsError,
    check_config_flag,
    one_line,
    requirement,
)

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Saved model, or workdir of a training.")
_DATA = flags.DEFINE_string("data", None, "Folder that `talking-heads prepare` wrote.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder of the results, new or empty.")
_PROTOCOL = flags.DEFINE_string("protocol", None, "Name of a file in configs/eval.")
_CONFIG = config_flags.DEFINE_config_file("config", None, "File, in place of --protocol.")
_PAIRS = flags.DEFINE_string("pairs", None, "A pairs.json to score again.")
_PREDICTIONS = flags.DEFINE_multi_string("predictions", [], "NAME=FOLDER of frames; repeatable.")
_SAVE = flags.DEFINE_string("save-predictions", None, "Write what the checkpoint predicts.")
_ROUND = flags.DEFINE_bool("round-to-bytes", False, "Round the checkpoint's predictions.")
_SPLIT = flags.DEFINE_string("split", None, "Split of the data set.")
_MAX_CLIPS = flags.DEFINE_integer("max-clips", None, "At most so many clips.", lower_bound=1)
_MAX_FRAMES = flags.DEFINE_integer("max-frames", None, "Per clip, from its start.", lower_bound=2)
_SEED = flags.DEFINE_integer("seed", None, "Of the pairs.", lower_bound=0)
_METRICS = flags.DEFINE_list("metrics", [], "Names of recipes; default: the protocol's.")
_BATCH_SIZE = flags.DEFINE_integer("batch-size", 4, "Frames per call.", lower_bound=1)
_SHARD = flags.DEFINE_string("shard", None, "I/N: score only this part of the pairs.")
_PIXELS = flags.DEFINE_integer("max-pixels", None, "Of a frame of predictions.", lower_bound=1)
_LENGTH = flags.DEFINE_integer("max-clip-frames", None, "Of a pair's predictions.", lower_bound=1)
_DURATION = flags.DEFINE_float("max-duration", None, "Seconds of a video of predictions.")
_MERGE = flags.DEFINE_bool("merge", False, "Join the outputs of all shards, named after the flags.")
_REQUEST = (
    *(_DATA, _OUTPUT, _CHECKPOINT, _PROTOCOL, _CONFIG, _PAIRS, _PREDICTIONS, _SAVE, _ROUND),
    *(_SPLIT, _MAX_CLIPS, _MAX_FRAMES, _SEED, _METRICS, _BATCH_SIZE, _SHARD),
    *(_PIXELS, _LENGTH, _DURATION),
)


def main(argv: Sequence[str]) -> None:
    """Loads, evaluates, reports."""
    extra = [f"--{flag.name}" for flag in _REQUEST if flag.present and flag is not _OUTPUT]
    if _MERGE.value and extra:
        raise ConfigError(requirement("--merge", "come with --output only", extra, "Drop them."))
    for flag in (_OUTPUT,) if _MERGE.value else (_DATA, _OUTPUT):
        if flag.value is None:
            raise ConfigError(requirement(f"--{flag.name}", "be given", "nothing", "Add a PATH."))
    logging.set_verbosity(logging.WARNING)  # Orbax reports every file it opens
    from tqdm import tqdm

    from configs.eval import load_protocol
    from talking_heads_jax import build, checkpoints
    from talking_heads_jax.evaluation import session

    if _MERGE.value:
        table, files = session.merge_evaluations(argv[1:], _OUTPUT.value)
    elif len(argv) > 1:
        raise ConfigError(requirement("arguments", "be flags", argv[1], "Write --name=value."))
    else:
        build.enable_compilation_cache()
        values = {flag.name.replace("-", "_"): flag.value for flag in _REQUEST}
        request = session.EvaluationRequest(**values)
        with tqdm(desc="pairs", unit="pair", leave=False, disable=None) as progress:
            table, files = session.run_evaluation(
                request,
                load_protocol=load_protocol,
                open_clips=build.open_clips,
                load_model=checkpoints.load_model,
                open_truth=build.open_exact_truth,
                on_pair=progress.update,
            )
    print(table, "written: " + ", ".join(map(str, files)), sep="\n")


def run(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and runs `main`; what a user can repair becomes one line and status 2."""
    argv = list(sys.argv if argv is None else argv)
    try:
        check_config_flag(argv)
        flags.FLAGS.unparse_flags()  # nothing is left of an earlier call in this process
        arguments = flags.FLAGS(argv)
        getattr(_CONFIG.value, "protocol", None)  # a broken file says so only now
    except SystemExit:  # --help
        flags.FLAGS.mark_as_parsed()
        raise
    except TalkingHeadsError as error:
        return _fail(error)
    except flags.Error as error:
        return _fail(f"{error}. Check the flags, or see --help.")
    except Exception as error:  # the file is a program of the user's: it may raise anything
        got = f"{type(error).__name__}: {error}"
        return _fail(requirement("--config", "be a config that fits", got, "See configs/eval."))
    try:
        main(arguments)
    except TalkingHeadsError as error:
        return _fail(error)
    except OSError as error:  # a full disk, a folder without permission
        return _fail(f"{error.strerror or error}: {error.filename or ''}. Check --output.")
    return 0


def _fail(message: object) -> int:
    flags.FLAGS.mark_as_parsed()  # `app.run` looks at its own flags on the way out
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(lambda _: sys.exit(run()), argv=sys.argv[:1])
