"""The TFDS builder of prepared clips: encoded frames in, array_record shards out, no TensorFlow.

It is built on `tfds.core.ShardBasedBuilder`: records keep their order, and memory holds one shard
at a time. (`GeneratorBasedBuilder` sorts all records, and beyond 1 GB does so through TensorFlow.)
"""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_pipeline.records import tfds_features

RELEASE = "1.0.0"

#: Yields the records of one shard, in order; 'image' holds encoded bytes.
Shard = Callable[[], Iterator[dict[str, Any]]]


class VideoClips(tfds.core.ShardBasedBuilder):
    """Writes the frames of clips, in order, as one record each.

    The images arrive already encoded: TFDS encodes arrays with TensorFlow, which is never imported.
    """

    name = "video_clips"
    VERSION = tfds.core.Version(RELEASE)
    RELEASE_NOTES = {RELEASE: "One record per frame; the clip table lies beside."}

    def __init__(
        self,
        *,
        shards: Mapping[str, Sequence[Shard]],
        fields: Sequence[str],
        size: int,
        image_format: str,
        data_dir: str,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        """Prepares the builder; `download_and_prepare` does the work.

        Args:
          shards: per split, its shards in order.
          fields: names of the fields of every record.
          size: height and width of the images.
          image_format: 'jpeg' or 'png'.
          data_dir: where TFDS makes its folders.
          shapes: of the fields whose shape depends on the face model.
        """
        self._shards, self._fields = shards, tuple(fields)
        self._size, self._image_format, self._shapes = size, image_format, shapes
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Cropped frames of talking-head clips.",
            features=tfds_features(self._fields, self._size, self._image_format, self._shapes),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        del dl_manager
        return {
            split: [functools.partial(numbered_examples, shard) for shard in shards]
            for split, shards in self._shards.items()
        }


def numbered_examples(shard: Shard) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the records of a shard as TFDS takes them: with a key, encoded images as files.

    Args:
      shard: the records.
    """
    for index, example in enumerate(shard()):
        encoded = {name: io.BytesIO(example[name]) for name in ("image", "mask") if name in example}
        yield index, {**example, **encoded}


def write_records(
    folder: Path,
    *,
    shards: Mapping[str, Sequence[Shard]],
    fields: Sequence[str],
    size: int,
    image_format: str,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Writes all records of a data set below `folder`, whole or not at all.

    Args:
      folder: must not hold records yet.
      shards: per split, its shards in order; a split without shards is left out.
      fields: names of the fields of every record.
      size: height and width of the images.
      image_format: 'jpeg' or 'png'.
      shapes: of the fields whose shape depends on the face model.
    """
    tfds.disable_progress_bar()
    builder = VideoClips(
        shards={split: parts for split, parts in shards.items() if parts},
        fields=fields,
        size=size,
        image_format=image_format,
        data_dir=str(folder),
        shapes=shapes,
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # TFDS prints about a download that does not take place.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        builder.download_and_prepare(download_config=config, download_dir=str(folder / "unused"))
    for left in ("unused/extracted", "unused"):
        with contextlib.suppress(OSError):
            (folder / left).rmdir()
