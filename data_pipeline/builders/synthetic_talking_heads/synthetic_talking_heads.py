"""The built-in talking heads as a TFDS data set, one config per size; no TensorFlow.

    import data_pipeline.builders.synthetic_talking_heads.synthetic_talking_heads
    builder = tfds.builder("synthetic_talking_heads/64", file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source("train")

For those who read through TFDS. Training here reads what `talking-heads synthesize` writes: the
same records, with a clip table and the mesh beside them, and continued after an interruption.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.builders.video_clips.video_clips import numbered_examples
from data_pipeline.preprocess.finishing import SHARD_BYTES
from data_pipeline.preprocess.staged_clips import storable
from data_pipeline.records import tfds_features
from data_pipeline.schema import FIELDS, OPTIONAL_FIELDS, SCHEMA_VERSION
from data_pipeline.synthetic.clip_plan import PlannedClip, plan_clips
from data_pipeline.synthetic.head_set import PICTURES, HeadSet
from talking_heads_jax.media.image import encode_image

RELEASE = f"{PICTURES}.0.0"  # TFDS serves what is there: other pictures are another version
SIZES = (64, 128, 256, 512)

_IDENTITIES = {"train": 300, "val": 24, "test": 24, "probe": 24, "extrapolation": 24}


@dataclasses.dataclass(eq=False, kw_only=True)
class HeadsConfig(tfds.core.BuilderConfig):
    """What a config of the builder renders; see `write_talking_heads`.

    Attributes:
      size: height and width of the images.
      identities: split to number of people.
      num_frames: of each clip.
      stride: every how many frames of the motion one is taken.
      takes: clips of each person.
      seed: of the whole set.
      motion: 'default' or 'rigid_bust'.
      poses: 'moderate' or 'wide'.
      morphable: 'procedural', 'ict' or a model.
      extras: large fields to store.
    """

    size: int = 64
    identities: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(_IDENTITIES))
    num_frames: int = 8
    stride: int = 10
    takes: int = 1
    seed: int = 0
    motion: str = "default"
    poses: str = "moderate"
    morphable: Any = "procedural"
    extras: Sequence[str] = ()


class SyntheticTalkingHeads(tfds.core.ShardBasedBuilder):
    """Renders the set shard by shard; memory holds one shard."""

    name = "synthetic_talking_heads"
    VERSION = tfds.core.Version(RELEASE)
    RELEASE_NOTES = {RELEASE: "One record per frame, the frames of a clip one after another."}
    BUILDER_CONFIGS = [
        HeadsConfig(name=str(size), size=size, description=f"{size} x {size} pixels.")
        for size in SIZES
    ]

    @functools.cached_property
    def _heads(self) -> HeadSet:
        config = self.builder_config
        return HeadSet(
            size=config.size,
            seed=config.seed,
            motion=config.motion,
            poses=config.poses,
            morphable=config.morphable,
            extras=config.extras,
        )

    def _info(self) -> tfds.core.DatasetInfo:
        fields = [
            name for name in FIELDS if name not in OPTIONAL_FIELDS or name in self._heads.fields
        ]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Rendered talking heads with exact masks, landmarks, pose and expression.",
            features=tfds_features(fields, self._heads.size, "png", self._heads.shapes()),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> dict[str, list[Callable]]:
        del dl_manager
        config = self.builder_config
        plans = plan_clips(
            config.identities,
            num_frames=config.num_frames,
            stride=config.stride,
            takes=config.takes,
        )
        # About as many clips as a shard holds, were the images not compressed.
        count = max(SHARD_BYTES // (3 * config.num_frames * config.size**2), 1)
        shards = {}
        for split in config.identities:
            clips = [plan for plan in plans if plan.split == split]
            parts = [clips[first : first + count] for first in range(0, len(clips), count)]
            shards[split] = [
                functools.partial(numbered_examples, functools.partial(self._examples, part))
                for part in parts
            ]
        return {split: parts for split, parts in shards.items() if parts}

    def _examples(self, plans: Sequence[PlannedClip]) -> Iterator[dict[str, Any]]:
        size = self._heads.size
        for plan, frames in zip(plans, self._heads.render_clips(plans), strict=True):
            for index, fields in enumerate(frames):
                image = encode_image(fields.pop("image"), "png")
                yield {
                    "image": image,
                    "clip_id": plan.clip_id,
                    "identity_id": plan.identity_id,
                    "frame_index": index * plan.stride,
                    "source_box_px": np.array([0, 0, size, size], np.float32),
                    "crop_matrix": np.eye(2, 3, dtype=np.float32),
                    "schema_version": SCHEMA_VERSION,
                    **{name: storable(name, value, size) for name, value in fields.items()},
                }
