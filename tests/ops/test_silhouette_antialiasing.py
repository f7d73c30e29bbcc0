"""Silhouette antialiasing against a pair-by-pair reference, closed forms and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.ops import rasterizer
from tests.ops import rasterizer_reference as reference

SIZE = 24
VERTICES, FACES = 64, 96  # of every mesh, so that programs are compiled once


def padded(positions, faces):
    """Fills a mesh up with unused vertices and faces without an area."""
    positions = np.pad(positions, ((0, VERTICES - len(positions)), (0, 0)))
    faces = np.pad(faces, ((0, FACES - len(faces)), (0, 0)))
    return positions.astype(np.float32), faces.astype(np.int32)


def ball(rng, *, bumps=0.15):
    """A closed bumpy ball of 96 triangles, wound so that those towards us face front."""
    rows, columns = 7, 8
    polar = np.linspace(0, np.pi, rows + 1)[:, None]
    round_about = np.arange(columns) * 2 * np.pi / columns
    points = np.stack(
        np.broadcast_arrays(
            np.sin(polar) * np.cos(round_about),
            np.cos(polar) + 0 * round_about,
            np.sin(polar) * np.sin(round_about),
        ),
        axis=-1,
    )
    points[[0, -1]] = points[[0, -1], :1]
    points = (points * (1 + bumps * rng.normal(size=(rows + 1, columns, 1)))).reshape(-1, 3)
    a = (np.arange(rows)[:, None] * columns + np.arange(columns)).reshape(-1)
    b = (np.arange(rows)[:, None] * columns + (np.arange(columns) + 1) % columns).reshape(-1)
    faces = np.concatenate(
        [
            np.stack([a, b, a + columns], 1)[columns:],
            np.stack([b, b + columns, a + columns], 1)[:-columns],
        ]
    )
    # One vertex at each pole.
    faces = np.where(faces < columns, 0, faces)
    faces = np.where(faces >= rows * columns, rows * columns, faces)
    return padded(0.7 * points, faces)


def square(left, right, top, bottom, z=0.0):
    """Two triangles between window positions in pixels."""
    x, y = np.array([left, right, right, left]), np.array([top, top, bottom, bottom])
    positions = np.stack([x / SIZE * 2 - 1, y / SIZE * 2 - 1, np.full(4, z)], axis=-1)
    return padded(positions, np.array([[0, 2, 1], [0, 3, 2]]))


def draw(positions, faces, *, cull="none"):
    return rasterizer.rasterize(
        jnp.asarray(positions)[None], faces, height=SIZE, width=SIZE, cull=cull
    )


def test_mesh_topology_finds_the_other_face():
    # A tetrahedron: across every edge lies the one vertex that is not on the face.
    faces = np.array([[0, 1, 2], [0, 3, 1], [1, 3, 2], [2, 3, 0]])
    opposite = rasterizer.mesh_topology(faces).opposite
    for face, row in zip(faces, opposite, strict=True):
        (missing,) = set(range(4)) - set(face)
        assert (row == missing).all()


def test_mesh_topology_marks_borders_and_branches():
    pair = rasterizer.mesh_topology(np.array([[0, 1, 2], [3, 2, 1]])).opposite
    np.testing.assert_array_equal(pair, [[3, -1, -1], [0, -1, -1]])
    # Three faces at one edge: none of them is the other one.
    book = rasterizer.mesh_topology(np.array([[0, 1, 2], [0, 1, 3], [1, 0, 4]])).opposite
    assert (book == -1).all()


def test_antialias_equals_pairs_one_by_one():
    rng = np.random.default_rng(0)
    positions, faces = ball(rng)
    fragments = draw(positions, faces, cull="back_after")
    image = rng.uniform(size=(1, SIZE, SIZE, 1)).astype(np.float32)
    topology = rasterizer.mesh_topology(faces)
    result = rasterizer.antialias(
        jnp.asarray(image), fragments, jnp.asarray(positions)[None], faces, topology
    )
    expected = reference.antialias(
        image[0].astype(np.float64),
        np.asarray(fragments.face_id[0]),
        np.asarray(fragments.depth[0]),
        reference.to_window(positions, SIZE, SIZE).astype(np.float64),
        faces,
    )
    changed = np.abs(expected - image[0]).max(axis=-1) > 1e-4
    assert 0.03 < changed.mean() < 0.4
    # Positions of a crossing in float32: a few 1e-6 px.
    np.testing.assert_allclose(result[0], expected, atol=1e-4)


@pytest.mark.parametrize("edge", [10.0, 10.2, 10.5, 10.8, 11.0])
def test_antialias_of_a_straight_edge_is_its_coverage(edge):
    """Both sides: 4.3 to `edge` px, rows 6.4 to 15.7; corners are left to the other tests."""
    positions, faces = square(4.3, edge, 6.4, 15.7)
    fragments = draw(positions, faces)
    white = jnp.asarray(fragments.face_id >= 0, jnp.float32)[..., None]
    topology = rasterizer.mesh_topology(faces)
    result = rasterizer.antialias(white, fragments, jnp.asarray(positions)[None], faces, topology)
    middle = np.asarray(result[0, 11, :, 0])
    columns = np.arange(SIZE)
    coverage = np.clip(np.minimum(columns + 1, edge) - np.maximum(columns, 4.3), 0, 1)
    # Positions are stored as float32 in [-1, 1].
    np.testing.assert_allclose(middle, coverage, atol=1e-5)
    # The diagonal between the two triangles is no silhouette.
    np.testing.assert_array_equal(result[0, 7:15, 5:10], 1.0)


def test_antialias_takes_the_nearer_triangle():
    near, faces = square(4.0, 10.7, 4.0, 20.0, z=-0.5)
    far, _ = square(2.0, 22.0, 2.0, 22.0, z=0.5)
    positions, faces = padded(
        np.concatenate([far[:4], near[:4]]), np.concatenate([faces[:2], faces[:2] + 4])
    )
    fragments = draw(positions, faces)
    seen = np.asarray(fragments.face_id)
    image = jnp.asarray(np.where(seen >= 2, 1.0, 0.25), jnp.float32)[..., None]
    image = image * jnp.asarray(seen >= 0)[..., None]
    topology = rasterizer.mesh_topology(faces)
    result = rasterizer.antialias(image, fragments, jnp.asarray(positions)[None], faces, topology)
    # Column 10 belongs to the near square for 0.7 of its width.
    np.testing.assert_allclose(result[0, 12, 10, 0], 0.7 * 1.0 + 0.3 * 0.25, atol=1e-5)


def test_antialias_gradients_equal_finite_differences():
    rng = np.random.default_rng(1)
    points, faces = ball(rng)
    w = rng.uniform(0.9, 1.1, (len(points), 1)).astype(np.float32)
    points = np.concatenate([points, np.ones_like(w)], axis=-1) * w
    fragments = draw(points, faces)
    topology = rasterizer.mesh_topology(faces)
    image = jnp.asarray(rng.uniform(size=(1, SIZE, SIZE, 1)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=image.shape), jnp.float32)

    @jax.jit
    def loss(image, positions):
        result = rasterizer.antialias(image, fragments, positions, faces, topology)
        return jnp.sum(result * weights)

    start = [image, jnp.asarray(points)[None]]
    gradients = jax.jit(jax.grad(loss, (0, 1)))(*start)
    for argument, step in ((0, 1e-2), (1, 1e-4)):
        gradient = np.asarray(gradients[argument])
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.1
        direction = rng.normal(size=gradient.shape).astype(np.float32)
        moved = []
        for sign in (1, -1):
            arguments = list(start)
            arguments[argument] = arguments[argument] + sign * step * direction
            moved.append(float(loss(*arguments)))
        numeric = (moved[0] - moved[1]) / (2 * step)
        exact = float((gradient * direction).sum())
        # A float32 sum of a thousand values, divided by a small step.
        assert abs(numeric - exact) < 0.02 * max(abs(exact), 5), (argument, numeric, exact)


def test_a_silhouette_pulls_its_vertices():
    """White square on black: the picture's sum grows by the height of the edge that moves."""
    positions, faces = square(4.3, 10.6, 6.0, 16.0)
    topology = rasterizer.mesh_topology(faces)

    def brightness(points):
        fragments = rasterizer.rasterize(points, faces, height=SIZE, width=SIZE)
        white = jnp.asarray(fragments.face_id >= 0, jnp.float32)[..., None]
        return rasterizer.antialias(white, fragments, points, faces, topology).sum()

    gradient = np.asarray(jax.grad(brightness)(jnp.asarray(positions)[None]))[0]
    pixels_per_unit = SIZE / 2
    # Moving the right side by one pixel covers ten more pixels.
    np.testing.assert_allclose(gradient[[1, 2], 0].sum() / pixels_per_unit, 10.0, atol=1e-3)
    np.testing.assert_allclose(gradient[[0, 3], 0].sum() / pixels_per_unit, -10.0, atol=1e-3)
    assert not gradient[:, 2].any()


def test_antialias_leaves_triangles_across_the_camera_alone():
    positions, faces = square(4.3, 10.6, 6.0, 16.0)
    clip = np.concatenate([positions, np.ones((VERTICES, 1), np.float32)], axis=-1)
    clip[2, 3] = -0.2
    fragments = draw(clip, faces)
    assert (np.asarray(fragments.face_id) >= 0).any()
    image = jnp.asarray(np.random.default_rng(3).uniform(size=(1, SIZE, SIZE, 1)), jnp.float32)
    topology = rasterizer.mesh_topology(faces)
    result = rasterizer.antialias(image, fragments, jnp.asarray(clip)[None], faces, topology)
    np.testing.assert_array_equal(result, image)


def test_antialias_refuses_another_topology():
    positions, faces = square(4.0, 10.0, 6.0, 16.0)
    topology = rasterizer.mesh_topology(faces[:1])
    with pytest.raises(ArgumentError, match=r"topology.opposite must have shape \(96, 3\)"):
        rasterizer.antialias(
            jnp.zeros((1, SIZE, SIZE, 1)),
            draw(positions, faces),
            jnp.asarray(positions)[None],
            faces,
            topology,
        )
