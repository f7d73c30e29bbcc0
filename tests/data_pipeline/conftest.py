"""A small prepared data set that most tests read, and the folder of videos it is made of."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.preprocess.prepare import prepare_dataset
from talking_heads_jax.media.image import write_image
from tests.media.video_files import moving_frames, write_clip


def write_landmarks(path: Path, frames: int, *, shift: float = 0.0) -> None:
    """68 points on an ellipse around (30, 26), and angles, one row per frame."""
    turn = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = np.stack([30 + 10 * np.cos(turn) + shift, 26 + 8 * np.sin(turn)], -1)
    points = points + np.arange(frames)[:, None, None] * 0.25
    angles = np.tile(np.array([10.0, -5.0, 3.0]), (frames, 1))
    np.savez(path, landmarks68_px=points.astype(np.float32), yaw_pitch_roll_deg=angles)


def make_videos(folder: Path) -> Path:
    """Six identities in seven clips of several kinds, and everything that may go wrong."""
    folder.mkdir(parents=True)
    write_clip(folder / "ann#one#000.mp4", moving_frames(8))
    write_clip(folder / "ann#two#000.mp4", moving_frames(6, 40, 56))
    write_clip(folder / "bob#1.webm", moving_frames(7), codec="libvpx")
    write_clip(folder / "cat#1.avi", moving_frames(5), codec="mpeg4")
    write_clip(folder / "dan#1.gif", moving_frames(5), codec="gif")
    write_clip(folder / "eve.mov", moving_frames(9))
    write_landmarks(folder / "eve_landmarks.npz", 9)
    grey = folder / "fay#1.mp4"  # a folder that is called like a video, as FOMM's data have
    for index, frame in enumerate(moving_frames(11, 33, 35)):
        write_image(grey / f"{index}.png", frame[..., 0])
    write_image(grey / "3.png", moving_frames(4, 33, 35)[3])
    (grey / "5.png").write_bytes(b"broken")
    return folder


def make_broken(folder: Path) -> None:
    """Clips that must be reported and skipped."""
    write_clip(folder / "x_one.mp4", moving_frames(1))
    (folder / "x_text.mp4").write_text("hello")
    (folder / "x_zero.mp4").write_bytes(b"")
    whole = write_clip(folder / "x_cut.mp4", moving_frames(6)).read_bytes()
    (folder / "x_cut.mp4").write_bytes(whole[:-400])
    write_clip(folder / "x_wrong_landmarks.mp4", moving_frames(6))
    write_landmarks(folder / "x_wrong_landmarks.npz", 5)
    for index, size in enumerate((20, 20, 24)):
        write_image(folder / "x_sizes" / f"{index}.png", np.zeros((size, 20, 3), np.uint8))
    write_image(folder / "x_single" / "1.png", np.zeros((20, 20, 3), np.uint8))
    (folder / "x_empty_images").mkdir()
    (folder / "x_empty_images" / "1.png").write_bytes(b"")
    write_image(folder / "loose.png", np.zeros((20, 20, 3), np.uint8))
    (folder / "notes.txt").write_text("not a clip")
    (folder / "._hidden.mp4").write_bytes(b"")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that are all usable."""
    return make_videos(tmp_path_factory.mktemp("videos") / "in")


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Path:
    """They, prepared at 32 px as png."""
    output = tmp_path_factory.mktemp("dataset") / "data"
    prepare_dataset(videos, output, size=32, image_format="png", workers=0, progress=False)
    return output
