"""Framing, landmark files and sinks: what is cut, what is refused, what is left behind."""

from pathlib import Path

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError, MediaError
from talking_heads_jax.inference import clips
from talking_heads_jax.inference.clips import (
    centre_square,
    check_output,
    fit_frame,
    frame_at,
    framing_note,
    held_frames,
    is_picture,
    open_sink,
    still_or_first_frame,
)
from talking_heads_jax.media.image import read_image, write_image
from talking_heads_jax.media.video import VideoReader

from .conftest import SIDE, moving_frames, write_clip


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (8, 8), (6, 9)])
def test_centre_square_cuts_both_sides_equally(shape):
    image = np.arange(shape[0] * shape[1] * 3, dtype=np.uint8).reshape(*shape, 3)
    square = centre_square(image)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    np.testing.assert_array_equal(square, image[top : top + side, left : left + side])
    # The centres differ by at most half a pixel, when the surplus is odd.
    assert abs(top + side / 2 - shape[0] / 2) <= 0.5
    assert abs(left + side / 2 - shape[1] / 2) <= 0.5


def test_fit_frame_keeps_fitting_frames_bit_for_bit():
    frame = moving_frames(1)[0]
    np.testing.assert_array_equal(fit_frame(frame, SIDE), frame)


def test_fit_frame_averages_when_it_shrinks():
    checker = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    small = fit_frame(np.repeat(checker[..., None], 3, -1), 16)
    # Without antialiasing a checkerboard would come out black or white.
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(int) - 127).max() <= 2


def test_framing_note_speaks_only_of_changes():
    assert framing_note("source", (256, 256), 256) is None
    assert "resized from 512x512 to 256x256" in framing_note("source", (512, 512), 256)
    note = framing_note("driving", (480, 640), 256)
    assert "640x480 is not square" in note and "480x480" in note


def test_frame_at_equals_the_streamed_frame(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving_frames(6))
    for index, frame in enumerate(VideoReader(clip)):
        np.testing.assert_array_equal(frame_at(clip, index), frame)
    with pytest.raises(MediaError, match="frame number 6"):
        frame_at(clip, 6)


def test_still_or_first_frame_reads_both(tmp_path):
    frames = moving_frames(3)
    write_image(tmp_path / "still.png", frames[1])
    np.testing.assert_array_equal(still_or_first_frame(tmp_path / "still.png"), frames[1])
    clip = write_clip(tmp_path / "clip.mp4", frames)
    np.testing.assert_array_equal(still_or_first_frame(clip), frame_at(clip, 0))


def test_held_frames_repeats_the_last(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving_frames(3))
    stored = list(VideoReader(clip))
    held = held_frames(clip)
    for index in range(7):
        number, frame = next(held)
        assert number == min(index, 2)
        np.testing.assert_array_equal(frame, stored[number])


def test_check_output_protects_what_exists(tmp_path):
    source = tmp_path / "a.mp4"
    source.write_bytes(b"x")
    with pytest.raises(ArgumentError, match="differ from the inputs"):
        check_output(tmp_path / "." / "a.mp4", (source,))
    with pytest.raises(ArgumentError, match="video or a folder"):
        check_output(tmp_path / "out.wmv", (source,))
    with pytest.raises(ArgumentError, match="new or empty"):
        check_output(tmp_path, (source,))
    with pytest.raises(ArgumentError, match="existing folder"):
        check_output(tmp_path / "absent" / "out.mp4", (source,))
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    with pytest.raises(ArgumentError, match="broken link"):
        check_output(tmp_path / "link", (source,))
    for fine in ("out.mp4", "OUT.MP4", "pictures"):
        check_output(tmp_path / fine, (source,))


def test_check_output_says_what_the_command_accepts(tmp_path):
    with pytest.raises(ArgumentError, match=r"be a video or a folder.*End it in \.mp4,"):
        check_output(tmp_path / "out.png", ())
    with pytest.raises(ArgumentError, match=r"a picture, a video or a folder.*\.png.*\.mp4"):
        check_output(tmp_path / "out.gif", (), pictures=True)
    check_output(tmp_path / "out.png", (), pictures=True)
    (tmp_path / "out.png").mkdir()
    check_output(tmp_path / "out.png", ())  # an empty folder, whatever its name
    assert is_picture(tmp_path / "out.PNG") and not is_picture(tmp_path / "out.png")


@pytest.mark.parametrize("name", ["x.png", "x.mp4", "x"])
def test_check_output_refuses_what_cannot_be_written(tmp_path, name, monkeypatch):
    if Path("/proc/self").exists():  # where even root creates no file
        with pytest.raises(ArgumentError, match="be writable"):
            check_output(Path("/proc") / name, (), pictures=True)
    if name == "x":
        (tmp_path / name).mkdir()
    check_output(tmp_path / name, (), pictures=True)
    assert not list(tmp_path.rglob("*.partial"))  # what was tried is gone
    asked = []

    def full(**where):
        asked.append(where["dir"])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(clips.tempfile, "NamedTemporaryFile", full)
    with pytest.raises(ArgumentError, match="No space left"):
        check_output(tmp_path / name, (), pictures=True)
    assert asked == [tmp_path / name if name == "x" else tmp_path]


def test_open_sink_writes_a_folder_of_exact_pictures(tmp_path):
    frames = moving_frames(3)
    for name in ("new", "empty"):
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        with open_sink(folder, fps=25, size=(SIDE, SIDE), audio_from=None) as sink:
            for frame in frames:
                sink.write(frame)
        assert [path.name for path in sorted(folder.iterdir())] == [
            f"frame_{index:06d}.png" for index in range(3)
        ]
        for index, frame in enumerate(frames):
            np.testing.assert_array_equal(read_image(folder / f"frame_{index:06d}.png"), frame)


@pytest.mark.parametrize("kind", ["link", "here", "named.mp4"])
def test_open_sink_fills_folders_that_cannot_be_replaced(tmp_path, kind, monkeypatch):
    real = tmp_path / "real"
    real.mkdir()
    output = real
    if kind == "here":
        monkeypatch.chdir(real)
        output = Path(".")
    else:
        output = tmp_path / kind
        output.symlink_to(real)
    check_output(output, ())
    frames = moving_frames(2)
    with (
        pytest.raises(RuntimeError),
        open_sink(output, fps=25, size=(SIDE, SIDE), audio_from=None) as sink,
    ):
        sink.write(frames[0])
        raise RuntimeError
    assert list(real.iterdir()) == []
    with open_sink(output, fps=25, size=(SIDE, SIDE), audio_from=None) as sink:
        for frame in frames:
            sink.write(frame)
    assert sorted(path.name for path in real.iterdir()) == [
        f"frame_{index:06d}.png" for index in range(2)
    ]
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(read_image(real / f"frame_{index:06d}.png"), frame)


@pytest.mark.parametrize("name", ["new", "empty"])
def test_open_sink_keeps_finished_frames_that_find_no_place(tmp_path, name):
    folder = tmp_path / name
    if name == "empty":
        folder.mkdir()
    with (
        pytest.raises(MediaError) as caught,
        open_sink(folder, fps=25, size=(SIDE, SIDE), audio_from=None) as sink,
    ):
        sink.write(moving_frames(1)[0])
        folder.mkdir(exist_ok=True)
        (folder / "frame_000000.png").write_bytes(b"another's")
    (kept,) = (path for path in tmp_path.rglob("frame_000000.png") if path.parent != folder)
    assert f"take them from {kept.parent}." in str(caught.value)
    np.testing.assert_array_equal(read_image(kept), moving_frames(1)[0])
    assert (folder / "frame_000000.png").read_bytes() == b"another's"


def test_open_sink_writes_one_picture(tmp_path):
    frames, output = moving_frames(2), tmp_path / "still.png"
    with open_sink(output, fps=25, size=(SIDE, SIDE), audio_from=None) as sink:
        sink.write(frames[1])
        assert not output.exists()
    np.testing.assert_array_equal(read_image(output), frames[1])
    with (
        pytest.raises(MediaError, match="take one frame"),
        open_sink(output, fps=25, size=(SIDE, SIDE), audio_from=None) as sink,
    ):
        for frame in frames:
            sink.write(frame)
    np.testing.assert_array_equal(read_image(output), frames[1])


@pytest.mark.parametrize("name", ["pictures", "video.mp4", "still.png"])
def test_open_sink_leaves_nothing_after_an_error(tmp_path, name):
    with (
        pytest.raises(RuntimeError),
        open_sink(tmp_path / name, fps=25, size=(SIDE, SIDE), audio_from=None) as sink,
    ):
        sink.write(moving_frames(1)[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
