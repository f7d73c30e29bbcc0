"""Every rule of the tolerance engine can hold and can fail."""

import numpy as np
import pytest

from talking_heads_jax.parity.tolerances import (
    compare_output,
    matching_rules,
    unmatched_tolerances,
)

_EXPECTED = np.array([0.0, 1.0, -4.0, 2.0])


@pytest.mark.parametrize(
    ("rules", "error", "passes"),
    [
        ({"max_abs": 0.1}, [0.0, 0.1 - 1e-9, 0.0, 0.0], True),
        ({"max_abs": 0.1}, [0.0, 0.11, 0.0, 0.0], False),
        ({"mean_abs": 0.1}, [0.3, 0.0, 0.0, 0.0], True),
        ({"mean_abs": 0.1}, [0.3, 0.2, 0.0, 0.0], False),
        ({"max_rel": 0.1}, [0.39, 0.0, 0.0, 0.0], True),  # of 4, the largest magnitude
        ({"max_rel": 0.1}, [0.41, 0.0, 0.0, 0.0], False),
        ({"max_abs": 1.0, "mean_abs": 0.1}, [0.9, 0.0, 0.0, 0.0], False),
        ({"max_abs": 0.1, "mean_abs": 1.0}, [0.9, 0.0, 0.0, 0.0], False),
        ({"max_abs": 0.1, "quantile": 0.75}, [9.0, 0.1 - 1e-9, 0.0, 0.0], False),
        ({"max_abs": 0.1, "quantile": 0.6}, [9.0, 0.1 - 1e-9, 0.0, 0.0], True),
        ({"max_abs": 0.1, "quantile": 0.6}, [9.0, 0.2, 0.0, 0.0], False),
        ({"max_abs": 0.1, "quantile": 1.0}, [0.2, 0.0, 0.0, 0.0], False),
    ],
)
def test_compare_output_applies_each_rule(rules, error, passes):
    report = compare_output("x", _EXPECTED + np.array(error), _EXPECTED, {"x": rules})
    assert report.passed is passes
    assert bool(report.failures) is not passes


def test_compare_output_counts_agreement_where_either_side_is_foreground():
    expected = np.array([-1] * 90 + [5] * 10)
    actual = expected.copy()
    actual[90] = 6  # 9 of 10 agree; 99 of 100 elements do
    loose, strict = ({"x": {"min_agreement_foreground": share}} for share in (0.9, 0.95))
    assert compare_output("x", actual, expected, loose).passed
    assert not compare_output("x", actual, expected, strict).passed
    actual[0] = 5  # foreground on our side alone counts too: 9 of 11
    assert not compare_output("x", actual, expected, loose).passed
    background = np.full(4, -1)
    assert not compare_output("x", background, background, loose).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_compare_output_fails_on_values_that_are_not_finite(bad):
    spoiled = _EXPECTED.copy()
    spoiled[1] = bad
    rules = {"x": {"max_abs": 1e9, "quantile": 0.5}}
    assert not compare_output("x", spoiled, _EXPECTED, rules).passed
    assert not compare_output("x", _EXPECTED, spoiled, rules).passed
    assert not compare_output("x", spoiled, spoiled, rules).passed


@pytest.mark.parametrize(
    "rules", [{}, {"quantile": 0.9}, {"max_error": 1.0}, {"max_abs": 9.0, "quantile": 0.0}]
)
def test_compare_output_fails_when_the_tolerance_limits_nothing(rules):
    assert not compare_output("x", _EXPECTED, _EXPECTED, {"x": rules}).passed


def test_compare_output_fails_without_tolerance_value_or_shape():
    rules = {"x": {"max_abs": 1.0}}
    assert not compare_output("y", _EXPECTED, _EXPECTED, rules).passed
    assert not compare_output("x", None, _EXPECTED, rules).passed
    assert not compare_output("x", _EXPECTED[:1], _EXPECTED, rules).passed  # no broadcasting
    assert not compare_output("x", _EXPECTED[:0], _EXPECTED[:0], rules).passed


def test_compare_output_of_zeros_needs_zeros_under_a_relative_rule():
    rules = {"x": {"max_rel": 0.5}}
    zeros = np.zeros(3)
    assert compare_output("x", zeros, zeros, rules).passed
    assert not compare_output("x", zeros + 1e-30, zeros, rules).passed


def test_compare_output_takes_integers_and_booleans_as_numbers():
    rules = {"x": {"max_abs": 0.0}}
    large = np.array([2**31], np.uint32)
    assert compare_output("x", large, large, rules).passed
    assert not compare_output("x", np.array([0], np.uint8), np.array([1], np.uint8), rules).passed


def test_matching_rules_prefers_the_exact_name_and_joins_patterns():
    tolerances = {"loss/*": {"max_abs": 1}, "loss/gan": {"max_abs": 2}, "*": {"mean_abs": 3}}
    assert matching_rules("loss/gan", tolerances) == [{"max_abs": 2}]
    assert matching_rules("loss/perceptual", tolerances) == [{"max_abs": 1}, {"mean_abs": 3}]


def test_patterns_apply_to_each_output_on_its_own():
    # Relative to the other output's magnitude, the error would vanish.
    rules = {"loss/*": {"max_rel": 0.1}}
    assert compare_output("loss/large", np.array(1000.0), np.array(1000.0), rules).passed
    assert not compare_output("loss/small", np.array(1.5), np.array(1.0), rules).passed


def test_unmatched_tolerances_finds_lost_outputs():
    tolerances = {"loss/*": {"max_abs": 1}, "prediction": {"max_abs": 1}}
    assert unmatched_tolerances(tolerances, {"loss/gan": _EXPECTED}) == ["prediction"]


def test_compare_output_leaves_out_masked_elements_and_says_so():
    expected = np.arange(10.0)
    actual = np.ma.MaskedArray(expected.copy(), np.arange(10) == 3)
    actual.data[3] = 99.0
    found = compare_output("x", actual, expected, {"x": {"max_abs": 1e-3}})
    assert found.passed and "1 of 10 values undetermined" in found.tolerance
    actual.data[4] = 99.0
    assert not compare_output("x", actual, expected, {"x": {"max_abs": 1e-3}}).passed
    most = np.ma.MaskedArray(expected, np.arange(10) < 3)
    found = compare_output("x", most, expected, {"x": {"max_abs": 1e-3}})
    assert found.failures == ("too little of the reference is determined",)
