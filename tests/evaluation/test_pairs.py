"""Pairs: what is drawn, that it is drawn again alike, and the file it is written to."""

import json
import pathlib

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, DataError
from talking_heads_jax.evaluation.clips import Clip
from talking_heads_jax.evaluation.pair_files import (
    pairs_digest,
    pairs_text,
    read_pairs,
    write_pairs,
)
from talking_heads_jax.evaluation.pairs import build_pairs, check_pairs, spread_frames
from tests.evaluation.toys import CONFIGS, noise_clips, protocol

CLIPS = noise_clips((6, 4, 9, 3, 5), size=4)


def test_reconstruction_drives_the_first_frame_by_all_others() -> None:
    clips = noise_clips((3, 1, 2), size=4)
    pairs = build_pairs(protocol("reconstruction"), clips.values()).pairs
    assert [(pair.name, pair.source_frame, pair.driving_frames) for pair in pairs] == [
        ("clip0", 0, (1, 2)),
        ("clip2", 0, (1,)),
    ]
    scripted = protocol("reconstruction", include_source=True)
    frames = [pair.driving_frames for pair in build_pairs(scripted, clips.values()).pairs]
    assert frames == [(0, 1, 2), (0,), (0, 1)]


def test_random_pairs_are_different_pairs_in_both_directions() -> None:
    pairs = build_pairs(protocol("random_pairs", pairs_per_clip=5), CLIPS.values()).pairs
    by_clip = {name: [pair for pair in pairs if pair.source_clip == name] for name in CLIPS}
    # A clip of 3 frames has 3 pairs of different frames, one of 4 has 6.
    assert [len(found) for found in by_clip.values()] == [10, 10, 10, 6, 10]
    for found in by_clip.values():
        drawn = [(pair.source_frame, *pair.driving_frames) for pair in found]
        assert len(set(drawn)) == len(drawn)
        assert all(second == first[::-1] for first, second in zip(drawn[::2], drawn[1::2]))  # noqa: B905
        assert all(first != second for first, second in drawn)
    one_way = protocol("random_pairs", pairs_per_clip=5, both_directions=False)
    assert len(build_pairs(one_way, CLIPS.values()).pairs) == len(pairs) // 2


def test_cross_identity_pairs_are_of_different_people() -> None:
    many = noise_clips((2,) * 60, size=4)
    pairs = build_pairs(protocol("cross_identity"), many.values()).pairs
    # Thirty people: ten sources of people who drive nobody, and fourteen driving clips.
    assert len(pairs) == 10 * 14
    assert len({(pair.source_clip, pair.source_frame) for pair in pairs}) == 10
    assert len({pair.driving_clip for pair in pairs}) == 14
    assert all(pair.source_identity != pair.driving_identity for pair in pairs)
    assert all(pair.driving_frames == (0, 1) for pair in pairs)
    few = build_pairs(protocol("cross_identity"), CLIPS.values()).pairs
    assert all(pair.source_identity != pair.driving_identity for pair in few)
    with pytest.raises(DataError, match="at least 2 people"):
        build_pairs(protocol("cross_identity"), list(CLIPS.values())[:2])


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_pairs_depend_on_seed_and_clips_alone(name: str) -> None:
    clips = list(CLIPS.values())
    first = build_pairs(protocol(name), clips)
    assert build_pairs(protocol(name), clips[::-1]) == first
    other = build_pairs(protocol(name, seed=1), clips)
    assert (other.pairs == first.pairs) == name.startswith(("reconstruction", "synthetic_same"))
    names = [pair.name for pair in first.pairs]
    assert len(set(names)) == len(names)


def test_random_pairs_of_a_clip_do_not_depend_on_the_other_clips() -> None:
    everything = build_pairs(protocol("random_pairs"), CLIPS.values()).pairs
    alone = build_pairs(protocol("random_pairs"), [CLIPS["clip2"]]).pairs
    assert alone == tuple(pair for pair in everything if pair.source_clip == "clip2")


def test_names_are_plain_folder_names() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    ids = [
        "../../etc",
        "a/b",
        "A_B",
        "a:b",
        "a#1.mp4",
        "a#1.MOV",
        ".hidden",
        "",
        "x" * 300,
        "ü#1",
        "\x1b[2J",
    ]
    pairs = build_pairs(protocol("reconstruction"), [Clip(name, frames, "") for name in ids]).pairs
    names = [pair.name for pair in pairs]
    assert len({name.lower() for name in names}) == len(ids)
    for name in names:
        assert "/" not in name and "." not in name and name.isprintable()
        assert 0 < len(name.encode()) < 256


def test_best_frame_is_the_one_with_the_sources_landmarks() -> None:
    rng = np.random.default_rng(0)
    face = rng.uniform(0, 20, (68, 2))
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    turned = np.stack([face + rng.normal(0, 2, face.shape) for _ in range(4)])
    turned[2] = 2 * face + 5  # the same face, larger and elsewhere
    clips = [
        Clip("a", frames, "ann", landmarks=np.stack([face] * 4)),
        Clip("b", frames, "bob", landmarks=turned),
    ]
    pairs = build_pairs(protocol("cross_identity_relative"), clips).pairs
    assert {p.driving_clip: p.initial_frame for p in pairs}["b"] == 2
    without = [clips[0], clips[1]._replace(landmarks=np.full((4, 68, 2), np.nan))]
    pairs = build_pairs(protocol("cross_identity_relative"), without).pairs
    assert {pair.initial_frame for pair in pairs} == {None}
    assert {p.initial_frame for p in build_pairs(protocol("cross_identity"), clips).pairs} == {None}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_pair_files_come_back_as_they_were(name: str, tmp_path) -> None:
    drawn = build_pairs(protocol(name), CLIPS.values())
    path = tmp_path / "pairs.json"
    path.write_text(pairs_text(drawn, {"split": "test"}))
    back, data = read_pairs(path)
    assert back == drawn and data == {"split": "test"}
    assert pairs_digest(back) == pairs_digest(drawn)
    check_pairs(back.pairs, CLIPS)


def test_processes_that_write_one_list_to_one_folder_do_not_disturb_each_other(
    tmp_path, monkeypatch
) -> None:
    drawn = build_pairs(protocol("reconstruction"), CLIPS.values())
    replace, others = pathlib.Path.replace, []

    def replace_behind_another(path, target):
        if not others:  # the other process does all of its writing first
            others.append(path)
            write_pairs(tmp_path, drawn, {"split": "test"})
        return replace(path, target)

    monkeypatch.setattr(pathlib.Path, "replace", replace_behind_another)
    write_pairs(tmp_path, drawn, {"split": "test"})
    assert others and [path.name for path in tmp_path.iterdir()] == ["pairs.json"]
    assert read_pairs(tmp_path / "pairs.json") == (drawn, {"split": "test"})
    write_pairs(tmp_path, drawn, {})  # it is there already
    other = build_pairs(protocol("random_pairs"), CLIPS.values())
    with pytest.raises(ArgumentError, match="list the same pairs"):
        write_pairs(tmp_path, other, {})


def edited(change) -> str:
    document = json.loads(pairs_text(build_pairs(protocol("reconstruction"), CLIPS.values()), {}))
    change(document)
    return json.dumps(document)


def set_in(*path):
    def change(document):
        *parents, key, value = path
        for parent in parents:
            document = document[parent]
        document[key] = value

    return change


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "readable JSON"),
        ("[" * 100_000, "readable JSON"),
        ("\udcff", "readable JSON"),
        ("[1]", "list of pairs"),
        (edited(set_in("version", 2)), "have version 1"),
        (edited(set_in("pairs", [])), "got none"),
        (edited(set_in("pairs", {})), "hold protocol, data and pairs"),
        (edited(set_in("protocol", "pairing", "x")), "pairing must be one of"),
        (edited(set_in("pairs", 1, 7)), "pair 1: it must be an object"),
        (edited(set_in("pairs", 1, "name", "../x")), "plain folder name"),
        (edited(set_in("pairs", 1, "name", "CLIP0")), "two of one name"),
        (edited(set_in("pairs", 0, "source", None)), "source must be an object"),
        (edited(set_in("pairs", 0, "source", "frame", -1)), "source.frame"),
        (edited(set_in("pairs", 0, "source", "frame", True)), "source.frame"),
        (edited(set_in("pairs", 0, "driving", "clip", 3)), "driving.clip must be text"),
        (edited(set_in("pairs", 0, "driving", "frames", [2, 1])), "increasing"),
        (edited(set_in("pairs", 0, "driving", "frames", [1, 6])), "below the length 6"),
        (edited(set_in("pairs", 0, "initial_frame", 6)), "initial_frame"),
    ],
)
def test_damaged_pair_files_are_refused_in_one_line(text: str, message: str, tmp_path) -> None:
    path = tmp_path / "pairs.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(path)
    assert "\n" not in str(caught.value)


def test_check_pairs_names_what_the_data_lacks() -> None:
    pairs = build_pairs(protocol("reconstruction"), CLIPS.values()).pairs
    with pytest.raises(DataError, match=r"'clip1'.*no such clip"):
        check_pairs(pairs, {name: clip for name, clip in CLIPS.items() if name != "clip1"})
    shorter = CLIPS | {"clip1": CLIPS["clip1"]._replace(frames=CLIPS["clip1"].frames[:2])}
    with pytest.raises(DataError, match=r"frame 3 of clip 'clip1'.*2 frames"):
        check_pairs(pairs, shorter)


def test_spread_frames_are_the_middles_of_equal_parts() -> None:
    assert list(spread_frames(1, 8, 3)) == [2, 4, 6]
    assert list(spread_frames(0, 10, 1)) == [5]
    assert list(spread_frames(2, 5, 0)) == list(spread_frames(2, 5, 9)) == [2, 3, 4]
    for stop in range(4, 40):
        frames = list(spread_frames(1, stop, 3))
        assert len(set(frames)) == 3 and frames[0] >= 1 and frames[-1] < stop
        gaps = np.diff(frames)
        assert gaps.max() - gaps.min() <= 1


def test_synthetic_protocols_drive_by_three_frames_of_a_clip() -> None:
    clips = noise_clips((8, 8, 8, 3, 1))
    same = build_pairs(protocol("synthetic_same"), clips.values()).pairs
    assert [pair.driving_frames for pair in same] == [(2, 4, 6)] * 3 + [(1, 2)]
    assert all(pair.source_frame == 0 and pair.source_clip == pair.driving_clip for pair in same)


def test_everybody_is_a_source_once_and_drives_once() -> None:
    clips = {f"c{i}": Clip(f"c{i}", [None] * 8, f"person{i}") for i in range(24)}
    pairs = build_pairs(protocol("synthetic_cross"), clips.values()).pairs
    assert sorted(pair.source_clip for pair in pairs) == sorted(clips)
    assert sorted(pair.driving_clip for pair in pairs) == sorted(clips)
    assert all(pair.source_identity != pair.driving_identity for pair in pairs)
    assert {pair.driving_frames for pair in pairs} == {(2, 4, 6)}
    other = build_pairs(protocol("synthetic_cross", seed=1), clips.values()).pairs
    assert [pair.driving_clip for pair in other] != [pair.driving_clip for pair in pairs]
    # One who has only clips of his own is driven by nobody; neighbours in the ring are passed over.
    alone = {name: clip._replace(identity_id="same") for name, clip in clips.items()}
    with pytest.raises(DataError, match="at least 2 people"):
        build_pairs(protocol("synthetic_cross"), alone.values())
    two = {n: c._replace(identity_id=str(i < 20)) for i, (n, c) in enumerate(clips.items())}
    assert len(build_pairs(protocol("synthetic_cross"), two.values()).pairs) == 24
