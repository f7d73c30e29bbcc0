"""A small FNeVR at 64 px that a laptop trains in minutes: what `make demo` runs.

Command: python run_train.py --config configs/fnevr/demo_64.py --workdir W --config.data.folder DATA
Hardware: two CPU cores. Wall time and numbers: not yet measured.
Uses random VGG19 features (`perceptual.weights='random'`): its numbers are comparable to nothing.
"""

from ml_collections import ConfigDict

from configs.fnevr import vox_256


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may be `debug`."""
    config = vox_256.base()
    config.name = "fnevr_demo_64"
    config.data.resolution = config.model.resolution = 64
    config.data.batch_size = 8
    config.data.balance = "clip"
    config.data.num_threads = 2

    detector, generator = config.model.keypoint_detector, config.model.generator
    detector.scale_factor = 0.5  # a quarter of 64 px is too coarse for ten keypoints
    detector.block_expansion = 16
    detector.max_features = 128
    detector.num_blocks = 3
    generator.block_expansion = 16
    generator.max_features = 64
    generator.image_head_features = 16
    generator.spade_options.segmentation_features = 32
    generator.spade_options.block_features = (32, 16, 16, 16)
    generator.volume_options.channels = 8
    generator.volume_options.hidden_features = 32
    generator.dense_motion_options.scale_factor = 0.5
    generator.dense_motion_options.block_expansion = 16
    generator.dense_motion_options.max_features = 128
    generator.dense_motion_options.num_blocks = 3
    config.model.discriminator.block_expansion = 8
    config.model.discriminator.max_features = 64
    config.model.discriminator.num_blocks = 3

    objectives = config.objectives
    objectives.perceptual.weights = "random"
    objectives.perceptual.taps = (10.0, 10.0, 10.0, 0.0, 0.0)  # deep layers are not computed
    objectives.perceptual.scales = (1.0, 0.5)
    objectives.pixel_l1 = 10.0  # random features alone learn colours slowly
    objectives.generator_gan = 0.0  # a GAN needs longer than a demonstration lasts
    objectives.feature_matching = (0.0,) * 3

    for network in ("kp_detector", "generator"):
        config.optim.networks[network].learning_rate = 1e-3
    config.optim.ema.decay = 0.99
    config.schedule.unit = "steps"
    config.schedule.duration = 600.0
    config.schedule.milestones = (450.0,)
    config.checkpoint.every = 200
    config.log.every = 20
    config.log.images_every = 200
    return vox_256.apply_variants(config, arg)
