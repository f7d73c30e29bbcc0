"""The frame program: coefficients and appearance → picture, part mask and the rest of the truth.

One jitted program draws one frame, always alone: a frame's bytes do not depend on what is drawn
beside it. `draw_picture` supersamples; `draw_truth` looks at the pixel centres.
Letters: v vertices, f faces, h w image, s samples of a pixel along each axis, K E coefficients.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from data_pipeline.synthetic.scene import (
    CAMERA_DISTANCE,
    EG3D_SCALE,
    FAR,
    NEAR,
    PIVOT,
    PIXELS_PER_CM,
    Light,
    scene_camera,
)
from data_pipeline.synthetic.shading import sample_texture, shade
from talking_heads_jax.batch import Camera, FaceCoefficients
from talking_heads_jax.geometry.cameras import (
    camera25_from_camera,
    camera_points,
    camera_relative_to,
    clip_from_camera_points,
    depth_from_clip,
    pixels_from_camera_points,
)
from talking_heads_jax.geometry.meshes import vertex_normals
from talking_heads_jax.geometry.rotations import matrix_from_axis_angle
from talking_heads_jax.morphable.base import MorphableModel
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.ops.numerics import matmul_highest
from talking_heads_jax.ops.rasterizer import interpolate, rasterize
from talking_heads_jax.typing import Array

# A landmark counts as seen if no surface lies more than this before it, cm. Landmarks sit on the
# surface, and near a silhouette the depth changes by this much within a sample.
_VISIBLE_WITHIN = 0.6

_BAND_SAMPLES = 1 << 15  # at most so many samples are shaded at a time


class MeshTables(NamedTuple):
    """What the program needs to know about a model's mesh besides the model itself.

    Attributes:
      faces: (f 3) int32.
      corner_uv: (6 f) float32: u, v of the first corner, then of the second and the third.
      part: (f,) uint8 class of `PARTS`.
    """

    faces: Any
    corner_uv: Any
    part: Any


class Appearance(NamedTuple):
    """How an identity looks, in the form the program takes.

    Attributes:
      texture: (t t) uint32, see `shading.pack_texture`.
      light: `Light`.
      background: (h w 3) float32 in [0, 1].
    """

    texture: Any
    light: Light
    background: Any


class Picture(NamedTuple):
    """What `draw_picture` returns.

    Attributes:
      image: (h w 3) uint8 RGB.
      mask: (h w) uint8: the class of `PARTS` that most samples of the pixel show.
      vertices: (v 3) float32 x, y, z in px; z in the same scale, smaller is nearer, 0 at the pivot.
      landmarks68: (68 3) likewise.
      landmarks68_visible: (68,) uint8.
      translation: (3) of the coefficients, in the model's unit.
      camera25: (25) EG3D's numbers for this view of the head, whose axes have their origin at the
        pivot and their unit at `scene.EG3D_SCALE` of a cm.
      overflow: fragments the rasteriser did not draw; 0.
    """

    image: Any
    mask: Any
    vertices: Any
    landmarks68: Any
    landmarks68_visible: Any
    translation: Any
    camera25: Any
    overflow: Any


class Truth(NamedTuple):
    """What `draw_truth` returns, at the pixel centres; 0 (face_id: -1) on the background.

    Attributes:
      depth: (h w) float32 cm along the optical axis.
      normals: (h w 3) float32 unit vectors in world axes (y up, z towards the camera).
      position_map: (h w 3) float32: where the point lies on the average head at rest,
        cm. That head is bare: hair and glasses are folded away in it.
      face_id: (h w) int32.
      barycentric: (h w 3) float32, perspective-correct.
    """

    depth: Any
    normals: Any
    position_map: Any
    face_id: Any
    barycentric: Any


def mesh_tables(model: MorphableModel, corner_uv: np.ndarray) -> MeshTables:
    """The tables of a model.

    Args:
      model: the head.
      corner_uv: (f 3 2) texture coordinates of the triangles' corners.
    """
    return MeshTables(
        faces=np.asarray(model.faces, np.int32),
        corner_uv=np.ascontiguousarray(corner_uv.reshape(len(corner_uv), 6).T, np.float32),
        part=np.asarray(model.face_part, np.uint8),
    )


def _posed(
    model: MorphableModel, coefficients: FaceCoefficients, root_about_pivot: Array
) -> tuple[Array, Array, Camera]:
    """(1 v 3) vertices in cm, the translation (3) they include, and the head's EG3D camera.

    Where `root_about_pivot` is 1 the root turns about the pivot instead of about its own joint.
    """
    unit = model.centimetres_per_unit
    pivot = jnp.asarray(PIVOT, jnp.float32)
    names = model.joint_names
    rest = model.posed_joints(coefficients._replace(pose=None))[0] * unit
    placed = model.posed_joints(coefficients)[0] * unit
    rotation = matrix_from_axis_angle(coefficients.pose[0, names.index("root")])
    # The root turns points about its joint J: R (x - J) + J. About the pivot P it would be
    # R (x - P) + P, which differs by the constant (I - R) (P - J).
    lever = pivot - rest[names.index("root")]
    shift = root_about_pivot * (lever - matmul_highest(rotation, lever[:, None])[:, 0])
    vertices = model.vertices(coefficients) * unit + shift
    # The head's own motion ends at the neck: x = R_head (x_head - neck) + placed neck.
    end = "neck" if "neck" in names else "root"
    if end == "neck":
        turn = matrix_from_axis_angle(coefficients.pose[0, names.index("neck")])
        rotation = matmul_highest(rotation, turn)
    arm = pivot - rest[names.index(end)]
    position = matmul_highest(rotation, arm[:, None])[:, 0] + placed[names.index(end)] + shift
    head_camera = camera_relative_to(
        scene_camera(), rotation[None], position[None], scale=EG3D_SCALE
    )
    return vertices, shift, head_camera


def _image_points(points: Array, *, size: int) -> Array:
    """(n 3) x, y px and z in the same scale, from points in camera axes."""
    camera = scene_camera()
    flat = pixels_from_camera_points(camera.intrinsics, points[None], size=size)[0]
    z = (points[:, 2:] - CAMERA_DISTANCE) * (PIXELS_PER_CM * size)
    return jnp.concatenate([flat, z], axis=-1)


# Attributes of a triangle's corner in the table: normal, texture coordinates, window position.
_NORMAL, _UV, _WINDOW = slice(0, 3), slice(3, 5), slice(5, 8)
_NUM_ATTRIBUTES = 8


def _corner_table(vertices: Array, clip: Array, mesh: MeshTables, *, size: int) -> Array:
    """(24 f) what a sample needs to know about its triangle, corner by corner.

    The window position is x w, y w, w in pixels of a picture of that size.
    """
    faces = jnp.asarray(mesh.faces)
    normals = vertex_normals(vertices, faces)[0]
    clip = clip[0]
    window = (clip[:, :2] * 0.5 + 0.5 * clip[:, 3:]) * size
    packed = jnp.concatenate([normals, window, clip[:, 3:]], axis=-1).T  # (6 v)
    corner_uv = jnp.asarray(mesh.corner_uv)
    rows = []
    for corner in range(3):
        values = packed[:, faces[:, corner]]
        rows += [values[:3], corner_uv[2 * corner : 2 * corner + 2], values[3:]]
    return lax.optimization_barrier(jnp.concatenate(rows))


def _weights(rows: list[list[Array]], x: Array, y: Array) -> list[Array]:
    """Perspective-correct barycentrics of samples at x, y px: shares of homogeneous areas."""
    points = [(px - x * w, py - y * w) for px, py, w in rows]
    areas = [
        points[j][0] * points[k][1] - points[j][1] * points[k][0]
        for j, k in ((1, 2), (2, 0), (0, 1))
    ]
    total = areas[0] + areas[1] + areas[2]
    scale = 1.0 / jnp.where(total == 0, 1.0, total)
    return [area * scale for area in areas]


def _corners(values: Array) -> list[list[Array]]:
    """The rows (24 n) by corner."""
    return [
        [values[corner * _NUM_ATTRIBUTES + i] for i in range(_NUM_ATTRIBUTES)]
        for corner in range(3)
    ]


def _rows_of_band(size: int, samples: int) -> int:
    """Rows of the picture that are shaded at a time: a divisor of its height.

    Intermediate values of a band then stay in the processor's cache.
    """
    largest = max(1, _BAND_SAMPLES // (size * samples * samples))
    return max(rows for rows in range(1, min(size, largest) + 1) if size % rows == 0)


def _resolved(
    face_id: Array,
    first_row: Array,
    background: Array,
    table: Array,
    part: Array,
    texture: Array,
    light: Light,
    *,
    samples: int,
) -> tuple[Array, Array]:
    """Shades the samples of a band and averages them over its pixels."""
    height, width = face_id.shape
    blocks = (height // samples, samples, width // samples, samples)
    seen = (face_id >= 0).reshape(-1)
    face = jnp.maximum(face_id, 0).reshape(-1)
    corners = _corners(lax.optimization_barrier(table.at[:, face].get(mode="promise_in_bounds")))
    y, x = jnp.meshgrid(
        first_row + 0.5 + jnp.arange(height), 0.5 + jnp.arange(width), indexing="ij"
    )
    weights = _weights([corner[_WINDOW] for corner in corners], x.reshape(-1), y.reshape(-1))
    normal, uv = (
        [
            weights[0] * a + weights[1] * b + weights[2] * c
            for a, b, c in zip(*(corner[chosen] for corner in corners), strict=True)
        ]
        for chosen in (_NORMAL, _UV)
    )
    normal, uv = lax.optimization_barrier((normal, uv))
    albedo = lax.optimization_barrier(sample_texture(texture, *uv))
    sample_part = jnp.where(seen, jnp.asarray(part)[face], 0)
    colors = shade(
        albedo,
        normal,
        (sample_part == PARTS.index("eyeball")).astype(jnp.float32),
        harmonics=light.harmonics,
        direction=light.direction,
        highlight=light.highlight,
    )
    colors, sample_part = lax.optimization_barrier((colors, sample_part))
    coverage = seen.astype(jnp.float32).reshape(blocks).mean((1, 3))
    channels = [
        jnp.where(seen, color, 0.0).reshape(blocks).mean((1, 3))
        + (1 - coverage) * background[..., i]
        for i, color in enumerate(colors)
    ]
    image = jnp.round(255 * jnp.clip(jnp.stack(channels, axis=-1), 0, 1)).astype(jnp.uint8)
    return image, _majority(sample_part.reshape(blocks))


def _majority(part: Array) -> Array:
    """(h w) the most frequent class of (h s w s); the background loses a tie."""
    counts = jnp.stack(
        [
            2 * jnp.sum(part == number, axis=(1, 3), dtype=jnp.int32) + (number > 0)
            for number in range(len(PARTS))
        ]
    )
    return jnp.argmax(counts, axis=0).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames=("size", "samples", "cull"))
def draw_picture(
    model: MorphableModel,
    mesh: MeshTables,
    coefficients: FaceCoefficients,
    root_about_pivot: Array,
    appearance: Appearance,
    *,
    size: int,
    samples: int,
    cull: str,
) -> Picture:
    """Draws one frame with `samples`² samples a pixel.

    Args:
      model: the head.
      mesh: its `mesh_tables`.
      coefficients: a batch of one, without translation.
      root_about_pivot: 1 to turn the root about the pivot, 0 about its joint.
      appearance: of the identity.
      size: height and width, px.
      samples: along each axis of a pixel.
      cull: as of `rasterize`; 'back' where all parts are closed.
    """
    camera = scene_camera()
    vertices, shift, head_camera = _posed(model, coefficients, root_about_pivot)
    points = camera_points(camera, vertices)
    clip = clip_from_camera_points(camera.intrinsics, points, near=NEAR, far=FAR)
    fine = size * samples
    fragments = rasterize(clip, mesh.faces, height=fine, width=fine, cull=cull)
    face_id = fragments.face_id[0]
    table = _corner_table(vertices, clip, mesh, size=fine)

    def draw_band(band: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        return _resolved(
            *band, table, mesh.part, appearance.texture, appearance.light, samples=samples
        )

    rows = _rows_of_band(size, samples)
    first = jnp.arange(0, fine, rows * samples, dtype=jnp.float32)
    bands = (
        face_id.reshape(-1, rows * samples, fine),
        first,
        jnp.asarray(appearance.background).reshape(-1, rows, size, 3),
    )
    image, mask = lax.map(draw_band, bands)

    landmark_points = camera_points(camera, model.landmarks68(vertices, coefficients))[0]
    landmarks = _image_points(landmark_points, size=size)
    return Picture(
        image=image.reshape(size, size, 3),
        mask=mask.reshape(size, size),
        vertices=_image_points(points[0], size=size),
        landmarks68=landmarks,
        landmarks68_visible=_visible(landmarks, landmark_points[:, 2], face_id, table, samples),
        translation=shift / model.centimetres_per_unit,
        camera25=camera25_from_camera(head_camera)[0],
        overflow=fragments.overflow[0],
    )


def _visible(landmarks: Array, depth: Array, face_id: Array, table: Array, samples: int) -> Array:
    """(68,) uint8: inside the picture, and nothing lies before them in all samples around."""
    height, width = face_id.shape
    place = landmarks[:, :2] * samples
    inside = ((place >= 0) & (place < jnp.array([width, height]))).all(axis=-1)
    column, row = jnp.floor(place).astype(jnp.int32).T
    around = jnp.array([-1, 0, 1])
    y = jnp.clip(row[:, None, None] + around[:, None], 0, height - 1)  # (68 3 1)
    x = jnp.clip(column[:, None, None] + around, 0, width - 1)  # (68 1 3)
    face = face_id[y, x]
    windows = [corner[_WINDOW] for corner in _corners(table[:, jnp.maximum(face, 0)])]
    weights = _weights(windows, x + 0.5, y + 0.5)
    surface = sum(weight * window[2] for weight, window in zip(weights, windows, strict=True))
    farthest = jnp.where(face >= 0, surface, FAR).max(axis=(1, 2))
    return (inside & (depth <= farthest + _VISIBLE_WITHIN)).astype(jnp.uint8)


@functools.partial(jax.jit, static_argnames=("size", "cull"))
def draw_truth(
    model: MorphableModel,
    mesh: MeshTables,
    coefficients: FaceCoefficients,
    root_about_pivot: Array,
    *,
    size: int,
    cull: str,
) -> Truth:
    """Draws what lies at the pixel centres.

    Args:
      model: the head.
      mesh: its `mesh_tables`.
      coefficients: a batch of one, without translation.
      root_about_pivot: as of `draw_picture`.
      size: height and width, px.
      cull: as of `rasterize`.
    """
    camera = scene_camera()
    vertices, _, _ = _posed(model, coefficients, root_about_pivot)
    points = camera_points(camera, vertices)
    clip = clip_from_camera_points(camera.intrinsics, points, near=NEAR, far=FAR)
    fragments = rasterize(clip, mesh.faces, height=size, width=size, cull=cull)
    average = model.vertices(model.neutral(1)) * model.centimetres_per_unit
    both = jnp.concatenate([vertex_normals(vertices, mesh.faces), average], axis=-1)
    values = interpolate(both, fragments, mesh.faces)[0]
    normals = values[..., :3]
    length = jnp.sqrt(jnp.sum(normals * normals, axis=-1, keepdims=True))
    seen = fragments.face_id[0] >= 0
    return Truth(
        depth=jnp.where(seen, depth_from_clip(fragments.depth[0], near=NEAR, far=FAR), 0.0),
        normals=normals / jnp.maximum(length, 1e-6),
        position_map=values[..., 3:],
        face_id=fragments.face_id[0],
        barycentric=fragments.barycentric[0],
    )
