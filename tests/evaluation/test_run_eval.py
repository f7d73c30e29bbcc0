"""The command line on real files: protocols, anyone's frames, shards, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from talking_heads_jax.build import open_clips
from talking_heads_jax.checkpoints import load_model
from talking_heads_jax.evaluation.pair_files import pairs_digest, pairs_text, read_pairs
from talking_heads_jax.evaluation.pairs import build_pairs
from talking_heads_jax.inference.animate import AnimateOptions, animate_clip
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.video import VideoReader
from tests.evaluation.conftest import SIDE, World
from tests.evaluation.toys import noise_clips, protocol
from tests.scripts import run_script

# One frame at a time: then random pairs, `animate` and all else run the same compiled programs.
ALIKE = ("--batch-size", 1, "--metrics", "l1/unit,psnr/peak1")
SAVED = ("random_pairs", "cross_identity_relative")


def run(*arguments) -> int:
    return run_script("run_eval.py", arguments)


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def columns_of(folder: Path, row: str, recipe: str = "l1/unit") -> np.ndarray:
    return np.array([pair[row][recipe] for pair in metrics_of(folder)["pairs"]])


@pytest.fixture(scope="module")
def scored(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results per protocol, and of the checkpoint's frames for two of them."""
    folder = tmp_path_factory.mktemp("scored")
    for name in ("reconstruction", *SAVED):
        arguments = ["--checkpoint", world.checkpoint, "--data", world.data, "--max-clips", 5]
        arguments += ["--protocol", name, "--output", folder / name, "--batch-size", 1]
        if name in SAVED:
            arguments += ["--save-predictions", folder / f"{name}_frames"]
        if not name.startswith("cross"):
            arguments += ["--metrics", "l1/unit,psnr/peak1"]
        assert run(*arguments) == 0
    return folder


@pytest.fixture(scope="module")
def animated(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `talking-heads animate` writes for every test clip, driven by the clip itself."""
    folder = tmp_path_factory.mktemp("animated")
    loaded = load_model(world.checkpoint)
    for video in sorted(world.videos.glob("*.mp4")):
        portrait = folder / f"{video.stem}.png"
        write_image(portrait, next(iter(VideoReader(video))))
        animate_clip(
            loaded.model,
            loaded.variables,
            portrait,
            video,
            folder / video.stem,
            options=AnimateOptions(relative=False),
            log=lambda text: None,
        )
        portrait.unlink()
    return folder


@pytest.mark.integration
def test_protocols_write_pairs_tables_and_pictures(scored: Path) -> None:
    assert metrics_of(scored / "reconstruction")["num_pairs"] == 5
    assert metrics_of(scored / "random_pairs")["num_frames"] > 20
    relative = metrics_of(scored / "cross_identity_relative")
    assert relative["rows"] == {} and "No truth" in relative["note"]
    assert all("initial_frame/model" in pair for pair in relative["pairs"])
    for name in ("reconstruction", *SAVED):
        pair_list, data = read_pairs(scored / name / "pairs.json")
        assert pair_list.protocol.name == name
        metrics = [] if name.startswith("cross") else ["l1/unit", "psnr/peak1"]
        expected = {"split": "test", "num_clips": 5, "max_frames": 0, "metrics": metrics}
        assert data == expected
        assert read_image(scored / name / "gallery.png").shape[0] > 3 * SIDE
        assert "protocol: " in (scored / name / "table.md").read_text()


@pytest.mark.integration
def test_saved_predictions_score_like_the_checkpoint_up_to_rounding(
    scored: Path, world: World, tmp_path: Path
) -> None:
    for name in SAVED:
        folder = scored / f"{name}_frames"
        pair_list, _ = read_pairs(scored / name / "pairs.json")
        assert pairs_digest(read_pairs(folder / "pairs.json")[0]) == pairs_digest(pair_list)
        for pair in pair_list.pairs:
            assert len(list((folder / pair.name).iterdir())) == len(pair.driving_frames)
    status = run(
        "--predictions", f"saved={scored / 'random_pairs_frames'}", "--data", world.data,
        "--pairs", scored / "random_pairs" / "pairs.json", "--output", tmp_path / "out",
        "--batch-size", 1,
    )  # fmt: skip
    assert status == 0
    # The metrics are those of the file.
    assert set(metrics_of(tmp_path / "out")["rows"]["saved"]) == {"l1/unit", "psnr/peak1"}
    own, saved = columns_of(scored / "random_pairs", "model"), columns_of(tmp_path / "out", "saved")
    # Half a level of 255 at every pixel, plus float32 rounding.
    assert 0 < np.abs(own - saved).max() <= 1 / 510 + 1e-6
    trivial = columns_of(scored / "random_pairs", "copy_source")
    np.testing.assert_array_equal(trivial, columns_of(tmp_path / "out", "copy_source"))


@pytest.mark.integration
def test_frames_of_animate_give_the_checkpoints_row(
    scored: Path, world: World, animated: Path, tmp_path: Path
) -> None:
    # No --protocol: the checkpoint's own `config.eval` says reconstruction_fomm, of 3 clips.
    status = run(
        "--checkpoint", world.checkpoint, "--predictions", f"frames={animated}",
        "--data", world.data, "--output", tmp_path / "out", "--round-to-bytes", *ALIKE,
    )  # fmt: skip
    assert status == 0
    document = metrics_of(tmp_path / "out")
    assert (document["protocol"], document["num_pairs"]) == ("reconstruction_fomm", 3)
    for recipe in ("l1/unit", "psnr/peak1"):
        own, frames = (columns_of(tmp_path / "out", row, recipe) for row in ("model", "frames"))
        np.testing.assert_allclose(own, frames, rtol=0, atol=1e-7)
    assert set(document["gain_over_best_trivial"]) == {"model", "frames"}

    # The same frames under another protocol, which scores all but frame 0 of each clip.
    status = run(
        "--predictions", animated, "--data", world.data, "--output", tmp_path / "other",
        "--protocol", "reconstruction", *ALIKE,
    )  # fmt: skip
    assert status == 0
    own, frames = (
        columns_of(folder, row)
        for folder, row in (
            (scored / "reconstruction", "model"),
            (tmp_path / "other", animated.name),
        )
    )
    assert 0 < np.abs(own - frames).max() <= 1 / 510 + 1e-6


def test_shards_of_a_run_join_to_the_same_files(
    world: World, animated: Path, tmp_path: Path
) -> None:
    common = ["--predictions", f"a={animated}", "--data", world.data, "--protocol"]
    common += ["reconstruction", *ALIKE]
    assert run(*common, "--output", tmp_path / "whole") == 0
    for index in range(2):
        output = tmp_path / f"part{index}"
        assert run(*common, "--output", output, "--shard", f"{index}/2") == 0
    parts = [tmp_path / "part1", tmp_path / "part0"]
    assert run("--output", tmp_path / "joined", "--merge", *parts) == 0
    for name in ("metrics.json", "table.md", "pairs.json", "gallery.png"):
        whole, joined = ((tmp_path / folder / name).read_bytes() for folder in ("whole", "joined"))
        assert whole == joined, name


def copied(animated: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    shutil.copytree(animated, folder)
    return folder


def text_as_png(folder: Path) -> None:
    (folder / "ann#1" / "frame_000003.png").write_text("no picture")


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder / "bob#1")


def frame_missing(folder: Path) -> None:
    (folder / "ann#1" / "frame_000003.png").unlink()
    (folder / "ann#1" / "frame_000004.png").unlink()


def frame_too_many(folder: Path) -> None:
    shutil.copy(folder / "ann#1" / "frame_000000.png", folder / "ann#1" / "frame_000009.png")


def other_size(folder: Path) -> None:
    write_image(folder / "dan#1" / "frame_000002.png", np.zeros((SIDE, 32, 3), np.uint8))


def other_file(folder: Path) -> None:
    (folder / "dan#1" / "notes.txt").write_text("hello")


def folder_and_video(folder: Path) -> None:
    (folder / "dan#1.mp4").write_bytes(b"x")


def text_as_video(folder: Path) -> None:
    shutil.rmtree(folder / "dan#1")
    (folder / "dan#1.mp4").write_text("no video")


def is_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (text_as_png, "'ann#1': .*frame_000003.png must be an image"),
        (no_folder, "hold one folder or video 'bob#1', got none"),
        (frame_missing, r"'ann#1' must have 5 frames \(or 6, one for each .*got 4"),
        (frame_too_many, r"'ann#1' must have 5 frames \(or 6, one for each .*got 7"),
        (other_size, "'dan#1' must be 64 x 64 pixels, as the data, got 32 x 64"),
        (other_file, "'dan#1' must hold png or jpg files only, got notes.txt"),
        (folder_and_video, "'dan#1', got more than one"),
        (text_as_video, r"dan#1\.mp4"),
        (is_a_file, "'frames' must be a folder"),
    ],
)
def test_bad_predictions_are_one_line_that_names_the_pair(
    damage, message: str, world: World, animated: Path, tmp_path: Path, capfd
) -> None:
    folder = copied(animated, tmp_path)
    damage(folder)
    status = run(
        "--predictions", folder, "--data", world.data, "--output", tmp_path / "out",
        "--protocol", "reconstruction", *ALIKE,
    )  # fmt: skip
    assert_refused(status, capfd, message, tmp_path / "out")


def assert_refused(status: int, capfd, message: str, output: Path) -> None:
    lines = capfd.readouterr().err.splitlines()
    assert status == 2 and len(lines) == 1 and lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert not output.exists() or not any(output.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--checkpoint or --predictions must be given"),
        (["--predictions", "a={animated}", "--predictions", "a={animated}"], "NAME=FOLDER"),
        (["--predictions", "model={animated}"], "NAME=FOLDER"),
        (["--predictions", "a={animated}", "--protocol", "x"], "Use one of cross_identity,"),
        (["--predictions", "a={animated}", "--metrics", "l1"], "'l1/unit'"),
        (["--predictions", "a={animated}", "--metrics", "l1/masked-gt"], "record field `mask`"),
        (["--predictions", "a={animated}", "--shard", "2/2"], "I from 0 to N - 1"),
        (["--predictions", "a={animated}", "--split", "validation"], "validation"),
        (["--predictions", "a={animated}", "--pairs", "{text}"], "readable JSON"),
        (["--predictions", "a={animated}", "--pairs", "{text}", "--seed", "1"], "--pairs must"),
        (["--predictions", "a={animated}", "--pairs", "/dev/zero"], "pipe or device"),
        (["--predictions", "a={animated}", "--config", "{text}"], "--config must be a config"),
        (["--predictions", "a={animated}", "--config", "configs/fomm/vox_256.py"], "sections"),
        (["--predictions", "a={animated}", "--save-predictions", "{new}"], "--checkpoint"),
        (["--checkpoint", "{animated}"], "model.json"),
        (["stray"], "arguments must be flags"),
        (["--predictions", "a={animated}", "--max-pixels", "4095"], "raise --max-pixels"),
        (["--predictions", "a={animated}", "--max-clip-frames", "3"], "raise --max-clip-frames"),
        (["--predictions", "a={videos}", "--max-duration", "0.1"], "raise --max-duration"),
        (["--predictions", "a={videos}", "--max-duration", "nan"], "positive and finite"),
        (["--predictions", "a={animated}", "--max-pixels", "0"], "max-pixels"),
        (["--predictions", "a={animated}", "--pairs", "{pairs}"], "data.metrics must be a list of"),
        (["--merge", "--max-frames", "3"], r"--output only, got .'--data', '--max-frames'."),
    ],
)
def test_bad_arguments_are_one_line(
    arguments, message: str, world: World, animated: Path, tmp_path: Path, capfd
) -> None:
    text = tmp_path / "text.json"
    text.write_text("not json (")
    pair_list = build_pairs(protocol("reconstruction"), noise_clips().values())
    pairs = tmp_path / "pairs.json"
    pairs.write_text(pairs_text(pair_list, {"split": "test", "metrics": ["l1/unit", "x"]}))
    names = {"animated": animated, "text": text, "new": tmp_path / "new", "pairs": pairs}
    names["videos"] = world.videos
    filled = [argument.format(**names) for argument in arguments]
    status = run(*filled, "--data", world.data, "--output", tmp_path / "out")
    assert_refused(status, capfd, message, tmp_path / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--merge"], "be followed by folders"),
        (["--merge", "{tmp_path}"], "partial.json"),
        (["--merge", "{tmp_path}", "--shard", "0/2"], r"--output only, got .'--shard'."),
        (["--merge", "{tmp_path}", "--noround-to-bytes"], r"got .'--round-to-bytes'."),
    ],
)
def test_bad_arguments_of_merge_are_one_line(arguments, message, tmp_path: Path, capfd) -> None:
    filled = [argument.format(tmp_path=tmp_path) for argument in arguments]
    status = run(*filled, "--output", tmp_path / "out")
    assert_refused(status, capfd, message, tmp_path / "out")


def test_limits_may_be_raised(world: World, animated: Path, tmp_path: Path) -> None:
    arguments = ["--predictions", animated, "--data", world.data, "--output", tmp_path / "out"]
    limits = ["--max-pixels", SIDE * SIDE, "--max-clip-frames", 6, "--max-duration", 1]
    assert run(*arguments, *limits, *ALIKE) == 0


def test_results_are_never_overwritten(world: World, animated: Path, tmp_path: Path, capfd) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "table.md").write_text("precious")
    common = ["--predictions", animated, "--data", world.data, *ALIKE]
    assert run(*common, "--output", output) == 2
    assert "must be new or empty" in capfd.readouterr().err
    assert [path.name for path in output.iterdir()] == ["table.md"]
    assert (output / "table.md").read_text() == "precious"


def test_masks_of_the_records_bring_masked_metrics_and_the_moved_source(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips, frames = [], {}
    for name, split in (("a", "train"), ("b", "test"), ("c", "test")):
        frames[name] = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
        mask = np.zeros((3, 16, 16), np.uint8)
        mask[:, 4:12, 3:9] = 5
        mask[2, :, 2] = 1
        clips.append(ClipFrames(name, frames[name], split=split, mask=mask))
    write_clips(tmp_path / "data", clips, size=16, recipe={"toy": 1}, progress=False)
    for name in "bc":
        for index, frame in enumerate(frames[name][1:]):
            write_image(tmp_path / "copies" / name / f"{index}.png", frame)
    arguments = ["--predictions", f"copies={tmp_path / 'copies'}", "--data", tmp_path / "data"]
    assert run(*arguments, "--output", tmp_path / "out", "--batch-size", 1) == 0
    rows = metrics_of(tmp_path / "out")["rows"]
    assert set(rows["copies"]) >= {"l1/unit", "l1/masked-gt", "psnr/masked-gt", "ssim/masked-gt"}
    assert rows["copies"]["l1/masked-gt"]["mean"] == 0 and "move_source_by_silhouette" in rows
    difference = np.abs(frames["b"][1:] / 255.0 - frames["b"][:1] / 255.0)
    first, second = difference[0, 4:12, 3:9], difference[1]
    inside = np.concatenate([second[4:12, 3:9].reshape(-1), second[:, 2].reshape(-1)])
    expected = (first.mean() + inside.mean()) / 2
    found = columns_of(tmp_path / "out", "copy_source", "l1/masked-gt")[0]
    np.testing.assert_allclose(found, expected, rtol=2e-6)  # float32
    # At half the size the classes stay classes.
    (clip, _) = open_clips(tmp_path / "data", split="test", resolution=8).values()
    assert set(np.unique(clip.masks[2])) <= {0, 1, 5} and clip.masks[2].shape == (8, 8)
