"""Errors by the probe: units, wrapping angles, unknown components."""

import numpy as np

from talking_heads_jax.metrics import probe_errors


def test_landmark_distance_is_in_pixels_of_a_frame_256_wide():
    truth = np.zeros((2, 68, 2), np.float32)
    estimate = truth.copy()
    estimate[0] += [3 / 256, 4 / 256]
    estimate[1, :34] += [0.5, 0.0]
    found = probe_errors.landmark_distance(estimate, truth)
    np.testing.assert_allclose(found, [5.0, 64.0], rtol=1e-6)
    truth[1, 7] = np.nan
    assert np.isnan(probe_errors.landmark_distance(estimate, truth)).tolist() == [False, True]


def test_angle_distance_takes_the_short_way_round():
    estimate = np.deg2rad([[179.0, 10.0, 0.0]]).astype(np.float32)
    truth = np.deg2rad([[-178.0, 16.0, 0.0]]).astype(np.float32)
    # 3, 6 and 0 degrees; a float32 angle near pi has 2e-5 degrees.
    np.testing.assert_allclose(probe_errors.angle_distance(estimate, truth), [3.0], atol=1e-4)


def test_expression_distance_is_about_one_for_the_mean():
    rng = np.random.default_rng(0)
    deviation = np.array([0.5, 2.0, 0.0], np.float32)
    truth = (rng.normal(size=(20_000, 3)) * deviation).astype(np.float32)
    mean = np.zeros_like(truth)
    found = np.asarray(probe_errors.expression_distance(mean, truth, deviation))
    # The root of the mean square is 1; 20,000 draws know it to 1 %.
    np.testing.assert_allclose(np.sqrt(np.mean(found**2)), 1.0, atol=0.02)
    mean[:, 2] = 9.0  # a component that never varies says nothing
    np.testing.assert_array_equal(probe_errors.expression_distance(mean, truth, deviation), found)
    assert not probe_errors.expression_distance(truth, truth, deviation).any()


def test_identity_similarity_is_the_cosine():
    embeddings = np.array([[0.6, 0.8], [-1.0, 0.0]], np.float32)
    found = probe_errors.identity_similarity(embeddings, np.array([1.0, 0.0], np.float32))
    np.testing.assert_allclose(found, [0.6, -1.0], rtol=1e-6)
