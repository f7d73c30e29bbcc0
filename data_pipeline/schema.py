"""The record of one frame and the clip table beside it: fields, units, version.

A data set on disk is a folder with `records/` (array_record shards written through TFDS, one record
per frame, the frames of a clip one after another), `clips.json` (the clip table),
`manifest.json` (what became of every source) and, where records hold vertices, `mesh.npz` (see
`data_pipeline.mesh`). Pixel coordinates: x right, y down, pixel (i, j) covers
[j, j+1) x [i, i+1). Letters: h w image, v vertices.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from talking_heads_jax.errors import DataError, check_file, requirement
from talking_heads_jax.serialization.atomic_file import replace_text

#: Version of the record and of the clip table; readers refuse what they do not know.
SCHEMA_VERSION = 2
#: Version 1 lacks the fields from `morphable` on; nothing else changed.
READABLE_VERSIONS = (1, SCHEMA_VERSION)

CLIP_TABLE = "clips.json"
MANIFEST = "manifest.json"
RECORDS = "records"
#: `probe` trains and tests the evaluation's own network; `extrapolation` shows the people of `test`
#: turned further than anybody in `train`.
SPLITS = ("train", "val", "test", "probe", "extrapolation")

#: Height and width of the images of a data set: what `prepare` offers and readers accept.
SMALLEST_SIZE, LARGEST_SIZE = 8, 4096
IMAGE_FORMATS = ("jpeg", "png")

_MAX_JSON_BYTES = 1 << 30  # a clip table of five million clips
_MAX_LENGTH = 1 << 40  # records of a clip
_MAX_EXTENT = 1 << 20  # vertices or coefficients of a face model


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the record.

    Attributes:
      dtype: numpy's name, 'str', or 'image' and 'mask' for encoded bytes.
      shape: of one record; 'size' is the side of the images, and None depends on the morphable
        model: the clip table states it.
      meaning: unit and frame of reference.
      optional: whether a data set may lack it; then no record has it.
      stored: how the bytes of a large array lie on disk: 'float16' (rounded), 'float16 deflated',
        or 'float32 deflated' (rounded to 16 significant bits, deflated); '' for as it is.
    """

    dtype: str
    shape: tuple[int | str | None, ...]
    meaning: str
    optional: bool = False
    stored: str = ""

    @property
    def packed(self) -> bool:
        """Whether a record holds it as bytes that `records` decodes."""
        return bool(self.stored) or self.dtype in ("image", "mask")


FIELDS: Mapping[str, Field] = {
    "image": Field("image", (), "jpeg or png bytes of the crop, size x size, RGB"),
    "clip_id": Field("str", (), "path of the clip below the source folder"),
    "identity_id": Field("str", (), "who is shown"),
    "frame_index": Field("int64", (), "number of the frame in the original clip"),
    "source_box_px": Field("float32", (4,), "x0 y0 x1 y1 of the crop in the original frame"),
    "crop_matrix": Field("float32", (2, 3), "affine map from original px to crop px"),
    "landmarks68_px": Field("float32", (68, 2), "x y in crop px, Multi-PIE order", True),
    "landmarks68_visible": Field("uint8", (68,), "1 where the landmark is seen", True),
    "angles": Field("float32", (3,), "yaw, pitch, roll in radians", True),
    "mask": Field("mask", (), "png bytes, size x size, 0 background, else a class", True),
    "morphable": Field("str", (), "the face model that the next fields belong to", True),
    "shape_coeffs": Field("float32", (None,), "of the face model", True),
    "expression_coeffs": Field("float32", (None,), "of the face model", True),
    "joint_pose": Field("float32", (None,), "axis-angle of each joint in turn, radians", True),
    "vertices": Field(
        "float32",
        (None, 3),
        "x y in crop px, z in the same scale (smaller is nearer)",
        True,
        stored="float16",
    ),
    "camera25": Field("float32", (25,), "EG3D's cam2world (4 4) and intrinsics (3 3)", True),
    "depth": Field(
        "float32", ("size", "size"), "along the camera's axis", True, stored="float32 deflated"
    ),
    "normals": Field(
        "float32",
        ("size", "size", 3),
        "unit vectors, 0 for background",
        True,
        stored="float16 deflated",
    ),
    "flow_to_next_px": Field(
        "float32",
        ("size", "size", 2),
        "where a pixel is in the clip's next frame, minus here, px; NaN in its last frame",
        True,
        stored="float16 deflated",
    ),
    "schema_version": Field("int64", (), "version of this record"),
}
OPTIONAL_FIELDS = tuple(name for name, field in FIELDS.items() if field.optional)


@dataclasses.dataclass(frozen=True)
class ClipEntry:
    """A row of the clip table.

    Attributes:
      clip_id: as in its records.
      identity_id: as in its records.
      first_record: number of the clip's first record within its split.
      length: number of records, which follow each other in time.
      fps: frames per second of the records, after any stride.
    """

    clip_id: str
    identity_id: str
    first_record: int
    length: int
    fps: float


@dataclasses.dataclass(frozen=True)
class ClipTable:
    """Everything a reader must know before it opens a record.

    Attributes:
      size: height and width of the images.
      image_format: 'jpeg' or 'png'.
      fields: names of the fields every record has.
      splits: the clips of each split, in the order of their records.
      shapes: of the fields whose shape depends on the face model.
      mesh_sha256: of `mesh.npz`; empty for a data set without it.
      schema_version: of the records.
    """

    size: int
    image_format: str
    fields: tuple[str, ...]
    splits: Mapping[str, tuple[ClipEntry, ...]]
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    mesh_sha256: str = ""
    schema_version: int = SCHEMA_VERSION

    def num_records(self, split: str) -> int:
        """Returns the number of records of a split, 0 for one that does not exist."""
        return sum(clip.length for clip in self.splits.get(split, ()))


def check_version(what: str, version: object) -> None:
    """Raises if a record or table was written by another version of the schema.

    Args:
      what: the file, as the user knows it.
      version: the version it states.

    Raises:
      DataError: with the remedy, which differs for newer and older versions.
    """
    if type(version) is int and version in READABLE_VERSIONS:
        return
    newer = isinstance(version, int) and version > SCHEMA_VERSION
    remedy = "Update talking_heads_jax." if newer else "Prepare the data again."
    known = " or ".join(map(str, READABLE_VERSIONS))
    raise DataError(requirement(f"{what}", f"have schema_version {known}", version, remedy))


def field_shape(name: str, size: int, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Returns the shape of a numeric field in the records of a data set.

    Args:
      name: of the field.
      size: height and width of the images.
      shapes: of the clip table.

    Raises:
      KeyError: the shape depends on the face model and `shapes` lacks it.
    """
    shape = FIELDS[name].shape
    if None in shape:
        return tuple(shapes[name])
    return tuple(size if extent == "size" else extent for extent in shape)


def write_clip_table(folder: Path, table: ClipTable) -> None:
    """Writes `clips.json`.

    Args:
      folder: the data set.
      table: what to write.
    """
    content = {
        "schema_version": table.schema_version,
        "size": table.size,
        "image_format": table.image_format,
        "fields": list(table.fields),
        "splits": {
            split: [dataclasses.asdict(clip) for clip in clips]
            for split, clips in table.splits.items()
        },
    }
    if table.shapes:
        content["shapes"] = {name: list(shape) for name, shape in table.shapes.items()}
    if table.mesh_sha256:
        content["mesh_sha256"] = table.mesh_sha256
    write_json(folder / CLIP_TABLE, content)


def read_clip_table(folder: Path) -> ClipTable:
    """Reads and checks `clips.json`.

    Args:
      folder: the data set.

    Returns:
      The table.

    Raises:
      DataError: it is missing, damaged, or of another version.
    """
    path = folder / CLIP_TABLE
    if not path.is_file():
        unfinished = (folder / MANIFEST).is_file()
        remedy = (
            "Its preparation did not finish: run the same command again."
            if unfinished
            else "Make it with `talking-heads prepare VIDEOS --output DATA`."
        )
        raise DataError(requirement("The data set", f"hold {CLIP_TABLE}", f"{folder}", remedy))
    content = read_json(path)
    check_version(f"{path}", content.get("schema_version"))
    try:
        table = _parsed_table(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            requirement(f"{path}", "be a clip table", f"{error!r}", "Prepare the data again.")
        ) from error
    for split, clips in table.splits.items():
        expected = 0
        for clip in clips:
            if clip.first_record != expected or clip.length < 1:
                raise DataError(
                    requirement(
                        f"{path}",
                        f"list the records of {split} without gaps",
                        clip.clip_id,
                        "Prepare the data again.",
                    )
                )
            expected += clip.length
    return table


def _parsed_table(content: Mapping[str, Any]) -> ClipTable:
    """The table that JSON values describe; every field is of its type and in its range."""
    size, fields = content["size"], tuple(content["fields"])
    if type(size) is not int or not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise ValueError(f"size {size!r}")
    if content["image_format"] not in IMAGE_FORMATS:
        raise ValueError(f"image_format {content['image_format']!r}")
    required = {name for name, field in FIELDS.items() if not field.optional}
    if not required <= set(fields) <= set(FIELDS):
        raise ValueError(f"fields {fields!r}")
    splits = {}
    for split, rows in content["splits"].items():
        if split not in SPLITS:
            raise ValueError(f"split {split!r}")
        splits[split] = clips = tuple(ClipEntry(**row) for row in rows)
        for clip in clips:
            named = type(clip.clip_id) is str and type(clip.identity_id) is str
            numbers = (clip.first_record, clip.length)
            counted = all(type(n) is int and 0 <= n <= _MAX_LENGTH for n in numbers)
            if not named or not counted or type(clip.fps) not in (int, float):
                raise ValueError(f"clip {clip!r}")
            if not 0 < clip.fps < float("inf"):
                raise ValueError(f"fps {clip.fps!r}")
    shapes = _parsed_shapes(content.get("shapes", {}), fields)
    mesh = content.get("mesh_sha256", "")
    if type(mesh) is not str or (mesh and not re.fullmatch(r"[0-9a-f]{64}", mesh)):
        raise ValueError(f"mesh_sha256 {mesh!r}")
    version = content["schema_version"]
    return ClipTable(size, content["image_format"], fields, splits, shapes, mesh, version)


def _parsed_shapes(content: Any, fields: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """One shape for each field that depends on the face model, and for no other."""
    wanted = {name for name in fields if None in FIELDS[name].shape}
    if not isinstance(content, dict) or set(content) != wanted:
        raise ValueError(f"shapes {content!r} for the fields {sorted(wanted)}")
    for name, shape in content.items():
        pattern = FIELDS[name].shape
        fits = isinstance(shape, list) and len(shape) == len(pattern)
        fits = fits and all(
            type(extent) is int and (extent == known if known else 0 < extent <= _MAX_EXTENT)
            for extent, known in zip(shape, pattern, strict=True)
        )
        if not fits:
            raise ValueError(f"shape of {name} {shape!r}")
    return {name: tuple(shape) for name, shape in content.items()}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON under a temporary name and renames it, so that no reader sees half a file.

    Args:
      path: the file.
      content: what to write.
    """
    replace_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      path: the file.

    Returns:
      The object.

    Raises:
      DataError: it cannot be read, or is something else.
    """
    check_file(path, DataError, max_bytes=_MAX_JSON_BYTES)
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            requirement(f"{path}", "be readable JSON", error, "Repair or remove it.")
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            requirement(f"{path}", "hold a JSON object", type(content).__name__, "Repair it.")
        )
    return content
