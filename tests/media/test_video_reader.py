"""Properties of the streaming reader: same frames as libav, upright, bounded, safe."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from talking_heads_jax.errors import MediaError
from talking_heads_jax.media.limits import MediaLimits
from talking_heads_jax.media.video import VideoReader
from tests.media.video_files import moving_frames, write_clip

CODECS = {
    "clip.mp4": ("libx264", 4.0),
    "clip.mov": ("libx264", 4.0),
    "clip.mkv": ("libx264", 4.0),
    "clip.avi": ("mpeg4", 8.0),
    "clip.webm": ("libvpx", 8.0),
    "clip.gif": ("gif", 30.0),  # 256 fixed colours, dithered
}


@pytest.mark.parametrize("name", CODECS)
def test_reader_delivers_the_frames_that_were_written(tmp_path: Path, name: str) -> None:
    codec, tolerance = CODECS[name]
    frames = moving_frames(6)
    reader = VideoReader(write_clip(tmp_path / name, frames, codec=codec))
    read = list(reader)
    assert len(read) == 6 and reader.size == (48, 64)
    assert read[0].dtype == np.uint8 and read[0].shape == (48, 64, 3)
    # Mean over pixels: lossy coding and halved colour resolution at the square's edges.
    assert np.abs(np.stack(read).astype(float) - frames).mean() < tolerance


def test_reader_can_be_iterated_again_and_interleaved(clip: Path) -> None:
    reader = VideoReader(clip)
    first, second = iter(reader), iter(reader)
    next(first)
    pairs = list(zip(first, list(second)[1:], strict=True))
    assert len(pairs) == 9
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_frames_selects_a_range(clip: Path) -> None:
    reader = VideoReader(clip)
    everything = list(reader)
    chosen = list(reader.frames(2, 9, 3))
    assert len(chosen) == 3
    assert all(np.array_equal(a, everything[i]) for a, i in zip(chosen, (2, 5, 8), strict=True))


def test_reader_frames_do_not_depend_on_threads(clip: Path) -> None:
    one, many = list(VideoReader(clip)), list(VideoReader(clip, threads=0))
    assert np.array_equal(np.stack(one), np.stack(many))


def test_reader_states_rate_count_duration_and_sound(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    path = write_clip(tmp_path / "a.mp4", moving_frames(8), fps=rate, audio="aac")
    reader = VideoReader(path)
    assert reader.fps == rate and reader.frame_count == 8 and reader.has_audio
    assert reader.duration_s == pytest.approx(8 / float(rate), abs=0.08)  # one audio packet
    assert not VideoReader(write_clip(tmp_path / "b.mp4", moving_frames(3))).has_audio


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_reader_applies_rotation_metadata(tmp_path: Path, rotation: int) -> None:
    frames = moving_frames(2)
    plain = list(VideoReader(write_clip(tmp_path / "p.mp4", frames)))
    turned = VideoReader(write_clip(tmp_path / "r.mp4", frames, rotation=rotation))
    # The matrix (0 1 -1 0) that phones write for 90 sends the stored left edge to the top: a
    # clockwise quarter turn.
    expected = np.rot90(plain[0], -rotation // 90)
    assert turned.size == expected.shape[:2]
    assert np.array_equal(next(iter(turned)), expected)


@pytest.mark.parametrize("colorspace", [1, 6])
def test_reader_follows_the_stated_colour_matrix(tmp_path: Path, colorspace: int) -> None:
    path = tmp_path / "c.mp4"
    image = np.full((32, 32, 3), (200, 60, 30), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace = colorspace
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709" if colorspace == 1 else "ITU601"
        )
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    read = next(iter(VideoReader(path))).astype(int)
    # Rounding of 8-bit YUV; the other matrix would be off by more than 10.
    assert np.abs(read - image).max() <= 4


def test_reader_drops_the_alpha_of_a_gif(tmp_path: Path) -> None:
    from PIL import Image

    pictures = []
    for shade in (40, 200):
        pixels = np.full((16, 16, 4), (shade, 90, 30, 255), np.uint8)
        pixels[:4, :, 3] = 0
        pictures.append(Image.fromarray(pixels, "RGBA"))
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    read = list(VideoReader(path))
    assert [frame.shape for frame in read] == [(16, 16, 3)] * 2
    assert abs(int(read[1][10, 10, 0]) - 200) < 20


def _text(path: Path, clip: Path) -> None:
    path.write_text("not a video\n" * 50)


def _empty(path: Path, clip: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path, clip: Path) -> None:
    data = clip.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _headless(path: Path, clip: Path) -> None:
    path.write_bytes(clip.read_bytes()[:40])


def _playlist(path: Path, clip: Path) -> None:
    path.write_text(f"#EXTM3U\n#EXTINF:1,\n{clip}\n#EXT-X-ENDLIST\n")


def _concat(path: Path, clip: Path) -> None:
    path.write_text(f"ffconcat version 1.0\nfile {clip}\n")


def _garbage_after_type(path: Path, clip: Path) -> None:
    path.write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(range(256)) * 40)


BROKEN = [_text, _empty, _truncated, _headless, _playlist, _concat, _garbage_after_type]


@pytest.mark.parametrize("damage", BROKEN)
def test_reader_refuses_broken_files_in_one_line(tmp_path: Path, clip: Path, damage) -> None:
    path = tmp_path / "broken.mp4"
    damage(path, clip)
    with pytest.raises(MediaError) as caught:
        VideoReader(path)
    message = str(caught.value)
    assert "broken.mp4" in message and "\n" not in message and message.count(". ") >= 1


@pytest.mark.parametrize("name", ["clip.webm", "clip.avi", "clip.gif", "clip.mkv"])
def test_reader_notices_truncation_of_every_container(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, moving_frames(6), codec=CODECS[name][0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MediaError, match="truncated"):
        VideoReader(path)


def test_reader_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(MediaError, match="readable file"):
            VideoReader(path)


def test_reader_refuses_sound_without_picture(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    with pytest.raises(MediaError, match="video stream"):
        VideoReader(path)


def test_limits_are_enforced_before_decoding(clip: Path) -> None:
    for limits in (
        MediaLimits(max_pixels=48 * 64 - 1),
        MediaLimits(max_frames=9),
        MediaLimits(max_duration_s=0.2),
    ):
        with pytest.raises(MediaError):
            VideoReader(clip, limits)
    assert VideoReader(clip, MediaLimits(48 * 64, 10, 1.0)).frame_count == 10


def test_max_frames_holds_where_the_container_states_none(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "c.webm", moving_frames(8), codec="libvpx")
    reader = VideoReader(path, MediaLimits(max_frames=5))
    assert reader.frame_count is None
    with pytest.raises(MediaError, match="at most 5 frames"):
        list(reader)


def test_reader_survives_damaged_bytes_with_frames_or_one_error(tmp_path: Path, clip: Path) -> None:
    data = clip.read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "fuzzed.mp4"
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 12):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            for frame in VideoReader(path):
                assert frame.dtype == np.uint8 and frame.shape[2] == 3
            outcomes.add("frames")
        except MediaError as error:
            assert "\n" not in str(error)
            outcomes.add("error")
    assert outcomes == {"frames", "error"}


def test_timed_frames_give_each_frame_with_its_moment(tmp_path: Path) -> None:
    reader = VideoReader(write_clip(tmp_path / "clip.mp4", moving_frames(6), fps=Fraction(10)))
    timed = list(reader.timed_frames(1, 6, 2))
    np.testing.assert_allclose([moment for moment, _ in timed], [0.1, 0.3, 0.5], atol=1e-3)
    for (_, image), expected in zip(timed, reader.frames(1, 6, 2), strict=True):
        assert np.array_equal(image, expected)
    under_way = reader.timed_frames()
    next(under_way)
    reader.close()
    assert list(under_way) == []
