"""The counter of multiply-adds against closed forms; counts are integers, so exactly equal."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from talking_heads_jax.inference.operation_count import count_operations


class _Pair(nn.Module):
    """A 3x3 convolution named `first` and a dense layer named `second`."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(5, (3, 3), name="first")(x)
        return nn.Dense(7, name="second")(nn.relu(x))


def _pair(x):
    model = _Pair()
    variables = model.init(jax.random.key(0), x)
    return lambda x: model.apply(variables, x)


def test_count_operations_equals_closed_form_of_convolution_and_dense():
    x = jnp.zeros((2, 8, 6, 4))
    count = count_operations(_pair(x), x)
    assert count.total == 2 * 8 * 6 * (9 * 4 * 5 + 5 * 7)


def test_count_operations_names_scopes_by_module():
    x = jnp.zeros((1, 4, 4, 3))
    groups = count_operations(_pair(x), x).grouped({"conv": r"first", "dense": r"second"})
    assert groups == {"conv": 16 * 9 * 3 * 5, "dense": 16 * 5 * 7}


def test_count_operations_sees_through_jit_with_the_outer_scope():
    x = jnp.zeros((1, 4, 4, 3))
    inner = jax.jit(_pair(x))
    count = count_operations(lambda x: jax.jit(inner)(x) + 1, x)
    assert count.grouped({"conv": r"first"}, rest="dense") == {
        "conv": 16 * 9 * 3 * 5,
        "dense": 16 * 5 * 7,
    }


def test_count_operations_of_grouped_and_strided_convolution():
    x, kernel = jnp.zeros((1, 16, 16, 6)), jnp.zeros((5, 5, 1, 6))

    def depthwise(x):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (4, 4),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=6,
        )

    assert count_operations(depthwise, x).total == 4 * 4 * 6 * 25


def test_count_operations_of_batched_product():
    a, b = jnp.zeros((3, 4, 5)), jnp.zeros((3, 5, 6))
    assert count_operations(jnp.matmul, a, b).total == 3 * 4 * 5 * 6


def test_count_operations_multiplies_scans():
    matrix = jnp.zeros((4, 4))
    count = count_operations(
        lambda x: jax.lax.scan(lambda carry, _: (matrix @ carry, None), x, length=10)[0],
        jnp.zeros(4),
    )
    assert count.total == 10 * 16


def test_count_operations_takes_the_costlier_branch():
    matrix = jnp.zeros((4, 4))
    count = count_operations(
        lambda flag, x: jax.lax.cond(flag, lambda x: matrix @ x, lambda x: x, x), True, jnp.zeros(4)
    )
    assert count.total == 16


def test_count_operations_reports_loops_of_unknown_length():
    matrix = jnp.zeros((4, 4))
    count = count_operations(
        lambda x: jax.lax.while_loop(lambda v: v[0] < 3, lambda v: matrix @ v, x), jnp.zeros(4)
    )
    assert (count.total, count.uncounted_loops) == (16, 1)


def test_count_operations_leaves_out_what_no_output_needs():
    matrix = jnp.zeros((4, 4))

    @jax.jit
    def both(x):
        return matrix @ x, (matrix @ matrix) @ x

    assert count_operations(lambda x: both(x)[0], jnp.zeros(4)).total == 16


def test_grouped_puts_the_rest_under_its_own_label():
    x = jnp.zeros((1, 4, 4, 3))
    groups = count_operations(_pair(x), x).grouped({"conv": r"first"})
    assert groups["other"] == 16 * 5 * 7
