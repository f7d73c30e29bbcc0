"""Fitted tracks without fitting, and a fitted face in pixels by the definition in `ClipTrack`."""

import numpy as np

from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.geometry.cameras import head_rotation_from_angles
from talking_heads_jax.tracking.track import PERSPECTIVE, empty_track


def fitted_track(model, count, *, seed=0, size=(40, 48), scale_px=1.0, **fields):
    """A face that moves at random in the middle of frames of a size, fitted with a model."""
    rng = np.random.default_rng(seed)
    middle = np.array([size[1] / 2, size[0] / 2])
    joints = np.zeros((count, len(model.joint_names), 3), np.float32)
    joints[:, model.joint_names.index("jaw"), 0] = rng.uniform(0, 0.2, count)
    values = {
        "face": np.ones(count, bool),
        "morphable": model.name,
        "shape_coeffs": rng.normal(size=model.num_shape),
        "expression_coeffs": rng.uniform(0, 0.6, (count, model.num_expression)),
        "joint_pose": joints.reshape(count, -1),
        "angles": rng.normal(0, 0.15, (count, 3)),
        "scale_px": scale_px * rng.uniform(0.9, 1.1, count),
        "offset_px": middle + rng.normal(0, 1, (count, 2)),
        "reprojection_px": np.zeros(count),
    }
    arrays = {
        name: value if name in ("face", "morphable") else np.asarray(value, np.float32)
        for name, value in values.items()
    }
    return empty_track(count, fps=20.0, frame_size=size, **arrays | fields)


def posed_px(model, shape_coeffs, track):
    """(t v 3) float64, where every vertex is seen, z in the same scale."""
    return _seen(track, model.vertices(coefficients_of(shape_coeffs, track)), model)


def head_px(model, shape_coeffs, track):
    """(t 2) float64, where the neck joint is seen from left to right, and the eyes from above."""
    joints = model.posed_joints(coefficients_of(shape_coeffs, track))
    seen = dict(zip(model.joint_names, _seen(track, joints, model).transpose(1, 0, 2), strict=True))
    eyes = (seen["eye_L"] + seen["eye_R"]) / 2
    return np.stack([seen["neck"][:, 0], eyes[:, 1]], axis=-1)


def coefficients_of(shape_coeffs, track):
    """What the face model is asked for: a shape in the track's expressions and poses."""
    count = len(track)
    return FaceCoefficients(
        np.tile(shape_coeffs, (count, 1)),
        track.expression_coeffs,
        track.joint_pose.reshape(count, -1, 3),
    )


def _seen(track, points, model):
    """Points (t n 3) of the posed but unturned model as `ClipTrack` says that they are seen."""
    turn = np.asarray(head_rotation_from_angles(track.angles), np.float64)
    points = np.asarray(points, np.float64) * model.centimetres_per_unit
    turned = np.einsum("tij,tnj->tni", turn, points)
    pixels = track.scale_px[:, None, None] * turned * [1, -1, -1]
    pixels[..., :2] += track.offset_px[:, None]
    if track.camera == PERSPECTIVE:
        nearer = 1 - turned[..., 2:] / track.depth_cm[:, None, None]
        middle = track.principal_px
        pixels[..., :2] = middle + (pixels[..., :2] - middle) / nearer
    return pixels
