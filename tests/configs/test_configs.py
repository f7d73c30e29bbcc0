"""Every shipped config: it builds, it locks, and its whole training step can be traced."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from talking_heads_jax import build
from talking_heads_jax.batch import FaceInputs
from talking_heads_jax.errors import ConfigError
from talking_heads_jax.models.base import count_parameters
from talking_heads_jax.models.gdpw.objectives import GDPW_DEFAULTS
from talking_heads_jax.models.image_objectives import read_options
from talking_heads_jax.models.registry import build_model
from talking_heads_jax.train.sharding import make_mesh

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").glob("*/*.py")
    if path.name != "__init__.py" and path.parent.name != "eval"
)
SECTIONS = {
    "name", "seed", "data", "model", "objectives", "optim", "schedule", "eval", "checkpoint",
    "log", "mesh",
}  # fmt: skip


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def identify(path):
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_config_is_locked_documented_and_complete(path):
    module = load(path)
    config = module.get_config()
    assert set(config) == SECTIONS
    assert "run_train.py" in module.__doc__
    assert "Wall time" in module.__doc__ or "not yet measured" in module.__doc__
    assert config.name == identify(path).replace("/", "_")
    for section in ("data", "model", "optim", "schedule", "checkpoint", "mesh"):
        with pytest.raises((AttributeError, KeyError), match="locked"):
            config[section].unheard_of = 1
    with pytest.raises(ValueError, match="variant must be known"):
        module.get_config("unheard_of")


def trace_step(config):
    program = build.build_program(config, make_mesh(devices=jax.devices()[:1]))
    arguments = (program.state, program.batch, program.helper_params, program.key)
    return program.state, *jax.eval_shape(program.step, *arguments)


# A debug variant has 64 px whatever the config has: that of synthetic_32 is that of synthetic_64.
TRACED = [path for path in CONFIGS if path.stem != "synthetic_32"]


@pytest.mark.parametrize("path", TRACED, ids=identify)
def test_debug_variant_traces_a_whole_step(path):
    state, after, metrics = trace_step(load(path).get_config("debug"))
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, after)]
    assert shapes[0] == shapes[1]
    assert "loss/generator/perceptual" in metrics
    assert ("loss/discriminator/total" in metrics) == ("discriminator" in state.networks)


# The structure of every variant at the small size; the mesh of `ict` is a user's file.
@pytest.mark.parametrize("variant", ["", "geometry", "codes", "nmfc,alpha", "single_scale"])
def test_small_gdpw_traces_a_whole_step(variant):
    config = load(ROOT / "configs/gdpw/synthetic_32.py").get_config(variant)
    state, after, metrics = trace_step(config)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    terms = {name for name in metrics if name.startswith("loss/")}
    assert terms == {
        f"loss/generator/{term}"
        for term in ("pixel_pyramid", "warped_pyramid", "gradient_l1", "total")
    }
    params = state.networks["generator"].params
    assert ("codes" in params) == (variant in ("", "codes", "single_scale"))
    assert ("displacement" in params["decoder"]) == (variant == "single_scale")
    assert state.networks["generator"].ema_params is not None


def test_variants_of_gdpw_are_the_rows_of_the_papers_table():
    for name in ("vox_256", "vox_paper_256", "synthetic_64", "synthetic_32"):
        module = load(ROOT / f"configs/gdpw/{name}.py")
        for guidance in ("geometry", "codes", "both", "nmfc"):
            config = module.get_config(guidance)
            assert config.model.guidance == guidance and config.name.endswith(guidance)
        config = module.get_config("codes,single_scale,alpha")
        assert config.model.single_scale and config.model.alpha_blend
        assert not config.model.generator.residual
        assert config.name == f"gdpw_{name}_codes_alpha_single_scale"
        with pytest.raises(ValueError, match="one guidance"):
            module.get_config("codes,nmfc")
    small = load(ROOT / "configs/gdpw/synthetic_64.py")
    assert small.get_config().model.guidance == "both"
    ict = small.get_config("ict")
    assert ict.model.morphable == ict.data.synthetic.morphable == "ict"
    with pytest.raises(ValueError, match="must be known, got ict"):
        load(ROOT / "configs/gdpw/vox_256.py").get_config("ict")


def test_numbers_of_gdpw_are_those_of_the_code_and_of_the_paper():
    """Spec sections 1.1, 1.8, 3.4 and 4: the released defaults, and what the paper's text has."""
    released = load(ROOT / "configs/gdpw/vox_256.py").get_config()
    paper = load(ROOT / "configs/gdpw/vox_paper_256.py").get_config()
    for config in (released, paper):
        assert config.schedule.unit == "steps" and config.schedule.duration == 270_000
        assert tuple(config.schedule.milestones) == (80_000, 160_000)
        stage = build.build_stage(config, build.build_model(config), num_samples=1000)
        rates = [
            float(stage.optimizers[network].learning_rates(np.int32(step))[0])
            for step in (0, 79_999, 80_000, 159_999, 160_000)
            for network in ("generator", "discriminator")
        ]
        np.testing.assert_allclose(rates, np.repeat([2e-4, 2e-4, 2e-5, 2e-5, 2e-6], 2), rtol=1e-5)
        assert (config.optim.b1, config.optim.b2) == (0.9, 0.999) and stage.num_steps == 270_000
        assert config.data.batch_size == 16 and config.data.distinct and config.data.vertices
        assert config.model.guidance == "codes" and config.model.num_codes == 16
    augmentation = released.data.augmentation.to_dict()
    assert augmentation.pop("time_flip") == 0.0 and augmentation.pop("horizontal_flip") == 0.5
    assert set(augmentation.values()) == {0.1} and len(augmentation) == 4
    objectives = released.objectives
    assert objectives.adversarial == "least_squares" and objectives.pixel_l1 == 10
    assert objectives.warped_perceptual == objectives.warped_gan == 1
    assert tuple(objectives.perceptual.scales) == (1.0, 0.5, 0.25, 0.125)
    assert tuple(objectives.feature_matching) == (10.0,) * 4
    assert objectives.generator_gan == objectives.discriminator_gan == 1
    assert tuple(objectives.perceptual.taps) == (10.0,) * 5
    # The defaults of the code are those that the golden cases hold.
    assert dict(build.build_model(released).networks) == dict(build_model("gdpw").networks)
    assert read_options(objectives.to_dict(), GDPW_DEFAULTS) == read_options({}, GDPW_DEFAULTS)
    objectives = paper.objectives
    assert tuple(objectives.perceptual.scales) == (1.0,)
    augmentation = paper.data.augmentation.to_dict()
    assert augmentation.pop("time_flip") == 0.5 and set(augmentation.values()) == {0.0}
    ours, theirs = (config.model.generator.to_dict() for config in (paper, released))
    assert {key: value for key, value in ours.items() if value != theirs[key]} == {
        "spectral_heads": True,
        "cull": "back",
        "bottleneck_warp": None,
    }
    for guidance, warps in (("codes", False), ("nmfc", False), ("geometry", True), ("both", True)):
        with paper.unlocked():
            paper.model.guidance = guidance
        assert build.build_model(paper).networks["generator"].warps_bottleneck is warps
    assert objectives.adversarial == "hinge"
    assert not (objectives.pixel_l1 or objectives.warped_perceptual or objectives.warped_gan)
    assert paper.model.generator.spectral_heads and paper.model.discriminator.spectral_heads
    # The released sizes (spec section 3.2); the paper's heads have the same.
    shapes = jax.eval_shape(build.build_model(released).init, jax.random.key(0))
    count = {name: count_parameters(network["params"]) for name, network in shapes.items()}
    # Without the checkpoint's shortcut block that no image passes, its scale and shift included.
    assert count == {"generator": 141_811_710 - 9_440_256, "discriminator": 695_201}


def test_mesh_variant_trains_the_pose_editor_and_the_vertex_weights():
    state, _, metrics = trace_step(load(ROOT / "configs/fnevr/vox_256.py").get_config("mesh,debug"))
    assert {"loss/generator/density", "loss/generator/pose_edit"} <= set(metrics)
    for network in ("pose_editor", "vertex_weights"):
        assert state.networks[network].opt_state is not None


def test_ablations_differ_from_fnevr_where_the_paper_says():
    full = load(ROOT / "configs/fnevr/vox_256.py").get_config("mesh")
    spade = load(ROOT / "configs/fnevr/fomm_spade.py").get_config("mesh")
    assert not spade.model.generator.volume_rendering and not spade.objectives.density.weight
    assert load(ROOT / "configs/fnevr/fomm_fvr.py").get_config().model.generator.decoder_type == (
        "residual"
    )
    assert load(ROOT / "configs/fnevr/without_fw.py").get_config().model.generator[
        "decoder_inputs"
    ] == ("rendered",)
    without = load(ROOT / "configs/fnevr/without_lsigma.py").get_config("mesh")
    assert full.objectives.density.weight == 1 and without.objectives.density.weight == 0
    assert without.objectives.pose_edit.weight == full.objectives.pose_edit.weight == 1


def test_released_numbers_of_vox_256():
    """Spec section 1.8: what the released FNeVR and FOMM files say."""
    fnevr = load(ROOT / "configs/fnevr/vox_256.py").get_config()
    fomm = load(ROOT / "configs/fomm/vox_256.py").get_config()
    assert (fnevr.data.batch_size, fomm.data.batch_size) == (20, 40)
    assert (fnevr.objectives.generator_gan, fomm.objectives.generator_gan) == (1, 0)
    for config in (fnevr, fomm):
        assert config.schedule.duration == 100 and config.data.repeats == 75
        assert tuple(config.schedule.milestones) == (60, 90) and config.schedule.factor == 0.1
        assert {section.learning_rate for section in config.optim.networks.values()} == {2e-4}
        assert (config.optim.b1, config.optim.b2) == (0.5, 0.999)


@pytest.mark.parametrize("name", ["fnevr/synthetic_32", "fomm/synthetic_32"])
def test_sides_of_the_smallest_models_divide(name):
    model = build.build_model(load(ROOT / f"configs/{name}.py").get_config())
    shapes = jax.eval_shape(
        lambda key: model.init(key, model.inference_networks), jax.random.key(0)
    )
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    encoding = jax.eval_shape(
        lambda variables, x: model.encode_source(variables, FaceInputs(image=x)), shapes, image
    )
    output = jax.eval_shape(model.animate_frame, shapes, encoding, encoding.keypoints)
    assert output.prediction.shape == (1, 32, 32, 3)


def test_small_ablations_are_the_rows_of_the_papers_table():
    for size in (32, 64):
        module = load(ROOT / f"configs/fnevr/synthetic_{size}.py")
        full = module.get_config()
        assert full.objectives.density.weight and full.objectives.pose_edit.weight
        assert full.model.resolution == full.data.resolution == size
        spade, fvr, without_fw, without_lsigma = (
            module.get_config(row)
            for row in ("fomm_spade", "fomm_fvr", "without_fw", "without_lsigma")
        )
        assert not spade.model.generator.volume_rendering and not spade.objectives.density.weight
        assert fvr.model.generator.decoder_type == "residual"
        assert without_fw.model.generator.decoder_inputs == ("rendered",)
        assert not without_lsigma.objectives.density.weight and not without_lsigma.data.vertices
        assert fvr.objectives.density.weight == full.objectives.density.weight
    with pytest.raises(ValueError, match="one row"):
        module.get_config("fomm_spade,without_fw")


def test_objectives_that_read_what_is_not_loaded_are_refused():
    config = load(ROOT / "configs/fnevr/synthetic_64.py").get_config()
    model = build.build_model(config)
    for option in ("masks", "vertices", "angles"):
        values = build.config_values(config)
        values["data"][option] = False
        with pytest.raises(ConfigError, match=rf"data\.{option} must be True"):
            build.build_stage(values, model, num_samples=100)
