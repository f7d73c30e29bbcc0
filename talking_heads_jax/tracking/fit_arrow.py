"""The linear system of a clip: frames in a chain, and unknowns that all frames share.

The matrix of a Gauss-Newton step over a clip is an arrow: a block per frame, couplings of
neighbouring frames, and a border for the shared identity. It is solved exactly by a block Cholesky
along the chain and a Schur complement, in time proportional to the number of frames.
Letters: t frames, f unknowns of a frame, s shared unknowns.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.typing import Array, Float, typechecked


@typechecked
def solve_arrow(
    blocks: Float[Array, "t f f"],
    coupling: Float[Array, "t f"],
    border: Float[Array, "t f s"],
    corner: Float[Array, "s s"],
    right: Float[Array, "t f"],
    right_shared: Float[Array, " s"],
) -> tuple[Float[Array, "t f"], Float[Array, " s"]]:
    """Solves a symmetric positive definite arrow system.

    Row t of the system reads `blocks[t] x[t] - coupling[t] x[t+1] - coupling[t-1] x[t-1] +
    border[t] y = right[t]`, the last row `sum border[t]ᵀ x[t] + corner y = right_shared`.

    Args:
      blocks: of the frames.
      coupling: diagonal of the coupling of each frame with the next, sign reversed; the last is
        not used.
      border: of the frames with the shared unknowns; s may be 0.
      corner: of the shared unknowns.
      right: right-hand side of the frames.
      right_shared: right-hand side of the shared unknowns.

    Returns:
      x and y.
    """
    size, shared = blocks.shape[1], corner.shape[0]
    coupling = coupling.at[-1].set(0.0)
    eye = jnp.eye(size, dtype=blocks.dtype)

    def eliminate(
        carry: tuple[Array, Array], row: tuple[Array, Array, Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        inverse, known = carry  # of the frame before, times its coupling
        block, link, edge, value = row
        block = block - inverse
        sides = jnp.concatenate([edge, value[:, None]], axis=1) + known
        solved = cho_solve(cho_factor(block, lower=True), jnp.concatenate([eye, sides], axis=1))
        inverse, answer = solved[:, :size], solved[:, size:]
        carry = (link[:, None] * inverse * link[None, :], link[:, None] * answer)
        return carry, (inverse, sides, answer)

    start = (jnp.zeros_like(eye), jnp.zeros((size, shared + 1), blocks.dtype))
    _, (inverses, sides, answers) = jax.lax.scan(
        eliminate, start, (blocks, coupling, border, right)
    )
    if shared:
        edges = sides[..., :shared]
        reduced = corner - jnp.einsum(
            "tfs,tfr->sr", edges, answers[..., :shared], precision=jax.lax.Precision.HIGHEST
        )
        remaining = right_shared - jnp.einsum(
            "tfs,tf->s", edges, answers[..., shared], precision=jax.lax.Precision.HIGHEST
        )
        common = cho_solve(cho_factor(reduced, lower=True), remaining)
    else:
        common = right_shared
    alone = answers[..., shared] - matmul_highest(answers[..., :shared], common)

    def substitute(following: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        inverse, link, value = row
        found = value + matmul_highest(inverse, link * following)
        return found, found

    _, frames = jax.lax.scan(
        substitute, jnp.zeros(size, blocks.dtype), (inverses, coupling, alone), reverse=True
    )
    return frames, common
