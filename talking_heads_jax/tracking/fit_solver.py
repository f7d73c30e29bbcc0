"""The optimiser of a clip: Levenberg-Marquardt over all frames and the shared identity at once.

Every iteration solves the whole clip's Gauss-Newton system exactly (`fit_arrow`), so that a fit
takes tens of iterations. Coefficients with a range stay in it: one that presses against its bound
is held there for the step (projected Newton, Bertsekas 1982). Robust losses by reweighting, their
scale annealed from wide to narrow. Units and letters as in `fit_energy`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from talking_heads_jax.geometry.cameras import angles_from_head_rotation
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.tracking.fit_arrow import solve_arrow
from talking_heads_jax.tracking.fit_energy import (
    ClipData,
    GaussNewton,
    Posterior,
    SolverOptions,
    Unknowns,
    bounded_unknowns,
    energy_of,
    gauss_newton,
)
from talking_heads_jax.tracking.fit_model import LandmarkModel, Skeleton, posed_landmarks
from talking_heads_jax.tracking.fit_priors import Priors
from talking_heads_jax.tracking.fit_start import rigid_start
from talking_heads_jax.typing import Array

# The robust scale starts this many times wider and shrinks by the factor each iteration.
_ANNEAL_FROM, _ANNEAL_BY = 6.0, 0.6
_ANNEAL_ROUNDS = 5
_FIRST_DAMPING, _MORE_DAMPING, _LESS_DAMPING = 1e-3, 8.0, 0.25
_SMALLEST_DAMPING, _LARGEST_DAMPING = 1e-6, 1e5
# A frame's size may differ from the clip's median by this factor at the start.
_SIZE_RANGE = 4.0


class Solution(NamedTuple):
    """What a clip's optimisation ends with.

    Attributes:
      unknowns: the best found.
      angles: (t 3) of the head, radians.
      focal: () normalised focal length, 0 under weak perspective.
      energy: () twice the negative log posterior, up to a constant.
      iterations: () how many were made.
    """

    unknowns: Unknowns
    angles: Array
    focal: Array
    energy: Array
    iterations: Array


def _step(
    system: GaussNewton, priors: Priors, unknowns: Unknowns, damping: Array
) -> tuple[Array, Array]:
    """Changes of the frames' unknowns (t f) and of the shared ones (s)."""
    bounded = bounded_unknowns(unknowns)
    width = bounded.shape[1]
    down, up = bounded <= priors.lowest[:width], bounded >= priors.highest[:width]
    slope = system.gradient[:, :width]
    held = (down & (slope > 0)) | (up & (slope < 0)) | (down & up)
    free = jnp.pad(1.0 - held, ((0, 0), (0, system.gradient.shape[1] - width)), constant_values=1.0)
    diagonal = jnp.diagonal(system.blocks, axis1=-2, axis2=-1)
    blocks = system.blocks + jax.vmap(jnp.diag)(damping * diagonal)
    blocks = free[:, :, None] * blocks * free[:, None, :] + jax.vmap(jnp.diag)(1.0 - free)
    corner = system.corner + damping * jnp.diag(jnp.diagonal(system.corner))
    following = jnp.concatenate([free[1:], free[-1:]])
    return solve_arrow(
        blocks,
        system.coupling * free * following,
        free[:, :, None] * system.border,
        corner,
        -free * system.gradient,
        -system.gradient_shared,
    )


def moved(
    unknowns: Unknowns,
    steps: Array,
    shared_step: Array,
    priors: Priors,
    skeleton: Skeleton,
    options: SolverOptions,
) -> Unknowns:
    """The unknowns after a step, inside their ranges.

    Args:
      unknowns: before it.
      steps: (t f) of the frames.
      shared_step: (s) of what they share.
      priors: with the ranges.
      skeleton: of the reduced model.
      options: static switches.
    """
    num_expression, num_joints = skeleton.num_expression, 3 * len(skeleton.free)
    width = num_expression + num_joints
    bounded = jnp.clip(
        bounded_unknowns(unknowns) + steps[:, :width], priors.lowest[:width], priors.highest[:width]
    )
    shape, bias = unknowns.shape, unknowns.bias
    if options.fit_shape:
        shape = shape + shared_step[: skeleton.num_shape]
    if options.landmark_bias:
        bias = bias + shared_step[-bias.size :].reshape(bias.shape)
    turn = matrix_from_axis_angle(steps[:, width : width + 3])
    return Unknowns(
        shape=shape,
        bias=bias,
        expression=bounded[:, :num_expression],
        joints=bounded[:, num_expression:].reshape(unknowns.joints.shape),
        rotation=matmul_highest(turn, unknowns.rotation),
        offset=unknowns.offset + steps[:, width + 3 : width + 5],
        log_scale=unknowns.log_scale + steps[:, width + 5],
    )


def _start(
    data: ClipData, parts: LandmarkModel, skeleton: Skeleton, eye_distance: Array
) -> tuple[Unknowns, Array, Array]:
    """Unknowns of a rigid face, the frames' sizes (t), and the median size of a cm."""
    times = data.weights.shape[0]
    coefficients = jnp.concatenate([data.shape, jnp.zeros(skeleton.num_expression)])
    joints = jnp.zeros((len(skeleton.free), 3))
    face = posed_landmarks(parts, skeleton, coefficients, joints)
    rotation, scale, offset = (
        values[data.nearest] for values in rigid_start(face, data.points, data.weights)
    )
    found = jnp.any(data.weights > 0, axis=1)
    median = jnp.nanmedian(jnp.where(found, scale, jnp.nan))
    scale = jnp.clip(scale, median / _SIZE_RANGE, median * _SIZE_RANGE)
    unknowns = Unknowns(
        shape=data.shape,
        bias=data.bias,
        expression=jnp.zeros((times, skeleton.num_expression)),
        joints=jnp.zeros((times, *joints.shape)),
        rotation=rotation,
        offset=offset,
        log_scale=jnp.log(scale),
    )
    return unknowns, scale * eye_distance, median


def _solve(
    data: ClipData,
    parts: LandmarkModel,
    priors: Priors,
    eye_distance: Array,
    skeleton: Skeleton,
    options: SolverOptions,
) -> Solution:
    unknowns, size, median = _start(data, parts, skeleton, eye_distance)
    if options.perspective:
        focal = jnp.where(data.focal > 0, data.focal, data.distance * median)
        inverse_focal = 1.0 / focal
    else:
        inverse_focal = jnp.zeros(())
    posterior = Posterior(data, parts, skeleton, priors, options, size, inverse_focal)

    def unfinished(state: tuple[Any, ...]) -> Array:
        return ~state[3] & (state[4] < options.max_iterations)

    def iterate(state: tuple[Any, ...]) -> tuple[Any, ...]:
        current, _, damping, _, iteration = state
        wide = jnp.where(
            iteration < _ANNEAL_ROUNDS, _ANNEAL_FROM * _ANNEAL_BY ** iteration.astype(float), 1.0
        )
        robust_scale = wide * data.robust_scale / data.sigma
        system = gauss_newton(posterior, current, robust_scale)
        steps, shared_step = _step(system, priors, current, damping)
        candidate = moved(current, steps, shared_step, priors, skeleton, options)
        reached = energy_of(posterior, candidate, robust_scale)
        better = reached < system.energy
        gain = system.energy - reached
        small = better & (gain < options.tolerance * system.energy)
        settled = iteration >= _ANNEAL_ROUNDS
        damping = jnp.where(better, damping * _LESS_DAMPING, damping * _MORE_DAMPING)
        damping = jnp.maximum(damping, _SMALLEST_DAMPING)
        stuck = damping > _LARGEST_DAMPING
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), candidate, current)
        best = jnp.where(better, reached, system.energy)
        return kept, best, damping, settled & (small | stuck), iteration + 1

    first = (unknowns, jnp.inf, _FIRST_DAMPING, False, 0)
    first = jax.tree.map(jnp.asarray, first)
    unknowns, best, _, _, iterations = jax.lax.while_loop(unfinished, iterate, first)
    focal = 1.0 / inverse_focal if options.perspective else jnp.zeros(())
    angles = angles_from_head_rotation(unknowns.rotation)
    return Solution(unknowns, angles, focal, best, iterations)


@functools.partial(jax.jit, static_argnames=("skeleton", "options"))
def solve_clips(
    data: ClipData,
    parts: LandmarkModel,
    priors: Priors,
    eye_distance: Array,
    *,
    skeleton: Skeleton,
    options: SolverOptions,
) -> Solution:
    """Fits a batch of clips of one model.

    Args:
      data: with a leading axis of clips.
      parts: the reduced model.
      priors: of the fit.
      eye_distance: () outer-eye-corner distance of the mean face, cm.
      skeleton: of the reduced model.
      options: static switches.

    Returns:
      Solutions with a leading axis of clips.
    """
    solve = functools.partial(_solve, skeleton=skeleton, options=options)
    if data.points.shape[0] == 1:  # without vmap a loop's branches need no selection
        one = solve(jax.tree.map(lambda leaf: leaf[0], data), parts, priors, eye_distance)
        return jax.tree.map(lambda leaf: leaf[None], one)
    return jax.vmap(solve, in_axes=(0, None, None, None))(data, parts, priors, eye_distance)
