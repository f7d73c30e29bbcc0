"""Still images as uint8 RGB: bounds are checked before decoding, an old file is never lost.

Letters: h w image.
"""

import io
import os
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from talking_heads_jax.errors import MediaError, check_choice, check_file, requirement
from talking_heads_jax.media.limits import DEFAULT_LIMITS, MediaLimits

#: File name endings that `prepare` takes for images.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

# Pillow's own limit on pixels is one number of the process.
_PILLOW_LIMIT = threading.Lock()
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_WRITTEN = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def read_image(path: str | os.PathLike[str], limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Reads a png, jpg, webp or bmp file as upright 8-bit RGB.

    Grey becomes three equal channels, alpha is dropped (as the official demos do), 16 bits are
    reduced to 8, palettes and CMYK are converted, the EXIF orientation is applied.

    Args:
      path: the file, whatever its name.
      limits: what is refused, before anything is decoded.

    Returns:
      uint8 (h w 3).

    Raises:
      MediaError: the file is missing, empty, damaged, too large, or of another format.
    """
    path = Path(path)
    check_file(path, MediaError)
    try:
        with path.open("rb") as file:
            return _read(file, f"{path}", limits)
    except OSError as error:
        raise MediaError(
            requirement(f"{path}", "be a readable file", error.strerror or error, "Check the path.")
        ) from error


def decode_image(
    data: bytes, limits: MediaLimits = DEFAULT_LIMITS, *, what: str = "An encoded image"
) -> np.ndarray:
    """Decodes the bytes of a png, jpg, webp or bmp file; as `read_image`.

    Args:
      data: the encoded image.
      limits: what is refused, before anything is decoded.
      what: how a message names the image.

    Returns:
      uint8 (h w 3).

    Raises:
      MediaError: the bytes are damaged, too large, or of another format.
    """
    return _read(io.BytesIO(data), what, limits)


def encode_image(image: np.ndarray, image_format: str, *, quality: int = 95) -> bytes:
    """Encodes uint8 (h w 3) RGB as png or jpeg bytes.

    Args:
      image: uint8 (h w 3).
      image_format: 'png' or 'jpeg'.
      quality: of jpeg, 1 to 100; colour is not subsampled from 95 on.

    Returns:
      The bytes of the file.

    Raises:
      ArgumentError: an unknown format.
    """
    check_choice("image_format", image_format, ("png", "jpeg"))
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if image_format == "png":
        picture.save(buffer, "PNG", compress_level=4)
    else:
        picture.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 95 else 2)
    return buffer.getvalue()


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Writes uint8 (h w 3), or (h w) grey, by the ending of the name; replaces the file at the end.

    Args:
      path: ends in .png, .jpg, .jpeg, .webp or .bmp.
      image: uint8 (h w 3) RGB or (h w).

    Raises:
      MediaError: another ending or dtype, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITTEN:
        raise MediaError(
            requirement(
                "The image's name", f"end in one of {sorted(_WRITTEN)}", path.name, "Rename it."
            )
        )
    if image.dtype != np.uint8:
        raise MediaError(
            requirement("An image", "be uint8", image.dtype, "Scale [0, 1] by 255 and round.")
        )
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"quality": 95} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}
        Image.fromarray(image).save(temporary, _WRITTEN[path.suffix.lower()], **options)
        temporary.replace(path)
    except OSError as error:
        raise MediaError(
            requirement(f"{path}", "be writable", error.strerror or error, "Check the folder.")
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _open(file: io.IOBase) -> Image.Image:
    """Reads the header only; the caller's limit is checked next, in place of Pillow's."""
    with _PILLOW_LIMIT:
        own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = own


def _read(file: io.IOBase, what: str, limits: MediaLimits) -> np.ndarray:
    remedy = "Use a png, jpg, webp or bmp file; save or download it again."
    try:
        picture = _open(file)
        limits.check_pixels(what, picture.height, picture.width)
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I") or picture.mode == "F":
            # Pillow clips 16-bit grey instead of scaling it.
            grey = np.clip(np.asarray(picture, np.float64) / 257.0, 0.0, 255.0)
            return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=-1)
        if picture.mode == "P" and "transparency" in picture.info:
            picture = picture.convert("RGBA")
        return np.asarray(picture.convert("RGB"))
    except MediaError:
        raise
    except UnidentifiedImageError as error:
        raise MediaError(requirement(what, "be an image", "other data", remedy)) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(requirement(what, "be a readable image", reason, remedy)) from error
