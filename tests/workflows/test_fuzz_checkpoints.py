"""The fuzzer finds nothing in the package, and finds what is put in its way."""

import json
import os
import shutil
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from talking_heads_jax.checkpoints import load_model
from talking_heads_jax.errors import ArgumentError, UnsafeFileError
from talking_heads_jax.serialization.tensors import read_tensors
from talking_heads_jax.workflows import fuzz_checkpoints as fuzz
from talking_heads_jax.workflows.fuzz_corpus import FILES, FOLDERS, open_corpus, write_corpus
from talking_heads_jax.workflows.fuzz_mutations import mutate_bytes, mutate_folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "report.corpus"
    write_corpus(folder)
    return open_corpus(folder)


def test_corpus_is_read_whole(corpus):
    """Damage would prove nothing in files that no reader takes in the first place."""
    states = [read_tensors(corpus.folder / name) for name in FILES]
    nested, flat = states[0], states[3]
    assert nested["epoch"] == 7 and set(nested) > {"generator", "kp_detector", "discriminator"}
    for name, array in nested["generator"].items():
        np.testing.assert_array_equal(array, flat[f"generator.{name}"])
        np.testing.assert_array_equal(states[1]["generator"][name], array)
        np.testing.assert_array_equal(states[2][f"generator.{name}"], array)
    assert load_model(corpus.folder / FOLDERS[0]).model.name == "fomm"


def test_mutations_depend_on_the_seed_alone(corpus, tmp_path):
    data = {name: (corpus.folder / name).read_bytes() for name in FILES}
    for case in range(40):
        name = FILES[case % len(FILES)]
        results = [
            mutate_bytes(data[name], data[name][::-1], name, np.random.default_rng([0, case]))
            for _ in range(2)
        ]
        assert results[0] == results[1]
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.json").write_text('{"a": [1, 2, {"b": "c"}]}')
        (tmp_path / part / "revision").write_text("1")
    for case in range(20):
        said = [
            mutate_folder(tmp_path / part, np.random.default_rng([1, case])) for part in ("a", "b")
        ]
        assert said[0] == said[1]


def test_300_mutations_bring_out_documented_errors_only(corpus):
    report = fuzz.fuzz_checkpoints(
        corpus.folder.with_name("report.json"), seed=0, mutations=300, seconds=60, progress=False
    )
    assert not report.failures, json.dumps(report.failures, indent=1)
    assert report.cases >= 100, "a machine this slow says little"
    assert {"UnsafeFileError", "CheckpointError", "DamagedCheckpointError"} <= set(report.tally)
    assert json.loads(corpus.folder.with_name("report.json").read_text())["seed"] == 0


@pytest.fixture
def reader(corpus, tmp_path):
    for part in ("inside", "outside", "temporary"):
        (tmp_path / part).mkdir()
    (tmp_path / "stderr.txt").touch()
    return fuzz._Reader(corpus, tmp_path, seed=0)


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "read, outcome",
    [
        (lambda: _raise(KeyError("x")), "KeyError"),
        (lambda: _raise(UnsafeFileError("two\nlines")), "UnsafeFileError of several lines"),
        (lambda: bytearray(1 << 62), "allocation"),
    ],
    ids=["undocumented", "two lines", "allocation"],
)
def test_watch_notices_what_readers_must_not_raise(reader, read, outcome):
    result = reader._watch(read)
    assert result["failed"] and result["outcome"] == outcome


def test_numbers_that_changed_under_true_checksums_are_noticed(reader, corpus, tmp_path):
    """The fuzzer's own check, with a reader that would not look at the checksums."""
    reader.warm_up()
    folder = shutil.copytree(corpus.folder / FOLDERS[0], tmp_path / "inside" / "model")
    reader._read_folder(folder, FOLDERS[0])
    reader._variables = jax.tree.map(lambda leaf: leaf + 1, reader._variables)
    result = reader._watch(lambda: reader._read_folder(folder, FOLDERS[0]))
    assert result["failed"] and result["outcome"] == "SilentDamageError"


def test_watch_notices_a_file_outside(reader):
    result = reader._watch(lambda: (reader._outside / "new").touch())
    assert result["failed"] and result["outcome"] == "outside"


def test_watch_notices_code(reader, monkeypatch):
    """The audit hook, asked directly: a hook can never be removed from a process."""

    def read() -> None:
        reader.audit("os.system", (b"touch x",))
        reader.audit("open", (str(reader._outside / "x"), "w", 0))

    result = reader._watch(read)
    assert result["failed"] and result["outcome"] == "code"
    assert result["message"].count(";") == 1
    reader.audit("os.system", (b"touch x",))  # not while a file is read
    assert not reader._watch(lambda: None)["failed"]


@pytest.mark.parametrize(
    "program, outcome",
    [("import os; os.abort()", "crash"), ("import time; time.sleep(60)", "hang")],
    ids=["crash", "hang"],
)
def test_a_worker_that_dies_or_hangs_costs_its_case_only(
    program, outcome, corpus, tmp_path, monkeypatch
):
    """Case 1 ends its worker; 0 and 2 are reported all the same."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, sys\n"
        "for case in json.loads(sys.stdin.readline()):\n"
        "    print(json.dumps({'case': case, 'target': 't', 'mutation': 'm'}), flush=True)\n"
        "    if case == 1:\n"
        f"        {program}\n"
        "    print(json.dumps({'case': case, 'outcome': 'read', 'failed': False}), flush=True)\n"
    )
    popen = subprocess.Popen
    monkeypatch.setattr(fuzz, "_START_SECONDS", 10.0)
    monkeypatch.setattr(fuzz, "_CASE_SECONDS", 1.0)
    monkeypatch.setattr(
        fuzz.subprocess, "Popen", lambda command, **more: popen([sys.executable, script], **more)
    )
    results = list(fuzz._results(corpus.folder, tmp_path, 0, [0, 1, 2]))
    assert [result["case"] for result in results] == [0, 1, 2]
    assert [result["failed"] for result in results] == [False, True, False]
    assert results[1]["outcome"].startswith(outcome) and results[1]["target"] == "t"


def test_what_a_failing_case_read_is_kept(tmp_path):
    case = tmp_path / "inside" / "7"
    case.mkdir(parents=True)
    (case / "weights.npz").write_bytes(b"x")
    os.mkfifo(case / "pipe")
    fuzz._keep(tmp_path / "report.json", {"case": 7}, tmp_path)
    kept = tmp_path / "report.failures" / "7"
    assert [path.name for path in kept.iterdir()] == ["weights.npz"]


def test_numbers_without_sense_are_refused(tmp_path, capsys):
    with pytest.raises(ArgumentError, match="count from"):
        fuzz.fuzz_checkpoints(tmp_path / "r.json", mutations=0)
    assert fuzz.main(["--only", "-1", "--output", str(tmp_path / "r.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_zip_bombs_of_the_fuzzer_are_bombs():
    """One of the zip mutations unpacks to 128 MiB."""
    rng = np.random.default_rng(0)
    import io

    from talking_heads_jax.workflows.fuzz_mutations import edit_zip_entries

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", b"x")
    sizes = set()
    for _ in range(12):
        data = edit_zip_entries(bytearray(buffer.getvalue()), b"", rng)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sizes |= {info.file_size for info in archive.infolist()}
    assert 1 << 27 in sizes
