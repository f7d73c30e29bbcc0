"""How a synthetic head moves: pose, speech, moods, blinks and gaze of a clip, in closed form.

A clip is a function of time that (seed, identity, take) fix: frame i is the same whatever the
length or the stride of the clip it is asked in. Curves are drawn for *channels* (`jaw`, `smile_L`,
...) in [0, 1]; `channels.py` writes them in the words of a morphable model. Angles as everywhere:
yaw > 0 turns the nose to the right edge of the image, pitch > 0 raises it, roll > 0 is clockwise;
`L` and `R` are the subject's. Letters: t frames, e expressions, j joints.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import special

from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.morphable.procedural_motion import EXPRESSION_NAMES

FRAMES_PER_SECOND = 25.0
LONGEST_CLIP = 100_000  # frames, counted from the first whatever the stride

#: Curves of a clip: the built-in head's expressions, jaw and gaze. Gaze is in radians, everything
#: else is 0 (at rest) to about 1.
CHANNELS = ("jaw", *EXPRESSION_NAMES, "gaze_yaw", "gaze_pitch")

# What the lips do in a syllable, besides the jaw: share of the full jaw opening, then the channels.
_VISEMES: tuple[tuple[float, Mapping[str, float]], ...] = (
    (1.0, {"lip_lower_down": 0.5, "lip_upper_up": 0.25}),  # a
    (0.55, {"smile_L": 0.5, "smile_R": 0.5, "lip_lower_down": 0.7, "lip_upper_up": 0.3}),  # e, i
    (0.6, {"funnel": 0.8, "pucker": 0.3}),  # o
    (0.25, {"pucker": 1.0}),  # u
    (0.15, {"lip_upper_up": 0.75, "lip_lower_down": 0.2}),  # f, v
    (0.3, {"lip_lower_down": 0.8, "lip_upper_up": 0.5, "frown_L": 0.2, "frown_R": 0.2}),  # s
    (0.0, {"pucker": 0.15}),  # m, b, p
)

# What a face does for a second or two; drawn with equal chance, scaled by .6 to 1.
_MOODS: tuple[Mapping[str, float], ...] = (
    {"smile_L": 1.0, "smile_R": 1.0, "squint": 0.4},
    {"smile_L": 0.9, "smile_R": 0.25},
    {"smile_L": 0.25, "smile_R": 0.9},
    {"frown_L": 0.9, "frown_R": 0.9, "brow_inner_up": 0.6},
    {"brow_inner_up": 1.0, "brow_outer_up_L": 1.0, "brow_outer_up_R": 1.0},
    {"brow_down_L": 1.0, "brow_down_R": 1.0, "squint": 0.8},
    {"brow_outer_up_L": 1.0, "brow_down_R": 0.5},
    {"cheek_puff": 0.9},
    {"pucker": 0.9, "brow_inner_up": 0.3},
    {"mouth_left": 0.8},
    {"mouth_right": 0.8},
    {},
)

_GAZE_YAW, _GAZE_PITCH = np.deg2rad(22.0), np.deg2rad(11.0)  # largest saccades
_GAZE_LIMIT = np.deg2rad(28.0)
_GAZE_HOLDS_CAMERA = 0.35  # share of the head's turn that the eyes take back
_LID_FOLLOWS_GAZE = 0.8  # lid closure per radian of looking down

# Parts of the head's turn that the shoulders follow, for yaw, pitch, roll.
SHOULDERS_FOLLOW = (0.3, 0.1, 0.15)


@dataclasses.dataclass(frozen=True)
class PoseRange:
    """How far heads turn; within a clip the angles spread evenly over the range.

    Attributes:
      yaw_deg: largest |yaw|.
      pitch_deg: largest |pitch|.
      roll_deg: largest |roll|.
      smallest_yaw_deg: |yaw| never comes below; the side is then fixed for a whole clip.
    """

    yaw_deg: float
    pitch_deg: float
    roll_deg: float
    smallest_yaw_deg: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
          ArgumentError: an angle is negative, too large for a face to be seen, or out of order.
        """
        values = (self.smallest_yaw_deg, self.yaw_deg, self.pitch_deg, self.roll_deg)
        ordered = 0 <= self.smallest_yaw_deg <= self.yaw_deg < 90
        if not ordered or not 0 <= self.pitch_deg < 90 or not 0 <= self.roll_deg < 180:
            raise ArgumentError(
                requirement(
                    "A pose range",
                    "have 0 <= smallest_yaw <= yaw < 90, 0 <= pitch < 90 and 0 <= roll < 180",
                    values,
                    "Give degrees.",
                )
            )


POSE_RANGES: Mapping[str, PoseRange] = {
    "moderate": PoseRange(19.0, 9.0, 4.0),
    "wide": PoseRange(40.0, 18.0, 12.0),
    "extrapolation": PoseRange(72.0, 12.0, 6.0, smallest_yaw_deg=46.0),
}


def pose_range(value: str | PoseRange) -> PoseRange:
    """A range by its name, or as it is.

    Args:
      value: name of `POSE_RANGES`, or a range.

    Raises:
      ArgumentError: for an unknown name.
    """
    if isinstance(value, PoseRange):
        return value
    check_choice("The pose range", value, tuple(POSE_RANGES))
    return POSE_RANGES[value]


def frame_times(num_frames: int, stride: int = 1) -> np.ndarray:
    """(t) seconds of the frames of a clip.

    Args:
      num_frames: at least one.
      stride: every how many-th frame is taken.

    Raises:
      ArgumentError: nothing would be drawn, or the clip is longer than `LONGEST_CLIP` frames.
    """
    if num_frames < 1 or stride < 1:
        raise ArgumentError(
            requirement(
                "num_frames and stride",
                "be at least 1",
                (num_frames, stride),
                "Ask for one frame or more.",
            )
        )
    if num_frames * stride > LONGEST_CLIP:
        raise ArgumentError(
            requirement(
                "num_frames · stride",
                f"be at most {LONGEST_CLIP}",
                num_frames * stride,
                "Draw several takes instead of one long clip.",
            )
        )
    return np.arange(num_frames) * stride / FRAMES_PER_SECOND


def pose_curves(rng: np.random.Generator, times: np.ndarray, limits: PoseRange) -> np.ndarray:
    """Smooth head angles: sums of slow sines, mapped so that they spread evenly over the range.

    Args:
      rng: fresh, used up by this call.
      times: (t) seconds.
      limits: how far.

    Returns:
      (t 3) yaw, pitch, roll in radians.
    """
    side = rng.choice([-1.0, 1.0])
    curves = []
    for _ in range(3):
        frequency = rng.uniform([0.05, 0.12, 0.22, 0.35], [0.12, 0.22, 0.35, 0.55])
        phase = rng.uniform(0, 2 * np.pi, 4)
        weight = rng.uniform(0.7, 1.0, 4) * [1.0, 0.8, 0.45, 0.2]
        waves = weight * np.sin(2 * np.pi * times[:, None] * frequency + phase)
        # Not a matrix product: its rounding would depend on the number of frames.
        normal = waves[:, 0] + waves[:, 1] + waves[:, 2] + waves[:, 3]
        normal *= np.sqrt(2 / np.sum(weight**2))  # unit variance over time
        curves.append(special.erf(normal / np.sqrt(2)))  # about uniform in [-1, 1]
    yaw, pitch, roll = curves
    lowest, highest = np.deg2rad([limits.smallest_yaw_deg, limits.yaw_deg])
    if lowest > 0:
        yaw_angle = side * (lowest + (highest - lowest) * (yaw + 1) / 2)
    else:
        yaw_angle = highest * yaw
    other = np.deg2rad([limits.pitch_deg, limits.roll_deg])
    return np.stack([yaw_angle, other[0] * pitch, other[1] * roll], axis=-1)


def _bump(times: np.ndarray, start: float, duration: float) -> np.ndarray:
    """A raised cosine from `start` over `duration` seconds, 1 in its middle."""
    position = np.clip((times - start) / duration, 0, 1)
    return 0.5 - 0.5 * np.cos(2 * np.pi * position)


def _step(times: np.ndarray, start: float, duration: float) -> np.ndarray:
    """A smooth step from 0 at `start` to 1 `duration` seconds later."""
    position = np.clip((times - start) / duration, 0, 1)
    return position * position * (3 - 2 * position)


def _speech(rng: np.random.Generator, times: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Adds bursts of syllables, 3 to 6 a second, with pauses between them."""
    now, end = -rng.uniform(0, 2), times[-1]
    while now < end:
        burst_end = now + rng.uniform(1.2, 3.5)
        loudness = rng.uniform(0.6, 1.0)
        while now < burst_end:
            duration = 1 / rng.uniform(3, 6)
            share, lips = _VISEMES[rng.integers(len(_VISEMES))]
            opening = loudness * rng.uniform(0.55, 1.0)
            if now <= end:
                curves["jaw"] += share * opening * _bump(times, now, 1.3 * duration)
                around = _bump(times, now - 0.2 * duration, 1.7 * duration)
                for name, value in lips.items():
                    curves[name] += value * opening * around
            now += duration
        now = burst_end + rng.uniform(0.3, 1.4)


def _moods(rng: np.random.Generator, times: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Adds smiles, frowns, brows, ... that come, stay and go."""
    now, end = -rng.uniform(0, 3), times[-1]
    while now < end:
        mood = _MOODS[rng.integers(len(_MOODS))]
        rise, hold, fall = rng.uniform([0.2, 0.4, 0.25], [0.45, 2.2, 0.6])
        strength = rng.uniform(0.6, 1.0)
        shape = _step(times, now, rise) - _step(times, now + rise + hold, fall)
        for name, value in mood.items():
            curves[name] += value * strength * shape
        now += rise + hold + rng.uniform(0.0, 0.8)


def _blinks(rng: np.random.Generator, times: np.ndarray, curves: dict[str, np.ndarray]) -> None:
    """Adds lid closures of 150 to 250 ms, fast down and slower up; now and then a wink."""
    now, end = rng.uniform(0.1, 2.5), times[-1]
    while now < end:
        duration = rng.uniform(0.15, 0.25)
        strength, wink, side = rng.uniform(0.9, 1.0), rng.random() < 0.08, rng.integers(2)
        if wink:
            duration *= 2.5
        down = _step(times, now, 0.35 * duration)
        up = _step(times, now + 0.5 * duration, 0.5 * duration)
        for number, name in enumerate(("blink_L", "blink_R")):
            if not wink or number == side:
                curves[name] += strength * (down - up)
        now += duration + rng.uniform(0.6, 3.5)


def _gaze(
    rng: np.random.Generator, times: np.ndarray, curves: dict[str, np.ndarray], angles: np.ndarray
) -> None:
    """Adds saccades: the eyes rest, then jump within 50 ms; they tend to keep the camera."""
    now, end = 0.0, times[-1]
    target = rng.normal(0, 0.45, 2) * (rng.random() < 0.7)
    path = np.tile(target, (len(times), 1))
    while now < end:
        now += rng.uniform(0.35, 1.6)
        new = np.clip(rng.normal(0, 0.5, 2), -1, 1) * (rng.random() < 0.7)
        path += (new - target) * _step(times, now, 0.05)[:, None]
        target = new
    limit = _GAZE_LIMIT
    yaw = _GAZE_YAW * path[:, 0] - _GAZE_HOLDS_CAMERA * angles[:, 0]
    pitch = _GAZE_PITCH * path[:, 1] - _GAZE_HOLDS_CAMERA * angles[:, 1]
    curves["gaze_yaw"] += np.clip(yaw, -limit, limit)
    curves["gaze_pitch"] += np.clip(pitch, -limit, limit)
    lids = _LID_FOLLOWS_GAZE * np.maximum(-curves["gaze_pitch"], 0)
    for name in ("blink_L", "blink_R"):
        curves[name] = np.maximum(curves[name], lids)


def clip_curves(
    seed: int, identity: int, take: int, times: np.ndarray, limits: PoseRange
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Everything that moves in a clip.

    Args:
      seed: of the set.
      identity: whose clip.
      take: number of the clip of that identity.
      times: (t) seconds.
      limits: how far the head turns.

    Returns:
      (t 3) yaw, pitch, roll in radians, and a (t) curve per channel.
    """
    streams = [np.random.default_rng([seed, 1, identity, take, part]) for part in range(5)]
    angles = pose_curves(streams[0], times, limits)
    curves = {name: np.zeros(len(times)) for name in CHANNELS}
    _speech(streams[1], times, curves)
    _moods(streams[2], times, curves)
    _blinks(streams[3], times, curves)
    _gaze(streams[4], times, curves, angles)
    for name, curve in curves.items():
        if not name.startswith("gaze"):
            curves[name] = np.clip(curve, 0.0, 1.0)
    # Lips that are pulled wide cannot be pursed at the same time.
    wide = np.maximum(curves["smile_L"], curves["smile_R"])
    for name in ("pucker", "funnel"):
        curves[name] = curves[name] * (1 - 0.7 * wide)
    return angles, curves
