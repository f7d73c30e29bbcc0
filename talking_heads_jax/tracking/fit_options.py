"""The options of a fit."""

import dataclasses
from typing import Any

import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.tracking.track import CAMERAS, WEAK_PERSPECTIVE

ROBUST_LOSSES = ("geman_mcclure", "huber", "none")


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How a clip is fitted. Distances of landmarks are in outer-eye-corner distances.

    Attributes:
      camera: 'weak_perspective', or 'perspective': nearer points are larger.
      focal_px: focal length in pixels for 'perspective'; None: the one that puts the head of median
        size at `distance_cm`, since landmarks alone hardly tell it.
      distance_cm: see `focal_px`.
      principal_px: x, y of the optical axis for 'perspective'; None: the middle of the image.
      landmark_sigma: how far a landmark is expected to lie from the model's.
      robust: 'geman_mcclure', 'huber' or 'none'.
      robust_scale: distance from which a landmark counts as wrong.
      jaw_line_weight: of the first 17 landmarks. Those of MediaPipe slide over the face when it
        turns; FAN's follow the visible outline, which no fixed vertices do: 0.
      shape_sigma: prior of the shape coefficients; None: 1, but 0.75 of 'procedural', whose
        modes were drawn by hand.
      shape_limit: magnitude from which a shape coefficient costs so much more that hardly any goes
        further, however poorly the model suits the face; None: no limit.
      expression_sigma: prior of the expression coefficients; None: 0.8 of blend shapes, else 1.
      fit_jaw: whether the jaw joint is fitted, where the model has one; otherwise its expressions
        open the mouth.
      smoothness: of expression and pose over time; 0 fits every frame for itself.
      fps: frames per second, for the smoothness.
      landmark_bias: estimate a constant offset of every landmark on the head: detectors define the
        68 points differently. It takes over what the identity explains otherwise, and vertices do
        not follow it.
      bias_sigma: prior of that offset.
      max_iterations: of the optimiser.
      tolerance: relative decrease of the energy at which it stops.
    """

    camera: str = WEAK_PERSPECTIVE
    focal_px: float | None = None
    distance_cm: float = 70.0
    principal_px: tuple[float, float] | None = None
    landmark_sigma: float = 0.018
    robust: str = "geman_mcclure"
    robust_scale: float = 0.15
    jaw_line_weight: float = 0.0
    shape_sigma: float | None = None
    shape_limit: float | None = 2.75
    expression_sigma: float | None = None
    fit_jaw: bool = True
    smoothness: float = 1.0
    fps: float = 25.0
    landmark_bias: bool = False
    bias_sigma: float = 0.02
    max_iterations: int = 60
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          ArgumentError: for a word that is not known or a number out of range.
        """
        check_choice("The camera of a fit", self.camera, CAMERAS)
        check_choice("The robust loss of a fit", self.robust, ROBUST_LOSSES)
        positive = ["distance_cm", "landmark_sigma", "robust_scale", "fps"]
        positive += ["bias_sigma", "max_iterations", "tolerance"]
        optional = ("focal_px", "shape_sigma", "shape_limit", "expression_sigma")
        positive += [name for name in optional if getattr(self, name) is not None]
        for name in positive:
            _check_number(name, getattr(self, name), positive=True)
        for name in ("jaw_line_weight", "smoothness"):
            _check_number(name, getattr(self, name), positive=False)


def _check_number(name: str, value: Any, *, positive: bool) -> None:
    valid = isinstance(value, int | float | np.number) and np.isfinite(value)
    if not valid or value < 0 or (positive and value == 0):
        constraint = "be a positive number" if positive else "be a number from 0"
        raise ArgumentError(requirement(f"{name} of a fit", constraint, value, "Change it."))
