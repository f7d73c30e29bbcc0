"""One record: TFDS features to write it, and its decoded form. Letters: h w image, v vertices."""

import io
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_pipeline.schema import FIELDS, check_version, field_shape
from talking_heads_jax.errors import DataError, requirement

_DROPPED_BITS = 8  # of float32's mantissa of 23, where a field is stored rounded


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
      morphable: the face model of the next four fields, or None; '' for clips that have none, as
        the fields below are NaN for them.
      shape_coeffs: float32 (d) of the face model, or None.
      expression_coeffs: float32 (d) of the face model, or None.
      joint_pose: float32 (3 per joint) axis-angle, radians, or None.
      vertices: float32 (v 3) x, y in crop px, z in the same scale (smaller is nearer), or None.
      camera25: float32 (25) EG3D's cam2world (4 4) and intrinsics (3 3), or None.
      depth: float32 (h w) along the camera's axis, or None.
      normals: float32 (h w 3) unit vectors, or None.
      flow_to_next_px: float32 (h w 2) to the clip's next frame, or None; NaN in its last one.
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
    morphable: str | None = None
    shape_coeffs: np.ndarray | None = None
    expression_coeffs: np.ndarray | None = None
    joint_pose: np.ndarray | None = None
    vertices: np.ndarray | None = None
    camera25: np.ndarray | None = None
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None
    flow_to_next_px: np.ndarray | None = None


def tfds_features(
    fields: Iterable[str],
    size: int,
    image_format: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Any:
    """Returns the TFDS feature dictionary of a data set.

    Args:
      fields: names out of `schema.FIELDS`.
      size: height and width of the images.
      image_format: 'jpeg' or 'png'.
      shapes: of the fields whose shape depends on the face model.

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
            shape = field_shape(name, size, shapes or {})
            dtype, _, deflated = (field.stored or field.dtype).partition(" ")
            encoding = "zlib" if deflated else "bytes" if field.stored else "none"
            return tfds.features.Tensor(shape=shape, dtype=np.dtype(dtype), encoding=encoding)
        return tfds.features.Scalar(np.dtype(field.dtype))

    return tfds.features.FeaturesDict({name: feature(name) for name in fields})


def round_for_storage(name: str, values: np.ndarray, size: int) -> np.ndarray:
    """Returns a field as it lies on disk, ready for TFDS.

    Args:
      name: of a field that is stored otherwise than in memory.
      values: float32, one record or several.
      size: height and width of the images; vertices are stored relative to their centre, where
        float16 is finest: it errs by 1/32 px at most up to 256 px, 1/16 px up to 512.
    """
    values = np.asarray(values, np.float32)
    if name == "vertices":
        values = values - _centre(size)
    if FIELDS[name].stored.startswith("float16"):
        limit = np.finfo(np.float16).max
        finite = np.clip(values, -limit, limit)
        return np.where(np.isinf(values), values, finite).astype(np.float16)
    # Rounded to nearest by carrying into the bits that stay; infinity and NaN are kept as they are.
    half = np.uint32(1 << (_DROPPED_BITS - 1))
    keep = np.uint32(0xFFFFFFFF << _DROPPED_BITS & 0xFFFFFFFF)
    bits = np.ascontiguousarray(values).view(np.uint32)
    return np.where(np.isfinite(values), ((bits + half) & keep).view(np.float32), values)


def _centre(size: int) -> np.ndarray:
    return np.array([size / 2, size / 2, 0], np.float32)


def decode_record(
    example: Mapping[str, Any],
    size: int,
    what: str,
    *,
    resolution: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Record:
    """Decodes a record whose packed fields are still encoded.

    Args:
      example: field name to value, as TFDS delivers it with the packed fields left alone; an
        optional field that is not there becomes None.
      size: height and width the image must have.
      what: how a message names the record.
      resolution: height and width to deliver, at most `size`; shrunk with Pillow's BILINEAR, which
        is antialiased. All that is in pixels follows; masks, depth, normals and flow are picked at
        the nearest pixel.
      shapes: of the fields whose shape depends on the face model.

    Returns:
      The record.

    Raises:
      DataError: another schema version, an image that is damaged or of another size (which its
        header tells: it is not decoded), or an array of another length.
    """
    check_version(what, int(example["schema_version"]))
    resolution = resolution or size
    ratio = np.float32(resolution / size)
    landmarks = example.get("landmarks68_px")
    stored = {
        name: _unpack(example[name], name, size, shapes or {}, what)
        for name, field in FIELDS.items()
        if field.stored and name in example
    }
    if "vertices" in stored:
        stored["vertices"] = (stored["vertices"] + _centre(size)) * ratio
    for name in ("depth", "normals", "flow_to_next_px"):
        if name in stored and resolution != size:
            stored[name] = _nearest(stored[name], resolution)
    if "flow_to_next_px" in stored:
        stored["flow_to_next_px"] = stored["flow_to_next_px"] * ratio
    names = ("shape_coeffs", "expression_coeffs", "joint_pose", "camera25")
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
        morphable=_text(example["morphable"]) if "morphable" in example else None,
        **{name: example.get(name) for name in names},
        **stored,
    )


def _unpack(
    data: bytes, name: str, size: int, shapes: Mapping[str, tuple[int, ...]], what: str
) -> np.ndarray:
    """float32 values of bytes that must be exactly as long as the field's shape says."""
    shape = field_shape(name, size, shapes)
    dtype, _, deflated = FIELDS[name].stored.partition(" ")
    length = int(np.prod(shape)) * np.dtype(dtype).itemsize
    try:
        if deflated:  # at most one byte more than it should hold: what it claims is not believed
            data = zlib.decompressobj().decompress(data, length + 1)
    except zlib.error as error:
        got: object = error
    else:
        if len(data) == length:
            return np.frombuffer(data, dtype).reshape(shape).astype(np.float32)
        got = f"{len(data)} bytes"
    raise DataError(
        requirement(f"{what}: {name}", f"hold {length} bytes", got, "Make the data set again.")
    )


def _nearest(values: np.ndarray, resolution: int) -> np.ndarray:
    """Every pixel's value at its centre: what Pillow's NEAREST does for masks."""
    size = len(values)
    places = ((np.arange(resolution) + 0.5) * size / resolution).astype(np.int64)
    return values[places][:, places]


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
