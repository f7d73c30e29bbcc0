"""A small FNeVR at 64 px that a laptop trains in minutes: what `make demo` runs.

Command: make demo (or: python run_train.py --config configs/fnevr/demo_64.py --workdir W
  --config.data.folder DATA)
Hardware: two CPU cores; 5 minutes of training, 6.5 on a busy machine; others not yet measured.
Expect, on held-out warps: L1 0.069, PSNR 19.1, SSIM 0.58 on one machine, 0.085, 17.4 and 0.47 on
  another (one program, another processor: rounding differs and training amplifies it); the best
  trivial answer (the source blurred by 3 px) has 0.139, 14.4 and 0.24.
Trained by pixel differences, not by VGG19 features, which would cost most of the time here and need
a file of the user's: pictures come out softer than the paper's losses make them.
"""

from ml_collections import ConfigDict

from configs.fnevr import vox_256


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may be `debug`."""
    config = vox_256.base()
    config.name = "fnevr_demo_64"
    config.data.resolution = config.model.resolution = 64
    config.model.implementation = "plain"  # the fast path saves at inference, not in training
    config.data.batch_size = 4  # at equal time, more steps beat larger batches here
    config.data.balance = "clip"
    config.data.num_threads = 2
    # A handful of photographs is to be learnt by heart: no mirrored or recoloured ones.
    config.data.augmentation.horizontal_flip = 0.0
    for jitter in ("brightness", "contrast", "saturation", "hue"):
        config.data.augmentation[jitter] = 0.0

    detector, generator = config.model.keypoint_detector, config.model.generator
    detector.scale_factor = 0.5  # a quarter of 64 px is too coarse for ten keypoints
    detector.block_expansion = 16
    detector.max_features = 128
    detector.num_blocks = 4
    # Nothing is converted into this model, so sampler and keypoint grid may agree: at 16 px the
    # released code's mismatch would be a zoom of 16/15.
    generator.align_corners = True
    generator.block_expansion = 16
    generator.max_features = 64
    generator.image_head_features = 16
    generator.spade_options.segmentation_features = 32
    generator.spade_options.block_features = (32, 16, 16)
    generator.volume_options.channels = 8
    generator.volume_options.depth = 4
    generator.volume_options.hidden_features = 32
    generator.dense_motion_options.block_expansion = 16
    generator.dense_motion_options.max_features = 128
    generator.dense_motion_options.num_blocks = 3
    config.model.discriminator.block_expansion = 8
    config.model.discriminator.max_features = 64
    config.model.discriminator.num_blocks = 3

    objectives = config.objectives
    objectives.perceptual.taps = (0.0,) * 5
    objectives.render_perceptual = 0.0
    objectives.pixel_l1 = 20.0
    # Weights of 10 stand beside perceptual losses near 100; pixel differences are near 0.1.
    objectives.equivariance_value = 2.0
    objectives.equivariance_jacobian = 1.0
    objectives.generator_gan = 0.0  # a GAN needs longer than a demonstration lasts
    objectives.feature_matching = (0.0,) * 3

    for network in ("kp_detector", "generator"):
        config.optim.networks[network].learning_rate = 1e-3
    config.optim.ema.decay = 0.99
    config.schedule.unit = "steps"
    config.schedule.duration = 800.0
    config.schedule.milestones = (560.0, 720.0)
    config.schedule.factor = 0.3
    config.checkpoint.every = 200
    config.log.every = 20
    config.log.images_every = 0  # compiling the pictures takes longer than they are worth here
    return vox_256.apply_variants(config, arg)
