"""Random access to the records of a data set on disk, without TensorFlow."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.mesh import MESH, Mesh, read_mesh
from data_pipeline.records import Record, decode_record
from data_pipeline.schema import (
    FIELDS,
    MANIFEST,
    RECORDS,
    ClipEntry,
    read_clip_table,
    read_json,
)
from talking_heads_jax.errors import DataError, requirement

# TFDS imports the module of any class that a features.json names: only its own may be named.
_FEATURES = "tensorflow_datasets.core.features."


class FrameSource:
    """The frames of one split; may be read by many threads at once.

    Attributes:
      path: the data set.
      split: its split.
      clips: the clip table.
      size: height and width of the images it delivers.
      stored_size: height and width of the images on disk.
      fields: names of the fields every record has.
      shapes: of the fields whose shape depends on the face model.
      recipe: how rendered clips were made, as JSON values; None for clips of videos.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        split: str = "train",
        *,
        resolution: int | None = None,
        optional: Collection[str] | None = None,
    ) -> None:
        """Opens a split and reads its first record.

        Args:
          path: what `talking-heads prepare` wrote.
          split: one of `schema.SPLITS`.
          resolution: height and width to deliver, at most the stored size; None for that size.
          optional: the optional fields to read, of those that are there; None for all. Depth,
            normals and flow take longer to read than the image.

        Raises:
          DataError: there is no such data set or split, it is damaged, its images are smaller than
            `resolution`, or its schema is of another version.
        """
        import tensorflow_datasets as tfds

        self.path, self.split = Path(path), split
        table = read_clip_table(self.path)
        self.clips: Sequence[ClipEntry] = table.splits.get(split, ())
        self.recipe = _recipe(self.path / MANIFEST)
        self.stored_size, self.fields, self.shapes = table.size, table.fields, table.shapes
        self._read = tuple(
            name
            for name in table.fields
            if optional is None or name in optional or not FIELDS[name].optional
        )
        self.size = resolution or table.size
        if self.size > self.stored_size:
            raise DataError(
                requirement(
                    f"The images of {self.path}",
                    f"be at least {self.size} pixels wide",
                    self.stored_size,
                    f"Prepare the data with --size {self.size}, or lower data.resolution.",
                )
            )
        if not self.clips:
            raise DataError(
                requirement(
                    f"{self.path}",
                    f"have clips in its split {split!r}",
                    {name: len(clips) for name, clips in table.splits.items()},
                    "Prepare it with more clips or with test clips named, or synthesize it with"
                    " people of that split.",
                )
            )
        folders = sorted((self.path / RECORDS).glob("*/*/dataset_info.json"))
        if len(folders) != 1:
            raise DataError(
                requirement(
                    f"{self.path / RECORDS}", "hold the records", "none", "Prepare the data again."
                )
            )
        _check_features(folders[0].with_name("features.json"))
        try:
            builder = tfds.builder_from_directory(str(folders[0].parent))
            # Packed bytes are left alone: TFDS would decode images with the slower of two, and
            # would inflate whatever a deflated array claims.
            packed = [name for name in table.fields if FIELDS[name].packed]
            decoders = {name: tfds.decode.SkipDecoding() for name in packed}
            self._records = builder.as_data_source(split, decoders=decoders)
            count = len(self._records)
        except Exception as error:
            raise self._damaged(error) from error
        expected = table.num_records(split)
        if count != expected:
            raise self._damaged(f"{count} records where the clip table has {expected}")
        self[0]  # the version, and a first proof that the records can be read

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        """Reads and decodes one record.

        Args:
          index: from 0.

        Raises:
          IndexError: there is no such record.
          DataError: the record is damaged (a checksum disagrees) or of another version.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        try:
            example = self._records[index]
        except Exception as error:
            raise self._damaged(f"record {index}: {error}") from error
        missing = [name for name in self._read if example.get(name) is None]
        if missing:  # array_record answers with nothing where a shard was cut off
            raise self._damaged(f"record {index} without {', '.join(missing[:3])}")
        what = f"{self.path} {self.split} record {index}"
        return decode_record(
            {name: example[name] for name in self._read},
            self.stored_size,
            what,
            resolution=self.size,
            shapes=self.shapes,
        )

    def mesh(self) -> Mesh:
        """Reads what the vertices are corners of.

        Raises:
          DataError: there is no mesh, it is damaged, or another than the vertices'.
        """
        mesh = read_mesh(self.path)
        expected = self.shapes.get("vertices", (len(mesh.mirror), 3))
        if (len(mesh.mirror), 3) != expected:
            raise self._damaged(f"{len(mesh.mirror)} vertices in {MESH} instead of {expected[0]}")
        return mesh

    def _damaged(self, reason: object) -> DataError:
        return DataError(
            requirement(
                f"The records of {self.path}",
                "be whole",
                reason,
                "Copy the data set again, or remove it and prepare it again.",
            )
        )


def _recipe(manifest: Path) -> Any:
    """How rendered clips were made, as their manifest states it; None for clips of videos."""
    if not manifest.is_file():
        return None
    options = read_json(manifest).get("options")
    return options.get("recipe") if isinstance(options, dict) else None


def _check_features(path: Path) -> None:
    """Raises unless a features.json names classes of TFDS only; runs before TFDS reads it."""
    waiting: list[Any] = [read_json(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            waiting += node.values()
            names = [node[key] for key in ("pythonClassName", "python_class_name") if key in node]
            if not all(isinstance(name, str) and name.startswith(_FEATURES) for name in names):
                raise DataError(
                    requirement(
                        f"{path}", "name classes of TFDS only", names[0], "Prepare the data again."
                    )
                )
