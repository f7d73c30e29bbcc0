"""Regions of a mask by name."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.metrics import regions


def test_region_weights_of_the_foreground_are_all_classes_but_zero():
    mask = np.array([[0, 1], [7, 255]], np.uint8)
    weights = regions.region_weights(mask, regions.FOREGROUND)
    assert weights.shape == (2, 2, 1) and weights.dtype == np.float32
    np.testing.assert_array_equal(weights[..., 0], [[0, 1], [1, 1]])


def test_region_weights_of_named_classes_and_unknown_names(monkeypatch):
    monkeypatch.setattr(regions, "REGIONS", {"mouth": frozenset({7, 9})})
    mask = np.array([[0, 9], [7, 8]], np.uint8)
    np.testing.assert_array_equal(regions.region_weights(mask, "mouth")[..., 0], [[0, 1], [1, 0]])
    with pytest.raises(ArgumentError, match="'mouth'"):
        regions.region_weights(mask, "nose")
