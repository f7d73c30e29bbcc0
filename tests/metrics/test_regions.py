"""Regions of a mask by name."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.metrics import regions
from talking_heads_jax.morphable.parts import PARTS


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


def test_regions_nest_as_their_names_say():
    classes = np.arange(len(PARTS), dtype=np.uint8)[None]
    shown = {
        name: {PARTS[i] for i in np.flatnonzero(regions.region_weights(classes, name))}
        for name in regions.REGIONS
    }
    assert shown["mouth"] == {"lips", "teeth", "mouth_interior"}
    assert shown["eyes"] == {"eyelids", "eyeball"}
    assert shown["mouth"] | shown["eyes"] | {"face_skin", "glasses"} == shown["face"]
    assert shown["head"] - shown["face"] == {"ears", "scalp", "hair"}
    assert shown["foreground"] - shown["head"] == {"neck", "clothes"}


def test_silhouette_is_the_head_and_the_foreground_only_where_there_is_none():
    skin, clothes = PARTS.index("face_skin"), PARTS.index("clothes")
    masks = np.array([[[skin, clothes, 0]], [[clothes, 200, 0]]], np.uint8)
    weights = regions.silhouette_weights(masks)
    np.testing.assert_array_equal(weights[..., 0], [[[1, 0, 0]], [[1, 1, 0]]])
    np.testing.assert_array_equal(regions.silhouette_weights(masks[0]), weights[0])


def test_joint_region_is_the_dilated_union():
    lips = PARTS.index("lips")
    masks = np.zeros((2, 5, 7), np.uint8)
    masks[0, 0, 0] = masks[1, 3, 5] = lips
    expected = np.zeros((5, 7))
    expected[:2, :2] = expected[2:5, 4:7] = 1
    found = regions.joint_region(masks, regions.MOUTH, dilation_px=1)
    np.testing.assert_array_equal(found[..., 0], expected)
    assert not regions.joint_region(masks, regions.EYES, dilation_px=1).any()
