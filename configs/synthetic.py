"""What the small trainings on the synthetic set share: data, motion, losses, optimiser, schedule.

The recipe is that of docs/training.md, "Small trainings": losses on pixels, weighted by the masks
of the records, in place of VGG19 features, which would cost most of the time on a CPU and need a
file of the user's.
"""

from ml_collections import ConfigDict


def make_small(config: ConfigDict, *, size: int, steps: int) -> None:
    """Turns a 256 px config of any system into a small training, but for the system's own widths.

    Args:
      config: changed in place.
      size: side of the images in pixels, 32 or 64.
      steps: of the training.
    """
    data = config.data
    data.resolution = config.model.resolution = size
    data.batch_size = 4
    data.num_threads = 2
    data.masks = True
    for jitter in ("contrast", "hue"):
        data.augmentation[jitter] = 0.0
    data.augmentation.brightness = 0.15
    data.augmentation.saturation = 0.15

    objectives = config.objectives
    objectives.perceptual.taps = (0.0,) * 5
    objectives.generator_gan = 0.0  # a GAN needs longer than these trainings last
    objectives.feature_matching = (0.0,) * 3
    # Mouth and eyes are some 3 % of the pixels.
    objectives.region_weights = ConfigDict({"head": 2.0, "features": 16.0})
    objectives.pixel_pyramid = ConfigDict(
        {"weight": 10.0, "scales": (1.0, 0.5, 0.25), "warped_weight": 8.0}
    )
    objectives.gradient_l1 = 3.0

    config.optim.b1, config.optim.b2 = 0.9, 0.99
    for network in config.optim.networks:
        config.optim.networks[network].learning_rate = 1e-3
    config.optim.ema.decay = 0.995
    config.schedule.name = "cosine"
    config.schedule.unit = "steps"
    config.schedule.duration = float(steps)
    config.schedule.milestones = ()
    config.checkpoint.every = 500
    config.checkpoint.keep = 1
    config.log.every = 50
    config.log.images_every = 0  # compiling the pictures takes longer than they are worth here


def make_synthetic(config: ConfigDict, *, size: int, steps: int) -> None:
    """Turns a 256 px config of a keypoint-driven system into a small training on the synthetic set.

    Args:
      config: changed in place.
      size: side of the images in pixels, 32 or 64.
      steps: of the training.
    """
    make_small(config, size=size, steps=steps)
    model = config.model
    model.implementation = "plain"  # the fast path saves at inference, not in training
    detector, generator = model.keypoint_detector, model.generator
    detector.scale_factor = 0.5  # a quarter of 64 px is too coarse
    detector.head_kernel = 3  # 7 px of 32 would see a whole mouth at a time
    detector.block_expansion = 12
    detector.max_features = 96
    detector.num_blocks = 3
    # Nothing is converted into this model, so sampler and keypoint grid may agree: at 32 px the
    # released code's mismatch would be a zoom of 32/31.
    generator.align_corners = True
    generator.image_skip = True
    generator.block_expansion = 12
    generator.max_features = 48
    generator.num_bottleneck_blocks = 2
    motion = generator.dense_motion_options
    motion.scale_factor = 0.5
    motion.head_kernel = 3
    motion.block_expansion = 12
    motion.max_features = 96
    motion.num_blocks = 3
    # Built where a GAN is asked for.
    model.discriminator.block_expansion = 8
    model.discriminator.max_features = 64
    model.discriminator.num_blocks = 3

    # Pixel differences are near 0.1; weights of 10 stand beside perceptual losses near 100.
    config.objectives.equivariance_value = 1.0
    config.objectives.equivariance_jacobian = 0.5
