"""Name templates and tensor layouts, each against its definition."""

import numpy as np
import pytest

from talking_heads_jax.conversion.rules import (
    LAYOUTS,
    Rule,
    antialias_weight,
    batch_norm,
    network_table,
    spectral_convolution,
)
from talking_heads_jax.ops.resize import antialias_kernel


def test_path_and_name_are_inverse():
    rule = Rule("a.{i}.b_{j}.weight", "params/a_{i}/b/{j}/kernel")
    assert rule.path("a.12.b_3.weight") == "params/a_12/b/3/kernel"
    assert rule.name("params/a_12/b/3/kernel", {}) == "a.12.b_3.weight"
    for stranger in ("a.x.b_3.weight", "za.1.b_3.weight", "a.1.b_3.weight.x", "aX1.b_3.weight"):
        assert rule.path(stranger) is None


@pytest.mark.parametrize(("theirs", "ours"), [("1", "1"), ("0-5", "0_5"), ("0-125", "0_125")])
def test_path_writes_scales_our_way(theirs, ours):
    rule = Rule("discs.{scale}.conv.bias", "params/scale_{scale}/logits/bias")
    assert rule.path(f"discs.{theirs}.conv.bias") == f"params/scale_{ours}/logits/bias"
    assert rule.name(f"params/scale_{ours}/logits/bias", {}) == f"discs.{theirs}.conv.bias"


def test_layouts_move_every_element_where_it_belongs():
    """Element by element, from the axis names."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((2, 3, 4, 5))  # o i h w
    moved = LAYOUTS["conv2d"].forward(kernel, (4, 5, 3, 2))
    volume = rng.standard_normal((2, 3, 4, 5, 6))  # o i d h w
    moved_volume = LAYOUTS["conv3d"].forward(volume, (4, 5, 6, 3, 2))
    for o, i, h, w in np.ndindex(2, 3, 4, 5):
        assert moved[h, w, i, o] == kernel[o, i, h, w]
        assert moved_volume[h, w, 1, i, o] == volume[o, i, h, w, 1]
    matrix = rng.standard_normal((2, 3))
    assert LAYOUTS["linear"].forward(matrix, (3, 2))[2, 1] == matrix[1, 2]


def test_spectral_v_agrees_with_the_kernels_layout():
    """uᵀ W v, torch's flat view against ours in HWIO."""
    rng = np.random.default_rng(1)
    weight, u = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal(2)
    flat_v = rng.standard_normal(3 * 4 * 5)
    kernel = LAYOUTS["conv2d"].forward(weight, (4, 5, 3, 2))
    v = LAYOUTS["spectral_v"].forward(flat_v, (4, 5, 3))
    theirs = u @ weight.reshape(2, -1) @ flat_v
    np.testing.assert_allclose(np.einsum("hwio,o,hwi->", kernel, u, v), theirs, rtol=1e-12)


@pytest.mark.parametrize(
    ("layout", "shape", "ours"),
    [
        ("identity", (3,), (3,)),
        ("conv2d", (2, 3, 4, 5), (4, 5, 3, 2)),
        ("conv3d", (2, 3, 4, 5, 6), (4, 5, 6, 3, 2)),
        ("linear", (2, 3), (3, 2)),
        ("spectral_v", (60,), (4, 5, 3)),
    ],
)
def test_layouts_are_inverse_bit_for_bit(layout, shape, ours):
    array = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    moved = LAYOUTS[layout].forward(array, ours)
    assert moved.shape == ours
    np.testing.assert_array_equal(LAYOUTS[layout].backward(moved), array, strict=True)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25, 0.125])
def test_antialias_weight_equals_the_kernel_that_runs(scale):
    """The closed form here and the taps of ops.resize were written independently."""
    taps = antialias_kernel(scale)
    weight = antialias_weight(scale, 3)
    assert weight.shape == (3, 1, len(taps), len(taps)) and weight.dtype == np.float32
    for channel in weight[:, 0]:
        np.testing.assert_allclose(channel, np.outer(taps, taps), rtol=1e-6)  # one float32 rounding


@pytest.mark.parametrize(("scale", "centre"), [(0.5, 0.61869), (0.25, 0.07074), (0.125, 0.01299)])
def test_antialias_weight_has_the_measured_centre(scale, centre):
    """Centre weights of the official kernels, as five digits measured in torch."""
    weight = antialias_weight(scale, 1)[0, 0]
    middle = weight.shape[0] // 2
    assert abs(weight[middle, middle] - centre) < 6e-6
    assert abs(weight.sum() - 1) < 1e-6


def test_spectral_convolution_chooses_the_name_by_its_vectors():
    table = network_table(spectral_convolution("c", "c"))
    names = {rule.name("params/c/kernel", {"spectral/c/u": 0}) for rule in table.rules}
    assert names - {None} == {"c.weight_orig"}
    names = {rule.name("params/c/kernel", {}) for rule in table.rules}
    assert names - {None} == {"c.weight"}


def test_batch_norm_knows_all_of_its_tensors():
    table = network_table(batch_norm("n", "m"), ignored=(r"x\..*",))
    suffixes = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert all(table.knows(f"n.{suffix}") for suffix in suffixes)
    assert table.knows("x.1") and not table.knows("n.running_std")
