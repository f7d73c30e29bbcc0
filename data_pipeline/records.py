"""One record: TFDS features to write it, and its decoded form. Letters: h w image."""

import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_pipeline.schema import FIELDS, check_version
from talking_heads_jax.errors import DataError, requirement


class Record(NamedTuple):
    """A frame as the pipeline hands it on.

    Attributes:
      image: uint8 (h w 3) RGB.
      clip_id: the clip.
      identity_id: who is shown.
      frame_index: number of the frame in the original clip.
      source_box_px: float32 (4) x0 y0 x1 y1 in the original frame.
      crop_matrix: float32 (2 3) original px to crop px.
      landmarks68_px: float32 (68 2) in crop px, or None; NaN for clips that have none.
      landmarks68_visible: uint8 (68), or None.
      angles: float32 (3) yaw, pitch, roll in radians, or None; NaN for clips that have none.
      mask: uint8 (h w) classes, 0 for background, or None; all 0 for clips that have none.
    """

    image: np.ndarray
    clip_id: str
    identity_id: str
    frame_index: int
    source_box_px: np.ndarray
    crop_matrix: np.ndarray
    landmarks68_px: np.ndarray | None = None
    landmarks68_visible: np.ndarray | None = None
    angles: np.ndarray | None = None
    mask: np.ndarray | None = None


def tfds_features(fields: Iterable[str], size: int, image_format: str) -> Any:
    """Returns the TFDS feature dictionary of a data set.

    Args:
      fields: names out of `schema.FIELDS`.
      size: height and width of the images.
      image_format: 'jpeg' or 'png'.

    Returns:
      A `tfds.features.FeaturesDict`.
    """
    import tensorflow_datasets as tfds

    def feature(name: str) -> Any:
        field = FIELDS[name]
        if field.dtype == "image":
            return tfds.features.Image(shape=(size, size, 3), encoding_format=image_format)
        if field.dtype == "mask":
            return tfds.features.Image(shape=(size, size, 1), encoding_format="png")
        if field.dtype == "str":
            return tfds.features.Text()
        if field.shape:
            return tfds.features.Tensor(shape=field.shape, dtype=np.dtype(field.dtype))
        return tfds.features.Scalar(np.dtype(field.dtype))

    return tfds.features.FeaturesDict({name: feature(name) for name in fields})


def decode_record(
    example: Mapping[str, Any], size: int, what: str, *, resolution: int | None = None
) -> Record:
    """Decodes a record whose image is still encoded.

    Args:
      example: field name to value, as TFDS delivers it with the image left alone.
      size: height and width the image must have.
      what: how a message names the record.
      resolution: height and width to deliver, at most `size`; shrunk with Pillow's BILINEAR, which
        is antialiased. The crop matrix and the landmarks follow.

    Returns:
      The record.

    Raises:
      DataError: another schema version, or an image that is damaged or of another size (which its
        header tells: it is not decoded).
    """
    check_version(what, int(example["schema_version"]))
    resolution = resolution or size
    ratio = np.float32(resolution / size)
    landmarks = example.get("landmarks68_px")
    return Record(
        image=_decode_image(example["image"], size, resolution, what),
        clip_id=_text(example["clip_id"]),
        identity_id=_text(example["identity_id"]),
        frame_index=int(example["frame_index"]),
        source_box_px=example["source_box_px"],
        crop_matrix=example["crop_matrix"] * ratio,
        landmarks68_px=None if landmarks is None else landmarks * ratio,
        landmarks68_visible=example.get("landmarks68_visible"),
        angles=example.get("angles"),
        mask=_decode_mask(example.get("mask"), size, resolution, what),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _decode_mask(data: bytes | None, size: int, resolution: int, what: str) -> np.ndarray | None:
    if data is None:
        return None
    return _decode_image(data, size, resolution, f"{what}: mask", "L", Image.Resampling.NEAREST)


def _decode_image(
    data: bytes,
    size: int,
    resolution: int,
    what: str,
    mode: str = "RGB",
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> np.ndarray:
    try:
        picture = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if picture.size == (size, size):
            picture = picture.convert(mode)
            if resolution != size:
                picture = picture.resize((resolution, resolution), resampling)
            return np.asarray(picture)
        found: object = picture.size
    except Image.DecompressionBombError as error:  # by its header: nothing was decoded
        found = error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        found = getattr(error, "strerror", None) or error
    raise DataError(
        requirement(what, f"hold a {size} x {size} image", found, "Prepare the data again.")
    )
