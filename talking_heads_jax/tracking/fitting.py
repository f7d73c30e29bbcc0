"""Landmarks of a clip → coefficients, pose and camera of a morphable model, without any network.

    fit = fit_clip(load_morphable("procedural"), points_px, image_size=(256, 256))
    mesh = fit_vertices_px(model, fit)

One identity for the clip, expression, jaw and pose per frame: the most probable ones under a robust
loss on the landmarks, Gaussian priors (cut off at a blend shape's range) and a random walk over
time. Everything is solved at once (`fit_solver`). Letters: t frames, v vertices, j joints, K shape
and E expression coefficients.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from talking_heads_jax.errors import ArgumentError, check_shape, requirement
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.landmarks import NUM_LANDMARKS
from talking_heads_jax.tracking.fit_energy import ClipData, SolverOptions
from talking_heads_jax.tracking.fit_input import NormalisedClip, nearest_face, normalised_clip
from talking_heads_jax.tracking.fit_model import (
    LandmarkModel,
    Skeleton,
    compressed,
    landmark_model,
)
from talking_heads_jax.tracking.fit_options import FitOptions
from talking_heads_jax.tracking.fit_priors import (
    Priors,
    clip_priors,
    default_shape_sigma,
    told_expressions,
)
from talking_heads_jax.tracking.fit_result import (
    LENGTHS,
    FaceFit,
    eye_distance_cm,
    fit_landmarks_px,
    fit_vertices_px,
    padded_count,
)
from talking_heads_jax.tracking.fit_solver import Solution, solve_clips
from talking_heads_jax.tracking.landmarks import JAW_17
from talking_heads_jax.tracking.track import PERSPECTIVE

__all__ = [
    "FaceFit",
    "FitOptions",
    "fit_clip",
    "fit_clips",
    "fit_landmarks_px",
    "fit_vertices_px",
]

# Clips longer than the longest program: the identity from so many frames, the rest in windows that
# overlap by so many, many times what the smoothness reaches.
_IDENTITY_FRAMES, _OVERLAP = 256, 32
# Clips that an accelerator fits at once; on a processor one by one is as fast.
_CLIPS_AT_ONCE = 8
# Identity modes whose standard deviation moves all landmarks together by less than this many of the
# landmarks' standard deviations are not estimated: a tenth of them would be found.
_SMALLEST_MODE = 0.3
_BY_FRAME = (
    "expression_coeffs",
    "joint_pose",
    "angles",
    "scale_px",
    "offset_px",
    "depth_cm",
    "reprojection_px",
)


def fit_clip(
    model: MorphableModel,
    points_px: np.ndarray,
    *,
    image_size: tuple[int, int],
    weights: np.ndarray | None = None,
    fixed_shape: np.ndarray | None = None,
    segments: Sequence[tuple[int, int]] | None = None,
    options: FitOptions | None = None,
) -> FaceFit:
    """Fits a morphable model to the landmarks of a clip, or of a photograph (t = 1).

    Args:
      model: any of `talking_heads_jax.morphable`, with landmarks.
      points_px: (t 68 2) landmarks in Multi-PIE order; NaN where one is missing.
      image_size: height, width of the frames.
      weights: (t 68) not negative, multiplied with those of the options; None: 1 everywhere.
      fixed_shape: (K,) a known identity; None estimates it.
      segments: (start, stop) of the parts between cuts: nothing is smooth across them; None: the
        clip has no cut.
      options: see `FitOptions`.

    Raises:
      ArgumentError: shapes do not fit, no frame has enough points, or the model has no landmarks.
    """
    return fit_clips(
        model,
        [points_px],
        image_sizes=[image_size],
        weights=[weights],
        fixed_shapes=[fixed_shape],
        segments=[segments],
        options=options,
    )[0]


def fit_clips(
    model: MorphableModel,
    points_px: Sequence[np.ndarray],
    *,
    image_sizes: Sequence[tuple[int, int]],
    weights: Sequence[np.ndarray | None] | None = None,
    fixed_shapes: Sequence[np.ndarray | None] | None = None,
    segments: Sequence[Sequence[tuple[int, int]] | None] | None = None,
    options: FitOptions | None = None,
    batch_size: int | None = None,
) -> list[FaceFit]:
    """Fits many clips, one identity each; the same results as one by one.

    Args:
      model: as `fit_clip`.
      points_px: per clip, as there.
      image_sizes: per clip.
      weights: per clip, or None.
      fixed_shapes: per clip, all or none; or None.
      segments: per clip, or None.
      options: of all clips.
      batch_size: how many clips of about one length are fitted at once; None: 1 on a processor,
        else 8.

    Raises:
      ArgumentError: as `fit_clip`, or if the lists differ in length.
    """
    options = options or FitOptions()
    count = len(points_px)
    given = {
        "image_sizes": image_sizes,
        "weights": weights,
        "fixed_shapes": fixed_shapes,
        "segments": segments,
    }
    for name, values in given.items():
        if values is not None and len(values) != count:
            remedy = "Give one per clip."
            raise ArgumentError(requirement(name, f"have {count} entries", len(values), remedy))
    shapes = _fixed_shapes(model, fixed_shapes)
    fitter = _Fitter.of(model, options, fit_shape=shapes is None)
    clips = [
        normalised_clip(
            points_px[i],
            None if weights is None else weights[i],
            None if segments is None else segments[i],
            image_sizes[i],
            fitter.chosen,
            options,
        )
        for i in range(count)
    ]
    if shapes is not None:
        clips = [clip._replace(shape=shape) for clip, shape in zip(clips, shapes, strict=True)]
    fits: dict[int, FaceFit] = {}
    lengths: dict[int, list[int]] = {}
    for number, clip in enumerate(clips):
        if len(clip.face) > LENGTHS[-1]:
            fits[number] = _fit_long(fitter, clip)
        else:
            lengths.setdefault(padded_count(len(clip.face)), []).append(number)
    if batch_size is None:
        batch_size = 1 if jax.default_backend() == "cpu" else _CLIPS_AT_ONCE
    for numbers in lengths.values():
        size = min(batch_size, len(numbers))
        for start in range(0, len(numbers), size):
            batch = numbers[start : start + size]
            # The last batch is filled up with its first clip: one program for all.
            filled = batch + batch[:1] * (size - len(batch))
            found = fitter.fit([clips[number] for number in filled])
            fits |= dict(zip(batch, found[: len(batch)], strict=True))
    return [fits[number] for number in range(count)]


def _fixed_shapes(
    model: MorphableModel, shapes: Sequence[np.ndarray | None] | None
) -> list[np.ndarray] | None:
    """Given identities, checked; None if they are to be estimated."""
    if shapes is None or all(shape is None for shape in shapes):
        return None
    if any(shape is None for shape in shapes):
        missing = [number for number, shape in enumerate(shapes) if shape is None]
        raise ArgumentError(
            requirement(
                "fixed_shapes",
                "hold an identity for every clip or for none",
                f"none for clips {missing}",
                "Fit those clips apart.",
            )
        )
    result = [np.asarray(shape, np.float32) for shape in shapes]
    for shape in result:
        check_shape(f"fixed_shape of '{model.name}'", shape.shape, (model.num_shape,))
        if not np.isfinite(shape).all():
            raise ArgumentError(
                requirement("fixed_shape", "be finite", "NaN or infinity", "Fit it again.")
            )
    return result


class _Fitter(NamedTuple):
    """What fits of one model with one set of options share."""

    model: MorphableModel
    options: FitOptions
    chosen: np.ndarray  # landmarks that are looked at
    parts: LandmarkModel
    skeleton: Skeleton
    priors: Priors
    eye_distance: float
    switches: SolverOptions
    modes: np.ndarray  # (K r) the identity modes that are estimated
    expressions: np.ndarray  # (E,) bool, those that are estimated

    @classmethod
    def of(cls, model: MorphableModel, options: FitOptions, *, fit_shape: bool) -> "_Fitter":
        """Reduces a model to the landmarks and writes down the priors."""
        first = JAW_17.stop if options.jaw_line_weight == 0 else 0
        chosen = np.arange(first, NUM_LANDMARKS)
        parts, skeleton = landmark_model(model, chosen, fit_joints=options.fit_jaw)
        eye_distance = eye_distance_cm(model)
        expressions = told_expressions(
            model.name, model.expression_names, has_jaw=bool(skeleton.free)
        )
        shape_sigma = options.shape_sigma or default_shape_sigma(model.name)
        smallest = _SMALLEST_MODE * options.landmark_sigma * eye_distance / shape_sigma
        parts, skeleton, modes = compressed(
            parts,
            skeleton,
            smallest_cm=smallest if fit_shape else None,
            expressions=expressions,
        )
        biases = 3 * len(chosen) if options.landmark_bias else 0
        priors = clip_priors(
            model.name,
            skeleton,
            shape_modes=modes,
            shape_sigma=shape_sigma,
            shape_limit=options.shape_limit,
            expression_sigma=options.expression_sigma,
            bias_sigma_cm=[options.bias_sigma * eye_distance] * biases,
            smoothness=options.smoothness,
            fps=options.fps,
        )
        switches = SolverOptions(
            robust=options.robust,
            fit_shape=fit_shape,
            landmark_bias=options.landmark_bias,
            perspective=options.camera == PERSPECTIVE,
            max_iterations=int(options.max_iterations),
            tolerance=float(options.tolerance),
        )
        return cls(
            model,
            options,
            chosen,
            parts,
            skeleton,
            priors,
            eye_distance,
            switches,
            modes,
            expressions,
        )

    def fit(self, clips: Sequence[NormalisedClip]) -> list[FaceFit]:
        """Fits clips of one padded length at once."""
        data = [self._data(clip) for clip in clips]
        solution = solve_clips(
            jax.tree.map(lambda *leaves: np.stack(leaves), *data),
            self.parts,
            self.priors,
            np.float32(self.eye_distance),
            skeleton=self.skeleton,
            options=self.switches,
        )
        solution = jax.tree.map(np.asarray, solution)
        return [
            self._finished(clip, jax.tree.map(lambda leaf, i=i: leaf[i], solution))
            for i, clip in enumerate(clips)
        ]

    def _data(self, clip: NormalisedClip) -> ClipData:
        """A clip padded with frames that have no points."""
        options = self.options
        more = padded_count(len(clip.face)) - len(clip.face)
        numbers = {
            "focal": (options.focal_px or 0.0) / clip.unit,
            "distance": options.distance_cm,
            "sigma": options.landmark_sigma,
            "robust_scale": options.robust_scale,
        }
        shape, bias = clip.shape, clip.bias
        data = ClipData(
            points=np.pad(clip.points, ((0, more), (0, 0), (0, 0))),
            weights=np.pad(clip.weights, ((0, more), (0, 0))),
            nearest=np.pad(nearest_face(clip.face), (0, more), mode="edge"),
            link=np.pad(clip.link, (0, more)),
            shape=np.zeros(self.modes.shape[1]) if shape is None else shape,
            bias=np.zeros((len(self.chosen), 3)) if bias is None else bias[self.chosen],
            principal=clip.principal,
            **{name: np.array(value) for name, value in numbers.items()},
        )
        return ClipData(
            *(leaf.astype(np.int32 if leaf is data.nearest else np.float32) for leaf in data)
        )

    def _finished(self, clip: NormalisedClip, solution: Solution) -> FaceFit:
        """The solver's answer in pixels and centimetres."""
        times = len(clip.face)
        unknowns = solution.unknowns

        def frames(values: np.ndarray) -> np.ndarray:
            """The clip's own frames of an array, NaN where there is no face."""
            values = np.array(values[:times], np.float32)
            values[~clip.face] = np.nan
            return values

        expression = np.zeros((len(unknowns.expression), self.model.num_expression), np.float32)
        expression[:, self.expressions] = unknowns.expression
        pose = np.zeros((times, len(self.model.joint_names), 3), np.float32)
        pose[:, list(self.skeleton.free)] = unknowns.joints[:times]
        bias = np.zeros((NUM_LANDMARKS, 3), np.float32)
        bias[self.chosen] = unknowns.bias
        scale = frames(clip.unit * np.exp(unknowns.log_scale.astype(np.float64)))
        perspective = self.options.camera == PERSPECTIVE
        focal = clip.unit * float(solution.focal) if perspective else 0.0
        offset = clip.center + clip.unit * unknowns.offset.astype(np.float64) * (1.0, -1.0)
        unknown = np.full(times, np.nan, np.float32)
        fit = FaceFit(
            shape_coeffs=(self.modes @ unknowns.shape).astype(np.float32),
            expression_coeffs=frames(expression),
            joint_pose=frames(pose.reshape(times, -1)),
            angles=frames(solution.angles),
            scale_px=scale,
            offset_px=frames(offset),
            depth_cm=(focal / scale).astype(np.float32) if perspective else unknown,
            focal_px=focal,
            camera=self.options.camera,
            reprojection_px=unknown,
            principal_px=clip.principal_px.astype(np.float32),
            landmark_bias_cm=bias,
            iterations=int(solution.iterations),
        )
        fitted = clip.weights > 0
        seen = fit_landmarks_px(self.model, fit)[:, self.chosen]
        squared = np.sum((seen - clip.points_px[:, self.chosen]) ** 2, axis=-1)
        squared = np.where(fitted, squared, 0.0).sum(axis=1)
        size = np.sqrt(squared / np.maximum(fitted.sum(axis=1), 1))
        return fit._replace(reprojection_px=frames(size))


def _fit_long(fitter: _Fitter, clip: NormalisedClip) -> FaceFit:
    """A clip of many frames: the identity from some of them, then window by window."""
    times = len(clip.face)
    known = np.flatnonzero(clip.face)
    count = min(_IDENTITY_FRAMES, len(known))
    spread = known[np.linspace(0, len(known) - 1, count).astype(int)]
    whole = fitter.fit([clip.part(spread, np.zeros(count))])[0]
    clip = clip._replace(shape=whole.shape_coeffs, bias=whole.landmark_bias_cm)
    options = dataclasses.replace(
        fitter.options, landmark_bias=False, focal_px=whole.focal_px or None
    )
    windows = _Fitter.of(fitter.model, options, fit_shape=False)
    frames = {
        name: np.full((times, *getattr(whole, name).shape[1:]), np.nan, np.float32)
        for name in _BY_FRAME
    }
    stride = LENGTHS[-1] - 2 * _OVERLAP
    for start in range(0, times, stride):
        stop = min(start + stride, times)
        low, high = max(start - _OVERLAP, 0), min(stop + _OVERLAP, times)
        if not clip.face[low:high].any():
            continue
        here = np.arange(low, high)
        fit = windows.fit([clip.part(here, clip.link[here])])[0]
        for name, values in frames.items():
            values[start:stop] = getattr(fit, name)[start - low : stop - low]
    return whole._replace(**frames)
