"""Files that claim to be what they are not: a few hundred bytes each, made by hand."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from tests.media.video_files import moving_frames, write_clip


def png_of_claimed_size(path: Path, width: int, height: int) -> Path:
    """A png whose header states a size that its few bytes of data do not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return path


def jpeg_of_claimed_size(width: int, height: int) -> bytes:
    """A jpeg of 16 x 16 whose frame header states another size."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def text_file(path: Path) -> None:
    path.write_text("not a video\n" * 50)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def no_frames(path: Path) -> None:
    """An mp4 with a video stream that holds nothing."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()


def gif_of_claimed_size(path: Path, width: int, height: int) -> None:
    """A gif of three single pixels, whose header states the size of the canvas."""
    images = [Image.new("P", (1, 1), shade) for shade in (0, 100, 200)]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=40)
    data = bytearray(path.read_bytes())
    data[6:10] = struct.pack("<HH", width, height)
    path.write_bytes(data)


def truncated_video(path: Path) -> None:
    write_clip(path, moving_frames(6))
    path.write_bytes(path.read_bytes()[:-300])


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def concat_script(path: Path) -> None:
    path.write_text("ffconcat version 1.0\nfile /etc/passwd\n")


def session_description(path: Path) -> None:
    path.write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"
    )


def external_references(path: Path) -> None:
    """An mp4 without data whose samples lie, by its own account, in another file, a good one."""
    elsewhere = path.with_name("elsewhere.mp4")
    write_clip(elsewhere, moving_frames(6))
    data = elsewhere.read_bytes()
    own = b"\x00\x00\x00\x0curl \x00\x00\x00\x01"
    assert data.count(own) == 1
    address = f"file://{elsewhere}".encode() + b"\x00"
    other = struct.pack(">I", 12 + len(address)) + b"url \x00\x00\x00\x00" + address
    place = data.index(own)
    grown = bytearray(data.replace(own, other))
    for kind in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):  # they hold it
        start = data.rindex(kind, 0, place) - 4
        size = struct.unpack(">I", data[start : start + 4])[0]
        grown[start : start + 4] = struct.pack(">I", size + len(other) - len(own))
    start = grown.index(b"mdat") + 4
    size = struct.unpack(">I", grown[start - 8 : start - 4])[0] - 8
    grown[start : start + size] = bytes(size)
    path.write_bytes(grown)


def audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


#: What may stand where a video is wanted, by the name of the test case.
VIDEOS: dict[str, Callable[[Path], None]] = {
    "text": text_file,
    "empty": empty_file,
    "folder": folder,
    "pipe": pipe,
    "device": device,
    "no frames": no_frames,
    "1 x 1": lambda path: gif_of_claimed_size(path, 1, 1),
    "20000 x 20000": lambda path: gif_of_claimed_size(path, 20_000, 20_000),
    "truncated": truncated_video,
    "m3u8": playlist,
    "ffconcat": concat_script,
    "sdp": session_description,
    "external references": external_references,
    "sound only": audio_only,
    "missing": lambda path: None,
}

#: What may stand where a picture is wanted.
IMAGES: dict[str, Callable[[Path], None]] = {
    "text": text_file,
    "empty": empty_file,
    "folder": folder,
    "pipe": pipe,
    "device": device,
    "1 x 1": lambda path: Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(path, "PNG"),
    "20000 x 20000 png": lambda path: png_of_claimed_size(path, 20_000, 20_000),
    "20000 x 20000 jpeg": lambda path: path.write_bytes(jpeg_of_claimed_size(20_000, 20_000)),
    "missing": lambda path: None,
}

#: Names that must not reach a terminal as they are; \udcff is a byte that is not UTF-8.
NAMES = ["line\nbreak", "\x1b[31mred", "bell\a", "\u202eright", "not\udcffutf8"]
