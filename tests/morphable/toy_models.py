"""Made-up face models: a cap for a face, two eyeballs, five joints; FLAME's and BFM's fields."""

import numpy as np
import scipy.sparse

JOINTS = ("root", "neck", "jaw", "eye_L", "eye_R")


def toy_template(side=12):
    """(v 3) a face-like cap of side² vertices, mirror-symmetric, then two eyes of 4 vertices."""
    x, y = np.meshgrid(np.linspace(-8, 8, side), np.linspace(9, -9, side))
    z = 8 - 0.06 * x**2 - 0.03 * y**2
    cap = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    corners = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0.0]])
    eyes = [corners + np.array([sign * 3.1, 3.5, 7.0]) for sign in (1, -1)]
    return np.concatenate([cap, *eyes])


def toy_faces(side=12):
    ids = np.arange(side * side).reshape(side, side)
    a, b, c, d = ids[:-1, :-1], ids[1:, :-1], ids[1:, 1:], ids[:-1, 1:]
    faces = [np.stack(corner, -1).reshape(-1, 3) for corner in ((a, b, c), (a, c, d))]
    for start in (side * side, side * side + 4):
        faces.append(start + np.array([[0, 1, 2], [0, 2, 3]]))
    return np.concatenate(faces).astype(np.int32)


def toy_landmarks(template):
    """68 vertices near the places of real landmarks."""
    angle = np.linspace(-1.4, 1.4, 17)
    jaw = np.stack([7.4 * np.sin(angle), -7.5 * np.cos(angle) + 4], axis=-1)
    brows = [(x, 6.0) for x in (-5.5, -4.5, -3.5, -2.4, -1.2, 1.2, 2.4, 3.5, 4.5, 5.5)]
    nose = [(0, 3.5), (0, 2.4), (0, 1.3), (0, 0.2), *((x, -1.1) for x in (-1.3, -0.6, 0, 0.6, 1.3))]
    eyes = []
    for middle in (-3.1, 3.1):
        turn = np.pi - np.arange(6) * np.pi / 3
        eyes += [(middle + 1.3 * np.cos(t), 3.5 + 0.5 * np.sin(t)) for t in turn]
    mouth = [(2.5 * np.cos(t), -3.4 + np.sin(t)) for t in np.pi - np.arange(12) * np.pi / 6]
    mouth += [(2.0 * np.cos(t), -3.4 + 0.3 * np.sin(t)) for t in np.pi - np.arange(8) * np.pi / 4]
    points = np.concatenate([jaw, brows, nose, eyes, mouth])
    away = np.linalg.norm(template[None, :, :2] - points[:, None], axis=-1)
    return away.argmin(axis=1).astype(np.int32)


def toy_arrays(seed=0, num_shape=4, num_expression=3):
    """The keys of a clean npz."""
    rng = np.random.default_rng(seed)
    template, faces = toy_template(), toy_faces()
    count = len(template)
    weights = rng.uniform(0, 1, (count, 3))
    weights = np.concatenate([weights / weights.sum(1, keepdims=True), np.zeros((count, 2))], 1)
    weights[-8:] = 0
    weights[-8:-4, 3] = weights[-4:, 4] = 1
    joints = np.array([[0, -20, 0], [0, -6, 0], [0, 0, 2], [3.1, 3.5, 6], [-3.1, 3.5, 6.0]])
    return {
        "v_template": template.astype(np.float32),
        "faces": faces,
        "shapedirs": rng.standard_normal((num_shape, count, 3)).astype(np.float32),
        "exprdirs": rng.standard_normal((num_expression, count, 3)).astype(np.float32),
        "landmarks68": toy_landmarks(template),
        "joint_names": np.array(JOINTS),
        "parents": np.array([-1, 0, 1, 1, 1], np.int32),
        "J_template": joints.astype(np.float32),
        "J_shapedirs": rng.standard_normal((5, 3, num_shape)).astype(np.float32),
        "lbs_weights": weights.astype(np.float32),
    }


def flame_fields(seed=0, vertices=5023, faces=9976, columns=400):
    """The fields of FLAME's pickle, in its sizes; numbers as Python 2 stored them."""
    rng = np.random.default_rng(seed)
    template = rng.uniform(-0.1, 0.1, (vertices, 3))
    weights = rng.uniform(0, 1, (vertices, 5))
    regressor = np.zeros((5, vertices))
    regressor[np.arange(5), rng.integers(0, vertices, 5)] = 1.0
    table = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)
    triangles = rng.integers(0, vertices, (faces, 3))
    triangles[0] = (0, 1, vertices - 1)
    directions = rng.standard_normal((vertices, 3, columns)).astype(np.float32)
    return {
        "v_template": template,
        "f": triangles.astype(np.uint32),
        "shapedirs": directions,
        "posedirs": rng.standard_normal((vertices, 3, 36)).astype(np.float32),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "kintree_table": table,
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "bs_style": "lbs",
    }


def flame_embedding(seed=0, faces=9976):
    """The fields of FLAME's landmark embedding."""
    rng = np.random.default_rng(seed)

    def weights(*shape):
        values = rng.uniform(0.1, 1, (*shape, 3)).astype(np.float32)
        return values / values.sum(-1, keepdims=True)

    return {
        "static_lmk_faces_idx": rng.integers(0, faces, 51),
        "static_lmk_bary_coords": weights(51),
        "dynamic_lmk_faces_idx": rng.integers(0, faces, (79, 17)),
        "dynamic_lmk_bary_coords": weights(79, 17),
        "full_lmk_faces_idx": rng.integers(0, faces, (1, 68)),
        "full_lmk_bary_coords": weights(1, 68),
    }


def bfm_fields(seed=0, vertices=300, faces=500):
    """The fields of BFM_model_front.mat; indices count from 1."""
    rng = np.random.default_rng(seed)
    corners = np.stack([rng.permutation(vertices)[:3] for _ in range(faces)])
    return {
        "meanshape": rng.standard_normal((1, 3 * vertices)),
        "meantex": rng.uniform(0, 255, (1, 3 * vertices)),
        "idBase": rng.standard_normal((3 * vertices, 80)),
        "exBase": rng.standard_normal((3 * vertices, 64)),
        "texBase": rng.standard_normal((3 * vertices, 80)),
        "tri": corners.astype(np.float64) + 1,
        "point_buf": rng.integers(1, faces + 2, (vertices, 8)).astype(np.float64),
        "keypoints": rng.integers(1, vertices + 1, (1, 68)).astype(np.float64),
    }
