"""The built-in talking-head set: unlimited identities, their clips, and exact renders of any state.

    heads = SyntheticTalkingHeads(size=256)
    clip = heads.clip(identity=7, take=0, num_frames=50)
    frames = heads.render_many([(7, state) for state in clip])

A frame depends on (seed, identity, take, frame number) alone, not on what is drawn beside it, in
which order or by which thread. Letters: v vertices, f faces, h w image, j joints, K E coefficients.
"""

import functools
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.synthetic.channels import expression_coeffs, joint_pose
from data_pipeline.synthetic.identities import Identity, Painter, check_number, draw_identity
from data_pipeline.synthetic.motion import (
    FRAMES_PER_SECOND,
    PoseRange,
    clip_curves,
    frame_times,
    pose_range,
)
from data_pipeline.synthetic.render import (
    Appearance,
    MeshTables,
    draw_picture,
    draw_truth,
    mesh_tables,
)
from data_pipeline.synthetic.shading import pack_texture
from data_pipeline.synthetic.truth import flow_px
from talking_heads_jax.batch import FaceCoefficients
from talking_heads_jax.errors import ArgumentError, check_choice, requirement
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.registry import load_morphable

SMALLEST_SIZE, LARGEST_SIZE = 32, 1024
MOTIONS = ("default", "rigid_bust")
MODELS = ("procedural", "ict")
#: What can be asked for -> the fields of a frame that it fills. Everything else always comes.
TRUTH_FIELDS: Mapping[str, tuple[str, ...]] = {
    "depth": ("depth",),
    "normals": ("normals",),
    "position_map": ("position_map",),
    "flow": ("face_id", "barycentric"),
    "vertices": (),  # always there
}

_CACHE_BYTES = 256 << 20  # of identities; painting one costs as much as drawing many frames


class FrameState(NamedTuple):
    """What a head does in one frame; it can be given to any identity.

    Attributes:
      identity: whose clip it was drawn for.
      take: number of that clip.
      frame_index: frame of the clip at 25 frames a second.
      angles: (3) float32 yaw, pitch, roll of the head, radians.
      expression_coeffs: (E) float32.
      pose: (j 3) float32 axis-angle of the joints, radians.
      rigid_bust: whether the root carries the whole turn, about the middle of the picture.
    """

    identity: int
    take: int
    frame_index: int
    angles: np.ndarray
    expression_coeffs: np.ndarray
    pose: np.ndarray
    rigid_bust: bool


class SyntheticFrame(NamedTuple):
    """A picture and the exact truth about it.

    Attributes:
      image: (h w 3) uint8 RGB.
      mask: (h w) uint8: class of `morphable.parts.PARTS` that most samples of the pixel show.
      vertices_px: (v 3) float32: x, y in px, z in the same scale, smaller is nearer, 0 at the
        camera's target.
      landmarks68_px: (68 2) float32, Multi-PIE order.
      landmarks68_visible: (68,) uint8.
      angles: (3) float32 yaw, pitch, roll of the head, radians.
      coefficients: of the frame, without a batch axis: shape_coeffs (K), expression_coeffs (E),
        pose (j 3), translation (3).
      camera25: (25) float32, EG3D's convention: the head stands still, the camera moves. Exact for
        everything in the picture in `rigid_bust` motion, else for the head.
      depth: (h w) float32 cm along the optical axis at the pixel centre, 0 on the background.
      normals: (h w 3) float32 in world axes (y up, z towards the camera), 0 on the background.
      position_map: (h w 3) float32 cm: where the point lies on the average head at
        rest. That head is bare: hair and glasses are folded away in it.
      face_id: (h w) int32, -1 on the background.
      barycentric: (h w 3) float32, perspective-correct.
    """

    image: np.ndarray
    mask: np.ndarray
    vertices_px: np.ndarray
    landmarks68_px: np.ndarray
    landmarks68_visible: np.ndarray
    angles: np.ndarray
    coefficients: FaceCoefficients
    camera25: np.ndarray
    depth: np.ndarray | None = None
    normals: np.ndarray | None = None
    position_map: np.ndarray | None = None
    face_id: np.ndarray | None = None
    barycentric: np.ndarray | None = None


class SyntheticTalkingHeads:
    """Draws identities, clips and frames; safe to use from several threads."""

    def __init__(
        self,
        *,
        size: int = 256,
        seed: int = 0,
        motion: str = "default",
        poses: str | PoseRange = "moderate",
        morphable: str | MorphableModel = "procedural",
        fields: Sequence[str] = (),
        num_threads: int | None = None,
    ) -> None:
        """Prepares the set; nothing is drawn yet.

        Args:
          size: height and width of the frames, pixels.
          seed: of the whole set.
          motion: 'default': the neck turns the head and the shoulders follow by a fraction;
            'rigid_bust': head, neck and shoulders turn together, so that a pose is a camera.
          poses: how far heads turn: 'moderate', 'wide', 'extrapolation' or a `PoseRange`.
          morphable: 'procedural', the built-in head; 'ict', where its file is; or a model.
          fields: which of `TRUTH_FIELDS` is drawn besides, for every frame.
          num_threads: of `render_many`; None: as many as this process has cores.

        Raises:
          ArgumentError: an argument is out of range.
          AssetNotFoundError: the model's file is not registered.
        """
        if not isinstance(size, int) or not SMALLEST_SIZE <= size <= LARGEST_SIZE:
            raise ArgumentError(
                requirement(
                    "The size of the frames",
                    f"be a whole number from {SMALLEST_SIZE} to {LARGEST_SIZE}",
                    repr(size),
                    "Choose 64, 128, 256 or 512.",
                )
            )
        if not isinstance(seed, int) or seed < 0:
            raise ArgumentError(
                requirement("The seed", "be a whole number from 0", repr(seed), "Use 0.")
            )
        check_choice("The motion", motion, MOTIONS)
        self.size, self.seed, self.motion = size, seed, motion
        self.poses = pose_range(poses)
        self.fields = _checked_fields(fields)
        self.fps = FRAMES_PER_SECOND
        self.model = _model(morphable) if isinstance(morphable, str) else morphable
        if num_threads is not None and num_threads < 1:
            raise ArgumentError(
                requirement("num_threads", "be at least 1", num_threads, "None takes every core.")
            )
        self.num_threads = num_threads or _num_cores()
        self._painter = Painter(self.model, size=size)
        self._mesh: MeshTables = mesh_tables(self.model, self._painter.corner_uv)
        # Three samples along each axis while a pixel is coarse against the eyes and the mouth.
        self._samples = 3 if size < 128 else 2
        self._cache: OrderedDict[int, Identity] = OrderedDict()
        self._lock = threading.Lock()
        self._drawing: dict[int, threading.Lock] = {}

    def identity(self, number: int) -> Identity:
        """Who has this number; the last few are kept.

        Args:
          number: see `identities.IDENTITY_RANGES`.

        Raises:
          ArgumentError: the number names no identity.
        """
        check_number(number)
        number = int(number)
        with self._lock:
            if number in self._cache:
                self._cache.move_to_end(number)
                return self._cache[number]
            drawing = self._drawing.setdefault(number, threading.Lock())
        with drawing:  # others that want the same identity wait for the first
            with self._lock:
                if number in self._cache:
                    return self._cache[number]
            identity = draw_identity(self.seed, number, self.model, self._painter, size=self.size)
            with self._lock:
                self._cache[number] = identity
                self._drawing.pop(number, None)
                held = identity.texture.nbytes + identity.background.nbytes
                while len(self._cache) > max(1, _CACHE_BYTES // held):
                    self._cache.popitem(last=False)
        return identity

    def clip(
        self, identity: int | Identity, take: int = 0, num_frames: int = 64, stride: int = 1
    ) -> list[FrameState]:
        """The motion of a clip; frame i is the same whatever the number of frames.

        Args:
          identity: whose, by number or `Identity`.
          take: number of the clip of that identity.
          num_frames: how many frames.
          stride: every how many-th frame of the 25 a second is taken.

        Raises:
          ArgumentError: a number is negative, nothing would be drawn, or the clip is too long.
        """
        if isinstance(identity, Identity):
            identity = identity.number
        check_number(identity)
        if not isinstance(take, int | np.integer) or take < 0:
            raise ArgumentError(
                requirement("A take", "be a whole number from 0", repr(take), "Start at 0.")
            )
        times = frame_times(num_frames, stride)
        angles, curves = clip_curves(self.seed, int(identity), int(take), times, self.poses)
        rigid = self.motion == "rigid_bust"
        expressions = expression_coeffs(curves, self.model.expression_names)
        poses = joint_pose(angles, curves, self.model.joint_names, rigid_bust=rigid)
        angles = angles.astype(np.float32)
        return [
            FrameState(
                int(identity), int(take), i * stride, angles[i], expressions[i], poses[i], rigid
            )
            for i in range(num_frames)
        ]

    def render(
        self, identity: int | Identity, state: FrameState, fields: Sequence[str] | None = None
    ) -> SyntheticFrame:
        """Draws an identity in a state, its own or another's.

        Args:
          identity: number or `Identity` of this set.
          state: from `clip`, of any identity.
          fields: which of `TRUTH_FIELDS` to add; None: those of the set.

        Raises:
          ArgumentError: the number names no identity, or a field is unknown.
        """
        wanted = self.fields if fields is None else _checked_fields(fields)
        if not isinstance(identity, Identity):
            identity = self.identity(identity)
        coefficients = FaceCoefficients(
            identity.shape_coeffs[None], state.expression_coeffs[None], state.pose[None]
        )
        appearance = Appearance(pack_texture(identity.texture), identity.light, identity.background)
        about_pivot = np.float32(state.rigid_bust)
        options = {"size": self.size, "cull": "back"}
        picture = draw_picture(
            self.model,
            self._mesh,
            coefficients,
            about_pivot,
            appearance,
            samples=self._samples,
            **options,
        )
        if int(picture.overflow):
            raise RuntimeError(f"the rasteriser left out {int(picture.overflow)} fragments")
        truth: dict[str, Any] = {}
        if wanted:
            drawn = draw_truth(self.model, self._mesh, coefficients, about_pivot, **options)
            truth = {name: np.asarray(getattr(drawn, name)) for name in wanted}
        landmarks = np.asarray(picture.landmarks68)
        return SyntheticFrame(
            image=np.asarray(picture.image),
            mask=np.asarray(picture.mask),
            vertices_px=np.asarray(picture.vertices),
            landmarks68_px=landmarks[:, :2],
            landmarks68_visible=np.asarray(picture.landmarks68_visible),
            angles=state.angles,
            coefficients=FaceCoefficients(
                identity.shape_coeffs,
                state.expression_coeffs,
                state.pose,
                np.asarray(picture.translation),
            ),
            camera25=np.asarray(picture.camera25),
            **truth,
        )

    def flow_px(self, source: SyntheticFrame, target: SyntheticFrame) -> np.ndarray:
        """Optical flow between two frames, of any identities: target − source, in pixels.

        Args:
          source: drawn with the field 'flow'.
          target: any frame of this set.

        Returns:
          (h w 2) float32 x, y at the source's pixel centres; 0 on the background.

        Raises:
          ArgumentError: the source was drawn without the field.
        """
        if source.face_id is None:
            raise ArgumentError(
                requirement(
                    "The source of a flow",
                    "be drawn with the field 'flow'",
                    "a frame without it",
                    "Pass fields=['flow'] to `render`.",
                )
            )
        return flow_px(source.face_id, source.barycentric, target.vertices_px, self._mesh.faces)

    def render_many(
        self,
        items: Iterable[tuple[int | Identity, FrameState]],
        fields: Sequence[str] | None = None,
    ) -> list[SyntheticFrame]:
        """Draws many frames at once, each on one thread; the same bytes as one by one.

        Args:
          items: pairs as `render` takes them.
          fields: as there.
        """
        return list(self.render_iter(items, fields))

    def render_iter(
        self,
        items: Iterable[tuple[int | Identity, FrameState]],
        fields: Sequence[str] | None = None,
    ) -> Iterator[SyntheticFrame]:
        """`render_many`, frame by frame in order, a few ahead of the reader.

        Args:
          items: pairs as `render` takes them.
          fields: as there.
        """
        if fields is not None:
            _checked_fields(fields)
        ahead = 4 * self.num_threads
        with ThreadPoolExecutor(self.num_threads, "synthetic") as pool:
            waiting = []
            for identity, state in items:
                waiting.append(pool.submit(self.render, identity, state, fields))
                if len(waiting) > ahead:
                    yield waiting.pop(0).result()
            for future in waiting:
                yield future.result()


def _num_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked_fields(fields: Sequence[str]) -> tuple[str, ...]:
    """The fields of the frame that are asked for, each once."""
    for name in fields:
        check_choice("A field", name, tuple(TRUTH_FIELDS))
    return tuple(dict.fromkeys(itertools.chain(*(TRUTH_FIELDS[name] for name in fields))))


@functools.cache  # compiled programs belong to a model object: the sets of a process share it
def _model(name: str) -> MorphableModel:
    """A model of the set by its name."""
    check_choice("The morphable model of the synthetic set", name, MODELS)
    return load_morphable(name)
