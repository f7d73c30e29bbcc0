"""Configs, flags, checkpoints, golden folders and assets that are wrong, at every entry point."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.conftest import MODEL
from tests.hostile.files import IMAGES, empty_file, folder, pipe, text_file
from tests.hostile.test_data import NONSENSE, evaluate, train

CONFIG_FILES = {
    "raises": "1 / 0",
    "raises at the call": "def get_config(arg=None):\n    raise OSError('x')",
    "imports nothing": "import no_such_module",
    "not python": "talking heads\n",
    "binary": "\x00\x01\x02",
    "no get_config": "config = 1",
    "another type": "def get_config(arg=None):\n    return 3",
    "none": "def get_config(arg=None):\n    return None",
    "empty": "",
    "empty config": "import ml_collections\n\n\ndef get_config(arg=None):\n"
    "    return ml_collections.ConfigDict()\n",
    "unknown key": "from configs.fomm import vox_256\n\n\ndef get_config(arg=None):\n"
    "    config = vox_256.get_config('debug').unlock()\n    config.data.payload = 1\n"
    "    return config\n",
    "wrong type": "from configs.fomm import vox_256\n\n\ndef get_config(arg=None):\n"
    "    config = vox_256.get_config('debug').unlock()\n    config.data.batch_size = 'two'\n"
    "    return config\n",
    "deep": "def get_config(arg=None):\n    return get_config(arg)",
}


@pytest.mark.parametrize("case", CONFIG_FILES)
def test_config_files_that_do_not_work(case, good, refused, tmp_path):
    (tmp_path / "config.py").write_text(CONFIG_FILES[case])
    arguments = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"]
    refused(["run_train.py", *arguments])


@pytest.mark.parametrize("case", ["missing", "folder", "pipe", "device", "line\nbreak"])
def test_config_paths_that_are_no_files(case, refused, tmp_path):
    path = tmp_path / "config.py"
    {"folder": folder, "pipe": pipe}.get(case, lambda path: None)(path)
    path = {"device": Path("/dev/zero"), "line\nbreak": tmp_path / case}.get(case, path)
    refused(["run_train.py", f"--config={path}", f"--workdir={tmp_path / 'run'}"])


# Flag -> a word of the message that names the flag's own trouble.
OVERRIDES = {
    "optim.b3=1": "b3",
    "seed=x": "seed",
    "seed=1.5": "seed",
    "data=3": "data",
    "data.batch_size=0": "batch_size",
    "data.batch_size=-2": "batch_size",
    "data.batch_size=many": "batch_size",
    "data.resolution=32": "data.resolution",
    "data.resolution=100000": "data.resolution",
    "data.num_threads=0": "num_threads",
    "data.repeats=0": "repeats",
    "data.balance=nobody": "balance",
    "data.split=../../etc": "split",
    "data.split=validation": "split",
    "data.source=internet": "data.source",
    "data.masks=True": "data.masks",
    "data.vertices=True": "data.vertices",
    "data.synthetic.frames=1": "frames",
    "data.synthetic.people=3": "people",
    "data.folder=/dev/zero": "/dev/zero",
    "data.folder=missing": "missing",
    "model.name=nobody": "nobody",
    "model.resolution=-1": "resolution",
    "model.resolution=65": "resolution",
    "model.resolution=1000000": "resolution",
    "model.num_keypoints=0": "num_keypoints",
    "model.keypoint_detector.num_blocks=1000": "num_blocks",
    "model.dtype=float1": "dtype",
    "schedule.name=nothing": "nothing",
    "schedule.unit=years": "years",
    "schedule.duration=-1.0": "duration",
    "schedule.duration=nan": "duration",
    "optim.accumulation=0": "accumulation",
    "optim.accumulation=3": "accumulation",
    "checkpoint.resume_from=missing": "resume_from",
    "checkpoint.every=0": "checkpoint.every",
    "mesh.data=7": "mesh.data",
    "mesh.model=0": "mesh.model",
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_overrides_that_make_no_sense(override, good, refused, tmp_path):
    refused(train(good.data, tmp_path / "run", f"--config.{override}"), OVERRIDES[override])


@pytest.mark.parametrize("case", ["a file", "below a file", "no such device", "a saved model"])
def test_work_directories_that_cannot_be_used(case, good, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    shutil.copytree(good.checkpoint, tmp_path / "model")
    place = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "run",
        "no such device": Path("/proc/nowhere/run"),
        "a saved model": tmp_path / "model",
    }[case]
    refused(train(good.data, place))


FLAGS = [
    {"checkpoint": "missing"},
    {"checkpoint": "/dev/zero"},
    {"data": "missing"},
    {"data": "/dev/zero"},
    {"split": "../../etc"},
    {"split": "nobody"},
    {"protocol": "nobody"},
    {"metrics": "beauty"},
    {"batch-size": "0"},
    {"batch-size": "x"},
    {"max-frames": "-1"},
    {"what": "1"},
]


@pytest.mark.parametrize("flags", FLAGS, ids=str)
def test_flags_of_the_evaluation_that_make_no_sense(flags, good, refused, tmp_path):
    refused(evaluate(good, tmp_path / "scores", **flags))


@pytest.mark.parametrize("case", ["a file", "below a file", "no such device"])
def test_reports_that_cannot_be_written_are_refused_before_the_work(case, good, refused, tmp_path):
    (tmp_path / "file").write_text("mine")
    place = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "scores",
        "no such device": Path("/proc/nowhere/scores"),
    }[case]
    refused(evaluate(good, place))


@pytest.fixture
def checkpoint(good, tmp_path: Path) -> Path:
    """A copy of the checkpoint, to be damaged."""
    return Path(shutil.copytree(good.checkpoint, tmp_path / "model"))


def users(good, checkpoint: Path) -> list[list]:
    """What reads checkpoint folders."""
    output = checkpoint.parent / "out"
    media = ["--source", good.source, "--driving", good.driving, "--output", f"{output}.mp4"]
    return [
        ["animate", "--checkpoint", checkpoint, *media],
        ["convert", checkpoint, "--reverse", "--output", f"{output}.safetensors"],
        evaluate(good, output, checkpoint=checkpoint),
    ]


MODEL_CHANGES = {
    "newer": {"schema": 2},
    "another model": {"name": "nobody"},
    "name of another type": {"name": ["fomm"]},
    "arguments of another type": {"arguments": []},
    "unknown argument": {"arguments": {"payload": 1}},
    "wrong argument": {"arguments": {"num_keypoints": "many"}},
    "negative argument": {"arguments": {"num_keypoints": -1}},
    "huge argument": {"arguments": {"num_keypoints": 10**12}},
    "endless blocks": {
        "arguments": {"generator": MODEL["generator"] | {"num_bottleneck_blocks": 10**9}}
    },
    "huge resolution": {"arguments": {"resolution": 10**9}},
    "huge kernel": {"arguments": {"keypoint_detector": {"scale_factor": 1e-12}}},
}


@pytest.mark.parametrize("case", MODEL_CHANGES)
def test_descriptions_of_models_that_do_not_fit(case, good, checkpoint, refused):
    path = checkpoint / "model.json"
    info = json.loads(path.read_text())
    change = MODEL_CHANGES[case]
    if isinstance(change.get("arguments"), dict):
        change = {"arguments": info["arguments"] | change["arguments"]}
    path.write_text(json.dumps(info | change))
    for arguments in users(good, checkpoint):
        refused(arguments)


@pytest.mark.parametrize("case", NONSENSE)
def test_descriptions_of_nonsense(case, good, checkpoint, refused):
    (checkpoint / "model.json").write_bytes(NONSENSE[case])
    for arguments in users(good, checkpoint):
        refused(arguments)


@pytest.mark.parametrize("case", ["no state", "empty state", "state is a file", "a pipe in it"])
def test_checkpoints_without_their_state(case, good, checkpoint, refused):
    if case == "a pipe in it":
        (checkpoint / "model.json").unlink()
        os.mkfifo(checkpoint / "model.json")
    else:
        shutil.rmtree(checkpoint / "state")
    if case == "empty state":
        (checkpoint / "state").mkdir()
    if case == "state is a file":
        (checkpoint / "state").write_text("x")
    for arguments in users(good, checkpoint):
        refused(arguments)


@pytest.mark.parametrize("case", ["text", "empty", "folder", "pipe", "device", "missing"])
def test_convert_refuses_what_holds_no_tensors(case, refused, tmp_path):
    source = tmp_path / "model.pth.tar"
    IMAGES[case](source)
    output = ["--output", tmp_path / "model"]
    refused(["convert", source, "--model", "fomm", *output], "model.pth.tar")
    refused(["convert", source, "--reverse", "--output", tmp_path / "back.safetensors"])


@pytest.mark.parametrize("case", [*NONSENSE, "folder", "pipe", "device", "unknown", "wrong"])
def test_convert_refuses_constructor_arguments_of_nonsense(case, good, refused, tmp_path):
    path = tmp_path / "arguments.json"
    special = {"folder": folder, "pipe": pipe, "device": IMAGES["device"]}
    if case in special:
        special[case](path)
    elif case == "unknown":
        path.write_text('{"payload": 1}')
    elif case == "wrong":
        path.write_text('{"num_keypoints": "many"}')
    else:
        path.write_bytes(NONSENSE[case])
    options = ["--model", "fomm", "--output", tmp_path / "model", "--arguments", path]
    refused(["convert", good.tensors, *options])


@pytest.mark.parametrize("case", ["text", "folder", "missing", *NONSENSE])
def test_parity_refuses_folders_without_cases(case, run_program, refused, tmp_path, capfd):
    path = tmp_path / "golden"
    if case in NONSENSE:  # a case that is broken is a finding, not a mistake of the user
        path.mkdir()
        (path / "fomm_kp_detector.json").write_bytes(NONSENSE[case])
        assert run_program(["parity", path]) == 1
        said = capfd.readouterr()
        assert "fomm_kp_detector: error" in said.out and "Traceback" not in said.out + said.err
        return
    {"text": text_file, "folder": folder, "missing": lambda path: None}[case](path)
    refused(["parity", path])


@pytest.mark.parametrize("case", ["folder", "pipe", "device", "missing"])
def test_assets_must_be_files(case, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    IMAGES[case](tmp_path / "weights")
    refused(["assets", "add", tmp_path / "weights", "--name", "vgg19"])


@pytest.mark.parametrize("name", ["../../etc/x", "", "a\nb", "\x1b[31m", "A"], ids=ascii)
def test_names_of_assets_are_plain(name, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    empty_file(tmp_path / "weights")
    refused(["assets", "add", tmp_path / "weights", f"--name={name}"])


@pytest.mark.parametrize("ending", ["pkl", "npz", "mat", "obj", "npy", "safetensors"])
@pytest.mark.parametrize("case", [*NONSENSE, "empty"])
def test_face_models_of_nonsense(case, ending, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    path = tmp_path / f"model.{ending}"
    path.write_bytes(NONSENSE.get(case, b""))
    refused(["assets", "add", path])


@pytest.mark.parametrize("case", [*NONSENSE, "points outside"])
def test_registries_of_nonsense(case, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    index = tmp_path / "home" / "assets" / "assets.json"
    index.parent.mkdir(parents=True)
    entry = {"file": "../../secret", "sha256": "", "bytes": 0, "licence": "", "source": ""}
    index.write_bytes(NONSENSE.get(case, json.dumps({"vgg19": entry}).encode()))
    refused(["assets", "list"], "assets.json")


@pytest.mark.parametrize(
    "arguments",
    [
        ["-m", "talking_heads_jax.cli", "convert", "/dev/zero", "--model", "fomm", "--output", "o"],
        ["-m", "talking_heads_jax.cli", "prepare", "\x1b]0;x\x07", "--output", "o"],
        ["run_train.py", "--config=/dev/zero", "--workdir=o"],
        ["run_eval.py", "--data=x", "--\x1b[2J=x", "--output=o"],
    ],
    ids=["convert", "prepare", "run_train", "run_eval"],
)
def test_the_shell_sees_one_line_and_status_2(arguments, repository, tmp_path):
    """As its own process: nothing else is printed, also not by what is imported."""
    program = [str(repository / part) if part.startswith("run_") else part for part in arguments]
    result = subprocess.run(
        [sys.executable, *program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert result.stderr[:-1].isprintable()
    assert not any(tmp_path.iterdir())
