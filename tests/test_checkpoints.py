"""Checkpoint folders: what is written comes back bit for bit, and nothing is overwritten."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from talking_heads_jax.checkpoints import (
    TrainingCheckpoints,
    current_revision,
    load_model,
    read_description,
    save_model,
    saved_networks,
)
from talking_heads_jax.errors import CheckpointError
from talking_heads_jax.models.registry import build_model

SMALL = {
    "resolution": 32,
    "num_keypoints": 2,
    "keypoint_detector": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
    "generator": {
        "block_expansion": 2,
        "max_features": 4,
        "num_bottleneck_blocks": 1,
        "dense_motion_options": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
    },
    "discriminator": {"block_expansion": 2, "max_features": 4, "num_blocks": 2},
}


def _filled(shapes, seed):
    """Arrays of the given shapes without two equal tensors."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape), leaf.dtype), shapes
    )


@pytest.fixture(scope="module")
def model():
    return build_model("fomm", **SMALL)


@pytest.fixture(scope="module")
def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0))


@pytest.fixture(scope="module")
def variables(shapes):
    return _filled(shapes, 0)


def _state(shapes, seed, *, ema=("generator",)):
    networks = {}
    for name, trees in shapes.items():
        params = _filled(trees["params"], seed)
        networks[name] = {
            "params": params,
            "collections": _filled({k: v for k, v in trees.items() if k != "params"}, seed + 1),
            "opt_state": optax.adam(1e-3).init(params) if name != "kp_detector" else None,
            "ema_params": jax.tree.map(lambda x: x + 1, params) if name in ema else None,
        }
    return {
        "step": jnp.asarray(seed, jnp.int32),
        "networks": networks,
        "halted": jnp.asarray(False),
    }


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for mine, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs), strict=True)


def test_load_model_returns_what_was_saved(tmp_path, model, variables):
    folder = tmp_path / "a" / "model"
    save_model(folder, model, variables, config={"a": 1}, certificate={"b": 2})
    loaded = load_model(folder)
    assert set(loaded.variables) == set(model.inference_networks)
    _assert_equal(loaded.variables, {name: variables[name] for name in model.inference_networks})
    assert loaded.model.arguments() == model.arguments()
    assert loaded.info["config"] == {"a": 1} and loaded.info["certificate"] == {"b": 2}
    assert loaded.info["revision"] == current_revision()
    assert loaded.info["value_range"] == [0.0, 1.0] and loaded.info["resolution"] == 32
    everything = load_model(folder, networks=saved_networks(folder)).variables
    _assert_equal(everything, variables)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["model"]


def test_save_model_overwrites_nothing(tmp_path, model, variables):
    folder = tmp_path / "model"
    folder.mkdir()
    save_model(folder, model, variables)  # an empty folder is fine
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(CheckpointError, match="new or empty"):
        save_model(folder, model, variables)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="new or empty"):
        save_model(tmp_path / "file", model, variables)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_save_model_leaves_nothing_behind_when_it_fails(tmp_path, model, variables):
    with pytest.raises(CheckpointError, match="networks of 'fomm'"):
        save_model(tmp_path / "a", model, {"nose": variables["generator"]})
    with pytest.raises(CheckpointError, match="JSON"):
        save_model(tmp_path / "a", model, variables, config={"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_save_model_takes_numpy_and_bfloat16(tmp_path, model, variables):
    arrays = jax.tree.map(np.asarray, variables)
    save_model(tmp_path / "model", model, {name: arrays[name] for name in ("generator",)})
    loaded = load_model(tmp_path / "model", networks=["generator"])
    _assert_equal(loaded.variables["generator"], variables["generator"])
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables["generator"]["params"])
    save_model(tmp_path / "half", model, {"generator": {**variables["generator"], "params": half}})
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    found = load_model(tmp_path / "half", networks=["generator"]).variables["generator"]
    _assert_equal(found, {**variables["generator"], "params": wide})


def test_save_model_reduced_rounds_parameters_and_leaves_statistics(tmp_path, model, variables):
    only = {"generator": variables["generator"]}
    for name, reduced in (("whole", False), ("reduced", True)):
        save_model(tmp_path / name, model, only, reduced=reduced)
    found = load_model(tmp_path / "reduced", networks=["generator"]).variables["generator"]
    params = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), variables["generator"]["params"]
    )
    _assert_equal(found, {**variables["generator"], "params": params})
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / name).rglob("*") if file.is_file())
        for name in ("whole", "reduced")
    ]
    assert sizes[1] < sizes[0]


def test_load_model_names_what_is_wrong_with_a_folder(tmp_path, model, variables):
    good = tmp_path / "good"
    save_model(good, model, variables)

    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(good, folder)
        change(folder)
        return folder

    def edit(folder, **values):
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    cases = {
        "no folder": tmp_path / "nowhere",
        "no model.json": broken("a", lambda f: (f / "model.json").unlink()),
        "readable JSON": broken("b", lambda f: (f / "model.json").write_text("{")),
        "schema 1": broken("c", lambda f: edit(f, schema=99)),
        "be registered": broken("d", lambda f: edit(f, name="other")),
        "be known": broken("e", lambda f: edit(f, arguments={"depth": 3})),
        "generator.params.*intact": broken(
            "f", lambda f: shutil.rmtree(f / "state" / "generator.params")
        ),
        "fit the model": broken("g", lambda f: edit(f, arguments=SMALL | {"num_keypoints": 3})),
        "no finished step": broken("h", lambda f: shutil.rmtree(f / "state")),
        "intact": broken("i", lambda f: shutil.rmtree(f / "state" / "generator.params" / "d")),
    }
    for word, folder in cases.items():
        with pytest.raises(CheckpointError, match=word) as caught:
            load_model(folder)
        assert "\n" not in str(caught.value)


def test_restore_returns_the_state_bit_for_bit(tmp_path, model, shapes):
    """Optimiser tuples, empty branches and JSON values included."""
    state = _state(shapes, 5)
    with TrainingCheckpoints(tmp_path, model=model, config={"lr": 0.1}) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(5, state, {"data_step": 7})
        checkpoints.wait()
        assert checkpoints.latest_step() == 5
    with TrainingCheckpoints(tmp_path, model=model) as checkpoints:
        target = jax.eval_shape(lambda: state)
        restored, extra = checkpoints.restore(target)
        assert extra == {"data_step": 7}
        _assert_equal(restored, state)
        assert isinstance(restored["networks"]["generator"]["opt_state"], tuple)
        assert read_description(tmp_path)["config"] == {"lr": 0.1}  # reading changes nothing


def test_training_checkpoints_keep_the_newest(tmp_path, model, shapes):
    with TrainingCheckpoints(tmp_path, model=model, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, _state(shapes, step))
        checkpoints.save(3, _state(shapes, 99))  # a finished step is not written again
        checkpoints.wait()
        target = _state(shapes, 0)
        assert int(checkpoints.restore(target)[0]["step"]) == 3
        assert int(checkpoints.restore(target, step=2)[0]["step"]) == 2
        with pytest.raises(CheckpointError):
            checkpoints.restore(target, step=1)


def test_restore_falls_back_to_the_last_readable_step(tmp_path, model, shapes):
    """A damaged newest checkpoint costs the steps since the one before, not the run."""
    with TrainingCheckpoints(tmp_path, model=model) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(shapes, step))
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "generator.params" / "d")
    with TrainingCheckpoints(tmp_path, model=model) as checkpoints:
        assert int(checkpoints.restore(_state(shapes, 0))[0]["step"]) == 1
        with pytest.raises(CheckpointError, match="no such folder"):
            checkpoints.restore(_state(shapes, 0), step=2)


def test_restore_refuses_another_state(tmp_path, model, shapes):
    with TrainingCheckpoints(tmp_path, model=model) as checkpoints:
        with pytest.raises(CheckpointError, match="finished checkpoint"):
            checkpoints.restore(_state(shapes, 0))
        checkpoints.save(1, _state(shapes, 1))
        checkpoints.wait()
        with pytest.raises(CheckpointError, match=r"missing.*kp_detector.ema_params"):
            checkpoints.restore(_state(shapes, 0, ema=("generator", "kp_detector")))
        with pytest.raises(CheckpointError, match="unknown"):
            checkpoints.restore(_state(shapes, 0, ema=()))
        wide = _state(shapes, 0)
        bias = wide["networks"]["generator"]["params"]["decoder"]["final"]
        bias["bias"] = jnp.zeros(4)
        with pytest.raises(CheckpointError, match="final/bias"):
            checkpoints.restore(wide)


def test_training_checkpoints_refuse_another_model(tmp_path, model, variables, shapes):
    with TrainingCheckpoints(tmp_path / "run", model=model) as checkpoints:
        checkpoints.save(1, _state(shapes, 1))
    other = build_model("fomm", **SMALL | {"num_keypoints": 3})
    with pytest.raises(CheckpointError, match="another arguments"):
        TrainingCheckpoints(tmp_path / "run", model=other)
    save_model(tmp_path / "model", model, variables)
    with pytest.raises(CheckpointError, match="saved model"):
        TrainingCheckpoints(tmp_path / "model", model=model)


def test_load_model_reads_a_training_folder(tmp_path, model, shapes):
    """Newest step, averages where there are any, no optimiser state."""
    with TrainingCheckpoints(tmp_path, model=model) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(shapes, step))
    for item in (tmp_path / "checkpoints").glob("*/*.opt_state"):
        shutil.rmtree(item)  # inference must not need it
    loaded = load_model(tmp_path)
    expected = _state(shapes, 2)["networks"]
    assert loaded.info["step"] == 2
    assert loaded.info["parameters"] == {"kp_detector": "params", "generator": "ema_params"}
    for name, part in loaded.info["parameters"].items():
        tree = {"params": expected[name][part], **expected[name]["collections"]}
        _assert_equal(loaded.variables[name], tree)
    averages = tmp_path / "checkpoints" / "2" / "generator.ema_params"
    shutil.rmtree(averages / "d")
    assert load_model(tmp_path).info["step"] == 1
    shutil.rmtree(averages)  # the raw parameters of step 2 must not stand in for them
    assert load_model(tmp_path).info["step"] == 1


def test_restore_places_arrays_as_the_target_says(tmp_path, model, shapes):
    """Shardings come from the target, not from the machine that saved."""
    state = _state(shapes, 3)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
    )
    with TrainingCheckpoints(tmp_path, model=model) as checkpoints:
        checkpoints.save(3, state)
        restored, _ = checkpoints.restore(target)
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(restored))
    _assert_equal(restored, state)
