"""FOMM on VoxCeleb at 256 px, without a GAN: the first-order-model repository's vox-256.

Paper: Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019.
Command: python run_train.py --config configs/fomm/vox_256.py --workdir W --config.data.folder DATA
  `:debug` is two steps at 64 px on a CPU.
Hardware: the paper used two TITAN X; ours not yet measured. Wall time: not yet measured.
Expect: not yet measured.
Needs VGG19 (`talking-heads convert --model vgg19 FILE`), or
  --config.objectives.perceptual.weights=random (an honest stand-in, never comparable).
"""

from ml_collections import ConfigDict

from configs.common import add_network, base_config, make_debug, parse_variants

VARIANTS = ("debug",)


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = base_config()
    config.name = "fomm_vox_256"
    config.data.batch_size = 40

    model = config.model
    model.name = "fomm"
    model.resolution = 256
    model.num_keypoints = 10
    model.dtype = "float32"  # 'bfloat16' computes convolutions in bf16; the released code does not
    model.keypoint_detector = ConfigDict(
        {"block_expansion": 32, "max_features": 1024, "num_blocks": 5, "temperature": 0.1}
    )
    model.generator = ConfigDict(
        {
            "block_expansion": 64,
            "max_features": 512,
            "num_bottleneck_blocks": 6,
            # torch >= 1.3 samples with align_corners=False; the checkpoints published before were
            # presumably trained with True.
            "align_corners": False,
            "dense_motion_options": {"block_expansion": 64, "max_features": 1024, "num_blocks": 5},
        }
    )
    model.discriminator = ConfigDict(
        {
            "scales": (1.0,),
            "block_expansion": 32,
            "max_features": 512,
            "num_blocks": 4,
            "spectral_norm": True,
            "num_keypoints": 0,
        }
    )

    objectives = config.objectives
    objectives.perceptual = ConfigDict(
        {
            "weights": "vgg19",  # or 'random', or a converted .safetensors
            "seed": 0,
            "taps": (10.0,) * 5,
            "scales": (1.0, 0.5, 0.25, 0.125),
        }
    )
    objectives.adversarial = "least_squares"
    objectives.generator_gan = 0.0  # no GAN in vox-256: the discriminator is not trained either
    objectives.discriminator_gan = 1.0
    objectives.feature_matching = (10.0,) * 4
    objectives.equivariance_value = 10.0
    objectives.equivariance_jacobian = 10.0
    objectives.transform = ConfigDict({"sigma_affine": 0.05, "sigma_tps": 0.005, "points_tps": 5})
    objectives.pixel_l1 = 0.0

    for network in ("kp_detector", "generator", "discriminator"):
        add_network(config, network, 2e-4)
    return config


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may be `debug`."""
    config = base()
    if "debug" in parse_variants(arg, VARIANTS):
        make_debug(config)
    return config.lock()
