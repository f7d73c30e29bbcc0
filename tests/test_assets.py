"""The registry of user-supplied files: found by name, never replaced by accident."""

import hashlib
import json

import pytest

from talking_heads_jax.assets import (
    KNOWN_ASSETS,
    assets_folder,
    describe_assets,
    file_sha256,
    home_folder,
    locate_asset,
    register_asset,
    registered_assets,
)
from talking_heads_jax.errors import ArgumentError, AssetNotFoundError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TALKING_HEADS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"some weights")
    return path


def test_home_folder_follows_the_environment(home, monkeypatch):
    assert home_folder() == home
    monkeypatch.delenv("TALKING_HEADS_HOME")
    assert home_folder().parts[-2:] == (".cache", "talking_heads_jax")


def test_locate_asset_of_an_unregistered_file_says_how_to_get_it():
    with pytest.raises(AssetNotFoundError) as caught:
        locate_asset("vgg19")
    message = str(caught.value)
    assert "vgg19-dcbb9e9d.pth" in message and "\n" not in message
    assert "talking-heads convert --model vgg19" in message
    with pytest.raises(AssetNotFoundError, match="assets add FILE --name other"):
        locate_asset("other")


@pytest.mark.parametrize("name", ["flame2020", "flame2023", "bfm09", "ict", "flame_landmarks"])
def test_locate_asset_of_a_face_model_names_file_page_and_open_alternative(name):
    with pytest.raises(AssetNotFoundError) as caught:
        locate_asset(name)
    message = str(caught.value)
    assert "https://" in message and "assets add" in message and "procedural" in message
    assert "\n" not in message


def test_register_asset_copies_and_lists(weights, home):
    asset = register_asset("vgg19", weights)
    path = locate_asset("vgg19", verify=True)
    assert path == home / "assets" / "vgg19.safetensors"
    assert path.read_bytes() == weights.read_bytes()
    assert asset.sha256 == hashlib.sha256(b"some weights").hexdigest() == file_sha256(path)
    entry = json.loads((home / "assets" / "assets.json").read_text())["vgg19"]
    assert set(entry) == {"file", "sha256", "bytes", "licence", "source"}
    assert entry["licence"] == "BSD-3-Clause"
    assert [p.name for p in (home / "assets").iterdir() if p.name.startswith(".")] == []


def test_register_asset_twice_changes_nothing_but_another_file_is_refused(weights, tmp_path):
    first = register_asset("thing", weights)
    assert register_asset("thing", weights) == first
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other weights")
    with pytest.raises(ArgumentError, match="registered once"):
        register_asset("thing", other)
    assert locate_asset("thing").read_bytes() == b"some weights"
    assert set(registered_assets()) == {"thing"}


@pytest.mark.parametrize("name", ["", "../up", "Upper", "a/b", ".hidden"])
def test_register_asset_refuses_names_that_are_not_plain(weights, name):
    with pytest.raises(ArgumentError):
        register_asset(name, weights)


def test_register_asset_requires_a_file(tmp_path):
    with pytest.raises(ArgumentError, match="be a file"):
        register_asset("thing", tmp_path / "missing")


def test_locate_asset_notices_damage(weights):
    register_asset("thing", weights)
    path = assets_folder() / "thing.safetensors"
    path.write_bytes(b"same size !!")
    assert locate_asset("thing") == path  # the size alone does not tell
    with pytest.raises(AssetNotFoundError, match="checksum"):
        locate_asset("thing", verify=True)
    path.write_bytes(b"short")
    with pytest.raises(AssetNotFoundError, match="changed"):
        locate_asset("thing")


def test_registered_assets_refuses_a_damaged_index(home):
    (home / "assets").mkdir(parents=True)
    for text in ("{", "[1]", '{"a": {"unknown": 1}}'):
        (home / "assets" / "assets.json").write_text(text)
        with pytest.raises(AssetNotFoundError, match="readable JSON"):
            registered_assets()


def test_describe_assets_shows_what_is_missing_and_what_is_there(weights):
    lines = describe_assets()
    before = lines[lines.index("vgg19: not registered") :]
    assert any("BSD-3" in line for line in before)
    register_asset("vgg19", weights)
    after = next(line for line in describe_assets() if line.startswith("vgg19"))
    assert str(assets_folder()) in after


def test_describe_assets_is_a_licence_matrix():
    text = "\n".join(describe_assets())
    for name, known in KNOWN_ASSETS.items():
        assert f"{name}: " in text and known.licence in text and known.page in text
        assert known.page.startswith("https://")
    assert "procedural: built in" in text
