"""Images of every kind become upright uint8 RGB, or one line of complaint."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from talking_heads_jax.errors import MediaError
from talking_heads_jax.media.image import decode_image, encode_image, read_image, write_image
from talking_heads_jax.media.limits import MediaLimits


def picture(height: int = 20, width: int = 30) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 5, columns * 4, rows + columns], -1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".webp"])
def test_write_then_read_image(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", picture())
    read = read_image(tmp_path / f"a{suffix}")
    assert read.dtype == np.uint8 and read.shape == (20, 30, 3)
    error = np.abs(read.astype(int) - picture()).max()
    assert error == 0 if suffix in (".png", ".bmp") else error < 24  # lossy, colour subsampled


def test_read_image_goes_by_content_not_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture())
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert np.array_equal(read_image(tmp_path / "a.jpg"), picture())


def test_read_image_converts_every_mode_to_rgb(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    path = tmp_path / "a.png"
    Image.fromarray(grey).save(path)
    assert np.array_equal(read_image(path), np.repeat(grey[..., None], 3, -1))
    # 16 bits: v * 257 is the exact stretch of an 8-bit value.
    Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    assert np.array_equal(read_image(path), np.repeat(grey[..., None], 3, -1))
    alpha = np.dstack([picture(), np.full((20, 30), 7, np.uint8)])
    Image.fromarray(alpha).save(path)
    assert np.array_equal(read_image(path), picture())
    Image.fromarray(np.dstack([grey, grey])).save(path)
    assert np.array_equal(read_image(path), np.repeat(grey[..., None], 3, -1))
    Image.fromarray(grey > 40).save(path)
    assert set(np.unique(read_image(path))) == {0, 255}
    Image.fromarray(picture()).quantize(16).save(path, transparency=0)
    assert read_image(path).shape == (20, 30, 3)
    Image.fromarray(picture()).convert("CMYK").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg").shape == (20, 30, 3)


def test_read_image_applies_exif_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture must be turned clockwise
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(picture(), -1))


def bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


@pytest.mark.parametrize("side", [9_000, 12_000, 60_000])
def test_read_image_refuses_bombs_by_their_header(side: int) -> None:
    # 81 million pixels, above Pillow's warning and above Pillow's error: one answer for all.
    with pytest.raises(MediaError, match="pixels"):
        decode_image(bomb(side, side))


def test_read_image_obeys_the_limit_given(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture())
    with pytest.raises(MediaError, match="599 pixels"):
        read_image(tmp_path / "a.png", MediaLimits(max_pixels=599))
    assert read_image(tmp_path / "a.png", MediaLimits(max_pixels=600)).shape == (20, 30, 3)


def test_read_image_refuses_broken_files_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    good = encode_image(picture(200, 300), "jpeg")
    for data in (b"", b"text", good[:2000], encode_image(picture(), "png")[:60]):
        path.write_bytes(data)
        with pytest.raises(MediaError, match=r"broken\.png") as caught:
            read_image(path)
        assert "\n" not in str(caught.value)
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(MediaError):
            read_image(missing)


def test_write_image_keeps_the_old_file_when_it_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, picture())
    with pytest.raises(MediaError, match="uint8"):
        write_image(path, picture().astype(np.float32))
    with pytest.raises(MediaError, match="end in"):
        write_image(tmp_path / "a.tiff", picture())
    assert np.array_equal(read_image(path), picture())
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_encode_image_png_is_exact_and_jpeg_close() -> None:
    assert np.array_equal(decode_image(encode_image(picture(), "png")), picture())
    close = decode_image(encode_image(picture(), "jpeg")).astype(int)
    # Quality 95 without colour subsampling on a ramp.
    assert np.abs(close - picture()).max() <= 8
