"""What a fit minimises, and its Gauss-Newton approximation.

Twice the negative log posterior of a clip: robust squared distances of the landmarks, Gaussian
priors, and a random walk between neighbouring frames. Derivatives are written out: the landmarks
are affine in the coefficients, the projection is short.

Units: the points come normalised, about unit size, x right, y *up*. Residuals are in outer-eye-
corner distances of the face seen from the front. Letters: t frames, n points, s shared and f
frame unknowns, q free joints, K shape and E expression coefficients, c = K + E.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.tracking.fit_model import (
    LandmarkModel,
    Skeleton,
    affine_landmarks,
    posed_landmarks,
)
from talking_heads_jax.tracking.fit_priors import BEYOND_LIMIT_SIGMA, Priors
from talking_heads_jax.typing import Array

# Added to the diagonal, so that frames without points have a solution; of the data it is a
# millionth.
_FLOOR = 1e-2
# Points never come nearer to a perspective camera than this share of its distance.
_NEAREST = 0.2


class SolverOptions(NamedTuple):
    """Static switches of the programs.

    Attributes:
      robust: one of `ROBUST_LOSSES`.
      fit_shape: whether the shape is estimated; otherwise it is given.
      landmark_bias: whether a constant bias per landmark is estimated.
      perspective: whether nearer points are larger.
      max_iterations: of Levenberg-Marquardt.
      tolerance: relative decrease of the energy below which it stops.
    """

    robust: str
    fit_shape: bool
    landmark_bias: bool
    perspective: bool
    max_iterations: int
    tolerance: float


class ClipData(NamedTuple):
    """A clip as the solver takes it, padded to a common number of frames.

    Attributes:
      points: (t n 2) normalised; finite everywhere.
      weights: (t n), 0 where a point is missing.
      nearest: (t) int32, the nearest frame that has a face.
      link: (t) 1 where frame t and t + 1 belong together, 0 at cuts, at the end and in the padding.
      shape: (K) given shape coefficients; where the estimate starts.
      bias: (n 3) given biases of the landmarks, cm in head axes, likewise.
      principal: (2) principal point, normalised.
      focal: () focal length, normalised; 0 takes `distance` instead.
      distance: () cm from the camera to the head of median size, if the focal length is not given.
      sigma: () standard deviation of a landmark, in outer-eye-corner distances.
      robust_scale: () of the robust loss, likewise.
    """

    points: Array
    weights: Array
    nearest: Array
    link: Array
    shape: Array
    bias: Array
    principal: Array
    focal: Array
    distance: Array
    sigma: Array
    robust_scale: Array


class Unknowns(NamedTuple):
    """What is solved for.

    Attributes:
      shape: (K).
      bias: (n 3) cm in head axes.
      expression: (t E).
      joints: (t q 3) axis-angle.
      rotation: (t 3 3) of the head, world axes.
      offset: (t 2) where the model's origin is seen, normalised.
      log_scale: (t) of the normalised size of a cm at the model's origin.
    """

    shape: Array
    bias: Array
    expression: Array
    joints: Array
    rotation: Array
    offset: Array
    log_scale: Array


class Posterior(NamedTuple):
    """Everything the energy of a clip depends on besides the unknowns; lives within a trace.

    Attributes:
      data: the clip.
      parts: the reduced model.
      skeleton: of it.
      priors: of the fit.
      options: static switches.
      size: (t) outer-eye-corner distance of the face seen from the front, normalised; the unit of
        the residuals.
      inverse_focal: () 0 under weak perspective.
    """

    data: ClipData
    parts: LandmarkModel
    skeleton: Skeleton
    priors: Priors
    options: SolverOptions
    size: Array
    inverse_focal: Array


class GaussNewton(NamedTuple):
    """A Gauss-Newton system (see `fit_arrow.solve_arrow`), and the energy where it was built.

    Attributes:
      blocks: (t f f).
      coupling: (t f).
      border: (t f s).
      corner: (s s).
      gradient: (t f) half the energy's.
      gradient_shared: (s) likewise.
      energy: ().
    """

    blocks: Array
    coupling: Array
    border: Array
    corner: Array
    gradient: Array
    gradient_shared: Array
    energy: Array


def _robust(squared: Array, scale: Array, kind: str) -> tuple[Array, Array]:
    """Loss of squared residuals (in sigmas) and its derivative by them."""
    if kind == "none":
        return squared, jnp.ones_like(squared)
    limit = scale**2
    if kind == "geman_mcclure":
        share = limit / (limit + squared)
        return squared * share, share**2
    outside = squared > limit
    size = jnp.sqrt(jnp.where(outside, squared, limit))
    loss = jnp.where(outside, 2 * scale * size - limit, squared)
    return loss, jnp.where(outside, scale / size, 1.0)


def project(
    points: Array, offset: Array, scale: Array, principal: Array, inverse_focal: Array
) -> tuple[Array, Array]:
    """Projects turned points (n 3), cm in world axes, and says how the result changes with them.

    Args:
      points: of one frame.
      offset: (2) where the model's origin is seen.
      scale: () size of a cm there.
      principal: (2) principal point.
      inverse_focal: () 1 / focal length; 0 is weak perspective.

    Returns:
      (n 2), and per point the factor of its distance (n).
    """
    nearness = scale * inverse_focal  # 1 / distance in cm
    grown = 1.0 / jnp.maximum(1.0 - nearness * points[:, 2], _NEAREST)
    seen = (offset - principal + scale * points[:, :2]) * grown[:, None]
    return principal + seen, grown


def _residuals(posterior: Posterior, unknowns: Unknowns) -> Array:
    """(t n 2) in sigmas."""
    data, parts, skeleton = posterior.data, posterior.parts, posterior.skeleton

    def one(
        expression: Array, joints: Array, rotation: Array, offset: Array, log_scale: Array
    ) -> Array:
        coefficients = jnp.concatenate([unknowns.shape, expression])
        points = posed_landmarks(parts, skeleton, coefficients, joints) + unknowns.bias
        turned = matmul_highest(points, rotation.T)
        scale = jnp.exp(log_scale)
        return project(turned, offset, scale, data.principal, posterior.inverse_focal)[0]

    seen = jax.vmap(one)(*unknowns[2:])
    return (seen - data.points) / (posterior.size[:, None, None] * data.sigma)


def _changes(unknowns: Unknowns) -> Array:
    """(t-1 f) differences of neighbouring frames, in the order of a frame's unknowns."""
    count = unknowns.expression.shape[0]

    def difference(values: Array) -> Array:
        flat = values.reshape(count, -1)
        return flat[1:] - flat[:-1]

    turn = matmul_highest(unknowns.rotation[1:], jnp.swapaxes(unknowns.rotation[:-1], -1, -2))
    skew = 0.5 * (turn - jnp.swapaxes(turn, -1, -2))  # sine of the angle times the axis
    axis = jnp.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=-1)
    return jnp.concatenate(
        [
            difference(unknowns.expression),
            difference(unknowns.joints),
            axis,
            difference(unknowns.offset),
            difference(unknowns.log_scale),
        ],
        axis=-1,
    )


def bounded_unknowns(unknowns: Unknowns) -> Array:
    """(t E+3q) the unknowns of the frames that have priors and ranges.

    Args:
      unknowns: of a clip.
    """
    count = unknowns.expression.shape[0]
    return jnp.concatenate([unknowns.expression, unknowns.joints.reshape(count, -1)], axis=-1)


def _shared(unknowns: Unknowns, options: SolverOptions) -> Array:
    """(s) the unknowns that all frames share."""
    parts = [unknowns.shape] if options.fit_shape else []
    parts += [unknowns.bias.reshape(-1)] if options.landmark_bias else []
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


def _shared_precision(posterior: Posterior) -> Array:
    """(s) precisions of what all frames share."""
    priors, options = posterior.priors.shared, posterior.options
    num_shape = posterior.skeleton.num_shape
    kept = [priors[:num_shape]] if options.fit_shape else []
    kept += [priors[num_shape:]] if options.landmark_bias else []
    return _frames(posterior) * jnp.concatenate(kept) if kept else jnp.zeros(0)


def _frames(posterior: Posterior) -> Array:
    """() frames with points; priors of what they share count as often.

    So they are as strict for a clip as for a photograph: what is wrong with landmarks is wrong in
    every frame, frames are no independent evidence.
    """
    return jnp.maximum(jnp.sum(jnp.any(posterior.data.weights > 0, axis=1)), 1)


def _beyond_limit(posterior: Posterior, unknowns: Unknowns) -> tuple[Array, Array]:
    """(K) by how much the model's shape coefficients pass their limit, and () its precision."""
    modes, limit = posterior.priors.shape_modes, posterior.priors.shape_limit
    coefficients = matmul_highest(modes, unknowns.shape)
    beyond = coefficients - jnp.clip(coefficients, -limit, limit)
    return beyond, _frames(posterior) * BEYOND_LIMIT_SIGMA**-2.0


def _prior_energy(posterior: Posterior, unknowns: Unknowns) -> Array:
    priors = posterior.priors
    bounded = bounded_unknowns(unknowns)
    shared = _shared(unknowns, posterior.options)
    energy = jnp.sum(_shared_precision(posterior) * shared**2)
    energy += jnp.sum(priors.frame[: bounded.shape[1]] * bounded**2)
    if posterior.options.fit_shape:
        beyond, precision = _beyond_limit(posterior, unknowns)
        energy += precision * jnp.sum(beyond**2)
    linked = posterior.data.link[:-1, None] * priors.change
    return energy + jnp.sum(linked * _changes(unknowns) ** 2)


def energy_of(posterior: Posterior, unknowns: Unknowns, robust_scale: Array) -> Array:
    """Twice the negative log posterior () up to a constant.

    Args:
      posterior: of a clip.
      unknowns: where.
      robust_scale: () of the robust loss, in sigmas.
    """
    squared = jnp.sum(_residuals(posterior, unknowns) ** 2, axis=-1)
    loss, _ = _robust(squared, robust_scale, posterior.options.robust)
    return jnp.sum(posterior.data.weights * loss) + _prior_energy(posterior, unknowns)


def _jacobians(posterior: Posterior, unknowns: Unknowns) -> tuple[Array, Array, Array]:
    """Residuals (t n 2) in sigmas, and their derivatives (t n 2 f) and (t n 2 s)."""
    data, parts, skeleton = posterior.data, posterior.parts, posterior.skeleton
    options, inverse_focal = posterior.options, posterior.inverse_focal
    count, num_shape = data.points.shape[1], skeleton.num_shape

    def one(
        expression: Array,
        joints: Array,
        rotation: Array,
        offset: Array,
        log_scale: Array,
        points: Array,
        size: Array,
    ) -> tuple[Array, Array, Array]:
        coefficients = jnp.concatenate([unknowns.shape, expression])
        base, linear = affine_landmarks(parts, skeleton, joints)
        head = base + matmul_highest(linear, coefficients) + unknowns.bias
        turned = matmul_highest(head, rotation.T)
        scale = jnp.exp(log_scale)
        seen, grown = project(turned, offset, scale, data.principal, inverse_focal)
        # d seen / d turned (n 2 3).
        nearness = scale * inverse_focal
        depth = (seen - data.principal) * (nearness * grown)[:, None]
        flat = (scale * grown)[:, None, None] * jnp.eye(2)
        view = jnp.concatenate([flat, depth[:, :, None]], axis=-1)
        from_head = matmul_highest(view.reshape(-1, 3), rotation).reshape(view.shape)

        def seen_by(moves: Array) -> Array:
            """(n 2 *) of moves (n 3 *) in head axes; sums of products beat n small matrices."""
            return sum(from_head[:, :, i, None] * moves[:, None, i] for i in range(3))

        x, y, z = (turned[:, i, None] for i in range(3))
        right, up, near = view[:, :, 0], view[:, :, 1], view[:, :, 2]
        spin = jnp.stack([near * y - up * z, right * z - near * x, up * x - right * y], axis=-1)
        columns = [seen_by(linear[..., num_shape:])]
        if skeleton.free:
            bend = jax.jacfwd(lambda pose: posed_landmarks(parts, skeleton, coefficients, pose))(
                joints
            )
            columns.append(seen_by(bend.reshape(count, 3, -1)))
        columns.append(spin)
        columns.append(grown[:, None, None] * jnp.eye(2))
        larger = (scale * grown)[:, None] * turned[:, :2] + depth * z
        columns.append(larger[:, :, None])
        shared = [jnp.zeros((count, 2, 0))]
        if options.fit_shape:
            shared.append(seen_by(linear[..., :num_shape]))
        if options.landmark_bias:
            own = jnp.eye(count)[:, None, :, None] * from_head[:, :, None, :]
            shared.append(own.reshape(count, 2, -1))
        unit = 1.0 / (size * data.sigma)
        return (
            (seen - points) * unit,
            jnp.concatenate(columns, axis=-1) * unit,
            jnp.concatenate(shared, axis=-1) * unit,
        )

    return jax.vmap(one)(*unknowns[2:], data.points, posterior.size)


def gauss_newton(posterior: Posterior, unknowns: Unknowns, robust_scale: Array) -> GaussNewton:
    """The quadratic that touches the energy at the unknowns.

    Args:
      posterior: of a clip.
      unknowns: where.
      robust_scale: () of the robust loss, in sigmas.
    """
    data, priors, options = posterior.data, posterior.priors, posterior.options
    residual, by_frame, by_shared = _jacobians(posterior, unknowns)
    loss, share = _robust(jnp.sum(residual**2, axis=-1), robust_scale, options.robust)
    root = jnp.sqrt(data.weights * share)[..., None]
    times, size, num_shared = residual.shape[0], by_frame.shape[-1], by_shared.shape[-1]
    rows = (root[..., None] * by_frame).reshape(times, -1, size)
    edges = (root[..., None] * by_shared).reshape(times, rows.shape[1], num_shared)
    error = (root * residual).reshape(times, -1, 1)
    transposed = jnp.swapaxes(rows, -1, -2)
    changes = _changes(unknowns)
    linked = data.link[:, None] * priors.change
    pull = linked[:-1] * changes
    none = jnp.zeros((1, size))
    bounded = bounded_unknowns(unknowns)
    own = priors.frame * jnp.pad(bounded, ((0, 0), (0, size - bounded.shape[1])))
    gradient = matmul_highest(transposed, error)[..., 0] + own
    gradient += jnp.concatenate([none, pull]) - jnp.concatenate([pull, none])
    diagonal = priors.frame + linked + jnp.concatenate([none, linked[:-1]]) + _FLOOR
    flat = edges.reshape(times * rows.shape[1], num_shared)
    shared, shared_precision = _shared(unknowns, options), _shared_precision(posterior)
    corner = matmul_highest(flat.T, flat) + jnp.diag(shared_precision)
    gradient_shared = matmul_highest(flat.T, error.reshape(-1, 1))[:, 0] + shared_precision * shared
    if options.fit_shape:
        beyond, precision = _beyond_limit(posterior, unknowns)
        modes = priors.shape_modes
        stiff = precision * matmul_highest(modes.T, (beyond != 0)[:, None] * modes)
        size_shape = modes.shape[1]
        corner = corner.at[:size_shape, :size_shape].add(stiff)
        gradient_shared = gradient_shared.at[:size_shape].add(
            precision * matmul_highest(beyond, modes)
        )
    return GaussNewton(
        blocks=matmul_highest(transposed, rows) + jax.vmap(jnp.diag)(diagonal),
        coupling=linked,
        border=matmul_highest(transposed, edges),
        corner=corner,
        gradient=gradient,
        gradient_shared=gradient_shared,
        energy=jnp.sum(data.weights * loss) + _prior_energy(posterior, unknowns),
    )
