"""What a fit believes before it sees a landmark: how far coefficients stray, how fast they move.

All numbers are standard deviations of zero-mean Gaussians, cut off where a coefficient has a range:
the expressions of the built-in head and of ICT-FaceKit are blend shapes from 0 to 1. Letters: K
shape and E expression coefficients, q free joints, f unknowns of a frame.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from talking_heads_jax.tracking.fit_model import Skeleton
from talking_heads_jax.typing import Array

#: Models whose expressions are blend shapes with coefficients from 0 to 1.
BLENDSHAPE_MODELS = ("procedural", "ict")
#: Standard deviation of a shape coefficient. The built-in head's few modes, drawn by hand, take
#: over what detectors mean by a landmark more than the statistics of scans do.
SHAPE_SIGMA, HAND_DRAWN_SHAPE_SIGMA = 1.0, 0.75
#: Beyond `FitOptions.shape_limit` a shape coefficient costs more: as if what lies beyond were a
#: Gaussian of this standard deviation. A face that the model cannot make is not one that it makes
#: at ten standard deviations.
BEYOND_LIMIT_SIGMA = 0.05
#: Standard deviation of an expression coefficient: of blend shapes, and of Gaussian modes.
BLENDSHAPE_SIGMA, GAUSSIAN_SIGMA = 0.8, 1.0
#: Opening of the jaw, radians: it only opens, and hardly slides or twists.
JAW_SIGMA = (0.25, 0.03, 0.03)
JAW_LOWEST, JAW_HIGHEST = (0.0, -0.12, -0.12), (0.6, 0.12, 0.12)
#: Change from frame to frame at 25 frames a second: of an expression in its standard deviations, of
#: a joint and of the head in radians, of its place in eye distances, of the logarithm of its size.
EXPRESSION_CHANGE, JOINT_CHANGE = 0.25, 0.06
HEAD_CHANGE, PLACE_CHANGE, SIZE_CHANGE = 0.04, 0.08, 0.02
PRIOR_FPS = 25.0

# Never driven beside the joint that does the same.
_OPENED_BY_JAW = "jawOpen"
# Lids that follow the gaze, which 68 landmarks do not show.
_FOLLOW_GAZE = "eyeLook"


class Priors(NamedTuple):
    """Precisions (inverse variances) and ranges.

    Attributes:
      shared: (s) of the shape coefficients, then of the landmarks' biases if they are estimated.
      frame: (f) of expression, free joints, rotation, place, size; 0 for the pose of the head.
      change: (f) of the difference between neighbouring frames.
      lowest: (f) range, -inf where there is none.
      highest: (f) likewise.
      shape_modes: (K r) the model's shape coefficients of the r that are estimated.
      shape_limit: () magnitude of the model's, from which they cost more; may be infinite.
    """

    shared: Array
    frame: Array
    change: Array
    lowest: Array
    highest: Array
    shape_modes: Array
    shape_limit: Array


def default_shape_sigma(name: str) -> float:
    """Prior of a model's shape coefficients.

    Args:
      name: of the model.
    """
    return HAND_DRAWN_SHAPE_SIGMA if name == "procedural" else SHAPE_SIGMA


def expression_range(name: str) -> tuple[float, float]:
    """Range of the expression coefficients of a model.

    Args:
      name: of the model.
    """
    return (0.0, 1.0) if name in BLENDSHAPE_MODELS else (-np.inf, np.inf)


def told_expressions(name: str, expression_names: Sequence[str], *, has_jaw: bool) -> np.ndarray:
    """(E,) bool: the expressions that landmarks can tell and that no free joint stands for.

    Args:
      name: of the model.
      expression_names: of the model.
      has_jaw: whether the jaw joint is fitted.
    """
    told = np.ones(len(expression_names), bool)
    if name in BLENDSHAPE_MODELS:
        for number, word in enumerate(expression_names):
            told[number] = not (
                word.startswith(_FOLLOW_GAZE) or (has_jaw and word == _OPENED_BY_JAW)
            )
    return told


def clip_priors(
    name: str,
    skeleton: Skeleton,
    *,
    shape_modes: np.ndarray,
    shape_sigma: float,
    shape_limit: float | None,
    expression_sigma: float | None,
    bias_sigma_cm: Sequence[float],
    smoothness: float,
    fps: float,
) -> Priors:
    """The priors of a fit.

    Args:
      name: of the model.
      skeleton: of the reduced model.
      shape_modes: (K r) of the reduced model, see `fit_model.compressed`.
      shape_sigma: of the shape coefficients; they are in standard deviations of the model.
      shape_limit: see `FitOptions`; None for none.
      expression_sigma: of the expressions; None: as the kind of model has it.
      bias_sigma_cm: of each coordinate of the landmarks' biases; empty if they are not estimated.
      smoothness: factor on the precisions of the changes; 0 frees the frames from each other.
      fps: frames per second.
    """
    low, high = expression_range(name)
    sigma = expression_sigma or (BLENDSHAPE_SIGMA if np.isfinite(high) else GAUSSIAN_SIGMA)
    count, joints = skeleton.num_expression, len(skeleton.free)
    lowest, highest = np.full(count, low), np.full(count, high)
    free = np.full(6, np.inf)
    frame = np.concatenate(
        [np.full(count, sigma**-2.0), np.tile(np.power(JAW_SIGMA, -2.0), joints), np.zeros(6)]
    )
    steps = np.concatenate(
        [
            np.full(count, EXPRESSION_CHANGE * sigma),
            np.full(3 * joints, JOINT_CHANGE),
            np.repeat([HEAD_CHANGE, PLACE_CHANGE, SIZE_CHANGE], [3, 2, 1]),
        ]
    )
    # A random walk: the variance of a change grows with the time it takes.
    change = smoothness * fps / PRIOR_FPS * steps**-2.0
    shared = np.concatenate(
        [
            np.full(skeleton.num_shape, shape_sigma**-2.0),
            np.power(np.asarray(bias_sigma_cm, np.float64), -2.0),
        ]
    )
    return Priors(
        *(
            np.asarray(values, np.float32)
            for values in (
                shared,
                frame,
                change,
                np.concatenate([lowest, np.tile(JAW_LOWEST, joints), -free]),
                np.concatenate([highest, np.tile(JAW_HIGHEST, joints), free]),
                shape_modes,
                np.inf if shape_limit is None else shape_limit,
            )
        )
    )
