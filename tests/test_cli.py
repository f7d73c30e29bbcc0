"""The command line is thin: options reach the library unchanged, mistakes end in one line."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from talking_heads_jax import __version__
from talking_heads_jax.cli import build_parser, main
from talking_heads_jax.errors import ArgumentError

VERBS = ("prepare", "animate", "convert", "parity", "assets", "version")


@pytest.fixture
def recorded(monkeypatch):
    """Replaces a module by one whose function records its call; returns the calls."""
    calls = []

    def install(module, function, *, result=None, error=None, **others):
        def record(*arguments, **keywords):
            calls.append((arguments, keywords))
            if error is not None:
                raise error
            return result

        fake = types.ModuleType(module)
        setattr(fake, function, record)
        for name, value in others.items():
            setattr(fake, name, value)
        monkeypatch.setitem(sys.modules, module, fake)
        return calls

    return install


ANIMATE = ["animate", "--checkpoint", "m", "--source", "s.png", "--driving", "d.mp4"]
ANIMATE += ["--output", "o.mp4"]


def install_animate(recorded, **keywords):
    from talking_heads_jax.inference.animate import AnimateOptions

    return recorded(
        "talking_heads_jax.inference.animate",
        "animate_files",
        AnimateOptions=AnimateOptions,
        **keywords,
    )


def test_version_prints_the_package_version(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"talking_heads_jax {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_exits_with_zero(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert verb in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["animate"],
        ["prepare", "videos"],
        ["prepare", "videos", "--output", "d", "--size", "0"],
        [*ANIMATE, "--best-frame", "-1"],
        [*ANIMATE, "--relative", "--absolute"],
        [*ANIMATE, "--pose", "10", "0"],
        ["parity", "folder", "--cases", "x"],
    ],
    ids=lambda arguments: " ".join(arguments[-2:]) or "nothing",
)
def test_wrong_options_are_one_line_and_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1
    assert "--help" in complaint


def test_users_mistake_is_one_line_and_status_2(recorded, capsys):
    install_animate(recorded, error=ArgumentError("size must be even, got 3. Use 4."))
    assert main(ANIMATE) == 2
    assert capsys.readouterr().err == "error: size must be even, got 3. Use 4.\n"


def test_full_disk_is_one_line_and_status_2(recorded, capsys):
    install_animate(recorded, error=OSError(28, "No space left on device", "o.mp4"))
    assert main(ANIMATE) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: No space left on device: o.mp4. Check") and said.count("\n") == 1


@pytest.mark.parametrize("lines", [3, 5000], ids=["buffered", "more than a pipe holds"])
def test_a_reader_that_goes_stops_no_work(tmp_path, lines):
    """Standard output closed by `head`: in silence to the end, with the status of the work."""
    done = tmp_path / "done"
    program = f"""
import sys, types, pathlib
from talking_heads_jax import cli

def run(arguments):
    for number in range({lines}):
        print("a line of some length that fills the buffer", number)
    pathlib.Path({str(done)!r}).write_text("done")
    return 0

cli.build_parser = lambda: types.SimpleNamespace(
    parse_args=lambda argv: types.SimpleNamespace(run=run)
)
sys.exit(cli.main([]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    with process.stderr:
        said = process.stderr.read()
    assert process.wait() == 0
    assert said == b"" and done.read_text() == "done"


def test_another_broken_pipe_is_no_silence(recorded, capsys):
    install_animate(recorded, error=BrokenPipeError(32, "Broken pipe"))
    assert main(ANIMATE) == 2
    assert capsys.readouterr().err.startswith("error: Broken pipe")


def test_bug_keeps_its_traceback(recorded):
    install_animate(recorded, error=RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main(ANIMATE)


def test_interrupt_exits_with_130(recorded, capsys):
    install_animate(recorded, error=KeyboardInterrupt())
    assert main(ANIMATE) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_animate_defaults_are_those_of_the_library(recorded):
    from talking_heads_jax.inference.animate import AnimateOptions

    calls = install_animate(recorded)
    assert main(ANIMATE) == 0
    ((files, keywords),) = calls
    assert files == (Path("m"), Path("s.png"), Path("d.mp4"), Path("o.mp4"))
    assert keywords == {"options": AnimateOptions()}


def test_animate_options_arrive(recorded):
    from talking_heads_jax.inference.animate import AnimateOptions

    calls = install_animate(recorded)
    flags = ["--absolute", "--adapt-scale", "--best-frame", "7", "--side-by-side", "--keypoints"]
    flags += ["--no-audio", "--pose", "20", "-5", "0", "--precision", "bfloat16", "--plain"]
    flags += ["--batch-size", "4", "--crop", "none", "--recipe", "eg3d_512"]
    flags += ["--detector", "dlib", "--source-box", "1", "2", "3", "4"]
    flags += ["--driving-landmarks", "l.csv", "--paste-back", "--source-motion", "s.npz"]
    flags += ["--driving-motion", "d.npz", "--smooth", "one-euro", "--placement", "driving"]
    flags += ["--shoulders", "stay"]
    assert main([*ANIMATE, *flags]) == 0
    assert calls[0][1]["options"] == AnimateOptions(
        relative=False,
        adapt_scale=True,
        best_frame=7,
        side_by_side=True,
        keypoints=True,
        audio=False,
        pose=(20.0, -5.0, 0.0),
        precision="bfloat16",
        plain=True,
        batch_size=4,
        crop="none",
        recipe="eg3d_512",
        detector="dlib",
        source_box=(1.0, 2.0, 3.0, 4.0),
        driving_landmarks=Path("l.csv"),
        paste_back=True,
        source_motion=Path("s.npz"),
        driving_motion=Path("d.npz"),
        smooth="one_euro",
        placement="driving",
        shoulders="stay",
    )
    assert main([*ANIMATE, "--relative"]) == 0
    assert calls[1][1]["options"] == AnimateOptions(relative=True)


def test_prepare_tracking_options_arrive(recorded, capsys):
    from data_pipeline.preprocess.track_request import TrackRequest

    calls = recorded("data_pipeline.preprocess.prepare", "prepare_dataset")
    assert main(["prepare", "videos", "--output", "data", "--track"]) == 0
    assert calls[0][1]["track"] == TrackRequest()
    flags = ["--track", "--morphable", "ict", "--detector", "cascade", "--recipe", "gdpw_256"]
    flags += ["--smooth", "one-euro", "--camera", "perspective", "--shots", "all", "--vertices"]
    assert main(["prepare", "videos", "--output", "data", *flags]) == 0
    assert calls[1][1]["track"] == TrackRequest(
        morphable="ict",
        detector="cascade",
        recipe="gdpw_256",
        smooth="one_euro",
        camera="perspective",
        shots="all",
        vertices=True,
    )
    assert main(["prepare", "videos", "--output", "data", "--morphable", "ict", "--vertices"]) == 2
    assert "--morphable, --vertices must come with --track" in capsys.readouterr().err


def test_prepare_defaults_are_those_of_the_library(recorded):
    import inspect

    from data_pipeline.preprocess.prepare import prepare_dataset

    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(prepare_dataset).parameters.items()
        if name not in ("videos", "output", "progress")
    }
    calls = recorded("data_pipeline.preprocess.prepare", "prepare_dataset")
    assert main(["prepare", "videos", "--output", "data"]) == 0
    assert calls == [((Path("videos"), Path("data")), defaults)]


def test_convert_passes_constructor_arguments_on(recorded, tmp_path):
    arguments = tmp_path / "arguments.json"
    arguments.write_text('{"num_keypoints": 5}', encoding="utf-8")
    result = types.SimpleNamespace(networks={})
    calls = recorded(
        "talking_heads_jax.conversion.apply",
        "convert_checkpoint",
        result=result,
        reverse_checkpoint=None,
    )
    options = ["--model", "fomm", "--output", "o", "--arguments", str(arguments)]
    assert main(["convert", "file.pth", *options]) == 0
    assert calls == [(("fomm", Path("file.pth"), Path("o")), {"arguments": {"num_keypoints": 5}})]
    arguments.write_text("[1]", encoding="utf-8")
    assert main(["convert", "file.pth", *options]) == 2


def test_convert_reverse_needs_an_output(capsys):
    assert main(["convert", "folder", "--reverse"]) == 2
    assert capsys.readouterr().err.startswith("error: --output must be given")


@pytest.mark.parametrize("status", [0, 1])
def test_parity_status_is_the_exit_status(recorded, status):
    calls = recorded("talking_heads_jax.parity.report", "run_and_print", result=status)
    arguments = ["parity", "cases", "--case", "fomm_*", "fnevr_*", "--case", "vgg19_features"]
    assert main(arguments) == status
    assert calls[0][0] == (Path("cases"), ["fomm_*", "fnevr_*", "vgg19_features"])
    assert calls[0][1] == {"pending": False}


def test_assets_add_then_list_shows_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"not read here")
    assert main(["assets", "list"]) == 0
    assert "vgg19: not registered" in capsys.readouterr().out
    assert main(["assets", "add", str(weights), "--name", "vgg19"]) == 0
    capsys.readouterr()
    assert main(["assets", "list"]) == 0
    assert str(tmp_path / "home") in capsys.readouterr().out


def test_installed_script_and_module_agree():
    """`python -m talking_heads_jax.cli` passes the status on to the shell."""
    result = subprocess.run(
        [sys.executable, "-m", "talking_heads_jax.cli", "dance"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_every_verb_is_listed():
    text = build_parser().format_help()
    assert all(verb in text for verb in VERBS)
