"""Batches: right content, resumed by step, shared by processes, closed without a trace."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict, FrozenConfigDict

from data_pipeline.loaders import make_eval_pairs, make_train_loader
from data_pipeline.sources import FrameSource
from talking_heads_jax.errors import ArgumentError, ConfigError, DataError

ROOT = Path(__file__).resolve().parents[2]
FULL = {
    "time_flip": 0.5, "horizontal_flip": 0.5, "brightness": 0.1, "contrast": 0.1,
    "saturation": 0.1, "hue": 0.1,
}  # fmt: skip


def config(dataset: Path, **changes) -> ConfigDict:
    values = {"folder": str(dataset), "repeats": 3, "num_threads": 2, "augmentation": FULL}
    return ConfigDict(values | changes)


def take(loader, start: int, count: int) -> list:
    iterator = loader.iterate(start)
    try:
        return [next(iterator) for _ in range(count)]
    finally:
        iterator.close()


def same(one, two) -> bool:
    return (
        np.array_equal(one.record_ids, two.record_ids)
        and np.array_equal(one.source.image, two.source.image)
        and np.array_equal(one.driving.image, two.driving.image)
    )


def test_batches_hold_the_stored_frames(dataset: Path) -> None:
    source = FrameSource(dataset)
    with make_train_loader(config(dataset, augmentation={}), batch_size=4, seed=0) as loader:
        batch = take(loader, 0, 1)[0]
    assert batch.source.image.shape == (4, 32, 32, 3) and batch.record_ids.shape == (4, 2)
    assert batch.source.image.dtype == np.float32 and batch.record_ids.dtype == np.int64
    assert batch.source.angles is None and batch.weight is None
    for row, (first, second) in enumerate(batch.record_ids):
        # One rounding of float32.
        np.testing.assert_allclose(
            batch.source.image[row] * 255, source[int(first)].image, atol=1e-4
        )
        np.testing.assert_allclose(
            batch.driving.image[row] * 255, source[int(second)].image, atol=1e-4
        )
    assert batch.source.image.max() <= 1.0


def test_resume_by_step_is_exact_on_any_number_of_threads(dataset: Path) -> None:
    with make_train_loader(config(dataset), batch_size=4, seed=0) as loader:
        everything = take(loader, 0, 12)
        resumed = take(loader, 7, 5)
        direct = [loader.batch(step) for step in range(12)]
    with make_train_loader(config(dataset, num_threads=7), batch_size=4, seed=0) as loader:
        other = take(loader, 0, 12)
    assert all(map(same, everything[7:], resumed))
    assert all(map(same, everything, direct)) and all(map(same, everything, other))
    assert not same(everything[0], everything[1])
    with make_train_loader(config(dataset), batch_size=4, seed=1) as loader:
        assert not same(everything[0], loader.batch(0))


def test_worker_processes_deliver_the_same_samples(dataset: Path) -> None:
    batches = {}
    for workers in (0, 2):
        with make_train_loader(
            config(dataset, num_workers=workers), batch_size=3, seed=0
        ) as loader:
            stream = loader.iterate(5)
            batches[workers] = [next(stream) for _ in range(3)]
    for mine, theirs in zip(batches[0], batches[2], strict=True):
        np.testing.assert_array_equal(mine.record_ids, theirs.record_ids)
        np.testing.assert_array_equal(mine.source.image, theirs.source.image)
        np.testing.assert_array_equal(mine.driving.image, theirs.driving.image)


def test_processes_share_the_global_batch(dataset: Path) -> None:
    with make_train_loader(config(dataset), batch_size=6, seed=0) as loader:
        whole = take(loader, 3, 3)
    for shares in (((0, 1, 2), (3, 4, 5)), ((4, 5), (0, 2), (1, 3))):
        for rows in shares:
            with make_train_loader(config(dataset), batch_size=6, seed=0, rows=rows) as loader:
                assert loader.local_batch_size == len(rows)
                mine = take(loader, 3, 3)
            for part, batch in zip(mine, whole, strict=True):
                assert np.array_equal(part.record_ids, batch.record_ids[list(rows)])
                assert np.array_equal(part.driving.image, batch.driving.image[list(rows)])


def test_fingerprint_tells_what_decides_the_samples(dataset: Path) -> None:
    def fingerprint(seed: int = 0, **changes: object) -> str:
        with make_train_loader(config(dataset, **changes), batch_size=2, seed=seed) as loader:
            return loader.fingerprint

    same = fingerprint()
    assert fingerprint(num_threads=5, num_workers=1, prefetch=3) == same
    others = [fingerprint(seed=1), fingerprint(balance="clip"), fingerprint(augmentation={})]
    others += [fingerprint(distinct=True), fingerprint(repeats=4), fingerprint(split="test")]
    assert len({same, *others}) == 7


def test_a_worker_outlives_sigterm_but_not_its_parent(dataset: Path, tmp_path: Path) -> None:
    """Clusters send SIGTERM to every process; a killed parent cannot stop its workers."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(dataset=str(dataset)))
    with subprocess.Popen(
        [sys.executable, script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        workers = [int(number) for number in parent.stdout.readline().split()]
        assert workers
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        assert parent.stdout.readline() == "one more batch\n"
        parent.kill()
    deadline = time.monotonic() + 30
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody waits for, in a container without an init process, is dead too.
    status = Path(f"/proc/{process}/stat")
    return not status.is_file() or status.read_text().rpartition(")")[2].split()[0] != "Z"


PARENT = """
import multiprocessing, sys, time
sys.path.insert(0, ".")
from data_pipeline.loaders import make_train_loader

if __name__ == "__main__":
    values = {{"folder": "{dataset}", "num_workers": 2, "num_threads": 1}}
    batches = make_train_loader(values, batch_size=2, seed=0).iterate(0)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(1.0)
    for _ in range(8):  # more than was read ahead
        next(batches)
    print("one more batch", flush=True)
    time.sleep(60)
"""


def test_epochs_count_identities_and_repeats(dataset: Path) -> None:
    clips = FrameSource(dataset).clips
    people = len({clip.identity_id for clip in clips})
    with make_train_loader(config(dataset), batch_size=4, seed=0) as loader:
        assert loader.num_samples == people and loader.epoch_samples == 3 * people
        assert loader.steps_per_epoch() == 3 * people // 4
    with make_train_loader(config(dataset, balance="clip"), batch_size=4, seed=0) as loader:
        assert loader.num_samples == len(clips)


def test_time_flip_is_visible_in_the_record_ids(dataset: Path) -> None:
    always = config(dataset, augmentation={"time_flip": 1.0}, distinct=True)
    with make_train_loader(always, batch_size=8, seed=0) as loader:
        ids = loader.batch(0).record_ids
    assert (ids[:, 0] > ids[:, 1]).all()


def test_angles_travel_and_are_mirrored_with_the_picture(tmp_path: Path, dataset: Path) -> None:
    mirrored = config(dataset, angles=True, augmentation={"horizontal_flip": 1.0})
    with make_train_loader(mirrored, batch_size=12, seed=0) as loader:
        batch = loader.batch(0)
    plain = config(dataset, angles=True, augmentation={})
    with make_train_loader(plain, batch_size=12, seed=0) as loader:
        expected = loader.batch(0)
    known = np.isfinite(expected.source.angles).all(-1)
    np.testing.assert_allclose(
        batch.source.angles[known], expected.source.angles[known] * [-1, 1, -1], rtol=1e-6
    )
    np.testing.assert_allclose(batch.source.image, expected.source.image[:, :, ::-1])


def test_resolution_shrinks_the_images(dataset: Path) -> None:
    with make_train_loader(config(dataset, resolution=16), batch_size=2, seed=0) as loader:
        assert loader.batch(0).source.image.shape == (2, 16, 16, 3)


def test_close_ends_the_threads_even_in_the_middle(dataset: Path) -> None:
    make_train_loader(config(dataset), batch_size=2, seed=0).close()
    before = threading.active_count()
    loader = make_train_loader(config(dataset, num_threads=6), batch_size=4, seed=0)
    iterator = loader.iterate(0)
    next(iterator)
    assert threading.active_count() > before
    loader.close()
    loader.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_config_may_be_any_mapping_and_unknown_keys_are_refused(dataset: Path) -> None:
    for kind in (dict, ConfigDict, FrozenConfigDict):
        values = kind(config(dataset, batch_size=2).to_dict())
        with make_train_loader(values, seed=0) as loader:
            assert loader.batch_size == 2
    for wrong in (
        {"sizze": 3},
        {"balance": "x"},
        {"num_threads": 0},
        {"num_workers": -1},
        {"folder": ""},
    ):
        with pytest.raises(ConfigError, match="data"):
            make_train_loader(config(dataset, **wrong), batch_size=2, seed=0)
    with pytest.raises(ConfigError, match="batch_size"):
        make_train_loader(config(dataset), seed=0)
    with pytest.raises(ConfigError, match="rotation"):
        make_train_loader(config(dataset, augmentation={"rotation": 1}), batch_size=2, seed=0)
    with pytest.raises(ArgumentError, match="rows must lie within"):
        make_train_loader(config(dataset), batch_size=3, seed=0, rows=(1, 3))
    with pytest.raises(DataError, match="prepare"):
        make_train_loader(config(dataset, folder="/nowhere"), batch_size=2, seed=0)


def test_eval_pairs_walk_the_clips_in_order(dataset: Path) -> None:
    source = FrameSource(dataset, "test")
    found = list(make_eval_pairs(config(dataset)))
    assert [clip_id for clip_id, _ in found] == [clip.clip_id for clip in source.clips]
    for _, frames in found:
        once, twice = list(frames), list(frames)
        assert len(once) == len(frames) and all(map(np.array_equal, once, twice))
        first = source[frames.first_record].image
        np.testing.assert_allclose(once[0] * 255, first, atol=1e-4)
        assert frames.record(0).clip_id == frames.clip_id and frames.fps > 0
        with pytest.raises(IndexError):
            frames[len(frames)]


def test_eval_pairs_can_be_limited(dataset: Path) -> None:
    everything = [clip for clip, _ in make_eval_pairs(config(dataset), split="train")]
    some = list(make_eval_pairs(config(dataset), split="train", max_clips=3, max_frames=2))
    assert len(some) == 3 and all(len(frames) == 2 for _, frames in some)
    places = [everything.index(clip) for clip, _ in some]
    assert places == sorted(places) and places[-1] >= len(everything) // 2
