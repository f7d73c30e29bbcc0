"""The choice of pairs: pure, balanced, within a clip, in time order, and fairly distributed."""

import collections

import numpy as np
import pytest

from data_pipeline.pairs import PairSampler
from data_pipeline.schema import ClipEntry
from talking_heads_jax.errors import ArgumentError

# One identity with three clips, two with one.
CLIPS = (
    ClipEntry("a1", "a", 0, 10, 25.0),
    ClipEntry("a2", "a", 10, 4, 25.0),
    ClipEntry("a3", "a", 14, 6, 25.0),
    ClipEntry("b1", "b", 20, 8, 25.0),
    ClipEntry("c1", "c", 28, 2, 25.0),
)


def test_pairs_are_a_pure_function_of_seed_and_sample() -> None:
    one = PairSampler(CLIPS, seed=3, repeats=5)
    forwards = [one(sample) for sample in range(60)]
    other = PairSampler(CLIPS, seed=3, repeats=5)
    backwards = [other(sample) for sample in reversed(range(60))][::-1]
    assert forwards == backwards
    assert forwards != [PairSampler(CLIPS, seed=4, repeats=5)(sample) for sample in range(60)]


def test_pairs_stay_within_a_clip_and_in_time_order() -> None:
    sampler = PairSampler(CLIPS, seed=0)
    for sample in range(300):
        pair = sampler(sample)
        clip = CLIPS[pair.clip]
        assert clip.first_record <= pair.source <= pair.driving < clip.first_record + clip.length


def test_an_epoch_visits_every_item_equally_often() -> None:
    for balance, items in (("identity", 3), ("clip", 5)):
        sampler = PairSampler(CLIPS, seed=1, balance=balance, repeats=4)
        assert sampler.num_items == items and sampler.num_samples == 4 * items
        orders = []
        for epoch in range(3):
            samples = range(epoch * 4 * items, (epoch + 1) * 4 * items)
            chosen = [CLIPS[sampler(sample).clip] for sample in samples]
            orders.append([c.identity_id if balance == "identity" else c.clip_id for c in chosen])
            assert set(collections.Counter(orders[-1]).values()) == {4}
        assert orders[0] != orders[1] != orders[2]


def test_identity_balance_draws_its_clips_evenly() -> None:
    sampler = PairSampler(CLIPS, seed=2, repeats=1)
    counts = collections.Counter(sampler(sample).clip for sample in range(3000))
    # 1000 visits of identity a over three clips: 333 each, 5 standard deviations are 75.
    assert all(abs(counts[clip] - 333) < 75 for clip in (0, 1, 2))
    assert counts[3] == counts[4] == 1000


def test_frames_are_drawn_with_replacement_and_sorted() -> None:
    sampler = PairSampler((ClipEntry("a", "a", 0, 4, 25.0),), seed=0)
    counts = collections.Counter((p.source, p.driving) for p in map(sampler, range(8000)))
    # Ordered draws: 1/16 for equal frames, 2/16 for each unordered pair; sd about 30.
    for (first, second), count in counts.items():
        assert abs(count - (500 if first == second else 1000)) < 155
    assert len(counts) == 10


def test_distinct_and_max_distance_are_kept() -> None:
    clips = (ClipEntry("a", "a", 0, 9, 25.0),)
    sampler = PairSampler(clips, seed=0, distinct=True, max_distance=2)
    distances = {p.driving - p.source for p in map(sampler, range(500))}
    assert distances == {1, 2}
    near = PairSampler(clips, seed=0, max_distance=1)
    assert {p.driving - p.source for p in map(near, range(500))} == {0, 1}


def test_augmentation_has_a_stream_of_its_own() -> None:
    sampler = PairSampler(CLIPS, seed=0)
    one, two = sampler.augmentation_rng(5).random(4), sampler.augmentation_rng(5).random(4)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, sampler.augmentation_rng(6).random(4))


def test_pair_sampler_refuses_options_without_sense() -> None:
    for options in ({"repeats": 0}, {"max_distance": 0}, {"balance": "frame"}, {"seed": -1}):
        with pytest.raises(ArgumentError):
            PairSampler(CLIPS, **({"seed": 0} | options))
    with pytest.raises(ArgumentError):
        PairSampler((), seed=0)
