"""Anyone's frames: order, whole clips, lossless videos, sizes; and our own, written."""

import av
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, DataError, MediaError
from talking_heads_jax.evaluation import predictions
from talking_heads_jax.evaluation.pairs import Pair, build_pairs
from talking_heads_jax.evaluation.predictions import FolderAnswer, PredictionWriter
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.limits import MediaLimits
from talking_heads_jax.media.video import VideoReader
from tests.evaluation.toys import evaluate, noise_clips, protocol

CLIPS = noise_clips((13, 4))
PAIRS = build_pairs(protocol("reconstruction"), CLIPS.values()).pairs


def copies(folder, *, whole=False, name="{}.png"):
    """Every driving frame (or every frame) of every clip, as a perfect system would write it."""
    for clip in CLIPS.values():
        for index, frame in enumerate(clip.frames[0 if whole else 1 :]):
            write_image(folder / clip.clip_id / name.format(index), frame)
    return folder


def lossless(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def errors_of(folder, **options):
    found = evaluate(
        CLIPS, system={"copies": FolderAnswer("copies", folder, PAIRS)}, recipes=("l1/unit",),
        **options,
    )  # fmt: skip
    return found.values["copies"]["l1/unit"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_frames_are_scored_in_the_order_of_their_numbers(tmp_path, batch_size):
    # Thirteen files without leading zeros: 10 comes after 9, not after 1.
    assert errors_of(copies(tmp_path), batch_size=batch_size) == [0.0, 0.0]


def test_a_whole_clip_gives_the_frames_that_the_pair_names(tmp_path):
    assert errors_of(copies(tmp_path, whole=True, name="frame_{:06d}.png")) == [0.0, 0.0]


def test_a_lossless_video_is_scored_like_its_frames(tmp_path):
    lossless(tmp_path / "clip0.mkv", CLIPS["clip0"].frames[1:])
    lossless(tmp_path / "clip1.mkv", CLIPS["clip1"].frames)
    assert errors_of(tmp_path) == [0.0, 0.0]


def test_videos_and_pictures_have_limits(tmp_path):
    copies(tmp_path)
    answer = FolderAnswer("a", tmp_path, PAIRS, limits=MediaLimits(max_pixels=100))
    with pytest.raises(MediaError, match=r"'a' of pair 'clip0': .*between 1 and 100 pixels"):
        evaluate(CLIPS, system={"a": answer})
    with pytest.raises(MediaError, match="at most 5 frames"):
        FolderAnswer("a", tmp_path, PAIRS, limits=MediaLimits(max_frames=5))


def test_a_video_of_another_length_is_refused(tmp_path):
    lossless(tmp_path / "clip0.mkv", CLIPS["clip0"].frames[3:])
    lossless(tmp_path / "clip1.mkv", CLIPS["clip1"].frames)
    with pytest.raises(DataError, match=r"'clip0' must have 12 frames \(or 13, .* got 10"):
        FolderAnswer("a", tmp_path, PAIRS)


@pytest.mark.parametrize(
    ("stated", "frames", "message"),
    [
        (12, 13, "must have 12 frames .*got more than its header states"),
        (13, 14, "or 13, .*got more than its header states"),
        (13, 12, "or 13, .*got fewer than its header states"),
    ],
)
def test_a_video_that_is_not_as_long_as_its_header_states_is_refused(
    stated, frames, message, tmp_path, monkeypatch
):
    class Misstated(VideoReader):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.frame_count = stated

    first = {"clip0": CLIPS["clip0"]}
    repeated = np.concatenate([CLIPS["clip0"].frames, CLIPS["clip0"].frames[:1]])
    lossless(tmp_path / "clip0.mkv", repeated[:frames])
    monkeypatch.setattr(predictions, "VideoReader", Misstated)
    answer = FolderAnswer("a", tmp_path, PAIRS[:1])
    with pytest.raises(DataError, match=message):
        evaluate(first, system={"a": answer}, recipes=("l1/unit",))


def test_written_predictions_are_scored_as_the_rounded_ones(tmp_path):
    writer = PredictionWriter(tmp_path, PAIRS)
    plain = evaluate(CLIPS, writer=writer, recipes=("l1/unit",))
    answer = FolderAnswer("saved", tmp_path, PAIRS)
    both = evaluate(CLIPS, system={"saved": answer}, recipes=("l1/unit",))
    own, saved = both.values["model"]["l1/unit"], both.values["saved"]["l1/unit"]
    assert own == plain.values["model"]["l1/unit"]
    # Half a level of 255; the means of two bytes lie on or between two levels.
    assert 0 < np.abs(np.subtract(own, saved)).max() <= 1 / 510 + 1e-7
    clip = CLIPS["clip1"].frames.astype(np.float64)
    first = read_image(tmp_path / "clip1" / "frame_000000.png")
    assert np.abs(first - (clip[0] + clip[1]) / 2).max() <= 0.5 + 1e-4
    with pytest.raises(ArgumentError, match="none of these pairs yet"):
        PredictionWriter(tmp_path, PAIRS)


def test_a_pair_that_fails_leaves_no_folder(tmp_path):
    pair = Pair("p", "a", "a", 0, "a", "a", (1,), 2)
    with (
        pytest.raises(ValueError, match="broken"),
        PredictionWriter(tmp_path, [pair]).open(pair) as sink,
    ):
        sink.write(np.zeros((1, 16, 16, 3), np.float32))
        raise ValueError("broken")
    assert not list(tmp_path.iterdir())
