"""Parts of the fit: the reduced model, the derivatives, the linear system, the start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.morphable.skinned_model import SkinnedFaceModel
from talking_heads_jax.tracking.fit_arrow import solve_arrow
from talking_heads_jax.tracking.fit_energy import (
    ClipData,
    Posterior,
    SolverOptions,
    Unknowns,
    energy_of,
    gauss_newton,
)
from talking_heads_jax.tracking.fit_model import (
    affine_landmarks,
    compressed,
    landmark_model,
    posed_landmarks,
)
from talking_heads_jax.tracking.fit_priors import clip_priors, told_expressions
from talking_heads_jax.tracking.fit_solver import moved
from talking_heads_jax.tracking.fit_start import rigid_start
from tests.morphable.toy_models import toy_arrays

posed = jax.jit(posed_landmarks, static_argnames="skeleton")
affine = jax.jit(affine_landmarks, static_argnames="skeleton")


@pytest.fixture(scope="module")
def model():
    """With everything that bends a landmark: a corrective of the jaw, pose correctives, triangles,
    moving joints, a unit that is no centimetre."""
    arrays = toy_arrays()
    rng = np.random.default_rng(3)
    count = len(arrays["v_template"])
    vertices = arrays.pop("landmarks68")
    arrays["landmark_corners"] = np.stack([vertices, vertices - 1, vertices - 12], 1).clip(0)
    shares = rng.uniform(0.1, 1, (68, 3))
    arrays["landmark_weights"] = (shares / shares.sum(1, keepdims=True)).astype("f4")
    arrays["posedirs"] = 0.3 * rng.standard_normal((36, 3 * count)).astype("f4")
    arrays["J_exprdirs"] = rng.standard_normal((5, 3, 3)).astype("f4")
    arrays["expr_names"] = np.array(["first", "jawOpen", "third"])
    arrays["jawopen_angle_rad"] = np.array(0.4)
    arrays["centimetres_per_unit"] = np.array(2.5)
    return SkinnedFaceModel.from_arrays(arrays, name="toy")


def _jaw_pose(angles):
    pose = np.zeros((1, 5, 3), np.float32)
    pose[0, 2] = angles
    return pose


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, 0.05, -0.04), (-0.1, 0.0, 0.1)])
def test_posed_landmarks_equal_the_full_model(model, angles):
    rng = np.random.default_rng(0)
    shape, expression = rng.standard_normal((1, 4)), rng.standard_normal((1, 3))
    coefficients = FaceCoefficients(shape, expression, _jaw_pose(angles))
    want = 2.5 * np.asarray(model.landmarks68(model.vertices(coefficients)))[0]
    chosen = np.arange(10, 68)
    parts, skeleton = landmark_model(model, chosen)
    assert skeleton.free == (2,)
    both = np.concatenate([shape, expression], axis=1)[0].astype("f4")
    jaw = np.array([angles], np.float32)
    np.testing.assert_allclose(
        posed(parts, skeleton, both, jaw), want[chosen], atol=2e-4
    )  # of coordinates up to 60 in float32
    base, linear = affine(parts, skeleton, jaw)
    np.testing.assert_allclose(base + linear @ both, want[chosen], atol=2e-4)


def test_landmark_model_without_joints_keeps_the_jaw_at_rest(model):
    parts, skeleton = landmark_model(model, np.arange(68), fit_joints=False)
    assert skeleton.free == () and parts.jaw_corrective is None
    both = np.ones(7, np.float32)
    want = model.vertices(FaceCoefficients(both[None, :4], both[None, 4:]))
    found = posed(parts, skeleton, both, np.zeros((0, 3), "f4"))
    np.testing.assert_allclose(found, 2.5 * model.landmarks68(want)[0], atol=2e-4)


def test_compressed_keeps_the_landmarks_and_drops_weak_modes(model):
    parts, skeleton = landmark_model(model, np.arange(68))
    kept = np.array([True, False, True])
    weak = np.concatenate([parts.basis[:3], 1e-6 * parts.basis[3:4], parts.basis[4:]])
    joints = np.concatenate(
        [parts.pivot_basis[:3], 1e-6 * parts.pivot_basis[3:4], parts.pivot_basis[4:]]
    )
    parts = parts._replace(basis=weak, pivot_basis=joints)
    small, shorter, modes = compressed(parts, skeleton, smallest_cm=0.01, expressions=kept)
    assert modes.shape == (4, 3) and shorter.num_expression == 2
    np.testing.assert_allclose(modes.T @ modes, np.eye(3), atol=1e-5)
    few = np.array([0.5, -1.0, 0.3, 0.7, -0.2], np.float32)
    full = np.concatenate([modes @ few[:3], [few[3], 0.0, few[4]]]).astype("f4")
    jaw = np.full((1, 3), 0.1, np.float32)
    np.testing.assert_allclose(
        posed(small, shorter, few, jaw),
        posed(parts, skeleton, full, jaw),
        atol=2e-4,
    )


def test_told_expressions_leaves_out_gaze_and_the_jaws_double():
    names = ("browDown_L", "eyeLookIn_L", "jawOpen")
    assert told_expressions("ict", names, has_jaw=True).tolist() == [True, False, False]
    assert told_expressions("ict", names, has_jaw=False).tolist() == [True, False, True]
    assert told_expressions("flame2020", names, has_jaw=True).all()


@pytest.mark.parametrize("shared", [3, 0])
def test_solve_arrow_equals_the_dense_solution(shared):
    rng = np.random.default_rng(1)
    times, size = 5, 4
    dense = np.zeros((times * size + shared,) * 2)
    root = rng.standard_normal((times, size, size))
    blocks = root @ root.swapaxes(1, 2) + 6 * np.eye(size)
    coupling = rng.uniform(0, 1, (times, size))
    border = 0.5 * rng.standard_normal((times, size, shared))
    corner = 20 * np.eye(shared)
    for t in range(times):
        here = slice(t * size, (t + 1) * size)
        dense[here, here] = blocks[t]
        dense[here, times * size :] = border[t]
        dense[times * size :, here] = border[t].T
        if t + 1 < times:
            after = slice((t + 1) * size, (t + 2) * size)
            dense[here, after] = dense[after, here] = -np.diag(coupling[t])
    dense[times * size :, times * size :] = corner
    right = rng.standard_normal(len(dense))
    want = np.linalg.solve(dense, right)
    arrays = (blocks, coupling, border, corner, right[: times * size].reshape(times, size))
    frames, common = jax.jit(solve_arrow)(
        *(jnp.asarray(array, jnp.float32) for array in (*arrays, right[times * size :]))
    )
    np.testing.assert_allclose(frames.reshape(-1), want[: times * size], atol=1e-5)
    np.testing.assert_allclose(common, want[times * size :], atol=1e-5)


@pytest.mark.parametrize(
    ("robust", "perspective"), [("geman_mcclure", True), ("huber", False), ("none", False)]
)
def test_gauss_newton_gradient_equals_the_energys(model, robust, perspective):
    """The reweighted gradient is the robust energy's own; every unknown, both cameras."""
    rng = np.random.default_rng(2)
    chosen = np.arange(17, 68)
    parts, skeleton = landmark_model(model, chosen)
    priors = clip_priors(
        "toy",
        skeleton,
        shape_modes=np.linalg.qr(np.random.default_rng(4).standard_normal((4, 4)))[0],
        shape_sigma=1.0,
        shape_limit=0.25,  # some coefficients lie beyond it
        expression_sigma=None,
        bias_sigma_cm=[0.3] * 153,
        smoothness=1.0,
        fps=25.0,
    )
    options = SolverOptions(robust, True, True, perspective, 1, 1e-4)
    times = 3
    turns = head_rotation_from_angles(jnp.asarray(rng.uniform(-0.1, 0.1, (times, 3))))
    unknowns = Unknowns(
        shape=jnp.asarray(0.3 * rng.standard_normal(4), jnp.float32),
        bias=jnp.asarray(0.1 * rng.standard_normal((51, 3)), jnp.float32),
        expression=jnp.asarray(0.3 * rng.standard_normal((times, 3)), jnp.float32),
        joints=jnp.asarray(rng.uniform(0.02, 0.1, (times, 1, 3)), jnp.float32),
        rotation=turns,
        offset=jnp.asarray(0.1 * rng.standard_normal((times, 2)), jnp.float32),
        log_scale=jnp.log(jnp.asarray(rng.uniform(0.04, 0.05, times), jnp.float32)),
    )
    data = ClipData(
        points=jnp.asarray(0.5 * rng.standard_normal((times, 51, 2)), jnp.float32),
        weights=jnp.asarray(rng.uniform(0, 1, (times, 51)), jnp.float32),
        nearest=jnp.arange(times),
        link=jnp.asarray([1.0, 0.0, 0.0]),
        shape=jnp.zeros(4),
        bias=jnp.zeros((51, 3)),
        principal=jnp.asarray([0.2, -0.1]),
        focal=jnp.asarray(0.0),
        distance=jnp.asarray(0.0),
        sigma=jnp.asarray(0.3),
        robust_scale=jnp.asarray(0.5),
    )
    inverse_focal = jnp.asarray(0.25 if perspective else 0.0)
    parts, priors = jax.tree.map(jnp.asarray, (parts, priors))
    posterior = Posterior(
        data, parts, skeleton, priors, options, jnp.full(times, 0.9), inverse_focal
    )
    scale = jnp.asarray(2.0)

    def energy(steps, shared):
        return energy_of(
            posterior, moved(unknowns, steps, shared, priors, skeleton, options), scale
        )

    beyond = np.abs(priors.shape_modes @ unknowns.shape) > 0.25
    assert 0 < beyond.sum() < 4
    zero = (jnp.zeros((times, 12)), jnp.zeros(157))
    value, gradients = jax.jit(jax.value_and_grad(energy, argnums=(0, 1)))(*zero)
    system = jax.jit(lambda at: gauss_newton(posterior, at, scale))(unknowns)
    np.testing.assert_allclose(system.energy, value, rtol=1e-5)
    # Relative to the largest: float32 sums of many terms. The head's random walk between frames is
    # linearised (sine of the angle between them, here 0.1 rad): a per cent of its own small pull.
    for found, want in zip((system.gradient, system.gradient_shared), gradients, strict=True):
        want = 0.5 * np.asarray(want)
        np.testing.assert_allclose(found, want, atol=2e-3 * np.abs(want).max())


def test_rigid_start_recovers_a_rigid_face_with_wild_points():
    rng = np.random.default_rng(4)
    face = jnp.asarray(rng.uniform(-4, 4, (40, 3)), jnp.float32)
    angles = jnp.asarray([[0.5, -0.2, 0.3], [-0.7, 0.1, -0.4]])
    turns = np.asarray(head_rotation_from_angles(angles))
    points = 0.1 * (np.asarray(face) @ turns.swapaxes(1, 2))[..., :2] + np.array([0.3, -0.2])
    points[:, :6] += rng.uniform(1, 2, (2, 6, 2))
    weights = jnp.ones((2, 40))
    rotation, scale, offset = rigid_start(face, jnp.asarray(points, jnp.float32), weights)
    np.testing.assert_allclose(rotation, turns, atol=0.02)  # wild points keep a rest of influence
    np.testing.assert_allclose(scale, 0.1, rtol=0.02)
    np.testing.assert_allclose(offset, [[0.3, -0.2]] * 2, atol=0.02)


def test_rigid_start_stays_finite_without_points():
    face = jnp.asarray(np.random.default_rng(5).uniform(-4, 4, (40, 3)), jnp.float32)
    none = jnp.zeros((1, 40))
    for values in rigid_start(face, jnp.zeros((1, 40, 2)), none):
        assert np.isfinite(values).all()
