"""The built-in set on disk, through TFDS and on the fly: the same frames, resumed, refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.loaders import (
    DataOptions,
    count_vertices,
    make_eval_pairs,
    make_train_loader,
    open_frames,
)
from data_pipeline.mesh import read_mesh
from data_pipeline.schema import read_clip_table
from data_pipeline.sources import FrameSource
from data_pipeline.synthetic import head_set
from data_pipeline.synthetic.clip_plan import plan_clips
from data_pipeline.synthetic.head_set import EXTRA_FIELDS, HeadSet
from data_pipeline.synthetic.writing import write_talking_heads
from talking_heads_jax import cli
from talking_heads_jax.errors import ArgumentError, ConfigError, DataError
from tests.data_pipeline.test_preprocess import content_of
from tests.data_pipeline.toy_heads import VERTICES, ToyHeads

ROOT = Path(__file__).resolve().parents[2]
IDENTITIES = {"train": 3, "val": 1, "test": 2, "probe": 1, "extrapolation": 2}
OPTIONS = {"size": 32, "num_frames": 3, "stride": 4, "seed": 5, "progress": False}


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> type[ToyHeads]:
    """The renderer is the toy in all tests but those that import the real one again."""
    monkeypatch.setattr(head_set, "SyntheticTalkingHeads", ToyHeads)
    monkeypatch.setattr(ToyHeads, "rendered", [])
    return ToyHeads


def write(output: Path, **changes):
    return write_talking_heads(output, **({**OPTIONS, "identities": IDENTITIES} | changes))


def rendered(**changes):
    """The on-the-fly source of the same frames."""
    synthetic = {"seed": 5, "identities": 3, "frames": 3, "stride": 4} | changes
    config = {"source": "synthetic", "resolution": 32, "synthetic": synthetic, "num_threads": 2}
    return config


def test_splits_show_their_own_people(tmp_path: Path) -> None:
    summary = write(tmp_path / "data")
    assert summary.records == {"train": 9, "val": 3, "test": 6, "probe": 3, "extrapolation": 6}
    splits = read_clip_table(tmp_path / "data").splits
    people = {split: {clip.identity_id for clip in clips} for split, clips in splits.items()}
    assert people["train"] == {"00000", "00001", "00002"} and people["val"] == {"10000"}
    assert people["extrapolation"] == people["test"] == {"20000", "20001"}
    assert people["probe"] == {"30000"} and splits["train"][0].fps == 25 / 4
    turned, usual = (FrameSource(tmp_path / "data", name)[0] for name in ("extrapolation", "test"))
    assert turned.angles[0] == 1.0 and usual.angles[0] == np.float32(0.1)
    assert [FrameSource(tmp_path / "data")[i].frame_index for i in range(4)] == [0, 4, 8, 0]


def test_records_hold_the_truth_of_the_renderer(tmp_path: Path) -> None:
    write(tmp_path / "data", extras=tuple(EXTRA_FIELDS))
    source = FrameSource(tmp_path / "data")
    heads = ToyHeads(
        size=32, seed=5, motion="", poses="moderate", morphable="", fields=tuple(EXTRA_FIELDS)
    )
    states = heads.clip(1, 0, 3, 4)
    record, frame = source[4], heads.render(1, states[1])
    for name in ("image", "mask", "landmarks68_visible"):
        assert np.array_equal(getattr(record, name), getattr(frame, name)), name
    for name in ("landmarks68_px", "angles", "camera25"):
        np.testing.assert_allclose(getattr(record, name), getattr(frame, name), rtol=1e-6)
    # Half a unit of float16 at 16 px, of 16 bits at 130 cm, of float16 at 1.
    np.testing.assert_allclose(record.vertices, frame.vertices_px, atol=2**-8)
    np.testing.assert_allclose(record.depth, frame.depth, atol=2**-9)
    np.testing.assert_allclose(record.normals, frame.normals, atol=2**-12)
    assert record.morphable == "toy" and record.shape_coeffs[0] == 1.0
    assert record.joint_pose.shape == (6,) and record.expression_coeffs[0] == 0.25
    assert np.isfinite(record.flow_to_next_px).all()
    assert np.isnan(source[5].flow_to_next_px).all()  # the clip's last frame has no next one
    assert len(read_mesh(tmp_path / "data").mirror) == VERTICES


def test_extras_can_be_left_out(tmp_path: Path) -> None:
    write(tmp_path / "data", extras=())
    assert "vertices" not in FrameSource(tmp_path / "data").fields
    assert not (tmp_path / "data" / "mesh.npz").exists()


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "whole")
    whole = list(ToyHeads.rendered)
    original = ToyHeads.render

    def failing(self, identity, state):
        if len(ToyHeads.rendered) >= len(whole) + 10:
            raise KeyboardInterrupt
        return original(self, identity, state)

    with monkeypatch.context() as patch:
        patch.setattr(ToyHeads, "render", failing)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "data")
    with pytest.raises(DataError, match=r"size=32 instead of 64.*Choose another --output"):
        write(tmp_path / "data", size=64)
    before = len(ToyHeads.rendered)
    summary = write(tmp_path / "data")
    assert summary.reused == 3 and len(ToyHeads.rendered) - before == len(whole) - 9
    assert content_of(tmp_path / "data" / "records") == content_of(tmp_path / "whole" / "records")
    assert content_of(tmp_path / "data").keys() == content_of(tmp_path / "whole").keys()
    write(tmp_path / "data")
    assert len(ToyHeads.rendered) - before == len(whole) - 9  # nothing left to do


def test_on_the_fly_and_on_disk_are_the_same_training(tmp_path: Path) -> None:
    write(tmp_path / "data")
    options = {"masks": True, "vertices": True, "angles": True}
    options["augmentation"] = {"horizontal_flip": 0.5, "time_flip": 0.5, "hue": 0.1}
    on_disk = {"folder": str(tmp_path / "data"), "num_threads": 2}
    batches = []
    for source in (on_disk, rendered()):
        with make_train_loader(source | options, batch_size=6, seed=3) as loader:
            batches.append(loader.batch(2))
            assert loader.num_samples == 3
    read, drawn = batches
    assert np.array_equal(read.record_ids, drawn.record_ids)
    for one, other in zip(read[:2], drawn[:2], strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)
        np.testing.assert_allclose(one.angles, other.angles)
        np.testing.assert_allclose(one.vertices, other.vertices, atol=2**-8)  # float16 on disk
    assert count_vertices(rendered()) == VERTICES


def test_rendered_clips_have_the_columns_of_stored_ones(tmp_path: Path) -> None:
    write(tmp_path / "data", extras=())
    configs = ({"folder": str(tmp_path / "data")}, rendered())
    stored, drawn = (next(make_eval_pairs(config, split="test", optional=["mask"]))[1]
                     for config in configs)  # fmt: skip
    for name in ("image", "mask", "clip_id", "vertices"):
        one, other = stored.column(name), drawn.column(name)
        assert (one is None) == (other is None) == (name == "vertices")
        assert one is None or np.array_equal(one[2], other[2])


def test_a_sample_does_not_depend_on_threads_or_memory() -> None:
    batches = []
    for changes, threads in (({"cache_mb": 0}, 1), ({}, 7)):
        config = rendered(**changes) | {"num_threads": threads}
        with make_train_loader(config, batch_size=4, seed=0) as loader:
            stream = loader.iterate(1)
            batches.append([next(stream) for _ in range(3)])
    for one, other in zip(*batches, strict=True):
        assert np.array_equal(one.driving.image, other.driving.image)
        assert np.array_equal(one.record_ids, other.record_ids)


def test_frames_in_memory_are_not_rendered_again() -> None:
    source = open_frames(DataOptions.from_config(rendered()), optional=["mask"])
    for _ in range(2):
        for index in range(len(source)):
            source[index]
    assert len(ToyHeads.rendered) == len(source) == 9
    with pytest.raises(IndexError):
        source[9]
    forgetful = open_frames(DataOptions.from_config(rendered(cache_mb=0)), optional=["mask"])
    forgetful[0], forgetful[0]
    assert len(ToyHeads.rendered) == 11


def test_fingerprint_follows_the_set_and_not_the_memory() -> None:
    def fingerprint(**changes: object) -> str:
        with make_train_loader(rendered(**changes), batch_size=2, seed=0) as loader:
            return loader.fingerprint

    same = fingerprint()
    assert fingerprint(cache_mb=1) == same
    others = [fingerprint(seed=6), fingerprint(identities=2), fingerprint(stride=2)]
    others += [fingerprint(motion="rigid_bust"), fingerprint(poses="wide"), fingerprint(takes=2)]
    assert len({same, *others}) == 7


def test_rendering_refuses_what_it_does_not_offer() -> None:
    for changes, message in (
        ({"num_workers": 1}, r"data\.num_workers must be 0.*synthesize"),
        ({"split": "training"}, r"data\.split"),
        ({"source": "internet"}, r"data\.source"),
        ({"source": "folder"}, r"data\.folder.*data\.source=synthetic"),
        ({"synthetic": {"frames": 1}}, r"data\.synthetic\.frames"),
        ({"synthetic": {"identity": 1}}, r"data\.synthetic must have known keys"),
        ({"synthetic": {"identities": 0}}, r"data\.synthetic\.identities"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_train_loader(rendered() | changes, batch_size=2, seed=0)
    for changes in (
        {"poses": "upside down"},
        {"motion": "sideways"},
        {"morphable": "wolf"},
        {"identities": 10_001},
        {"frames": 50_001, "stride": 2},
    ):
        with pytest.raises(ArgumentError):
            make_train_loader(rendered(**changes), batch_size=2, seed=0)


def test_plans_refuse_numbers_without_sense() -> None:
    for identities, changes in (
        ({"train": -1}, {}),
        ({"training": 1}, {}),
        ({"train": 0}, {}),
        ({"test": 1}, {"num_frames": 1}),
        ({"test": 1}, {"stride": 0}),
        ({"test": 1}, {"takes": 0}),
        ({"test": 1}, {"stride": 50_001}),
    ):
        with pytest.raises(ArgumentError):
            plan_clips(identities, **({"num_frames": 2} | changes))
    plans = plan_clips({"test": 1, "train": 1}, num_frames=2, takes=2)
    names = ["train/00000-0", "train/00000-1", "test/20000-0", "test/20000-1"]
    assert [plan.clip_id for plan in plans] == names


def test_tfds_builder_holds_the_same_records(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    from data_pipeline.builders.synthetic_talking_heads import synthetic_talking_heads as module

    write(tmp_path / "data")
    assert [*module.SyntheticTalkingHeads.builder_configs] == ["64", "128", "256", "512"]
    config = module.HeadsConfig(
        name="tiny", size=32, identities=IDENTITIES, num_frames=3, stride=4, seed=5,
        extras=("vertices",),
    )  # fmt: skip
    builder = module.SyntheticTalkingHeads(
        config=config, data_dir=str(tmp_path / "tfds"), file_format="array_record"
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    for split, count in {"train": 9, "extrapolation": 6}.items():
        through_tfds, ours = builder.as_data_source(split), FrameSource(tmp_path / "data", split)
        assert len(through_tfds) == len(ours) == count
        one, other = through_tfds[count - 2], ours[count - 2]
        assert np.array_equal(one["image"], other.image)
        assert np.array_equal(one["mask"][..., 0], other.mask)
        assert one["clip_id"].decode() == other.clip_id and one["frame_index"] == 4
        np.testing.assert_allclose(one["camera25"], other.camera25)
        centre = np.array([16, 16, 0], np.float32)
        np.testing.assert_allclose(one["vertices"] + centre, other.vertices, atol=1e-6)


def test_command_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "data")
    numbers = ["--identities", "2", "--test-identities", "1", "--extrapolation-identities", "1"]
    command = ["synthesize", "--output", output, "--size", "32", "--frames", "2", *numbers]
    assert cli.main([*command, "--fields", "depth", "flow"]) == 0
    assert "4 train, 2 test, 2 extrapolation" in capsys.readouterr().out
    fields = FrameSource(output).fields
    assert {"depth", "flow_to_next_px", "mask"} <= set(fields) and "vertices" not in fields
    for arguments, message in (
        (["--seed", "1", "--fields", "depth", "flow"], "seed=0 instead of 1"),
        (["--frames", "1"], "frames of a clip must be at least 2"),
        (["--output", f"{output}-other", "--stride", "1000000"], "Draw several takes"),
        (["--identities", "20000"], "Another seed"),
        (["--ict", "model.npz"], "--morphable ict"),
        (["--morphable", "ict", "--ict", "nowhere.npz"], "nowhere.npz"),
    ):
        assert cli.main([*command, *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not Path(f"{output}-other").exists()  # refused before anything is written


def test_reading_a_data_set_never_imports_the_renderer() -> None:
    """A worker process that reads a data set never imports the renderer."""
    code = (
        "import sys, data_pipeline.loaders\n"
        "print(any(name.startswith('data_pipeline.synthetic') for name in sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_the_real_renderer_fills_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame of the built-in head, with all extras, as the record wants it."""
    from data_pipeline.synthetic.talking_heads import SyntheticTalkingHeads

    monkeypatch.setattr(head_set, "SyntheticTalkingHeads", SyntheticTalkingHeads)
    heads = HeadSet(size=32, extras=tuple(EXTRA_FIELDS))
    (plan,) = plan_clips({"test": 1}, num_frames=2, stride=10)
    ((first, last),) = heads.render_clips([plan])
    identity = heads.identity("test", plan.identity)
    alone = heads.render(plan, 0, heads.states(plan), identity)
    for name, value in first.items():
        assert np.array_equal(value, alone[name]), name
    assert set(first) == {"image", *heads.fields}
    shapes = heads.shapes()
    for name, shape in shapes.items():
        assert first[name].shape == shape and np.isfinite(first[name]).all(), name
    mesh = heads.mesh()
    assert len(mesh.mirror) == shapes["vertices"][0] and mesh.faces.max() < len(mesh.mirror)
    inside = first["mask"] > 0
    assert 0.2 < inside.mean() < 0.95
    assert (first["depth"][inside] > 0).mean() > 0.9  # but at the silhouette
    assert np.isfinite(first["flow_to_next_px"][inside]).all()
    assert np.isnan(last["flow_to_next_px"]).all()
