"""Recipes: names, directions, masks."""

import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.metrics.recipes import (
    RECIPES,
    RECONSTRUCTION,
    TARGET,
    select_recipes,
)

OF_PICTURES = [recipe for recipe in RECIPES.values() if recipe.compares == TARGET]


def test_recipes_improve_in_their_stated_direction():
    rng = np.random.default_rng(0)
    target = rng.uniform(0.2, 0.8, (1, 16, 16, 3)).astype(np.float32)
    noise = rng.uniform(-0.1, 0.1, target.shape).astype(np.float32)
    mask = np.ones((1, 16, 16, 1), np.float32)
    for recipe in OF_PICTURES:
        near = float(recipe(target + 0.1 * noise, target, mask)[0])
        far = float(recipe(target + noise, target, mask)[0])
        assert (near > far) == recipe.higher_is_better, recipe.name


def test_recipes_use_the_mask_only_where_their_name_says_so():
    target = np.zeros((1, 16, 16, 3), np.float32)
    prediction = target.copy()
    prediction[:, :8] = 0.5
    mask = np.zeros((1, 16, 16, 1), np.float32)
    mask[:, 8:] = 1
    for recipe in OF_PICTURES:
        full = np.asarray(recipe(prediction, target))
        masked = np.asarray(recipe(prediction, target, mask))
        assert (full == masked).all() == ("masked" not in recipe.name), recipe.name


def test_select_recipes_keeps_the_order_and_names_the_unknown():
    assert [recipe.name for recipe in select_recipes(RECONSTRUCTION)] == list(RECONSTRUCTION)
    with pytest.raises(ArgumentError, match="l1/unit"):
        select_recipes(["l1"])


def test_has_support_counts_only_where_the_metric_has_values():
    mask = np.zeros((3, 16, 16, 1), np.float32)
    mask[1, 2, 2] = 1  # no 11 x 11 window is centred there
    mask[2, 8, 8] = 1
    by_name = {recipe.name: recipe for recipe in OF_PICTURES if recipe.needs_mask}
    assert by_name["l1/masked-gt"].has_support(mask).tolist() == [False, True, True]
    assert by_name["ssim/masked-gt"].has_support(mask).tolist() == [False, False, True]
    for recipe in by_name.values():
        values = recipe(np.ones((3, 16, 16, 3)), np.zeros((3, 16, 16, 3)), mask)
        assert np.isfinite(values).tolist() == recipe.has_support(mask).tolist(), recipe.name
