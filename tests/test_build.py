"""Assembly: what a config becomes, what is refused, and the command line around it."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.fnevr import vox_256
from configs.fomm import vox_256 as fomm_vox_256
from talking_heads_jax import build
from talking_heads_jax.assets import home_folder
from talking_heads_jax.errors import AssetNotFoundError, ConfigError
from talking_heads_jax.morphable.registry import load_morphable
from tests.train.toy import ToyLoader

ROOT = Path(__file__).resolve().parents[1]


def debug_config(module=vox_256, **changes):
    config = module.get_config("debug").unlock()
    for path, value in changes.items():
        section = config
        *parents, key = path.split("__")
        for parent in parents:
            section = section[parent]
        section[key] = value
    return config


def test_stage_states_the_schedule_in_the_data_sets_epochs():
    config = vox_256.get_config()
    stage = build.build_stage(config, build.build_model(config), num_samples=10)
    assert stage.num_steps == 100 * (10 * 75 // 20)
    assert set(stage.optimizers) == {"kp_detector", "generator", "discriminator"}
    rates = [
        float(stage.optimizers["generator"].learning_rates(np.int32(step))[0])
        for step in (0, 60 * 37 - 1, 60 * 37, 90 * 37)
    ]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 2e-5, 2e-6], rtol=1e-5)
    assert stage.ema is None and not stage.init_from and stage.resume_from is None


@pytest.mark.parametrize(
    "field, message",
    [
        ("mask", r"data\.masks must be True for the objectives of phase 'generator'"),
        ("camera", r"be what the loader can load: mask, vertices, angles, got camera"),
    ],
)
def test_inputs_that_nobody_loads_are_named(field, message, monkeypatch):
    phases = build.build_phases(debug_config(), build.build_model(debug_config()))
    asking = [dataclasses.replace(phases[0], inputs=(field,)), *phases[1:]]
    monkeypatch.setattr(build, "build_phases", lambda config, model: asking)
    with pytest.raises(ConfigError, match=message):
        build.build_stage(debug_config(), build.build_model(debug_config()), num_samples=10)


def test_rules_of_the_config_freeze_parameters():
    config = debug_config(optim__networks__generator__rules=(("encoder/.*", None),))
    model = build.build_model(config)
    stage = build.build_stage(config, model, num_samples=10)
    params = jax.eval_shape(lambda key: model.init(key, ["generator"]), jax.random.key(0))
    trainable = stage.optimizers["generator"].trainable(params["generator"]["params"])
    assert not any(jax.tree.leaves(trainable["encoder"]))
    assert all(jax.tree.leaves(trainable["decoder"]))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"optim__networks": {}}, "an entry for every trained network"),
        ({"objectives__unheard_of": 1.0}, "unheard_of"),
        ({"model__unheard_of": 1.0}, "unheard_of"),
        ({"model__generator__unheard_of": 1.0}, "unheard_of"),
        ({"optim__accumulation": 3}, "divisible"),
        ({"mesh__data": 1000}, "fit the"),
        ({"data__source": "folder"}, "talking-heads prepare"),
        ({"data__num_workers": 1}, r"num_workers must be 0.*synthesize"),
    ],
)
def test_build_trainer_refuses_in_one_line(change, message, tmp_path):
    of_data = any(name.startswith("data__") for name in change)  # the loader itself refuses
    loader = None if of_data else ToyLoader(2, 64)
    with pytest.raises(ConfigError, match=message) as caught:
        build.build_trainer(debug_config(**change), tmp_path, loader=loader)
    assert "\n" not in str(caught.value)


def test_without_a_folder_the_built_in_heads_are_rendered():
    config = debug_config(data__masks=True, data__vertices=True, data__angles=True)
    with build.build_loader(config, build.build_mesh(config)) as loader:
        assert loader.num_samples == 300 and "built-in" in loader.description
    shapes = build.batch_shapes(config).driving
    assert shapes.mask.shape == (2, 64, 64, 1) and shapes.mask.dtype == np.uint8
    assert shapes.vertices.shape == (2, load_morphable("procedural").num_vertices, 3)
    assert shapes.angles.shape == (2, 3)
    plain = build.batch_shapes(debug_config()).driving
    assert (plain.mask, plain.vertices, plain.angles) == (None, None, None)


def test_missing_vgg19_names_the_converter_and_the_stand_in(tmp_path):
    config = debug_config(objectives__perceptual__weights="vgg19")
    with pytest.raises(AssetNotFoundError, match=r"convert --model vgg19.*weights='random'"):
        build.build_trainer(config, tmp_path, loader=ToyLoader(2, 64))
    config = debug_config(objectives__perceptual__weights=str(tmp_path / "nothing.safetensors"))
    with pytest.raises(AssetNotFoundError, match="convert --model vgg19"):
        build.build_trainer(config, tmp_path, loader=ToyLoader(2, 64))


def test_vgg19_comes_from_the_registered_asset_and_is_checked(tmp_path):
    from talking_heads_jax.assets import register_asset
    from talking_heads_jax.networks.vgg19 import random_parameters
    from talking_heads_jax.serialization.safetensors_file import write_safetensors
    from talking_heads_jax.serialization.tensors import flatten

    config = debug_config()
    phases = build.build_phases(config, build.build_model(config))
    params = jax.tree.map(np.asarray, random_parameters(3))
    flat = flatten(params)
    write_safetensors(tmp_path / "good.safetensors", flat)
    flat.pop("features_28/kernel")
    write_safetensors(tmp_path / "bad.safetensors", flat)
    config = debug_config(objectives__perceptual__weights=str(tmp_path / "bad.safetensors"))
    with pytest.raises(ConfigError, match="features_28/kernel"):
        build.build_helpers(config, phases)
    register_asset("vgg19", tmp_path / "good.safetensors", licence="", source="a test")
    try:
        config = debug_config(objectives__perceptual__weights="vgg19")
        functions, loaded = build.build_helpers(config, phases)
        jax.tree.map(np.testing.assert_array_equal, dict(loaded["vgg19"]), params)
        maps = functions["vgg19"](loaded["vgg19"], np.zeros((1, 32, 32, 3), np.float32))
        assert [x.shape[-1] for x in maps] == [64, 128, 256, 512, 512]
    finally:
        for path in (home_folder() / "assets").iterdir():
            path.unlink()


def test_random_features_are_a_function_of_their_seed():
    phases = build.build_phases(debug_config(), build.build_model(debug_config()))
    kernels = [
        np.asarray(
            build.build_helpers(debug_config(objectives__perceptual__seed=seed), phases)[1][
                "vgg19"
            ]["features_0"]["kernel"]
        )
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_compilation_cache_is_left_alone_where_one_is_set():
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", "elsewhere")
        build.enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == "elsewhere"
        jax.config.update("jax_compilation_cache_dir", None)
        build.enable_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(home_folder() / "xla")
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.integration
@pytest.mark.parametrize("module", [vox_256, fomm_vox_256], ids=["fnevr", "fomm"])
def test_two_real_steps_move_every_trained_network_and_leave_a_loadable_checkpoint(
    module, tmp_path
):
    from talking_heads_jax.checkpoints import load_model

    config = debug_config(module, optim__ema__decay=0.5)
    trainer = build.build_trainer(config, tmp_path, loader=ToyLoader(2, 64), progress=False)
    state = trainer.run()
    assert int(state.step) == 2 and not bool(state.halted)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    norms = {name for name in rows[0] if name.startswith("grad_norm/")}
    assert norms == {
        f"grad_norm/{'discriminator' if n == 'discriminator' else 'generator'}/{n}"
        for n, network in state.networks.items()
        if network.opt_state is not None
    }
    for row in rows:
        assert all(0 < row[name] < 1e6 for name in norms)
    loaded = load_model(tmp_path)
    assert loaded.info["parameters"] == {"kp_detector": "ema_params", "generator": "ema_params"}
    for name, variables in loaded.variables.items():
        jax.tree.map(
            np.testing.assert_array_equal, variables["params"], state.networks[name].ema_params
        )


def run_script(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "run_train.py", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "--config must be given"),
        (("--config=configs/fnevr/vox_256.py:debug",), "--workdir must be given"),
        (("--config=configs/fnevr/vox_256.py:tiny", "--workdir=w"), "variant must be known"),
        (("--config=configs/none.py", "--workdir=w"), "configs/none.py"),
        (
            ("--config=configs/fnevr/vox_256.py:debug", "--workdir=w", "--config.optim.b3=1"),
            "b3",
        ),
        (
            ("--config=configs/fnevr/vox_256.py:debug", "--workdir=w", "--config.seed=x"),
            "seed",
        ),
        (("--config=configs/fnevr/vox_256.py:debug", "--workdir=w", "--what=1"), "what"),
    ],
)
def test_run_train_says_what_is_wrong_in_one_line_and_exits_2(arguments, message):
    result = run_script(*arguments)
    assert result.returncode == 2, result.stderr[-2000:]
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0], lines
