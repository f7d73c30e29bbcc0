"""The loop: resume equals uninterrupted bit for bit, restoration order, stops, logs, pictures."""

import errno
import json
import os
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from talking_heads_jax.checkpoints import TrainingCheckpoints
from talking_heads_jax.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from talking_heads_jax.models.base import ObjectiveResult, Phase
from talking_heads_jax.train.ema import Ema
from talking_heads_jax.train.optimizers import adam
from talking_heads_jax.train.recipe import Stage
from talking_heads_jax.train.sample_log import read_sample_log
from talking_heads_jax.train.sharding import make_mesh
from talking_heads_jax.train.trainer import Trainer
from talking_heads_jax.train.writers import JsonLinesWriter
from tests.train.toy import ToyHead, ToyLoader, toy_batch, toy_phases

MODEL = ToyHead()


def stage(num_steps, phases=None, **options):
    rules = ((".*", optax.constant_schedule(1e-2)),)
    return Stage(
        name="toy",
        phases=phases or toy_phases(),
        optimizers={name: adam(rules) for name in MODEL.networks},
        num_steps=num_steps,
        batch_size=4,
        ema=Ema(("generator",), decay=0.9),
        **options,
    )


def trainer(workdir, num_steps=4, *, loader=None, phases=None, seed=5, options=None, **more):
    settings = {"log_every": 2, "images_every": 0, "save_every": 2, "progress": False, **more}
    return Trainer(
        model=MODEL,
        stage=stage(num_steps, phases, **(options or {})),
        workdir=workdir,
        config={"name": "toy"},
        mesh=make_mesh(devices=jax.devices()[:1]),
        loader=loader or ToyLoader(),
        seed=seed,
        **settings,
    )


def assert_identical(ours, theirs):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=name)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    state = trainer(workdir, 4).run()
    return workdir, jax.tree.map(np.asarray, state)


@pytest.mark.integration
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, uninterrupted):
    """Parameters, collections, optimiser, averages, random streams and data position."""
    trainer(tmp_path, 2).run()
    state = trainer(tmp_path, 4).run()
    assert int(state.step) == 4
    assert_identical(state, uninterrupted[1])
    ours, theirs = (metrics(folder) for folder in (tmp_path, uninterrupted[0]))
    assert [row["step"] for row in ours] == [2, 4]
    for mine, its in zip(ours, theirs, strict=True):
        assert {k: v for k, v in mine.items() if not k.startswith("perf/")} == {
            k: v for k, v in its.items() if not k.startswith("perf/")
        }
    log = Path("samples", "from_0000000000_process_0_of_1.bin")
    assert (tmp_path / log).read_bytes() == (uninterrupted[0] / log).read_bytes()
    for step, ids in read_sample_log(tmp_path).items():
        np.testing.assert_array_equal(ids, toy_batch(seed=999 + step).record_ids)


@pytest.mark.integration
def test_another_sample_order_gives_another_state(tmp_path, uninterrupted):
    """The control of the test above: it can fail."""

    class Shifted(ToyLoader):
        def iterate(self, start_step):
            return super().iterate(start_step + (start_step >= 2))

    trainer(tmp_path, 2).run()
    state = trainer(tmp_path, 4, loader=Shifted()).run()
    with pytest.raises(AssertionError):
        assert_identical(state, uninterrupted[1])
    ours, theirs = read_sample_log(tmp_path), read_sample_log(uninterrupted[0])
    assert [np.array_equal(ours[step], theirs[step]) for step in range(1, 5)] == [1, 1, 0, 0]


@pytest.mark.integration
def test_a_run_goes_around_a_damaged_checkpoint_and_ends_the_same(tmp_path, uninterrupted, caplog):
    trainer(tmp_path, 4).run()
    newest = tmp_path / "checkpoints" / "4"
    victim = next(path for path in newest.rglob("d/*") if path.is_file())
    victim.write_bytes(victim.read_bytes()[:-1])
    state = trainer(tmp_path, 4).run()
    assert "damaged checkpoint 4" in caplog.text
    assert_identical(state, uninterrupted[1])
    assert newest.is_dir() and newest.with_name("4.damaged").is_dir()
    assert int(trainer(tmp_path, 4).run().step) == 4  # it is whole again
    log = Path("samples", "from_0000000000_process_0_of_1.bin")
    assert (tmp_path / log).read_bytes() == (uninterrupted[0] / log).read_bytes()


@pytest.mark.integration
def test_a_full_disk_stops_the_run_in_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer(tmp_path, 2).run()
    monkeypatch.setattr(JsonLinesWriter, "write_scalars", full)
    with pytest.raises(CheckpointError, match=r"No space left.*Checkpoint 2 is intact") as caught:
        trainer(tmp_path, 4).run()
    assert "\n" not in str(caught.value)


@pytest.mark.integration
def test_goodput_and_stall_see_a_slow_loader_and_a_slow_save(tmp_path, monkeypatch, capsys):
    """Lower bounds: the machine may be slower than the pauses, never faster."""
    pause = 0.2

    class Slow(ToyLoader):
        def iterate(self, start_step):
            for pair in super().iterate(start_step):
                time.sleep(pause)
                yield pair

    save = TrainingCheckpoints.save

    def slow_save(*arguments):
        time.sleep(pause)
        save(*arguments)

    monkeypatch.setattr(TrainingCheckpoints, "save", slow_save)
    begun = time.monotonic()
    trainer(tmp_path, 5, loader=Slow(), save_every=1, log_every=5, progress=True).run()
    wall = time.monotonic() - begun
    row = metrics(tmp_path)[-1]
    assert row["perf/input_stall"] * wall >= 5 * pause
    # The last of the five saves comes after the line.
    assert (1 - row["perf/goodput"]) * wall >= (5 + 4) * pause
    shown = capsys.readouterr()
    assert re.search(r"step 5: 5 steps in \d+ s, goodput [\d.]+%, input stall [\d.]+%", shown.out)


@pytest.mark.integration
def test_restoration_prefers_own_then_resume_from_then_fresh(tmp_path, uninterrupted):
    elsewhere, whole = uninterrupted
    options = {"resume_from": str(elsewhere)}
    before = contents(elsewhere)
    state = trainer(tmp_path / "a", 4, options=options).run()
    assert contents(elsewhere) == before  # the other run is only read
    assert_identical(state, whole)  # its last step is done: nothing is left to train
    trainer(tmp_path / "b", 2).run()
    own = trainer(tmp_path / "b", 2, options=options).run()
    assert int(own.step) == 2
    with pytest.raises(CheckpointError, match="no folder"):
        trainer(tmp_path / "c", 4, options={"resume_from": str(tmp_path / "nowhere")}).run()
    with pytest.raises(ConfigError, match="take part"):
        trainer(tmp_path / "d", 4, options={"init_from": {"nose": str(elsewhere)}}).run()


def test_restoration_loads_single_networks(tmp_path, monkeypatch):
    from talking_heads_jax.checkpoints import LoadedModel
    from talking_heads_jax.train import restoration

    given = MODEL.init(jax.random.key(99))
    wide = ToyHead(width=5).init(jax.random.key(99))
    found = {"good": given, "wide": wide}
    monkeypatch.setattr(
        restoration,
        "load_model",
        lambda folder, networks: LoadedModel(
            MODEL, {name: found[folder.name][name] for name in networks}, {}
        ),
    )

    def begin(folder):
        checkpoints = restoration.TrainingCheckpoints(tmp_path / "run", model=MODEL)
        mesh = make_mesh(devices=jax.devices()[:1])
        chosen = stage(4, init_from={"generator": folder})
        with checkpoints:
            return restoration.start(MODEL, chosen, checkpoints, mesh=mesh, seed=0)

    begun = begin("good")
    assert_identical(begun.state.networks["generator"].params, given["generator"]["params"])
    assert_identical(begun.state.networks["generator"].ema_params, given["generator"]["params"])
    fresh = begun.state.networks["discriminator"].params["kernel"]
    assert not np.array_equal(fresh, given["discriminator"]["params"]["kernel"])
    with pytest.raises(CheckpointError, match="shapes"):
        begin("wide")


@pytest.mark.integration
def test_resuming_with_other_data_is_refused(tmp_path):
    class Other(ToyLoader):
        fingerprint = "other clips"

    mine = Other()
    mine.fingerprint = "my clips"
    trainer(tmp_path, 2, loader=mine).run()
    with pytest.raises(ConfigError, match="data of a resumed run must stay the same clips"):
        trainer(tmp_path, 4, loader=Other()).run()
    trainer(tmp_path, 4, loader=ToyLoader()).run()  # a loader that cannot tell


@pytest.mark.integration
def test_resuming_with_another_seed_is_refused(tmp_path, uninterrupted):
    trainer(tmp_path, 2).run()
    with pytest.raises(ConfigError, match="seed"):
        trainer(tmp_path, 4, seed=6).run()


@pytest.mark.integration
def test_nonfinite_stops_with_term_step_and_the_last_good_state(tmp_path, uninterrupted):
    good = toy_phases()

    def broken(networks, pair, context):
        result = good[0].objective(networks, pair, context)
        nan = jax.numpy.where(context.step == 2, jax.numpy.nan, 0.0)
        return ObjectiveResult({**result.losses, "bad": nan}, result.carry)

    phases = (Phase("generator", ("generator",), broken), good[1])
    run = trainer(tmp_path, 4, phases=phases, save_every=100)
    with pytest.raises(NonFiniteError, match=r"step 3 .*generator/bad") as caught:
        run.run()
    assert "checkpoint 2" in str(caught.value) and "\n" not in str(caught.value)
    resumed = trainer(tmp_path, 4).run()
    assert_identical(resumed, uninterrupted[1])


@pytest.mark.integration
def test_sigterm_saves_and_returns(tmp_path, uninterrupted):
    class Terminating(ToyLoader):
        def iterate(self, start_step):
            for index, pair in enumerate(super().iterate(start_step)):
                if index == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield pair

    loader = Terminating()
    state = trainer(tmp_path, 100, loader=loader, save_every=1000).run()
    assert 0 < int(state.step) < 100 and loader.closed
    resumed = trainer(tmp_path, 4).run()
    assert_identical(resumed, uninterrupted[1])


@pytest.mark.integration
def test_pictures_scalars_and_positions_are_written(tmp_path):
    tensorboard = pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    del tensorboard
    trainer(tmp_path, 2, images_every=2, num_images=2).run()
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    for name in (
        "loss/generator/pixel",
        "loss/generator/total",
        "grad_norm/discriminator/discriminator",
        "learning_rate/generator",
        "perf/images_per_second",
        "perf/input_stall",
        "perf/goodput",
    ):
        assert np.isfinite(row[name])
    assert row["samples"] == 8
    events = next((tmp_path / "tensorboard").iterdir()).read_bytes()
    assert b"panels" in events and b"loss/generator/total" in events
    extra = json.loads((tmp_path / "checkpoints" / "2" / "extra" / "metadata").read_text())
    assert extra["data_step"] == 2 and extra["samples"] == 8 and extra["seed"] == 5


def test_a_loader_that_ends_is_an_error(tmp_path):
    with pytest.raises(DataError, match="last until step 4"):
        trainer(tmp_path, 4, loader=ToyLoader(limit=1)).run()


def test_stage_refuses_a_batch_that_does_not_split():
    with pytest.raises(ConfigError, match="divisible"):
        stage(4, accumulation=3)


def test_toy_loader_depends_on_the_step_alone():
    iterator = ToyLoader().iterate(3)
    np.testing.assert_array_equal(next(iterator).source.image, toy_batch(seed=1003).source.image)
