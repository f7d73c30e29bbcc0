"""Two SIGKILLs of a real training, one of them during a save; and a control that must fail."""

import json

import pytest

from talking_heads_jax.workflows.kill_campaign import main


@pytest.mark.integration
def test_a_killed_training_ends_as_if_nothing_had_been(tmp_path, capsys):
    """One run is killed twice: at a random time, then, restarted, while it saves."""
    options = ["--kills=1", "--save-kills=1", "--chain=2", "--steps=6", "--seed=1"]
    status = main([f"--output={tmp_path}", *options])
    assert status == 0, capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    (run,) = report["runs"]
    assert [kill["kind"] for kill in run["kills"]] == ["random", "save"]
    assert run["kills"][1]["partial"] is not None and not run["differences"]
    # Three networks with parameters, collections and moments, averages of two, and the rest.
    assert run["step"] == 6 and run["num_items"] == 12 and run["num_arrays"] > 500
    assert run["num_samples"] == 2 * 6
    control = report["control"]["differences"]
    assert any(line.startswith("sample log") and "[5]" in line for line in control)
    assert any(".params/" in line for line in control)
