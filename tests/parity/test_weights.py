"""The weight rule: bit-exact against stored digests, and each of its branches."""

import json
from pathlib import Path

import numpy as np
import pytest

from talking_heads_jax.errors import ParityError
from talking_heads_jax.parity.cases import read_case
from talking_heads_jax.parity.weights import build_state_dict, check_digest, draw_tensor

_REDUCED = Path(__file__).resolve().parents[1] / "testdata" / "golden"
_WITH_WEIGHTS = sorted(
    path.stem for path in _REDUCED.glob("*.json") if json.loads(path.read_text())["tensors"]
)


@pytest.mark.parametrize("name", _WITH_WEIGHTS)
def test_state_dict_is_the_reference_bit_for_bit(name):
    state = read_case(_REDUCED, name).state_dict()  # raises when the digest differs
    assert len(state) > 20


def test_check_digest_sees_a_single_changed_bit():
    case = read_case(_REDUCED, "fomm_discriminator")
    state = case.state_dict()
    name = next(iter(state))
    changed = state[name].copy()
    changed.view(np.uint32).reshape(-1)[0] ^= 1
    with pytest.raises(ParityError, match="weights_sha256 of case 'fomm_discriminator'"):
        check_digest(case.name, {**state, name: changed}, case.digest)


def test_draw_tensor_follows_the_last_part_of_the_name():
    big = (200, 100)
    assert draw_tensor("a.num_batches_tracked", (), salt="").dtype == np.int64
    variance = draw_tensor("a.running_var", (5000,), salt="")
    assert 0.5 <= variance.min() < 0.52 < 1.48 < variance.max() < 1.5
    # Sample deviations of 5,000 to 20,000 draws: within 5 %.
    assert draw_tensor("a.running_mean", (5000,), salt="").std() == pytest.approx(0.1, rel=0.05)
    assert draw_tensor("a.weight", big, salt="").std() == pytest.approx(
        np.sqrt(1.5 / 100), rel=0.05
    )
    norm = draw_tensor("a.weight", (5000,), salt="")
    assert norm.mean() == pytest.approx(1.0, abs=0.01)
    assert norm.std() == pytest.approx(0.1, rel=0.05)
    assert draw_tensor("a.bias", (5000,), salt="").std() == pytest.approx(0.05, rel=0.05)
    assert draw_tensor("a.bias", big, salt="", unit_gain=True).std() == pytest.approx(1, rel=0.05)


def test_draw_tensor_depends_on_name_and_salt_alone():
    first = draw_tensor("a.bias", (4,), salt="x")
    np.testing.assert_array_equal(first, draw_tensor("a.bias", (4,), salt="x"))
    assert (first != draw_tensor("a.bias", (4,), salt="y")).all()
    assert (first != draw_tensor("b.bias", (4,), salt="x")).all()


def test_build_state_dict_scales_then_shifts_and_leaves_constants_alone():
    shapes = {"a.bias": (3,), "b.bias": (3,)}
    constant = np.arange(3, dtype=np.float32)
    plain = build_state_dict(shapes)
    state = build_state_dict(
        shapes,
        scale={"a.bias": 2.0, "b.bias": 2.0},
        offset={"a.bias": 1.0},
        constants={"b.bias": constant},
    )
    np.testing.assert_array_equal(state["a.bias"], plain["a.bias"] * np.float32(2) + np.float32(1))
    assert state["b.bias"] is constant
    assert list(state) == list(shapes)
