"""A sweep asks for one angle at a time; a head that paints its angles shows what was asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import Keypoints
from talking_heads_jax.checkpoints import save_model
from talking_heads_jax.cli import main
from talking_heads_jax.errors import ArgumentError, CheckpointError
from talking_heads_jax.inference.pose_sweep import sweep_pose
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.models.base import FrameOutput
from tests.inference.conftest import SIDE, BrightnessHead, TurnableHead
from tests.models.conftest import tiny_model

SOURCE = np.full((SIDE, SIDE, 3), 128, np.uint8)
VARIABLES = {"generator": {}, "pose_editor": {}}


class PaintedAngles(TurnableHead):
    """Red, green and blue of the result are half plus yaw, pitch and roll in radians."""

    def edit_pose(self, variables, source_encoding, angles):
        return Keypoints(angles[:, None], None)

    def animate_frame(self, variables, source_encoding, motion, *, with_intermediates=False):
        return FrameOutput(
            jnp.zeros_like(source_encoding["image"]) + 0.5 + motion.value[:, None], {}
        )


def test_sweep_pose_changes_one_angle_at_a_time():
    values = (-20.0, 0.0, 10.0)
    frames = sweep_pose(PaintedAngles(), VARIABLES, SOURCE, values)
    assert frames.shape == (3, 3, SIDE, SIDE, 3) and frames.dtype == np.uint8
    for angle in range(3):
        expected = np.zeros((3, 3))
        expected[:, angle] = np.deg2rad(values)
        np.testing.assert_allclose(frames[angle, :, 0, 0] / 255, 0.5 + expected, atol=2 / 255)


def test_sweep_pose_goes_to_angles_of_the_head_where_the_source_has_some():
    own = (5.0, -10.0, 0.0)
    frames = sweep_pose(PaintedAngles(), VARIABLES, SOURCE, (0.0,), source_angles_deg=own)
    for angle in range(3):
        expected = np.zeros(3)
        expected[angle] = -np.deg2rad(own[angle])
        np.testing.assert_allclose(frames[angle, 0, 0, 0] / 255, 0.5 + expected, atol=2 / 255)


@pytest.mark.parametrize(
    ("model", "variables", "values", "error", "match"),
    [
        (BrightnessHead(), VARIABLES, (0.0,), ArgumentError, "pose editor"),
        (PaintedAngles(), {"generator": {}}, (0.0,), CheckpointError, "trained pose editor"),
        (PaintedAngles(), VARIABLES, (91.0,), ArgumentError, "90"),
        (PaintedAngles(), VARIABLES, (float("nan"),), ArgumentError, "90"),
    ],
    ids=["no editor", "untrained", "too far", "nan"],
)
def test_sweep_pose_refuses(model, variables, values, error, match):
    with pytest.raises(error, match=match):
        sweep_pose(model, variables, SOURCE, values)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    model = tiny_model("fnevr", generator={"volume_rendering": False, "decoder_inputs": ["warped"]})
    variables = model.init(jax.random.key(0), ("kp_detector", "generator", "pose_editor"))
    save_model(folder / "model", model, variables)
    del variables["pose_editor"]
    save_model(folder / "official", model, variables)
    write_image(folder / "source.png", np.full((32, 32, 3), 90, np.uint8))
    return folder


def test_command_writes_a_labelled_grid_and_a_video(checkpoint, tmp_path):
    grid, video = tmp_path / "grid.png", tmp_path / "swing.mp4"
    given = ["--checkpoint", checkpoint / "model", "--source", checkpoint / "source.png"]
    given += ["--output", grid, "--video", video, "--steps", 3, "--range", 15]
    assert main(["sweep-pose", *map(str, given)]) == 0
    image = read_image(grid)
    assert image.shape[1] == 3 * 32
    label = image.shape[0] // 3 - 32
    rows = image.reshape(3, 32 + label, 3 * 32, 3)
    assert (rows[:, :label] < 100).any(axis=(1, 2, 3)).all()  # text
    with VideoReader(video) as reader:
        assert reader.size == (32, 96)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"--checkpoint": "official"}, "trained pose editor"),
        ({"--range": "-5"}, "range"),
        ({"--steps": "1"}, "steps"),
        ({"--source-angles": "0 0 inf"}, "degrees"),
        ({"--video": "swing.avi"}, "mp4"),
        ({"--output": "source.png"}, "differ from the source"),
        ({"--source": "none.png"}, "none.png"),
    ],
)
def test_command_says_in_one_line_what_is_wrong(checkpoint, changes, match, capsys, monkeypatch):
    monkeypatch.chdir(checkpoint)
    given = {"--checkpoint": "model", "--source": "source.png", "--output": "grid.png", **changes}
    argv = [part for key, value in given.items() for part in (key, *value.split())]
    assert main(["sweep-pose", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert match in line
    assert not (checkpoint / "grid.png").exists()
