"""The data that GDPW's released code trains on, read into records.

    FOLDER/<person>/<video>/<clip>/NNNNNNN_img.jpg            the crop, 256 x 256 RGB
    FOLDER/<person>/<video>/<clip>/NNNNNNN_posed_vertx.lz4    the FLAME mesh fitted to it

An .lz4 file is one LZ4 frame: int32 code of the dtype (numpy's number), int32 number of axes, an
int32 length of each, and the array, all little-endian. Its x and y count from the *centre* of the
first pixel, as OpenCV does; ours count from its edge, half a pixel further. The released code
divides them by the width as they are, so that its meshes lie half a pixel up and to the left of the
picture. Its z is in half widths of the fitter's picture, ours in pixels. Letters: v vertices.
"""

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.mesh import mesh_of_model
from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from data_pipeline.preprocess.discovery import natural_key
from data_pipeline.preprocess.finishing import PrepareSummary
from data_pipeline.preprocess.staged_clips import MIN_FRAMES
from talking_heads_jax.errors import ArgumentError, DataError, check_file, requirement
from talking_heads_jax.media.image import read_image
from talking_heads_jax.morphable.base import MorphableModel

#: Side of the official crops, pixels.
OFFICIAL_SIDE = 256
_CENTRE = 0.5
# The fitter's square is 1.25 times the face, cut out at 224 px; the crop's is 1.35 times, spread
# over 255 px. Both sides are cut to whole pixels there, which is left out here (1 % of z at most,
# for faces of 80 px or more).
_Z_PX = 0.5 * (OFFICIAL_SIDE - 1) * 1.25 / 1.35

_IMAGE, _VERTICES = "_img.jpg", "_posed_vertx.lz4"
_NUMBERED = re.compile(r"(\d{1,12})" + re.escape(_IMAGE))
_DTYPES = {11: "<f4", 12: "<f8", 23: "<f2"}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MAX_VERTICES = 1 << 18
_FURTHEST = 1e6  # of any coordinate: what lies beyond is no mesh near a 256 px crop
_MAX_BYTES = 16 + 3 * 8 * _MAX_VERTICES


def pixels_from_official(vertices: np.ndarray) -> np.ndarray:
    """Official vertices in our convention; `official_from_pixels` turns them back exactly.

    Args:
      vertices: (... 3) x, y from the centre of the first pixel of the 256 px crop, z as stored.

    Returns:
      float64 (... 3): x, y in pixels, z in the same scale, smaller is nearer.
    """
    values = np.asarray(vertices, np.float64)
    return values * [1.0, 1.0, _Z_PX] + [_CENTRE, _CENTRE, 0.0]


def official_from_pixels(vertices: np.ndarray) -> np.ndarray:
    """Our vertices as the official files and converted checkpoints have them.

    Args:
      vertices: (... 3) x, y in pixels of a 256 px crop, z in the same scale.

    Returns:
      float32 (... 3).
    """
    values = np.asarray(vertices, np.float64) - [_CENTRE, _CENTRE, 0.0]
    return (values / [1.0, 1.0, _Z_PX]).astype(np.float32)


def read_official_vertices(path: Path) -> np.ndarray:
    """Reads a `posed_vertx.lz4` file; nothing in it is executed.

    Args:
      path: the file.

    Returns:
      (v 3) as stored, see `pixels_from_official`.

    Raises:
      ArgumentError: the package lz4 is not installed.
      DataError: the file is missing, damaged, too large, or holds something else.
    """
    path = Path(path)
    check_file(path, DataError, max_bytes=_MAX_BYTES)
    data = _decompressed(path)
    problem = f"{len(data)} bytes"
    if len(data) >= 16:
        code, axes, count, width = struct.unpack("<4i", data[:16])
        problem = f"dtype {code}, {axes} axes, {count} x {width}, {len(data)} bytes"
        dtype = _DTYPES.get(code)
        if dtype and axes == 2 and width == 3 and 0 < count <= _MAX_VERTICES:
            values = data[16:]
            if len(values) == 3 * count * np.dtype(dtype).itemsize:
                array = np.frombuffer(values, dtype).reshape(count, 3)
                if (np.abs(array.astype(np.float64)) <= _FURTHEST).all():
                    return array
                problem = f"nan, or a number beyond {_FURTHEST:g}"
    raise _refused(path, "hold finite floats (v, 3) behind their header", problem)


def write_official_vertices(path: Path, vertices: np.ndarray) -> None:
    """Writes a `posed_vertx.lz4` file that the released code reads.

    Args:
      path: the file.
      vertices: float16, float32 or float64 (v 3), see `official_from_pixels`.

    Raises:
      ArgumentError: the package lz4 is not installed, or the array is no mesh.
    """
    vertices = np.asarray(vertices)
    code = _CODES.get(vertices.dtype.newbyteorder("<").str)
    if code is None or vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ArgumentError(
            requirement(
                "vertices", "be floats (v, 3)", (vertices.dtype, vertices.shape), "Convert them."
            )
        )
    header = struct.pack("<4i", code, 2, *vertices.shape)
    content = np.ascontiguousarray(vertices, _DTYPES[code]).tobytes()
    Path(path).write_bytes(_lz4().compress(header + content))


def import_gdpw(
    folder: Path,
    output: Path,
    *,
    model: MorphableModel,
    size: int = OFFICIAL_SIDE,
    image_format: str = "jpeg",
    quality: int = 95,
    test_fraction: float = 0.0,
    split_seed: int = 0,
    progress: bool = True,
) -> PrepareSummary:
    """Writes official data in the form that training reads; continues what was interrupted.

    Images without a mesh are left out, and clips of fewer than two frames; the summary counts the
    first and names the second. Records store vertices rounded to 1/32 px.

    Args:
      folder: of persons, see the top of this file.
      output: the data set; new, empty, or begun by the same call.
      model: what the vertices are of; FLAME in the official data. It gives faces and mirror map.
      size: height and width of the images, at most 256.
      image_format: 'jpeg' or 'png'.
      quality: of jpeg.
      test_fraction: share of the people for the split `test`; the official folder of training data
        holds training people only.
      split_seed: chooses them.
      progress: shows a progress bar and prints the outcome.

    Raises:
      ArgumentError: a size that would enlarge, or lz4 is not installed.
      DataError: no clip, a damaged file, an image of another size, vertices of another mesh, or an
        output of other data: also of a folder whose clips had more or fewer frames.
    """
    _lz4()
    if not 0 < size <= OFFICIAL_SIDE:
        raise ArgumentError(
            requirement("size", f"lie in [1, {OFFICIAL_SIDE}]", size, "The crops have 256 px.")
        )
    found = find_official_clips(Path(folder))
    clips = found.images
    if not any(len(images) >= MIN_FRAMES for images in clips.values()):
        raise _refused(
            Path(folder), f"hold PERSON/VIDEO/CLIP/NNNNNNN{_IMAGE} with {_VERTICES} beside", "none"
        )
    counts = {name: len(clips[name]) for name in sorted(clips)}
    recipe = {"made_by": "import_gdpw", "morphable": model.name, "clips": counts}
    notes = []
    if found.without_mesh:
        total = found.without_mesh + sum(counts.values())
        notes.append(f"{found.without_mesh} of {total} images have no mesh ({_VERTICES})")

    def remaining(staged: frozenset[str]) -> Iterator[ClipFrames]:
        return (_read_clip(name, clips[name], model) for name in clips if name not in staged)

    read: Callable[[frozenset[str]], Iterator[ClipFrames]] = remaining
    return write_clips(
        output,
        read,
        size=size,
        recipe=recipe,
        image_format=image_format,
        quality=quality,
        test_fraction=test_fraction,
        split_seed=split_seed,
        mesh=mesh_of_model(model),
        total=len(clips),
        notes=notes,
        progress=progress,
    )


@dataclasses.dataclass(frozen=True)
class OfficialClips:
    """What lies below a folder.

    Attributes:
      images: PERSON/VIDEO/CLIP → the images that have a mesh, by their number; possibly none.
      without_mesh: how many further images there are.
    """

    images: dict[str, list[Path]]
    without_mesh: int


def find_official_clips(folder: Path) -> OfficialClips:
    """All clips below a folder, those that are too short for training, too.

    Args:
      folder: of persons.
    """
    clips: dict[str, list[Path]] = {}
    without_mesh = 0
    for path in folder.glob(f"*/*/*/*{_IMAGE}"):
        if not _NUMBERED.fullmatch(path.name):
            continue
        images = clips.setdefault(path.parent.relative_to(folder).as_posix(), [])
        if _mesh_file(path).is_file():
            images.append(path)
        else:
            without_mesh += 1
    ordered = {name: sorted(clips[name], key=_number) for name in sorted(clips, key=natural_key)}
    return OfficialClips(ordered, without_mesh)


def _read_clip(name: str, images: list[Path], model: MorphableModel) -> ClipFrames:
    meshes = [pixels_from_official(_read_mesh(_mesh_file(path), model)) for path in images]
    return ClipFrames(
        name,
        (_read_crop(path) for path in images),
        identity_id=name.split("/")[0],
        morphable=model.name,
        vertices=np.stack(meshes) if meshes else None,
    )


def _read_mesh(path: Path, model: MorphableModel) -> np.ndarray:
    vertices = read_official_vertices(path)
    if len(vertices) != model.num_vertices:
        raise _refused(
            path, f"have the {model.num_vertices} vertices of {model.name}", len(vertices)
        )
    return vertices


def _read_crop(path: Path) -> np.ndarray:
    image = read_image(path)
    if image.shape != (OFFICIAL_SIDE, OFFICIAL_SIDE, 3):
        raise _refused(path, f"have {OFFICIAL_SIDE} x {OFFICIAL_SIDE} pixels", image.shape[:2])
    return image


def _mesh_file(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(_IMAGE) + _VERTICES)


def _number(image: Path) -> int:
    return int(image.name.removesuffix(_IMAGE))


def _decompressed(path: Path) -> bytes:
    decompressor = _lz4().LZ4FrameDecompressor()
    try:
        data = decompressor.decompress(path.read_bytes(), max_length=_MAX_BYTES + 1)
    except RuntimeError as error:
        raise _refused(path, "be an LZ4 frame", error) from error
    if not decompressor.eof:
        got = "more" if len(data) > _MAX_BYTES else "a part of one"
        raise _refused(path, f"be a whole LZ4 frame of at most {_MAX_BYTES} bytes", got)
    return data


def _lz4() -> Any:
    try:
        import lz4.frame
    except ImportError as error:
        raise ArgumentError(
            requirement(
                "the package lz4",
                "be installed for GDPW's official files",
                "none",
                "Run: pip install 'talking_heads_jax[gdpw]'.",
            )
        ) from error
    return lz4.frame


def _refused(path: Path, constraint: str, got: object) -> DataError:
    return DataError(requirement(f"{path}", constraint, got, "Copy the official data again."))
