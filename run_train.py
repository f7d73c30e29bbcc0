"""Trains what a config describes; continues a run that was interrupted.

python run_train.py --config configs/fnevr/vox_256.py --workdir W --config.data.folder DATA
"""

import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from talking_heads_jax.errors import ConfigError, TalkingHeadsError, requirement

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of the config, with :VARIANT if wanted.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of checkpoints and logs.")


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

    build.build_trainer(_CONFIG.value, _WORKDIR.value).run()


def run(argv: Sequence[str] | None = None) -> int:
    """Parses the flags and runs `main`; what a user can repair becomes one line and status 2."""
    argv = list(sys.argv if argv is None else argv)
    try:
        arguments = flags.FLAGS(argv)
        getattr(_CONFIG.value, "name", None)  # a file that could not be read says so only now
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # What a config file with an unknown variant, an unknown key or a wrong type raises.
        return _fail(" ".join(str(error.args[0] if error.args else error).split()))
    try:
        main(arguments)
    except TalkingHeadsError as error:
        return _fail(str(error))
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    app.run(lambda _: sys.exit(run()), argv=sys.argv[:1])
