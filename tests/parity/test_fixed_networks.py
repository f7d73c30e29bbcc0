"""The estimators against their golden numbers, at full size, from the reduced copies."""

from pathlib import Path

import pytest

from talking_heads_jax.networks import fan, resnet
from talking_heads_jax.parity import runner

_REDUCED = Path(__file__).resolve().parents[1] / "testdata" / "golden"
_CASES = ["fan_2d", "bisenet_face_parsing", "deca_regressor", "deep3d_regressor"]


def _failures(report):
    return {output.name: output.failures for output in report.outputs if not output.passed}


@pytest.mark.parametrize("name", _CASES)
def test_run_case_passes_reduced_golden_cases_at_full_size(name):
    found = runner.run_case(_REDUCED, name)
    assert found.status == runner.PASSED, found.message or _failures(found)
    assert found.outputs


@pytest.mark.parity
@pytest.mark.parametrize("name", _CASES)
def test_run_case_passes_full_golden_cases(shared_folder, name):
    found = runner.run_case(shared_folder / "golden", name)
    assert found.status == runner.PASSED, found.message or _failures(found)


def test_run_case_fails_on_another_pooling(monkeypatch):
    """A stem that pools 2 × 2 has the same weights and other numbers."""

    def pool(x, size, *, stride, padding=0):
        del size, padding
        return fan.average_pool(x, stride)

    monkeypatch.setattr(resnet, "max_pool", pool)
    found = runner.run_case(_REDUCED, "deca_regressor")
    assert set(_failures(found)) == {"coeffs"}
