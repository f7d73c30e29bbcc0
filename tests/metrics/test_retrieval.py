"""Retrieval: the nearest candidate counts, and guessing scores one over their number."""

import jax
import numpy as np
import pytest

from talking_heads_jax.metrics.retrieval import dilation_px, retrieval_score

SIZE = 8


def scores(prediction, candidates, *, region=None, count=None):
    """For predictions whose truths are the candidates, in order."""
    region = np.ones((SIZE, SIZE, 1), np.float32) if region is None else region
    own = np.arange(len(prediction), dtype=np.int32)
    count = np.int32(len(candidates) if count is None else count)
    return np.asarray(jax.jit(retrieval_score)(prediction, candidates, region, own, count))


def noise(count, seed=0):
    return np.random.default_rng(seed).uniform(size=(count, SIZE, SIZE, 3)).astype(np.float32)


def test_retrieval_score_equals_a_naive_loop():
    candidates = noise(4)
    prediction = (0.6 * candidates + 0.4 * noise(4, 1)[::-1] + 0.3 * np.roll(candidates, 1, 0)) / 2
    region = np.zeros((SIZE, SIZE, 1), np.float32)
    region[2:5, 1:4] = 1
    expected = []
    for number, image in enumerate(prediction):
        distances = [np.abs(image - other)[2:5, 1:4].mean() for other in candidates]
        expected.append(float(np.argmin(distances) == number))
    assert 0 < sum(expected) < 4  # both outcomes occur
    np.testing.assert_array_equal(scores(prediction, candidates, region=region), expected)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_an_answer_that_does_not_move_scores_exactly_chance(count):
    candidates = noise(count)
    still = np.broadcast_to(noise(1, 5), candidates.shape)
    np.testing.assert_allclose(scores(still, candidates).mean(), 1 / count, rtol=1e-6)
    # Candidates that show the same, as in a clip that does not move: the point is shared.
    same = np.broadcast_to(candidates[:1], candidates.shape)
    np.testing.assert_allclose(scores(still, same), np.full(count, 1 / count), rtol=1e-6)
    # Two are as near as each other: each of their own frames gets a half.
    candidates[-1] = candidates[0] = still[0] + 0.01
    found = scores(still, candidates)
    np.testing.assert_allclose([found[0], found[-1]], 0.5)
    np.testing.assert_allclose(found.mean(), 1 / count, rtol=1e-6)


def test_a_perfect_answer_scores_one_and_padding_is_never_chosen():
    candidates = noise(3)
    np.testing.assert_array_equal(scores(candidates, candidates), 1.0)
    padded = np.concatenate([candidates, candidates[-1:]])  # would tie with the last
    np.testing.assert_array_equal(scores(candidates, padded, count=3), 1.0)
    np.testing.assert_array_equal(scores(candidates, padded), [1.0, 1.0, 0.5])


def test_only_the_region_counts():
    candidates = noise(2)
    prediction = candidates.copy()
    prediction[:, 4:] = candidates[::-1, 4:]  # the wrong mouth below, the right eyes above
    upper = np.zeros((SIZE, SIZE, 1), np.float32)
    upper[:4] = 1
    np.testing.assert_array_equal(scores(prediction, candidates, region=upper), 1.0)
    np.testing.assert_array_equal(scores(prediction, candidates, region=1 - upper), 0.0)


def test_nothing_to_choose_has_no_value():
    candidates = noise(2)
    empty = np.zeros((SIZE, SIZE, 1), np.float32)
    assert np.isnan(scores(candidates, candidates, region=empty)).all()
    assert np.isnan(scores(candidates[:1], candidates, count=1)).all()


def test_dilation_is_a_share_of_the_width():
    assert [dilation_px(width) for width in (16, 64, 256)] == [1, 2, 8]
