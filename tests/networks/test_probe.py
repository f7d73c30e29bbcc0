"""The probe's file, its picture size and what it calls an expression."""

import jax
import numpy as np
import pytest

from talking_heads_jax.errors import AssetNotFoundError, UnsafeFileError
from talking_heads_jax.networks import probe as probes
from talking_heads_jax.serialization.tensors import flatten
from tests.evaluation.toys import toy_probe

look = jax.jit(probes.run_probe)


def test_a_stored_probe_sees_what_it_saw(tmp_path):
    path = tmp_path / "probe.safetensors"
    probe = toy_probe()
    rounded = jax.tree.map(lambda x: np.float32(np.float16(x)), probe.params)
    probes.save_probe(path, probe)
    assert path.stat().st_size < 1.1e6
    back = probes.load_probe(path)
    for name, value in flatten(back.params).items():
        np.testing.assert_array_equal(value, flatten(rounded)[name])
    assert back.info == probe.info and back.own_errors == probe.info["own_errors"]
    images = np.random.default_rng(0).uniform(size=(2, 64, 64, 3)).astype(np.float32)
    one = look(rounded, probe.statistics, images)
    other = look(back.params, back.statistics, images)
    for name in probes.ProbeOutputs._fields:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_allclose(np.linalg.norm(one.embedding, axis=-1), 1.0, rtol=1e-5)
    assert probes.load_probe(path) is back
    path.unlink()
    probes.save_probe(path, probe._replace(info={**probe.info, "command": "another"}))
    assert probes.load_probe(path).info["command"] == "another"


def test_estimates_are_in_the_units_of_the_statistics():
    probe = toy_probe()
    images = np.random.default_rng(1).uniform(size=(1, 64, 64, 3)).astype(np.float32)
    one = look(probe.params, probe.statistics, images)
    changed = dict(probe.statistics)
    changed["angles_mean"] = changed["angles_mean"] + np.float32(0.25)
    changed["expression_deviation"] = 2 * changed["expression_deviation"]
    other = look(probe.params, changed, images)
    np.testing.assert_allclose(other.angles, one.angles + 0.25, rtol=1e-6)
    mean = probe.statistics["expression_mean"]
    np.testing.assert_allclose(
        other.expression - mean, 2 * (one.expression - mean), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(other.landmarks, one.landmarks)


@pytest.mark.parametrize("side", [32, 96, 128])
def test_resizing_keeps_pixel_areas_where_they_are(side):
    """A picture of x / width stays one, away from the border, where linear filters are exact."""
    ramp = np.broadcast_to((np.arange(side) + 0.5) / side, (1, side, side))
    images = np.stack([ramp, ramp.swapaxes(1, 2), ramp], axis=-1).astype(np.float32)
    found = np.asarray(probes.resize_for_probe(images))
    expected = (np.arange(64) + 0.5) / 64
    assert found.shape == (1, 64, 64, 3)
    # The antialiasing triangle meets other pixels at every place: a ripple of 0.02 px of 64.
    np.testing.assert_allclose(found[0, 30, 4:-4, 0], expected[4:-4], atol=3e-4)
    np.testing.assert_allclose(found[0, 4:-4, 30, 1], expected[4:-4], atol=3e-4)


def test_an_expression_has_jaw_and_eyes_but_not_the_pose():
    coeffs, pose = np.arange(3.0), np.arange(100.0, 115.0)
    found = probes.expression_vector(coeffs, pose)
    np.testing.assert_array_equal(found, [0, 1, 2, *range(106, 115)])
    np.testing.assert_array_equal(probes.expression_vector(coeffs), coeffs)
    assert probes.expression_vector(np.zeros((4, 3)), np.zeros((4, 15))).shape == (4, 12)


def test_a_missing_or_damaged_probe_names_the_command(tmp_path):
    with pytest.raises(AssetNotFoundError, match="train_probe --data"):
        probes.load_probe(tmp_path / "none.safetensors")
    path = tmp_path / "probe.safetensors"
    probe = toy_probe()
    probes.save_probe(path, probe._replace(info={"people": {}}))
    with pytest.raises(UnsafeFileError, match="another network"):
        probes.load_probe(path)
    path.unlink()
    layer = {**probe.params, "angles": {"kernel": np.zeros((3, 3)), "bias": np.zeros(3)}}
    probes.save_probe(path, probe._replace(params=layer))
    with pytest.raises(UnsafeFileError, match="another network"):
        probes.load_probe(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UnsafeFileError):
        probes.load_probe(path)


def test_the_packaged_probe_is_small_and_states_its_own_errors():
    assert probes.PROBE_FILE.stat().st_size <= 3 << 20
    probe = probes.load_probe()
    errors = probe.own_errors
    assert set(errors) >= {f"probe_{name}" for name in ("landmarks_px", "angles_deg", "expression")}
    # A probe that always answers the mean scores 1 here.
    assert errors["probe_expression"] < 1.0
    assert probe.info["people"]["train"] >= 100 and "train_probe" in probe.info["command"]
    assert "others" in probes.describe_probe(probe)
