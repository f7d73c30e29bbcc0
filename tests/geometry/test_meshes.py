"""Vertex normals on a sphere, and where there is no area."""

import jax
import numpy as np
from scipy.spatial import ConvexHull

from talking_heads_jax.geometry.meshes import vertex_normals


def sphere():
    """Four hundred points on a spiral, evenly spread, and the faces between them."""
    z = 1 - 2 * (np.arange(400) + 0.5) / 400
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(400)
    ring = np.sqrt(1 - z * z)
    points = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=-1)
    faces = ConvexHull(points).simplices
    a, b, c = (points[faces[:, i]] for i in range(3))
    inward = np.einsum("fi,fi->f", np.cross(b - a, c - a), a) < 0
    faces[inward] = faces[inward][:, ::-1]
    return points.astype(np.float32), faces.astype(np.int32)


def test_vertex_normals_of_a_sphere_point_outwards():
    points, faces = sphere()
    normals = np.asarray(vertex_normals(np.stack([points, 5 * points]), faces))
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)
    assert np.sum(normals[0] * points, axis=-1).min() > 0.99  # the points are 10 degrees apart
    np.testing.assert_allclose(normals[1], normals[0], atol=1e-5)


def test_vertex_normals_weigh_faces_by_their_area():
    points = np.float32([[0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 0.5], [0, 0.5, 0]])
    faces = np.int32([[0, 1, 2], [0, 4, 3]])  # a large one along z, a small one along x
    normal = np.asarray(vertex_normals(points[None], faces))[0, 0]
    expected = np.array([0.25, 0, 81.0])
    np.testing.assert_allclose(normal, expected / np.linalg.norm(expected), atol=1e-6)


def test_vertex_normals_are_zero_with_finite_gradient_where_faces_have_no_area():
    points = np.zeros((1, 3, 3), np.float32)
    faces = np.int32([[0, 1, 2]])
    np.testing.assert_array_equal(vertex_normals(points, faces), 0)
    gradient = jax.grad(lambda x: vertex_normals(x, faces).sum())(points)
    np.testing.assert_array_equal(gradient, 0)
