"""A checkpoint, a data set and clips that work, and what every refusal is held to."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data_pipeline.preprocess.prepare import prepare_dataset
from talking_heads_jax.checkpoints import save_model
from talking_heads_jax.cli import main
from talking_heads_jax.conversion.translate import to_state_dicts
from talking_heads_jax.media.image import write_image
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.serialization.tensors import write_safetensors
from tests.media.video_files import moving_frames, write_clip
from tests.scripts import run_script

MODEL = {
    "resolution": 64,
    "num_keypoints": 3,
    "keypoint_detector": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
    "generator": {
        "block_expansion": 2,
        "max_features": 4,
        "num_bottleneck_blocks": 1,
        "dense_motion_options": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
    },
    "discriminator": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
}


def content_of(folder: Path) -> dict[str, str]:
    """Every path below a folder, with the digest of each ordinary file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file() and not path.is_symlink()
        else "other"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Inputs that are in order: `checkpoint`, `videos`, `data`, `source`, `driving`, `tensors`."""
    root = tmp_path_factory.mktemp("good")
    model = build_model("fomm", **MODEL)
    names = ("kp_detector", "generator")
    shapes = jax.eval_shape(lambda key: model.init(key, names), jax.random.key(0))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), shapes)
    save_model(root / "model", model, variables)
    videos = root / "videos"
    videos.mkdir()
    for name in ("ann", "bob", "cat"):
        write_clip(videos / f"{name}.mp4", moving_frames(4, 64, 64))
    prepare_dataset(videos, root / "data", size=64, workers=0, progress=False)
    write_image(root / "source.png", moving_frames(1, 64, 64)[0])
    tensors = {
        f"{network}.{key}": array
        for network, state in to_state_dicts(model, variables).items()
        for key, array in state.items()
    }
    write_safetensors(root / "official.safetensors", tensors)
    return SimpleNamespace(
        checkpoint=root / "model",
        videos=videos,
        data=root / "data",
        source=root / "source.png",
        driving=videos / "ann.mp4",
        tensors=root / "official.safetensors",
    )


@pytest.fixture
def run_program() -> Callable[[list[str]], int]:
    """Runs `prepare ...`, `run_train.py ...` and so on in this process; returns the status."""

    def run(arguments: list[str]) -> int:
        arguments = [str(argument) for argument in arguments]
        if arguments[0].endswith(".py"):
            return run_script(arguments[0], arguments[1:])
        try:
            return main(arguments)
        except SystemExit as stop:
            return stop.code

    return run


@pytest.fixture
def refused(
    run_program: Callable[[list[str]], int], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., str]:
    """Asserts that a program refuses its arguments as it should; returns what it says.

    One line of printable text on standard error, `error: ...`, which ends as a sentence (the
    remedy) and is followed by nothing; exit status 2; no file made, changed or removed.
    """

    def check(arguments: list, *mentioned: str, unchanged: Path = tmp_path) -> str:
        before = content_of(unchanged)
        capfd.readouterr()
        status = run_program(arguments)
        written = capfd.readouterr().err
        lines = [part for part in written.replace("\r", "\n").split("\n") if part.strip()]
        lines = [
            line for line in lines if not line.startswith(("clips:", "records:", "pairs:"))
        ]  # progress
        assert status == 2, written
        assert len(lines) == 1 and lines[0].startswith("error: "), written
        assert lines[0].isprintable() and lines[0].rstrip()[-1] in ".)'`", lines[0]
        for text in mentioned:
            assert text in lines[0], lines[0]
        assert content_of(unchanged) == before
        return lines[0]

    return check
