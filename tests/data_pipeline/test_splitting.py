"""Splits: identities stay whole, the choice is reproducible, fall-backs are stated."""

import pytest

from data_pipeline.preprocess.splitting import split_clips
from talking_heads_jax.errors import ArgumentError, DataError

PEOPLE = {f"p{person}#{clip}.mp4": f"p{person}" for person in range(10) for clip in range(3)}


def test_identity_split_keeps_people_whole_and_is_reproducible() -> None:
    split = split_clips(PEOPLE)
    test = {clip for clip, name in split.of_clip.items() if name == "test"}
    assert split.rule == "identity" and len(test) == 6
    assert len({PEOPLE[clip] for clip in test}) == 2
    assert split_clips(dict(reversed(PEOPLE.items()))) == split
    assert split_clips(PEOPLE, seed=1) != split


def test_one_identity_falls_back_to_clips_and_one_clip_to_train() -> None:
    split = split_clips({f"{i}.mp4": "me" for i in range(5)})
    assert split.rule == "clip" and list(split.of_clip.values()).count("test") == 1
    assert "one identity" in split.note
    single = split_clips({"a.mp4": "me"})
    assert single.rule == "none" and single.of_clip == {"a.mp4": "train"}


def test_folders_and_given_clips_take_precedence() -> None:
    folders = {clip: "test" if clip.startswith("p3") else "train" for clip in PEOPLE}
    split = split_clips(PEOPLE, folder_of_clip=folders)
    assert split.rule == "folders" and split.of_clip == folders
    given = split_clips(PEOPLE, folder_of_clip=folders, test_clips=["p1#*", "p2#0"])
    test = {clip for clip, name in given.of_clip.items() if name == "test"}
    assert given.rule == "given"
    assert test == {"p1#0.mp4", "p1#1.mp4", "p1#2.mp4", "p2#0.mp4"}


def test_split_refuses_what_makes_no_sense() -> None:
    with pytest.raises(DataError, match="nobody"):
        split_clips(PEOPLE, test_clips=["nobody"])
    with pytest.raises(DataError, match="training"):
        split_clips(PEOPLE, test_clips=["*"])
    for fraction in (-0.1, 1.0):
        with pytest.raises(ArgumentError):
            split_clips(PEOPLE, test_fraction=fraction)
    assert set(split_clips(PEOPLE, test_fraction=0).of_clip.values()) == {"train"}
    assert "train" in split_clips(PEOPLE, test_fraction=0.99).of_clip.values()
