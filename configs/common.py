"""What all configs start from, and how their string argument is read.

Sections: `data`, `model` (registry name and constructor arguments), `objectives` (weights and
choices of the model's terms), `optim`, `schedule`, `eval`, `checkpoint`, `log`, `mesh`; and the
scalars `name` and `seed`. Keys of `model` and `objectives` are checked by the model they configure.
"""

from ml_collections import ConfigDict


def base_config() -> ConfigDict:
    """The sections with the values that no paper decides."""
    config = ConfigDict()
    config.name = ""
    config.seed = 0

    config.data = ConfigDict()
    config.data.folder = ""  # written by `talking-heads prepare` or `talking-heads synthesize`
    # What is read where no folder is named: 'synthetic' (the built-in heads, rendered while
    # training) or 'folder' (nothing: the run is refused).
    config.data.source = "synthetic"
    config.data.synthetic = ConfigDict()
    config.data.synthetic.seed = 0  # of the people, their looks and their motion
    config.data.synthetic.identities = 300
    config.data.synthetic.takes = 1  # clips of each
    config.data.synthetic.frames = 32  # of each clip
    config.data.synthetic.stride = 5  # of the motion's 25 frames per second, every how many
    config.data.synthetic.motion = "default"  # or 'rigid_bust'
    config.data.synthetic.poses = "moderate"  # or 'wide'
    config.data.synthetic.morphable = "procedural"  # or 'ict'
    config.data.synthetic.cache_mb = 1024  # for painted people and rendered frames
    config.data.split = "train"
    config.data.resolution = 256
    config.data.batch_size = 20  # over all devices and microbatches
    # What is drawn evenly: 'identity' (one clip of it, then two of its frames) or 'clip'.
    config.data.balance = "identity"
    # An epoch goes through the identities this many times: schedules are stated in epochs.
    config.data.repeats = 75
    config.data.max_distance = 0  # frames between source and driving; 0: any
    config.data.distinct = False  # source and driving may be the same frame
    # What the pairs carry besides images; the data set must hold it.
    config.data.masks = False  # classes of talking_heads_jax/morphable/parts.py
    config.data.vertices = False  # of the face mesh, in pixels
    config.data.angles = False  # yaw, pitch, roll of the head
    config.data.num_threads = 16
    config.data.num_workers = 0  # processes that read; 0: threads of the training process
    config.data.augmentation = ConfigDict()
    config.data.augmentation.time_flip = 0.5  # exchanges source and driving
    config.data.augmentation.horizontal_flip = 0.5  # only where there was no time flip
    config.data.augmentation.brightness = 0.1
    config.data.augmentation.contrast = 0.1
    config.data.augmentation.saturation = 0.1
    config.data.augmentation.hue = 0.1

    config.model = ConfigDict()
    config.objectives = ConfigDict()

    config.optim = ConfigDict()
    config.optim.b1 = 0.5
    config.optim.b2 = 0.999
    config.optim.eps = 1e-8
    config.optim.clip_norm = 0.0  # largest gradient norm of a network; 0: no limit
    config.optim.accumulation = 1  # microbatches per step
    config.optim.networks = ConfigDict()
    config.optim.ema = ConfigDict()
    config.optim.ema.decay = 0.0  # 0: no averages
    config.optim.ema.warmup = True
    config.optim.ema.networks = ("kp_detector", "generator")

    config.schedule = ConfigDict()
    config.schedule.name = "multi_step"
    config.schedule.unit = "epochs"  # of the four durations below: 'steps', 'samples' or 'epochs'
    config.schedule.duration = 100.0
    config.schedule.warmup = 0.0
    config.schedule.milestones = (60.0, 90.0)
    config.schedule.factor = 0.1

    config.eval = ConfigDict()
    # What run_eval.py takes for the checkpoints of this training, unless it is told otherwise.
    config.eval.split = "test"
    config.eval.protocol = "reconstruction"  # a file of configs/eval
    config.eval.num_clips = 0  # 0: all

    config.checkpoint = ConfigDict()
    config.checkpoint.every = 1000  # steps
    config.checkpoint.keep = 3
    config.checkpoint.keep_period = 0  # also keep the steps divisible by it; 0: none
    # A run continues its own newest checkpoint; else the whole state of the run in `resume_from`;
    # else the networks of `init_from` ({network: folder}); else fresh parameters.
    config.checkpoint.resume_from = ""
    config.checkpoint.init_from = ConfigDict(allow_dotted_keys=True)

    config.log = ConfigDict()
    config.log.every = 50  # steps
    config.log.images_every = 1000  # steps; 0: no pictures
    config.log.num_images = 4
    config.log.sample_ids = True  # keep the record ids of every sample in WORKDIR/samples

    config.mesh = ConfigDict()
    config.mesh.data = -1  # all devices that `model` leaves
    config.mesh.model = 1
    # (regex over the state's paths, spec), e.g. ((".*/kernel", ("...", "model")),)
    config.mesh.rules = ()
    return config


def add_network(config: ConfigDict, name: str, learning_rate: float) -> None:
    """Gives a network its optimiser settings.

    Args:
      config: changed in place.
      name: of the network.
      learning_rate: before the schedule's factors.
    """
    section = ConfigDict()
    section.learning_rate = learning_rate
    # (regex over parameter paths, factor of the learning rate or None = frozen); first match wins.
    section.rules = ()
    config.optim.networks[name] = section


def parse_variants(arg: str | None, known: tuple[str, ...]) -> frozenset[str]:
    """Reads the config's argument, a list of variants joined by commas.

    Args:
      arg: what follows the colon in `--config FILE:ARG`, or None.
      known: names of the variants.

    Raises:
      ValueError: for an unknown variant; lists the known ones.
    """
    chosen = frozenset(part for part in (arg or "").split(",") if part)
    unknown = sorted(chosen - set(known))
    if unknown:
        raise ValueError(
            f"config variant must be known, got {', '.join(unknown)}. Use {', '.join(known)}."
        )
    return chosen


def make_debug(config: ConfigDict) -> None:
    """Shrinks a keypoint-driven system's config to two steps at 64 px on a CPU.

    Args:
      config: changed in place.
    """
    make_debug_run(config)
    model = config.model
    model.num_keypoints = 4
    model.keypoint_detector.block_expansion = 4
    model.keypoint_detector.max_features = 8
    model.keypoint_detector.num_blocks = 2  # the detector works at 16 px: 5 need a multiple of 32
    model.generator.block_expansion = 4
    model.generator.max_features = 8
    model.generator.num_bottleneck_blocks = 1
    model.generator.dense_motion_options.block_expansion = 4
    model.generator.dense_motion_options.max_features = 8
    model.generator.dense_motion_options.num_blocks = 2
    model.discriminator.block_expansion = 2
    model.discriminator.max_features = 8


def make_debug_run(config: ConfigDict) -> None:
    """What the debug variants of all systems share: size, batch, schedule, losses, two blocks.

    Args:
      config: changed in place; the widths of its networks are its own business.
    """
    config.name += "_debug"
    config.data.resolution = config.model.resolution = 64
    config.data.batch_size = 2
    config.data.num_threads = 2
    config.model.discriminator.num_blocks = 2
    config.objectives.feature_matching = config.objectives.feature_matching[:2]
    config.objectives.perceptual.weights = "random"
    config.objectives.perceptual.taps = (10.0, 10.0, 0.0, 0.0, 0.0)  # the rest is not computed
    config.objectives.perceptual.scales = (1.0,)
    config.schedule.unit = "steps"
    config.schedule.duration = 2.0
    config.schedule.milestones = ()
    config.checkpoint.every = 1
    config.log.every = 1
    config.log.images_every = 2
    config.log.num_images = 2


def check_config(config: ConfigDict) -> None:
    """Checks what a config file returned: sections, keys and types are those of `base_config`.

    Sections that are empty there (`model`, `objectives`, …) are checked by what they configure.

    Args:
      config: of any file.

    Raises:
      ValueError: for a missing section, an unknown key, or a value of another type.
    """
    _check_section("", config, base_config())


def _check_section(path: str, section: ConfigDict, base: ConfigDict) -> None:
    if not isinstance(section, ConfigDict):
        got = type(section).__name__
        raise ValueError(f"config{path} must be a ConfigDict, got {got}. See configs/common.py.")
    unknown = sorted(set(section.keys()) - set(base.keys()))
    missing = sorted(set(base.keys()) - set(section.keys())) if not path else []
    if (unknown and base.keys()) or missing:
        what = f"unknown: {unknown}" if unknown else f"missing: {missing}"
        raise ValueError(f"config{path} must have the keys {sorted(base.keys())}, got {what}.")
    for key in set(section.keys()) & set(base.keys()):
        value, example = section[key], base[key]
        if isinstance(example, ConfigDict):
            _check_section(f"{path}.{key}", value, example)
            continue
        kinds = {float: (float, int), tuple: (tuple, list)}.get(type(example), type(example))
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(example, bool):
            wanted, got = type(example).__name__, repr(value)
            raise ValueError(f"config{path}.{key} must be a {wanted}, got {got}. Correct it.")
