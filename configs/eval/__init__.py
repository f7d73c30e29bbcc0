"""Protocols of evaluation, one file each, named as `run_eval.py --protocol NAME` wants them."""

import importlib
import pkgutil

from ml_collections import ConfigDict

# Names of earlier configs and command lines.
_FORMER_NAMES = {"same_identity": "reconstruction"}


def load_protocol(name: str) -> ConfigDict:
    """The config of a protocol.

    Args:
      name: of a file in this folder; '-' and '_' are the same, former names are understood.

    Raises:
      ValueError: for an unknown name; lists the known ones.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    wanted = str(name).replace("-", "_")
    wanted = _FORMER_NAMES.get(wanted, wanted)
    if wanted not in known:
        raise ValueError(f"protocol must be known, got {name!r}. Use one of {', '.join(known)}.")
    return importlib.import_module(f"configs.eval.{wanted}").get_config()
