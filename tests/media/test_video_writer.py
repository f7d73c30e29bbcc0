"""Properties of the writer: what goes in comes out, deterministic, never harms an old file."""

import os
from pathlib import Path

import av
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, MediaError
from talking_heads_jax.media.video import VideoReader, VideoWriter
from tests.media.video_files import moving_frames, write_clip


def write(path: Path, frames: np.ndarray, fps: float = 25.0, **options) -> Path:
    with VideoWriter(path, fps, frames.shape[1:3], **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def test_writer_round_trip_keeps_frames_rate_and_count(tmp_path: Path) -> None:
    frames = moving_frames(9)
    reader = VideoReader(write(tmp_path / "out.mp4", frames, 30000 / 1001))
    assert (reader.frame_count, float(reader.fps)) == (9, pytest.approx(30000 / 1001))
    # Smooth content at crf 17; colour is stored at half resolution.
    assert np.abs(np.stack(list(reader)).astype(float) - frames).mean() < 3.0


def test_writer_keeps_flat_colours(tmp_path: Path) -> None:
    for color in ((200, 60, 30), (20, 180, 240), (255, 255, 255), (0, 0, 0)):
        frames = np.full((2, 32, 32, 3), color, np.uint8)
        read = next(iter(VideoReader(write(tmp_path / "c.mp4", frames)))).astype(int)
        # 8-bit YUV rounds by up to 2 levels, x264 by one more; a wrong matrix is off by 10.
        assert np.abs(read - frames[0]).max() <= 5


def test_writer_is_deterministic(tmp_path: Path, clip: Path) -> None:
    frames = moving_frames(12)
    one = write(tmp_path / "1.mp4", frames, audio_from=clip).read_bytes()
    two = write(tmp_path / "2.mp4", frames, audio_from=clip).read_bytes()
    assert one == two


def test_writer_pads_odd_sizes_by_repeating_the_edge(tmp_path: Path) -> None:
    frames = moving_frames(3, 33, 47)
    read = next(iter(VideoReader(write(tmp_path / "odd.mp4", frames))))
    assert read.shape == (34, 48, 3)
    assert np.abs(read[33].astype(int) - read[32]).mean() < 6


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_writer_carries_aac_packets_over_unchanged(tmp_path: Path) -> None:
    frames = moving_frames(25)
    source = write_clip(tmp_path / "in.mp4", frames, audio="aac")
    output = write(tmp_path / "out.mp4", frames, audio_from=source)
    carried, original = packets(output), packets(source)
    # The encoder's priming packet lies before the video's start; the tail after its end.
    assert len(carried) >= len(original) - 2
    start = original.index(carried[0])
    assert start <= 1 and carried == original[start : start + len(carried)]


def test_writer_cuts_sound_at_the_end_of_the_video(tmp_path: Path) -> None:
    frames = moving_frames(50)
    source = write_clip(tmp_path / "in.mp4", frames, audio="aac")
    with av.open(str(write(tmp_path / "out.mp4", frames[:10], audio_from=source))) as container:
        sound = container.streams.audio[0]
        assert float(sound.duration * sound.time_base) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    ("name", "codec", "audio"),
    [
        ("in.avi", "mpeg4", "pcm_s16le"),
        ("in.mkv", "libvpx", "mp2"),
    ],
)
def test_writer_encodes_sound_that_mp4_cannot_hold(
    tmp_path: Path, name: str, codec: str, audio: str
) -> None:
    frames = moving_frames(25)
    source = write_clip(tmp_path / name, frames, codec=codec, audio=audio)
    output = write(tmp_path / "out.mp4", frames, audio_from=source)
    with av.open(str(output)) as container:
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(sound)])
    spectrum = np.abs(np.fft.rfft(heard[2000:12000]))
    # The test tone has 0.17 rad per sample.
    assert np.argmax(spectrum) * 2 * np.pi / 10000 == pytest.approx(0.17, rel=0.02)


def test_writer_without_sound_in_the_source_is_fine(tmp_path: Path) -> None:
    frames = moving_frames(4)
    source = write_clip(tmp_path / "in.mp4", frames)
    assert not VideoReader(write(tmp_path / "out.mp4", frames, audio_from=source)).has_audio


def test_writer_keeps_the_old_file_after_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(RuntimeError), VideoWriter(path, 25, (32, 32)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
        raise RuntimeError("the model failed")
    with pytest.raises(MediaError, match="at least one frame"), VideoWriter(path, 25, (32, 32)):
        pass
    with pytest.raises(MediaError):
        write(path, moving_frames(2), audio_from=path)
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_writer_replaces_the_file_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with VideoWriter(path, 25, (32, 32)) as writer:
        writer.write(np.zeros((32, 32, 3), np.uint8))
        assert path.read_bytes() == b"old"
    assert VideoReader(path).frame_count == 1


def test_writer_can_take_sound_from_the_file_it_replaces(tmp_path: Path) -> None:
    frames = moving_frames(10)
    path = write_clip(tmp_path / "same.mp4", frames, audio="aac")
    assert VideoReader(write(path, frames[:, ::-1], audio_from=path)).has_audio


def test_a_slide_show_is_written_at_the_slowest_rate(tmp_path):
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    assert len(list(VideoReader(write(tmp_path / "slow.mp4", frames, fps=2 / 7200)))) == 2


def test_writer_refuses_what_makes_no_video(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"end in \.mp4"):
        VideoWriter(tmp_path / "out.gif", 25, (32, 32))
    for fps, size in ((0, (32, 32)), (-1, (32, 32)), (25, (1, 32))):
        with pytest.raises(ArgumentError):
            VideoWriter(tmp_path / "out.mp4", fps, size)
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MediaError, match="writable"),
        VideoWriter(tmp_path / "file" / "out.mp4", 25, (32, 32)),
    ):
        pass
    with VideoWriter(tmp_path / "out.mp4", 25, (32, 32)) as writer:
        for wrong in (np.zeros((32, 30, 3), np.uint8), np.zeros((32, 32, 3), np.float32)):
            with pytest.raises(ArgumentError):
                writer.write(wrong)
        writer.write(np.zeros((32, 32, 3), np.uint8))
