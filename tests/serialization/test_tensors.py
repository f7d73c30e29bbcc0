"""The entrance: real torch files, dispatch by content, and what a user sees when it is not one."""

import io
import shutil
import time
import zipfile

import numpy as np
import pytest

from talking_heads_jax.errors import ConversionError, TalkingHeadsError, UnsafeFileError
from talking_heads_jax.serialization.tensors import (
    flatten,
    read_tensors,
    unflatten,
    write_safetensors,
)


@pytest.fixture(scope="module")
def torch_files(shared_folder):
    return shared_folder / "golden" / "torch_files"


def _assert_identical(a, b, name):
    assert a.dtype == b.dtype and a.shape == b.shape, name
    assert a.tobytes() == b.tobytes(), name


@pytest.mark.parametrize("file", ["nested_zip.pth", "nested_legacy.pth.tar"])
def test_read_tensors_reads_real_torch_files_exactly(torch_files, file):
    """Every array of files written by torch.save: views, shared storage, all dtypes."""
    expected = dict(np.load(torch_files / "nested_expected.npz", allow_pickle=False))
    tree = flatten(read_tensors(torch_files / file), "|")
    arrays = {key: value for key, value in tree.items() if isinstance(value, np.ndarray)}
    assert set(arrays) == set(expected)
    for key in expected:
        _assert_identical(arrays[key], expected[key], key)
        assert arrays[key].flags.c_contiguous
    assert tree["epoch"] == 99
    assert tree["optimizer_generator|param_groups|0|betas|1"] == 0.999
    assert [tree[f"list|1|{i}"] for i in range(5)] == [1, "two", None, True, 2.5]


def test_read_tensors_agrees_across_formats(torch_files):
    """The same network as zip, as DataParallel zip and as safetensors."""
    plain = read_tensors(torch_files / "nested_zip.pth")["generator"]
    parallel = flatten(read_tensors(torch_files / "dataparallel.pth"), "|")
    safe = read_tensors(torch_files / "generator.safetensors")
    assert set(safe) == set(plain)
    for key in plain:
        _assert_identical(safe[key], plain[key], key)
        matches = [k for k in parallel if k.endswith(f"module.{key}")]
        _assert_identical(parallel[matches[0]], plain[key], key)


def test_read_tensors_ignores_the_extension(tmp_path, forge):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    body = forge.pickled(forge.dictionary(a=forge.whole("0", array)))
    contents = {
        "zip.npz": forge.zip_file(body, {"0": array.tobytes()}),
        "legacy.safetensors": forge.legacy_file(
            forge.dictionary(a=forge.whole("0", array, legacy=True)), {"0": (6, array.tobytes())}
        ),
    }
    for name, raw in contents.items():
        (tmp_path / name).write_bytes(raw)
    np.savez(tmp_path / "arrays.npz", a=array)
    shutil.move(tmp_path / "arrays.npz", tmp_path / "npz.pth")
    write_safetensors(tmp_path / "safe.safetensors", {"a": array})
    shutil.move(tmp_path / "safe.safetensors", tmp_path / "safe.pth.tar")
    for name in [*contents, "npz.pth", "safe.pth.tar"]:
        _assert_identical(read_tensors(tmp_path / name)["a"], array, name)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"hello", "hello"),
        (b"\x80\x04K\x01.", "bare pickle"),
    ],
)
def test_read_tensors_says_what_a_wrong_file_is(tmp_path, raw, word):
    path = tmp_path / "weights.pth"
    path.write_bytes(raw)
    with pytest.raises((ConversionError, UnsafeFileError), match=word) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value) and "weights.pth" in str(caught.value)


def test_read_tensors_requires_a_file(tmp_path):
    for path in (tmp_path, tmp_path / "missing.pth"):
        with pytest.raises(ConversionError, match="exist"):
            read_tensors(path)


def test_read_tensors_reports_a_file_it_may_not_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.pth"
    path.write_bytes(b"x")

    def refuse(self, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(ConversionError, match=r"secret\.pth.*Permission denied"):
        read_tensors(path)


def test_unflatten_inverts_flatten():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten(flatten(tree)) == tree


def _mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.integers(1, 6)):
        kind = rng.integers(0, 4)
        at = int(rng.integers(0, max(1, len(data))))
        if kind == 0 and data:
            data[at % len(data)] = rng.integers(0, 256)
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            data[at:at] = rng.integers(0, 256, rng.integers(1, 9), np.uint8).tobytes()
        else:
            start = int(rng.integers(0, max(1, len(data))))
            data[at:at] = data[start : start + int(rng.integers(1, 40))]
    return bytes(data)


def test_read_tensors_survives_mutated_files(tmp_path, forge):
    """Damaged files give a TalkingHeadsError or plain data, in bounded time and nothing else.

    Pickles and arrays are damaged inside a sound archive too, past the checksums that stop others.
    """
    rng = np.random.default_rng(20221)
    array = rng.standard_normal((3, 4)).astype(np.float32)
    raw = array.tobytes()
    body = forge.dictionary(a=forge.whole("0", array), b=forge.text("x"), c=forge.ordered_dict())
    old = forge.dictionary(a=forge.whole("0", array, legacy=True), b=forge.number(2**40))
    np.savez(tmp_path / "seed.npz", a=array, b=np.arange(3))
    write_safetensors(tmp_path / "seed.safetensors", {"a": array, "b": np.arange(3)}, {"k": "v"})
    seeds = {
        "zip": forge.zip_file(forge.pickled(body), {"0": raw}),
        "legacy": forge.legacy_file(old, {"0": (12, raw)}),
        "npz": (tmp_path / "seed.npz").read_bytes(),
        "safetensors": (tmp_path / "seed.safetensors").read_bytes(),
    }
    makers = {kind: lambda seed=seed: _mutated(seed, rng) for kind, seed in seeds.items()}
    makers["pickle"] = lambda: forge.zip_file(_mutated(forge.pickled(body), rng), {"0": raw})
    npy = io.BytesIO()
    np.save(npy, array)
    makers["npy"] = lambda: _npz(_mutated(npy.getvalue(), rng))
    outcomes = dict.fromkeys(makers, 0)
    path = tmp_path / "mutant"
    for kind, make in makers.items():
        assert isinstance(_read_bytes(path, seeds.get(kind, seeds["zip"])), dict)
        for _ in range(400):
            start = time.perf_counter()
            try:
                _read_bytes(path, make())
                outcomes[kind] += 1
            except TalkingHeadsError as error:
                assert "\n" not in str(error) and len(str(error)) < 1000
            assert time.perf_counter() - start < 5.0
    # Most mutants are broken; a reader that accepted them all would check nothing.
    assert all(count < 300 for count in outcomes.values()), outcomes


def _npz(raw):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", raw)
    return buffer.getvalue()


def _read_bytes(path, raw):
    path.write_bytes(raw)
    return read_tensors(path)
