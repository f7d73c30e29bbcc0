"""Runs `run_train.py` and `run_eval.py` in this process, each time as if newly started."""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import array_record.python.array_record_data_source  # noqa: F401  defines flags, once and for all
import grain  # noqa: F401  the same
from absl.testing import flagsaver

ROOT = Path(__file__).resolve().parents[1]


def run_script(name: str, arguments: Sequence[Any]) -> int:
    """Returns the exit status. The script's flags are gone afterwards.

    Tests must not import the scripts: the flags they define would stay for the whole session.

    Args:
      name: file name of the script.
      arguments: behind its name.
    """
    argv = [name, *map(str, arguments)]
    # ml_collections looks for overrides in sys.argv.
    with mock.patch.object(sys, "argv", argv), flagsaver.flagsaver():
        return runpy.run_path(str(ROOT / name))["run"](argv)
