"""Trains what a config describes; continues a run that was interrupted.

python run_train.py --config configs/fnevr/vox_256.py --workdir W --config.data.folder DATA
On a TPU pod or under Slurm, the same on every host with --coordinator auto.
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from configs.common import check_config
from talking_heads_jax.errors import (
    ConfigError,
    TalkingHeadsError,
    check_config_flag,
    one_line,
    requirement,
)

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of the config, with :VARIANT if wanted.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Several processes: 'auto' on pods and clusters, else HOST:PORT."
)
_NUM_PROCESSES = flags.DEFINE_integer("num-processes", None, "How many, with HOST:PORT.")
_PROCESS_ID = flags.DEFINE_integer("process-id", None, "Number of this one, with HOST:PORT.")


def main(argv: Sequence[str]) -> None:
    """Builds and runs the trainer."""
    if len(argv) > 1:
        raise ConfigError(
            requirement("arguments", "be flags", argv[1], "Write --config.section.key=value.")
        )
    for name, flag in (("--config", _CONFIG), ("--workdir", _WORKDIR)):
        if flag.value is None:
            raise ConfigError(requirement(name, "be given", "nothing", f"Add {name} PATH."))
    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of every save

    from talking_heads_jax import build
    from talking_heads_jax.train.distributed import join_processes

    join_processes(
        _COORDINATOR.value, num_processes=_NUM_PROCESSES.value, process_id=_PROCESS_ID.value
    )
    build.build_trainer(_CONFIG.value, _WORKDIR.value).run()


def run(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and runs `main`; what a user can repair becomes one line and status 2."""
    argv = list(sys.argv if argv is None else argv)
    try:
        check_config_flag(argv)
        arguments = flags.FLAGS(argv)
        if _CONFIG.value is not None:  # a file that could not be read says so only now
            check_config(_CONFIG.value)
    except TalkingHeadsError as error:
        return _fail(error)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, flags.Error) as error:
        # What a config file with an unknown variant, an unknown key or a wrong type raises.
        return _fail(f"{error.args[0] if error.args else error}. Check --config and its values.")
    except Exception as error:  # the file is a program of the user's: it may raise anything
        got = f"{type(error).__name__}: {error}"
        return _fail(requirement("the file of --config", "run", got, "Mend it."))
    try:
        main(arguments)
    except TalkingHeadsError as error:
        return _fail(error)
    except OSError as error:  # a full disk, a folder without permission
        return _fail(f"{error.strerror or error}: {error.filename or ''}. Check --workdir.")
    return 0


def _fail(message: object) -> int:
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(lambda _: sys.exit(run()), argv=sys.argv[:1])
