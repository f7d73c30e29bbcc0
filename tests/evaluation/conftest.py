"""A small model, videos of four people, and the data set prepared from them."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from configs.fnevr import synthetic_64
from data_pipeline.preprocess.prepare import prepare_dataset
from talking_heads_jax import build
from talking_heads_jax.checkpoints import save_model
from tests.media.video_files import write_clip

SIDE = 64


class World(NamedTuple):
    """Files that most tests of `run_eval.py` share; they only read them.

    Attributes:
      checkpoint: a debug-size FNeVR, freshly initialised.
      videos: the clips; their frames have the model's size, so that nothing is resized.
      data: prepared from them, as png; one clip is for training, five for testing.
    """

    checkpoint: Path
    videos: Path
    data: Path


def person_frames(seed: int, count: int) -> np.ndarray:
    """A smooth random picture that slides sideways, its own for every seed."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    phase, speed = rng.uniform(0, 6, (3, 2)), rng.uniform(0.2, 0.4)
    frames = [
        np.stack(
            [np.sin(5 * rows + a) * np.cos(6 * (columns - speed * t / 8) + b) for a, b in phase],
            axis=-1,
        )
        for t in range(count)
    ]
    return np.rint(127.5 + 100 * np.stack(frames)).astype(np.uint8)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once."""
    folder = tmp_path_factory.mktemp("world")
    videos = folder / "videos"
    videos.mkdir()
    lengths = {"ann#1": 6, "ann#2": 4, "bob#1": 5, "cat#1": 3, "dan#1": 5, "eve#1": 4}
    for seed, (name, count) in enumerate(lengths.items()):
        write_clip(videos / f"{name}.mp4", person_frames(seed, count))
    prepare_dataset(
        videos,
        folder / "data",
        size=SIDE,
        image_format="png",
        test_clips=["ann#*", "bob#*", "cat#*", "dan#*"],
        workers=0,
        progress=False,
    )
    config = synthetic_64.get_config("debug")
    config.eval.protocol = "reconstruction_fomm"
    config.eval.num_clips = 3
    model = build.build_model(config)
    variables = model.init(jax.random.key(0), model.inference_networks)
    save_model(folder / "model", model, variables, config=build.config_values(config))
    return World(folder / "model", videos, folder / "data")
