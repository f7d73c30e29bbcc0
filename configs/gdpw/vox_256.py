"""GDPW on VoxCeleb at 256 px, by the recipe of the released code.

Paper: Zhong et al., Geometry Driven Progressive Warping for One-Shot Face Animation, BMVC 2022,
  Tables 1 and 2. Its text names fewer losses: configs/gdpw/vox_paper_256.py; the differences are
  listed in docs/gdpw.md. Its supplement, which describes losses and networks, was not available.
Command: python run_train.py --config configs/gdpw/vox_256.py --workdir W --config.data.folder DATA
  DATA's records hold FLAME vertices (docs/data.md: GDPW's official data). `:geometry`, `:both`
  and `:nmfc` are the other guidances of Table 1 (one at a time), `:alpha` blends with the warped
  source, `:single_scale` is the control without progressive warping.
  `:debug` is two steps at 64 px on a CPU, with the built-in head. Variants join with a comma.
Hardware: the paper is silent; ours not yet measured. Wall time: not yet measured.
Expect (paper, Table 1, VoxCeleb1, same identity): FID 3.93, CSIM .793 with codes, FID 3.95, CSIM
  .794 with the displacement field; ours not yet measured.
Needs VGG19 (`talking-heads convert --model vgg19 FILE`), or
  --config.objectives.perceptual.weights=random (an honest stand-in, never comparable).
"""

from ml_collections import ConfigDict

from configs.common import add_network, base_config, make_debug_run, parse_variants

GUIDANCES = ("geometry", "codes", "both", "nmfc")
VARIANTS = (*GUIDANCES, "alpha", "single_scale", "debug")


def base() -> ConfigDict:
    """The config without variants, unlocked."""
    config = base_config()
    config.name = "gdpw_vox_256"
    data = config.data
    data.source = "folder"  # the built-in heads have another mesh
    data.batch_size = 16  # the released script; the paper is silent
    data.vertices = True
    data.distinct = True
    # The source is the earlier frame of a pair.
    data.augmentation.time_flip = 0.0
    # Both frames are mirrored together and share the jitter's draw. The released code mirrors
    # pixel indices by x -> 256 - x, so that its mirrored meshes lie a pixel beside the others.
    data.augmentation.horizontal_flip = 0.5

    model = config.model
    model.name = "gdpw"
    model.resolution = 256
    model.guidance = "codes"
    model.num_codes = 16
    model.morphable = "flame2020"  # whose vertices the records hold
    model.alpha_blend = False
    model.single_scale = False
    model.spectral_norm = True
    model.dtype = "float32"  # 'bfloat16' computes convolutions in bf16; the released code does not
    model.generator = ConfigDict(
        {
            # Six sizes, between which five flows are predicted: the paper's "5 pyramid levels".
            "num_levels": 6,
            "code_start": 1.0,
            "block_expansion": 32,
            "max_features": 1024,
            # For codes the paper puts no warp there (None); the code resamples by a zero flow.
            "bottleneck_warp": True,
            # Of the level that predicts the one flow of `single_scale`.
            "flow_stride": 4,
            # The paper culls before drawing ('back'), the code behind the z-buffer.
            "cull": "back_after",
            # The paper has spectral norm in every convolution; the code leaves these out.
            "spectral_heads": False,
            "smooth_silhouettes": True,
            # The code draws its meshes half a pixel off the picture.
            "vertex_shift_px": -0.5,
            # Without motion the code's warp blurs a picture, and dims its border.
            "align_corners": False,
            "residual": False,
            # Not of the paper: see configs/gdpw/synthetic_64.py.
            "flow_correction": False,
            "finest_block": False,
        }
    )
    model.discriminator = ConfigDict(
        {
            "strides": (1,),
            "block_expansion": 32,
            "max_features": 512,
            "num_blocks": 4,
            "spectral_heads": False,
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
    # The source, as every predicted flow warps it, is compared like the result, at one scale each.
    objectives.warped_perceptual = 1.0
    objectives.adversarial = "least_squares"  # the paper: hinge
    objectives.generator_gan = 1.0
    objectives.discriminator_gan = 1.0
    objectives.feature_matching = (10.0,) * 4
    # GAN and feature matching also judge the source as the finest flow warps it.
    objectives.warped_gan = 1.0
    objectives.pixel_l1 = 10.0

    config.optim.b1, config.optim.b2 = 0.9, 0.999
    config.optim.ema.networks = ("generator",)
    for network in ("generator", "discriminator"):
        add_network(config, network, 2e-4)
    # The paper's; the code has no schedule, but a file that a person edits while it runs.
    config.schedule.unit = "steps"
    config.schedule.duration = 270_000.0
    config.schedule.milestones = (80_000.0, 160_000.0)
    return config


def apply_variants(
    config: ConfigDict, arg: str | None, known: tuple[str, ...] = VARIANTS
) -> ConfigDict:
    """Applies the variants of `arg` and locks the config; all configs of GDPW share it.

    Args:
      config: changed in place.
      arg: of `get_config`.
      known: names of the variants of the file.

    Raises:
      ValueError: for an unknown variant, or two guidances at once.
    """
    variants = parse_variants(arg, known)
    guidances = sorted(variants & set(GUIDANCES))
    if len(guidances) > 1:
        raise ValueError(f"config variants must name one guidance, got {guidances}. Use one.")
    for guidance in guidances:
        config.name += f"_{guidance}"
        config.model.guidance = guidance
    if "alpha" in variants:
        config.name += "_alpha"
        config.model.alpha_blend = True
        config.model.generator.residual = False
    if "single_scale" in variants:
        config.name += "_single_scale"
        config.model.single_scale = True
    if "ict" in variants:
        config.name += "_ict"
        config.model.morphable = config.data.synthetic.morphable = "ict"
    if "debug" in variants:
        make_debug_run(config)
        _shrink(config)
    return config.lock()


def _shrink(config: ConfigDict) -> None:
    """The widths of a debug variant, and a mesh that everybody has."""
    model = config.model
    model.morphable = config.data.synthetic.morphable = "procedural"
    config.data.source = "synthetic"
    model.num_codes = 4
    model.generator.num_levels = 4
    model.generator.block_expansion = 4
    model.generator.max_features = 8
    model.discriminator.block_expansion = 4
    model.discriminator.max_features = 8


def get_config(arg: str | None = None) -> ConfigDict:
    """The config; `arg` may hold one guidance, `alpha`, `single_scale` and `debug`."""
    return apply_variants(base(), arg)
