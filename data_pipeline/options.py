"""The `data` section of a config, checked before anything is opened."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_pipeline.pairs import BALANCES
from data_pipeline.schema import SPLITS
from talking_heads_jax.errors import ConfigError, requirement

SOURCES = ("folder", "synthetic")

#: Option -> the optional field of the record that it needs.
FIELD_OF_OPTION = {"masks": "mask", "vertices": "vertices", "angles": "angles"}


@dataclasses.dataclass(frozen=True)
class SyntheticOptions:
    """The sub-section `data.synthetic`: which built-in talking heads are rendered while training.

    Attributes:
      seed: of the whole set; another seed shows other people.
      identities: how many people, at most as many as a split has (10000).
      takes: clips of each person.
      frames: frames of each clip.
      stride: every how many frames of the motion, at 25 per second, one is shown.
      motion: 'default' (the neck turns, the shoulders follow) or 'rigid_bust' (all turn together).
      poses: how far heads turn: 'moderate' (19 degrees of yaw) or 'wide' (40).
      morphable: 'procedural' (the built-in head) or 'ict'.
      cache_mb: memory for painted people and rendered frames, half for each.
    """

    seed: int = 0
    identities: int = 300
    takes: int = 1
    frames: int = 32
    stride: int = 5
    motion: str = "default"
    poses: str = "moderate"
    morphable: str = "procedural"
    cache_mb: int = 1024

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> "SyntheticOptions":
        """Checks the sub-section; what it lacks has its default.

        Args:
          config: any of the attributes.

        Raises:
          ConfigError: an unknown key, or a number that makes no sense.
        """
        values = {key: config[key] for key in config.keys()} if config else {}  # noqa: SIM118
        _check_keys("data.synthetic", values, cls)
        options = cls(**values)
        for name, lowest in (
            ("seed", 0),
            ("identities", 1),
            ("takes", 1),
            ("frames", 2),
            ("stride", 1),
            ("cache_mb", 0),
        ):
            value = getattr(options, name)
            if not isinstance(value, int) or value < lowest:
                raise ConfigError(
                    requirement(
                        f"data.synthetic.{name}", f"be at least {lowest}", value, "Correct it."
                    )
                )
        return options


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """The `data` section of a config, checked.

    Attributes:
      folder: what `talking-heads prepare` or `talking-heads synthesize` wrote.
      source: what is read where `folder` is empty: 'synthetic' renders the built-in talking heads,
        'folder' refuses.
      synthetic: see `SyntheticOptions`.
      split: whose pairs are trained on.
      resolution: height and width of the images; at most the stored size. None for that size.
      batch_size: samples per step over all processes; `make_train_loader` may be given another.
      balance: 'identity' or 'clip', see `pairs`.
      repeats: visits of an identity (or clip) per epoch.
      max_distance: largest number of frames between source and driving; None or 0 for any.
      distinct: whether source and driving are different frames.
      augmentation: see `transforms.Augmentation`; missing or empty for none.
      masks: whether the pairs carry `FaceInputs.mask`.
      vertices: whether the pairs carry `FaceInputs.vertices`.
      angles: whether the pairs carry `FaceInputs.angles`.
      num_threads: threads that read, decode and augment, in each worker process.
      num_workers: processes that do it; 0 for threads of this one.
      prefetch: samples read ahead; None for two batches.
    """

    folder: str = ""
    source: str = "folder"
    synthetic: Any = None
    split: str = "train"
    resolution: int | None = None
    batch_size: int | None = None
    balance: str = "identity"
    repeats: int = 1
    max_distance: int | None = None
    distinct: bool = False
    augmentation: Any = None
    masks: bool = False
    vertices: bool = False
    angles: bool = False
    num_threads: int = 16
    num_workers: int = 0
    prefetch: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "DataOptions":
        """Checks a config section.

        Args:
          config: a mapping or ConfigDict with any of the attributes; `folder` is required unless
            `source` is 'synthetic'.

        Raises:
          ConfigError: an unknown key, no folder, or a value that makes no sense.
        """
        values = {key: config[key] for key in config.keys()}  # noqa: SIM118 ConfigDict
        _check_keys("data", values, cls)
        options = cls(**values)
        synthetic = SyntheticOptions.from_config(options.synthetic)
        options = dataclasses.replace(options, synthetic=synthetic)
        if options.source not in SOURCES:
            raise ConfigError(
                requirement("data.source", f"be one of {SOURCES}", options.source, "Choose one.")
            )
        if not options.folder and not options.rendered:
            raise ConfigError(
                requirement(
                    "data.folder",
                    "name a data set",
                    repr(options.folder),
                    "Make one with `talking-heads prepare VIDEOS --output DATA` and set it, or set"
                    " data.source=synthetic.",
                )
            )
        if options.balance not in BALANCES:
            raise ConfigError(
                requirement("data.balance", f"be one of {BALANCES}", options.balance, "Choose one.")
            )
        if options.num_threads < 1 or options.repeats < 1 or options.num_workers < 0:
            raise ConfigError(
                requirement(
                    "data.num_threads, data.repeats and data.num_workers",
                    "be at least 1, 1 and 0",
                    (options.num_threads, options.repeats, options.num_workers),
                    "Correct them.",
                )
            )
        if options.rendered:
            _check_rendering(options)
        return options

    @property
    def rendered(self) -> bool:
        """Whether the frames are rendered on the fly instead of read."""
        return not self.folder and self.source == "synthetic"


def _check_rendering(options: DataOptions) -> None:
    """Raises for what rendering on the fly does not offer."""
    if options.num_workers:
        raise ConfigError(
            requirement(
                "data.num_workers",
                "be 0 where frames are rendered on the fly: the renderer needs jax, and worker"
                " processes compute nothing with it",
                options.num_workers,
                "Set it to 0, or write the set first with `talking-heads synthesize`.",
            )
        )
    if options.split not in SPLITS:
        raise ConfigError(
            requirement("data.split", f"be one of {SPLITS}", options.split, "Choose one.")
        )


def _check_keys(section: str, values: Mapping[str, Any], kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ConfigError(requirement(section, "have known keys", unknown, f"Use {names}."))
