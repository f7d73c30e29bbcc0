"""SSIM in the two forms that published code uses; they differ by up to a few hundredths.

Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE
TIP 2004), Eqs. 13-17 with K1 = 0.01, K2 = 0.03; scikit-image's `structural_similarity` for the
uniform window with sample covariance. Channels are compared one by one and averaged; a window that
leaves the image is not counted. Letters: b batch, h w c image.
"""

from collections.abc import Sequence

import flax.struct
import jax
import numpy as np

from talking_heads_jax.errors import ArgumentError, check_choice, check_shape, requirement
from talking_heads_jax.metrics.pixel import masked_mean
from talking_heads_jax.metrics.streaming import WeightedMean
from talking_heads_jax.typing import Array, Float

_K1, _K2 = 0.01, 0.03
_GAUSSIAN_SIDE, _GAUSSIAN_SIGMA = 11, 1.5
_UNIFORM_SIDE = 7
WINDOWS = ("gauss11", "uniform7")
#: Distance of the outermost window's centre from the image's edge.
WINDOW_MARGIN_PX = {"gauss11": _GAUSSIAN_SIDE // 2, "uniform7": _UNIFORM_SIDE // 2}


def _taps(window: str) -> np.ndarray:
    if window == "uniform7":
        return np.full(_UNIFORM_SIDE, 1.0 / _UNIFORM_SIDE)
    offsets = np.arange(_GAUSSIAN_SIDE) - _GAUSSIAN_SIDE // 2
    taps = np.exp(-0.5 * (offsets / _GAUSSIAN_SIGMA) ** 2)
    return taps / taps.sum()


def _cuts(x: Array, axis: int, num_taps: int) -> list[Array]:
    """The pixels that each tap of a window meets, for all windows inside the image."""
    count = x.shape[axis] - num_taps + 1
    return [jax.lax.slice_in_dim(x, i, i + count, axis=axis) for i in range(num_taps)]


def _line_mean(cuts: Sequence[Array], taps: np.ndarray) -> Array:
    return sum(float(tap) * cut for tap, cut in zip(taps, cuts, strict=True))


def _covariance(x: Array, y: Array, taps: np.ndarray) -> Array:
    """Covariance within all windows inside the image.

    Axis by axis, by the law of total covariance: that within the lines of a window, averaged, plus
    that of their means. Every difference is taken before it is multiplied; E[xy] - E[x] E[y] would
    lose the digits of flat regions in float32.
    """
    within: Array | float = 0.0
    for axis in (1, 2):
        cuts_x, cuts_y = _cuts(x, axis, len(taps)), _cuts(y, axis, len(taps))
        x, y = _line_mean(cuts_x, taps), _line_mean(cuts_y, taps)
        between = [(a - x) * (b - y) for a, b in zip(cuts_x, cuts_y, strict=True)]
        if axis == 2:
            between = [
                part + cut for part, cut in zip(between, _cuts(within, 2, len(taps)), strict=True)
            ]
        within = _line_mean(between, taps)
    return within


def ssim_map(
    prediction: Float[Array, "b h w c"], target: Float[Array, "b h w c"], *, window: str
) -> Float[Array, "b h2 w2 c"]:
    """Local similarity of every window inside the image, centred at (i + side // 2).

    Args:
      prediction: in [0, 1].
      target: in [0, 1].
      window: 'gauss11' (Wang: 11 × 11, sigma 1.5, plain moments) or 'uniform7' (scikit-image's
        default: 7 × 7, sample moments n / (n - 1)).

    Raises:
      ArgumentError: for an unknown window, differing shapes, or an image smaller than the window.
    """
    check_choice("window", window, WINDOWS)
    check_shape("prediction", prediction.shape, target.shape)
    taps = _taps(window)
    if min(target.shape[1:3]) < len(taps):
        raise ArgumentError(
            requirement(
                "the image's sides",
                f"be at least {len(taps)}",
                target.shape[1:3],
                "Use larger images.",
            )
        )
    mean_x, mean_y = prediction, target
    for axis in (1, 2):
        mean_x, mean_y = (_line_mean(_cuts(x, axis, len(taps)), taps) for x in (mean_x, mean_y))
    sample = 1.0
    if window == "uniform7":
        count = len(taps) ** 2
        sample = count / (count - 1)
    var_x = sample * _covariance(prediction, prediction, taps)
    var_y = sample * _covariance(target, target, taps)
    covariance = sample * _covariance(prediction, target, taps)
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (var_x + var_y + c2)


def ssim_index(
    prediction: Float[Array, "b h w c"],
    target: Float[Array, "b h w c"],
    mask: Float[Array, "b h w 1"] | None = None,
    *,
    window: str = "gauss11",
) -> Float[Array, " b"]:
    """Mean structural similarity per example.

    Args:
      prediction: in [0, 1].
      target: in [0, 1].
      mask: weight of each window's centre pixel; None counts all windows.
      window: see `ssim_map`.

    Raises:
      ArgumentError: see `ssim_map`.
    """
    similarity = ssim_map(prediction, target, window=window)
    if mask is not None:
        margin = WINDOW_MARGIN_PX[window]
        mask = mask[:, margin : mask.shape[1] - margin, margin : mask.shape[2] - margin]
    return masked_mean(similarity, mask)


@flax.struct.dataclass
class StructuralSimilarity(WeightedMean):
    """SSIM over frames: the mean of the frames' means."""
