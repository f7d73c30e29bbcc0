"""Spectral norm against the singular value decomposition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.layers.spectral_convolution import SpectralConv


@pytest.fixture
def layer() -> tuple[SpectralConv, dict, jax.Array]:
    module = SpectralConv(3, 5, kernel_size=4)
    images = jax.random.normal(jax.random.key(1), (2, 9, 9, 3))
    return module, module.init(jax.random.key(0), images, train=False), images


def _divisor(module: SpectralConv, variables: dict, images: jax.Array) -> float:
    """What the kernel is divided by: compare with the convolution by the raw kernel."""
    raw = SpectralConv(3, 5, kernel_size=4, normalize=False)
    plain = raw.apply({"params": variables["params"]}, images, train=False)
    bias = variables["params"]["bias"]
    return float(jnp.median((plain - bias) / (module.apply(variables, images, train=False) - bias)))


def test_spectral_conv_many_iterations_reach_the_largest_singular_value(layer: tuple) -> None:
    module, variables, images = layer
    for _ in range(200):
        _, updated = module.apply(variables, images, train=True, mutable=["spectral"])
        variables = {**variables, **updated}
    matrix = np.asarray(variables["params"]["kernel"]).reshape(-1, 5)
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    # Power iteration converges with the ratio of the two largest values, 200 rounds are plenty.
    assert _divisor(module, variables, images) == pytest.approx(largest, rel=1e-4)


def test_spectral_conv_iteration_order_is_v_then_u(layer: tuple) -> None:
    module, variables, images = layer
    _, updated = module.apply(variables, images, train=True, mutable=["spectral"])
    matrix = np.asarray(variables["params"]["kernel"], np.float64).reshape(-1, 5).T
    v = matrix.T @ np.asarray(variables["spectral"]["u"])
    v /= np.linalg.norm(v)
    u = matrix @ v
    u /= np.linalg.norm(u)
    np.testing.assert_allclose(updated["spectral"]["v"].reshape(-1), v, atol=1e-6)
    np.testing.assert_allclose(updated["spectral"]["u"], u, atol=1e-6)


def test_spectral_conv_evaluation_keeps_the_vectors(layer: tuple) -> None:
    module, variables, images = layer
    _, updated = module.apply(variables, images, train=False, mutable=["spectral"])
    jax.tree.map(np.testing.assert_array_equal, updated["spectral"], variables["spectral"])


def test_spectral_conv_gradient_holds_the_vectors_constant(layer: tuple) -> None:
    module, variables, images = layer

    def loss(kernel: jax.Array) -> jax.Array:
        params = {**variables["params"], "kernel": kernel}
        result, _ = module.apply(
            {"params": params, "spectral": variables["spectral"]},
            images,
            train=True,
            mutable=["spectral"],
        )
        return jnp.sum(result**2)

    kernel = variables["params"]["kernel"]
    _, updated = module.apply(variables, images, train=True, mutable=["spectral"])
    u, v = updated["spectral"]["u"], updated["spectral"]["v"].reshape(-1)

    def expected(kernel: jax.Array) -> jax.Array:
        sigma = u @ kernel.reshape(-1, 5).T @ v
        plain = SpectralConv(3, 5, kernel_size=4, normalize=False)
        params = {**variables["params"], "kernel": kernel / sigma}
        return jnp.sum(plain.apply({"params": params}, images, train=False) ** 2)

    ours, reference = jax.grad(loss)(kernel), jax.grad(expected)(kernel)
    np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-4 * float(abs(reference).max()))
