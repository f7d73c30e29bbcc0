"""The probe's training: its damage moves landmarks along, and its errors are what they say."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from talking_heads_jax.networks.probe import load_probe
from talking_heads_jax.workflows import probe_training, train_probe
from tests.evaluation.toys import toy_probe

SIDE = 64


def spots(count, seed=0):
    """Pictures with a bright spot on a dark foreground, whose place is every landmark."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0.35, 0.65, (count, 2))
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    distance = np.hypot(columns - SIDE * places[:, :1, None], rows - SIDE * places[:, 1:, None])
    images = np.exp(-0.5 * (distance / 3.0) ** 2)[..., None].repeat(3, -1).astype(np.float32)
    return images, np.repeat(places[:, None], 68, axis=1).astype(np.float32)


def test_damage_moves_the_landmarks_with_the_picture():
    images, landmarks = spots(32)
    foreground = np.ones((32, SIDE, SIDE, 1), np.float32)
    damaged, moved = jax.jit(probe_training.damage)(
        jax.random.key(3), images, foreground, landmarks
    )
    assert damaged.min() >= 0 and damaged.max() <= 1
    # Where the light is: noise is spread evenly, so that only bright pixels are asked.
    light = np.where(np.asarray(damaged).mean(-1) > 0.3, np.asarray(damaged).mean(-1), 0)
    total = light.sum(axis=(1, 2))
    places = (np.arange(SIDE) + 0.5) / SIDE
    centre = np.stack([light.sum(1) @ places, light.sum(2) @ places], axis=-1) / total[:, None]
    assert np.abs(moved[:, 0] - landmarks[:, 0]).max() > 0.03  # 2 px: some have moved
    # A third of a pixel: noise and the threshold move the centre of light.
    np.testing.assert_allclose(centre, moved[:, 0], atol=0.005)


def test_damage_replaces_backgrounds_and_nothing_else():
    images = np.full((24, SIDE, SIDE, 3), 0.5, np.float32)
    foreground = np.zeros((24, SIDE, SIDE, 1), np.float32)
    foreground[:, :, :32] = 1
    landmarks = np.full((24, 68, 2), 0.5, np.float32)
    damaged, _ = jax.jit(probe_training.damage)(jax.random.key(0), images, foreground, landmarks)
    # A margin of 12 px for shift, zoom and blur; noise has at most .04.
    inside = np.asarray(damaged)[:, :, :20].std(axis=(1, 2)).max(axis=-1)
    outside = np.asarray(damaged)[:, :, 44:].std(axis=(1, 2)).max(axis=-1)
    assert inside.max() < 0.06
    # Replaced by colours in .35 of the pictures: the other way takes an equally grey neighbour.
    assert 0.1 < (outside > 0.06).mean() < 0.7


def test_contrastive_loss_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(7, 5)).astype(np.float32)
    person = np.array([0, 0, 1, 1, 1, 2, 0])
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    total = 0.0
    for i in range(7):
        others = [j for j in range(7) if j != i]
        weights = {j: np.exp(unit[i] @ unit[j] / 0.1) for j in others}
        same = [j for j in others if person[j] == person[i]]
        if same:
            total -= np.mean([np.log(weights[j] / sum(weights.values())) for j in same])
    loss = jax.jit(jax.value_and_grad(probe_training.contrastive_loss))
    found, _ = loss(embedding, person)
    np.testing.assert_allclose(found, total / 7, rtol=1e-5)
    _, gradient = loss(jnp.zeros((7, 5)), person)
    assert np.isfinite(gradient).all()


def test_batches_show_some_frames_of_several_people():
    person = np.array([2, 0, 0, 1, 2, 0, 0, 3])
    batches = probe_training.draw_batches(person, people=3, frames=2, seed=0)
    again = probe_training.draw_batches(person, people=3, frames=2, seed=0)
    for _ in range(20):
        rows = next(batches)
        np.testing.assert_array_equal(rows, next(again))
        shown = person[rows].reshape(3, 2)
        assert (shown[:, 0] == shown[:, 1]).all() and len(set(shown[:, 0])) == 3
        for pair in rows.reshape(3, 2):
            assert pair[0] != pair[1] or (person == person[pair[0]]).sum() == 1


def test_own_errors_are_those_of_the_metrics():
    probe = toy_probe()
    images, _ = spots(5)
    seen = jax.jit(probe_training.run_probe)(probe.params, probe.statistics, images)
    shifted = np.asarray(seen.landmarks) + np.float32([3 / 256, 4 / 256])
    person = np.array([0, 0, 1, 1, 1])
    frames = probe_training.ProbeFrames(images, None, shifted, seen.angles, seen.expression, person)
    errors = probe_training.own_errors(probe, frames, batch_size=3)
    # Batches of other sizes add in another order.
    assert errors["probe_landmarks_px"] == pytest.approx(5.0, rel=1e-3)
    assert errors["probe_angles_deg"] == pytest.approx(0.0, abs=1e-3)
    cosines = np.asarray(seen.embedding @ seen.embedding.T)
    same = [cosines[0, 1], cosines[2, 3], cosines[2, 4], cosines[3, 4]]
    assert errors["probe_identity"] == pytest.approx(np.mean(same), rel=1e-4)
    other = cosines[:2, 2:].mean()
    assert errors["other_person"] == pytest.approx(other, rel=1e-4)


def toy_data(folder: Path, **changes) -> Path:
    """Spots of four colours, a person each, in the splits that the training asks for."""
    clips = []
    for number, split in enumerate(("probe", "probe", "val", "val")):
        images, landmarks = spots(4, number)
        tint = np.array([1.0, 0.6, 0.6]) if number % 2 else np.array([0.6, 0.6, 1.0])
        columns = {
            "landmarks68_px": SIDE * landmarks,
            "landmarks68_visible": np.ones((4, 68), np.uint8),
            "angles": landmarks[:, 0, [0, 1, 0]] - 0.5,
            "mask": np.ones((4, SIDE, SIDE), np.uint8),
            "morphable": "procedural",
            "shape_coeffs": np.zeros((4, 2), np.float32),
            "expression_coeffs": landmarks[:, 0],
            "joint_pose": np.zeros((4, 15), np.float32),
        }
        columns = {name: value for name, value in columns.items() if name not in changes}
        frames = np.rint(255 * images * tint).astype(np.uint8)
        clips.append(
            ClipFrames(f"{split}/{number}-0", frames, identity_id=f"p{number}", split=split,
                       **columns)
        )  # fmt: skip
    write_clips(folder, clips, size=SIDE, recipe={"toy": 1}, progress=False)
    return folder


@pytest.mark.integration
def test_the_command_trains_and_stores_a_probe(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_probe, "_PRINT_EVERY", 1)
    data, output = toy_data(tmp_path / "data"), tmp_path / "probe.safetensors"
    arguments = ["--data", str(data), "--output", str(output), "--people", "2", "--frames", "2"]
    assert train_probe.main([*arguments, "--steps", "12"]) == 0
    printed = capsys.readouterr().out
    losses = [float(value) for value in re.findall(r"total (\d+\.\d+)", printed)]
    assert len(losses) == 12 and np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    probe = load_probe(output)
    for name, value in probe.own_errors.items():
        assert f"{name}: {value:.4f}" in printed
    assert probe.info["people"] == {"train": 2, "unseen": 2}
    assert "--steps 12 --people 2 --frames 2 --seed 0" in probe.info["command"]
    # Nine components that never move have no deviation, and are no part of the error.
    assert (probe.statistics["expression_deviation"] > 0).tolist() == [True] * 2 + [False] * 9
    assert train_probe.main([*arguments, "--steps", "12"]) == 2
    assert "must be a new file" in capsys.readouterr().err


def test_the_command_refuses_data_without_truth_in_one_line(tmp_path, capsys):
    data = toy_data(tmp_path / "data", angles=None)
    arguments = ["--data", str(data), "--output", str(tmp_path / "probe.safetensors")]
    assert train_probe.main(arguments) == 2
    error = capsys.readouterr().err
    assert "must have masks, landmarks, angles and expressions" in error and error.count("\n") == 1
    assert train_probe.main([*arguments, "--steps", "0"]) == 2
    assert "be at least 1, 2 and 2" in capsys.readouterr().err
    assert not (tmp_path / "probe.safetensors").exists()
