"""What tracking knows about a clip: boxes, landmarks, pose, coefficients, camera, frame by frame.

Pixels are those of the original, upright frame, pixel (i, j) covers [j, j+1) x [i, i+1); after
`to_crop` those of the crop. Lengths of the head are centimetres. Only numpy is imported here.
Letters: t frames, K shape and E expression coefficients, j joints.
"""

import dataclasses
from typing import Any

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.tracking import smoothing
from talking_heads_jax.tracking.landmarks import INNER_51, outer_eye_distance

WEAK_PERSPECTIVE = "weak_perspective"
PERSPECTIVE = "perspective"
CAMERAS = (WEAK_PERSPECTIVE, PERSPECTIVE)

#: Where the clip's landmarks came from when there are none.
NO_LANDMARKS = "none"


@dataclasses.dataclass(frozen=True)
class ClipTrack:
    """One face, followed through a clip or found in a still (t = 1). Missing values are NaN.

    With the head's rotation R (of `angles`) and a point p of the posed but unturned model in
    centimetres, q = R p: under weak perspective a point lies at offset_px + scale_px (q_x, -q_y);
    under perspective at
    principal_px + (offset_px - principal_px + scale_px (q_x, -q_y)) / (1 - q_z / depth_cm).

    Attributes:
      fps: average frames per second.
      time_s: (t,) float64, presentation time of each frame from the first; increasing.
      frame_size: height, width of the frames in pixels.
      face: (t,) bool, whether a face was found.
      box_px: (t 4) float32 x0 y0 x1 y1 around the face.
      landmarks68_px: (t 68 2) float32 x, y in Multi-PIE order.
      visible: (t 68) uint8, 0 also for points outside the frame and in frames without a face.
      landmark_source: how the landmarks were made, for instance 'file' or 'fan'; 'none'.
      morphable: the fitted model's name; '' if no model was fitted, and then the coefficients have
        no columns, and scale, offset and error are NaN.
      shape_coeffs: (K,) float32, standard deviations, one set for the clip.
      expression_coeffs: (t E) float32.
      joint_pose: (t 3j) float32, axis-angle of the model's `joint_names` in radians; the root's is
        zero, because the head's rotation is `angles`.
      angles: (t 3) float32 yaw, pitch, roll in radians: nose to the image's right, up, clockwise;
        without a fit those of the landmark file, or NaN.
      scale_px: (t,) float32, pixels per centimetre at the head.
      offset_px: (t 2) float32, where the model's origin lies.
      camera: 'weak_perspective' or 'perspective'.
      focal_px: focal length; 0.0 for weak perspective.
      depth_cm: (t,) float32, of the model's origin; NaN for weak perspective.
      principal_px: x, y of the camera's axis; used by perspective only.
      reprojection_px: (t,) float32, root mean square over the fitted points.
      segments: (start, stop) of the stretches between cuts, in order, covering all frames.
      raw_jitter: of the landmarks before smoothing (see `jitter`); NaN if unknown.
      notes: what a user should know about this clip, one sentence each.
    """

    fps: float
    time_s: np.ndarray
    frame_size: tuple[int, int]
    face: np.ndarray
    box_px: np.ndarray
    landmarks68_px: np.ndarray
    visible: np.ndarray
    landmark_source: str
    morphable: str
    shape_coeffs: np.ndarray
    expression_coeffs: np.ndarray
    joint_pose: np.ndarray
    angles: np.ndarray
    scale_px: np.ndarray
    offset_px: np.ndarray
    camera: str
    focal_px: float
    depth_cm: np.ndarray
    principal_px: tuple[float, float]
    reprojection_px: np.ndarray
    segments: tuple[tuple[int, int], ...]
    raw_jitter: float
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def fitted(self) -> bool:
        """Whether a morphable model was fitted."""
        return bool(self.morphable)

    @property
    def has_landmarks(self) -> bool:
        """Whether any frame has landmarks."""
        return bool(np.isfinite(self.landmarks68_px).any())

    def slice(self, start: int, stop: int) -> "ClipTrack":
        """The frames of range(start, stop) as a clip of its own; times keep their origin.

        Args:
          start: first frame, from 0.
          stop: one past the last.

        Returns:
          A track of stop - start frames.

        Raises:
          ArgumentError: if that is no range of at least one frame of this clip.
        """
        if not 0 <= start < stop <= len(self):
            raise ArgumentError(
                requirement(
                    "the range",
                    f"lie in frames 0 to {len(self)} and hold one",
                    (start, stop),
                    "Choose other frames.",
                )
            )
        kept = {name: getattr(self, name)[start:stop] for name in FRAME_FIELDS}
        segments = tuple(
            (max(a, start) - start, min(b, stop) - start)
            for a, b in self.segments
            if max(a, start) < min(b, stop)
        )
        return dataclasses.replace(self, **kept, segments=segments)

    def to_crop(self, matrix: np.ndarray, size: tuple[int, int] | None = None) -> "ClipTrack":
        """The same track in the pixels of a crop: all lengths, places, and the head's roll.

        Args:
          matrix: (2 3) original pixels → crop pixels, a scaling, turn and shift without mirroring:
            only those carry a camera of this kind into another.
          size: height, width of the crop; None keeps `frame_size`.

        Returns:
          A track whose every pixel quantity is the crop's. `visible` stays as it is.

        Raises:
          ArgumentError: if the matrix stretches, shears or mirrors.
        """
        matrix = np.asarray(matrix, np.float64)
        if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
            raise ArgumentError(
                requirement("the crop matrix", "be finite (2, 3)", matrix.shape, "Give one map.")
            )
        linear = matrix[:, :2]
        scale = float(np.sqrt(abs(np.linalg.det(linear))))
        turn = float(np.arctan2(linear[1, 0], linear[0, 0]))
        cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
        pure = np.array([[cosine, -sine], [sine, cosine]])
        if scale == 0 or not np.allclose(linear, pure, atol=1e-4 * scale):
            raise ArgumentError(
                requirement(
                    "the crop matrix",
                    "only scale, turn and shift",
                    linear.tolist(),
                    "Use a crop that keeps shapes.",
                )
            )

        def move(points: np.ndarray) -> np.ndarray:
            return (points @ linear.T + matrix[:, 2]).astype(np.float32)

        x0, y0, x1, y1 = self.box_px.astype(np.float64).T
        corners = move(np.stack([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]).transpose(2, 0, 1))
        angles = self.angles.astype(np.float64)
        angles[:, 2] = (angles[:, 2] + turn + np.pi) % (2 * np.pi) - np.pi
        center = move(np.asarray(self.principal_px, np.float64))
        return dataclasses.replace(
            self,
            frame_size=self.frame_size if size is None else (int(size[0]), int(size[1])),
            box_px=np.concatenate([corners.min(1), corners.max(1)], axis=1),
            landmarks68_px=move(self.landmarks68_px),
            angles=angles.astype(np.float32),
            scale_px=(self.scale_px * scale).astype(np.float32),
            offset_px=move(self.offset_px),
            focal_px=self.focal_px * scale,
            principal_px=(float(center[0]), float(center[1])),
            reprojection_px=(self.reprojection_px * scale).astype(np.float32),
        )

    def jitter(self) -> float:
        """High-frequency energy of the inner landmarks over the outer eye corners' distance.

        Returns:
          A share, see `smoothing.jitter`; NaN without three frames in a row.
        """
        return landmark_jitter(self.landmarks68_px, time_s=self.time_s, segments=self.segments)

    def quality(self) -> dict[str, Any]:
        """What a report shows: plain numbers and text, None where unknown.

        Returns:
          frames, share_without_face, landmark_source, morphable, camera, reprojection_px and
          reprojection_share (medians over frames; the share is of the outer eye corners'
          distance), jitter_raw, jitter, cuts, variable_frame_rate and notes.
        """
        error = self.reprojection_px[np.isfinite(self.reprojection_px)]
        median = float(np.median(error)) if len(error) else float("nan")
        numbers = {
            "share_without_face": float(1 - self.face.mean()),
            "reprojection_px": median,
            "reprojection_share": median / outer_eye_distance(self.landmarks68_px),
            "jitter_raw": self.raw_jitter,
            "jitter": self.jitter(),
        }
        return {
            "frames": len(self),
            "fps": self.fps,
            "variable_frame_rate": self.variable_frame_rate,
            "landmark_source": self.landmark_source,
            "morphable": self.morphable or None,
            "camera": self.camera if self.fitted else None,
            **{name: value if np.isfinite(value) else None for name, value in numbers.items()},
            "cuts": [start for start, _ in self.segments[1:]],
            "notes": list(self.notes),
        }

    @property
    def variable_frame_rate(self) -> bool:
        """Whether the time between frames varies by more than a tenth of its median."""
        steps = np.diff(self.time_s)
        return len(steps) > 1 and bool(np.ptp(steps) > 0.1 * np.median(steps))


#: Fields with one row per frame; `time_s` is one of them.
FRAME_FIELDS = (
    *("time_s", "face", "box_px", "landmarks68_px", "visible", "expression_coeffs", "joint_pose"),
    *("angles", "scale_px", "offset_px", "depth_cm", "reprojection_px"),
)


def landmark_jitter(
    points_px: np.ndarray,
    *,
    time_s: np.ndarray | None = None,
    segments: smoothing.Segments | None = None,
) -> float:
    """The jitter of 68 landmarks: of the 51 inner ones, over the outer eye corners' distance.

    Args:
      points_px: (t 68 2), NaN in frames without a face.
      time_s: (t,) seconds, when the frames are not evenly spaced.
      segments: (start, stop) between cuts; None for one.

    Returns:
      A share, see `smoothing.jitter`; NaN without three frames in a row.
    """
    return smoothing.jitter(
        points_px[:, INNER_51],
        length=outer_eye_distance(points_px),
        time_s=time_s,
        segments=segments,
    )


def empty_track(
    count: int,
    *,
    fps: float,
    frame_size: tuple[int, int],
    time_s: np.ndarray | None = None,
    **fields: Any,
) -> ClipTrack:
    """A track that knows nothing yet: no face, no landmarks, no fit.

    Args:
      count: t.
      fps: frames a second.
      frame_size: height, width.
      time_s: (t,) seconds; None for evenly spaced frames.
      **fields: what is known, by the names of `ClipTrack`.

    Returns:
      The track.
    """

    def missing(*shape: int) -> np.ndarray:
        return np.full((count, *shape), np.nan, np.float32)

    height, width = frame_size
    track = ClipTrack(
        fps=float(fps),
        time_s=smoothing.frame_times(count, fps, time_s),
        frame_size=(int(height), int(width)),
        face=np.zeros(count, bool),
        box_px=missing(4),
        landmarks68_px=missing(68, 2),
        visible=np.zeros((count, 68), np.uint8),
        landmark_source=NO_LANDMARKS,
        morphable="",
        shape_coeffs=np.zeros(0, np.float32),
        expression_coeffs=missing(0),
        joint_pose=missing(0),
        angles=missing(3),
        scale_px=missing(),
        offset_px=missing(2),
        camera=WEAK_PERSPECTIVE,
        focal_px=0.0,
        depth_cm=missing(),
        principal_px=(width / 2, height / 2),
        reprojection_px=missing(),
        segments=((0, count),),
        raw_jitter=float("nan"),
        notes=(),
    )
    return dataclasses.replace(track, **fields)
