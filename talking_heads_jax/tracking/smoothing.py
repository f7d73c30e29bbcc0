"""Smoothing over time that keeps gaps and cuts, and a measure of what is left to smooth.

Numbers that are not finite are gaps: they stay gaps, and nothing leaks out of them. Nothing crosses
the border of a segment (a cut). Times are seconds, so that a variable frame rate is smoothed right.
Letters: t time, d values of a frame, n points.
"""

from collections.abc import Sequence

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement

Segments = Sequence[tuple[int, int]]

#: Hz, and Hz per `scale` a second. Of the values tried on landmarks of real clips with added noise
#: of 0.4 and 1.2 % of the outer eye corners' distance, those that came nearest to the clean ones on
#: all, filtered both ways.
MIN_CUTOFF_HZ = 2.0
SPEED_COEFFICIENT = 6.0
#: Hz, of the low-pass that the speed itself goes through (Casiez et al. use 1).
SPEED_CUTOFF_HZ = 1.0
GAUSSIAN_REACH = 3.0  # standard deviations; what lies beyond weighs 1 % of the nearest frame
_SAME_TIME = 1e-6  # frames: neighbours that far on both sides are in or out together


def frame_times(count: int, fps: float, time_s: np.ndarray | None) -> np.ndarray:
    """The times of frames: those given, or one after the other at a constant rate.

    Args:
      count: of frames.
      fps: frames a second; used when there are no times.
      time_s: (count,) seconds, increasing; or None.

    Returns:
      (count,) float64.

    Raises:
      ArgumentError: if the rate is not positive, or the times have gaps, another count or do not
        increase.
    """
    if time_s is None:
        if not (np.isfinite(fps) and fps > 0):
            raise ArgumentError(requirement("fps", "be positive", fps, "Give the clip's rate."))
        return np.arange(count, dtype=np.float64) / fps
    times = np.asarray(time_s, np.float64)
    if times.shape != (count,) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ArgumentError(
            requirement(
                "time_s", f"be {count} increasing numbers", times.shape, "One time per frame."
            )
        )
    return times


def one_euro(
    values: np.ndarray,
    fps: float = 25.0,
    *,
    time_s: np.ndarray | None = None,
    segments: Segments | None = None,
    scale: float = 1.0,
    min_cutoff_hz: float = MIN_CUTOFF_HZ,
    speed_coefficient: float = SPEED_COEFFICIENT,
    speed_cutoff_hz: float = SPEED_CUTOFF_HZ,
    both_ways: bool = False,
) -> np.ndarray:
    """A low-pass whose cutoff rises with speed: still when still, quick when quick.

    Each value is filtered by itself: cutoff = min_cutoff + coefficient * |smoothed speed| / scale.
    After a gap or cut it starts anew.

    Args:
      values: (t, ...) floats; what is not finite is a gap of that value alone.
      fps: frames a second, when `time_s` is None.
      time_s: (t,) seconds.
      segments: (start, stop) between cuts; None for one.
      scale: the length that makes speeds comparable, for instance the distance of the eyes for
        landmarks in pixels; 1 for angles in radians.
      min_cutoff_hz: of a value at rest, above 0.
      speed_coefficient: from 0; the cutoff's growth in Hz per `scale` a second.
      speed_cutoff_hz: of the low-pass of the speed, above 0.
      both_ways: the mean of filtering forwards and backwards, which does not lag; False is causal,
        for a camera's stream, and lags behind every movement.

    Returns:
      As `values`, float64.

    Raises:
      ArgumentError: for a cutoff, scale or coefficient outside its range.

    Source: Casiez, Roussel and Vogel, "1 euro filter", CHI 2012.
    Differs from source: the speed is divided by `scale`, so that one coefficient serves any size;
      `both_ways`.
    """
    values = np.asarray(values, np.float64)
    for what, number in (
        ("min_cutoff_hz", min_cutoff_hz),
        ("speed_cutoff_hz", speed_cutoff_hz),
        ("scale", scale),
    ):
        check_number(what, number, positive=True)
    check_number("speed_coefficient", speed_coefficient, positive=False)
    flat = values.reshape(len(values), -1)
    times = frame_times(len(values), fps, time_s)
    cutoffs = (min_cutoff_hz, speed_coefficient / scale, speed_cutoff_hz)
    smooth = flat.copy()
    for start, stop in _segments(segments, len(flat)):
        here = slice(start, stop)
        smooth[here] = _forwards(flat[here], times[here], *cutoffs)
        if both_ways:
            backwards = _forwards(flat[here][::-1], -times[here][::-1], *cutoffs)[::-1]
            smooth[here] = (smooth[here] + backwards) / 2
    return smooth.reshape(values.shape)


def gaussian(
    values: np.ndarray,
    sigma_frames: float,
    *,
    fps: float = 25.0,
    time_s: np.ndarray | None = None,
    segments: Segments | None = None,
) -> np.ndarray:
    """A weighted mean over the neighbours in time; not causal, no lag.

    Near gaps, cuts and ends the weights that are left are normalised; a gap
    has no values to give but does not end the neighbourhood; a cut does.

    Args:
      values: (t, ...) floats; what is not finite is a gap of that value alone.
      sigma_frames: standard deviation in frames of 1/fps s; 0 changes nothing.
      fps: frames a second.
      time_s: (t,) seconds, when the frames are not evenly spaced.
      segments: (start, stop) between cuts; None for one.

    Returns:
      As `values`, float64.

    Raises:
      ArgumentError: for a negative standard deviation.
    """
    values = np.asarray(values, np.float64)
    check_number("sigma_frames", sigma_frames, positive=False)
    if sigma_frames == 0:
        return values.copy()
    flat = values.reshape(len(values), -1)
    frames = frame_times(len(values), fps, time_s) * fps
    reach = GAUSSIAN_REACH * sigma_frames + _SAME_TIME
    known = np.isfinite(flat)
    filled = np.where(known, flat, 0.0)
    smooth = flat.copy()
    for start, stop in _segments(segments, len(flat)):
        within = frames[start:stop]
        first = start + np.searchsorted(within, within - reach, "left")
        last = start + np.searchsorted(within, within + reach, "right")
        for now in range(start, stop):
            near = slice(first[now - start], last[now - start])
            weights = np.exp(-0.5 * ((frames[near] - frames[now]) / sigma_frames) ** 2)
            total = weights @ known[near]
            mean = weights @ filled[near] / np.where(total > 0, total, 1.0)
            smooth[now] = np.where(known[now], mean, flat[now])
    return smooth.reshape(values.shape)


def jitter(
    points: np.ndarray,
    *,
    length: float = 1.0,
    time_s: np.ndarray | None = None,
    segments: Segments | None = None,
) -> float:
    """High-frequency energy of points: how far they leave the straight line between neighbours.

    For three frames in a row, e = x[t] - (the line from x[t-1] to x[t+1], at the time of t). White
    noise of standard deviation s per coordinate gives e a variance of (1 + a² + (1-a)²) s², a being
    the place of t between its neighbours; e is divided by that root. The jitter is the root mean
    square over frames, points and coordinates, divided by `length`: for points that stand still it
    is the noise of one coordinate, for a ramp it is 0. Quick true motion counts too, so compare
    jitters of the same clip only.

    Args:
      points: (t n 2), or any (t, ...); gaps are not finite.
      length: what to divide by, for instance the distance of the outer eye corners in pixels.
      time_s: (t,) seconds, when the frames are not evenly spaced.
      segments: (start, stop) between cuts; None for one.

    Returns:
      The jitter as a share of `length`; NaN without three whole frames in a row.
    """
    points = np.asarray(points, np.float64)
    flat = points.reshape(len(points), -1)
    times = frame_times(len(points), 1.0, time_s)
    squares, count = 0.0, 0
    for start, stop in _segments(segments, len(flat)):
        if stop - start < 3:
            continue
        before, now, after = (flat[start + i : stop - 2 + i] for i in range(3))
        t0, t1, t2 = (times[start + i : stop - 2 + i, None] for i in range(3))
        place = (t1 - t0) / (t2 - t0)
        error = now - (1 - place) * before - place * after
        error /= np.sqrt(1 + place**2 + (1 - place) ** 2)
        known = np.isfinite(error)
        squares, count = squares + float((error[known] ** 2).sum()), count + int(known.sum())
    return float(np.sqrt(squares / count) / length) if count else float("nan")


def _forwards(
    values: np.ndarray,
    times: np.ndarray,
    min_cutoff_hz: float,
    coefficient: float,
    speed_cutoff_hz: float,
) -> np.ndarray:
    """The one-euro filter over (t d) values without a cut."""
    known = np.isfinite(values)
    smooth = values.copy()
    speed = np.zeros(values.shape[1])
    for now in range(1, len(values)):
        goes_on = known[now] & known[now - 1]
        step = times[now] - times[now - 1]
        before = np.where(goes_on, smooth[now - 1], 0.0)
        change = np.where(goes_on, values[now], 0.0) - before
        speed += _share(speed_cutoff_hz, step) * (change / step - speed)
        speed[~goes_on] = 0.0
        cutoff = min_cutoff_hz + coefficient * np.abs(speed)
        smooth[now] = np.where(goes_on, before + _share(cutoff, step) * change, values[now])
    return smooth


def _segments(segments: Segments | None, count: int) -> Segments:
    return ((0, count),) if segments is None else segments


def _share(cutoff_hz: np.ndarray | float, step_s: float) -> np.ndarray | float:
    """The weight of the new value in a first-order low-pass (Casiez et al., equation 4)."""
    turn = 2 * np.pi * cutoff_hz * step_s
    return turn / (turn + 1)


def check_number(what: str, number: float, *, positive: bool) -> None:
    """Raises unless a filter's number is in its range.

    Args:
      what: its name.
      number: finite, not negative.
      positive: whether 0 is refused too.

    Raises:
      ArgumentError: it is not.
    """
    if not np.isfinite(number) or number < 0 or (positive and number == 0):
        raise ArgumentError(
            requirement(what, "be positive" if positive else "be 0 or more", number, "Change it.")
        )
