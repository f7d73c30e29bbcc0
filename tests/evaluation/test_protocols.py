"""Protocols are files: they load without jax, lock, and say what the papers say."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs.eval import load_protocol
from talking_heads_jax.errors import ConfigError
from talking_heads_jax.evaluation.protocols import Protocol

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs/eval").glob("[a-z]*.py"))
VALUES = {"name": "a", "description": "b", "pairing": "first_frame"}


@pytest.mark.parametrize("name", NAMES)
def test_protocol_files_are_named_like_their_protocol_and_locked(name: str) -> None:
    config = load_protocol(name)
    assert Protocol.from_config(config["protocol"]).name == name
    with pytest.raises((AttributeError, KeyError), match="locked"):
        config.protocol.unheard_of = 1


def test_protocol_files_load_without_jax() -> None:
    code = "import sys\n" + "".join(
        f"import configs.eval.{name} as m; m.get_config()\n" for name in NAMES
    )
    code += "assert 'ml_collections' in sys.modules and 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_protocols_say_what_the_papers_say() -> None:
    # FNeVR's cross table: 10 sources x 14 videos, absolute; supplement D.2: relative, best frame.
    for name, relative in (("cross_identity", False), ("cross_identity_relative", True)):
        protocol = Protocol.from_config(load_protocol(name)["protocol"])
        assert (protocol.num_sources, protocol.num_driving) == (10, 14)
        assert protocol.relative == relative and not protocol.same_identity
    # GDPW: random pairs, both directions.
    assert Protocol.from_config(load_protocol("random_pairs")["protocol"]).both_directions
    assert load_protocol("reconstruction_fomm").protocol.include_source


def test_former_names_are_understood_and_unknown_ones_listed() -> None:
    assert load_protocol("reconstruction-fomm").protocol.name == "reconstruction_fomm"
    assert load_protocol("same_identity").protocol.name == "reconstruction"
    with pytest.raises(ValueError, match="random_pairs"):
        load_protocol("nonsense")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 3}, "known keys"),
        ({"pairing": "all"}, "pairing must be one of"),
        ({"motion": "none"}, "motion must be one of"),
        ({"seed": True}, "seed must be a int"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"num_sources": 0}, "num_sources must be at least 1"),
        ({"driving_per_clip": -1}, "driving_per_clip must be at least 0"),
        ({"exact_truth": True}, "exact_truth must be asked for across identities only"),
    ],
)
def test_protocols_are_checked(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Protocol.from_config(VALUES | changes)
    with pytest.raises(ConfigError, match="description"):
        Protocol.from_config({"name": "a", "pairing": "first_frame"})
