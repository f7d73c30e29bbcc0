"""What a person of the synthetic set looks like: traits, coefficients and a painted texture.

Everything is drawn from (seed, identity). The painter works on the canonical head, where each texel
knows its position, its part and its place between the landmarks; it therefore serves every
morphable model that has texture coordinates and 68 landmarks, with the eyes' centres among its
joints. Lengths in cm on the template; letters: t texels, K shape modes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from data_pipeline.synthetic.noise import fractal_noise, value_noise
from talking_heads_jax.morphable.parts import PARTS
from talking_heads_jax.morphable.procedural_parts import HAIR_STYLES
from talking_heads_jax.morphable.procedural_skin import smoothstep

# Skin from light to dark, hair from black to white, irises: colours chosen by eye.
_SKIN = np.array(
    [
        (0.97, 0.83, 0.75),
        (0.93, 0.75, 0.63),
        (0.87, 0.66, 0.52),
        (0.76, 0.55, 0.41),
        (0.60, 0.41, 0.29),
        (0.44, 0.29, 0.21),
        (0.33, 0.21, 0.16),
    ]
)
_HAIR = np.array(
    [
        (0.06, 0.05, 0.05),
        (0.16, 0.10, 0.07),
        (0.30, 0.18, 0.10),
        (0.45, 0.28, 0.14),
        (0.55, 0.22, 0.10),
        (0.78, 0.62, 0.36),
        (0.55, 0.53, 0.51),
        (0.82, 0.81, 0.80),
    ]
)
_IRIS = np.array(
    [
        (0.25, 0.14, 0.07),
        (0.40, 0.25, 0.10),
        (0.36, 0.40, 0.18),
        (0.30, 0.47, 0.32),
        (0.33, 0.52, 0.68),
        (0.45, 0.55, 0.60),
    ]
)
_CLOTHES = ("plain", "plain", "stripes", "checks", "knit", "collar")
_BEARDS = ("none", "none", "stubble", "goatee", "full", "moustache")


class Traits(NamedTuple):
    """Choices that decide both shape and texture.

    Attributes:
      hair_style: a shape mode's name, or 'bald' or 'shaved'.
      hair_color: (3,) RGB.
      skin_color: (3,) RGB.
      beard: one of the beards, 'none' included.
      glasses: '', 'glasses' or 'glasses_round'.
      makeup: strength of lip colour and eye shadow, 0..1.
      age: 0 young, 1 old: lines, spots, pale hair.
    """

    hair_style: str
    hair_color: np.ndarray
    skin_color: np.ndarray
    beard: str
    glasses: str
    makeup: float
    age: float


def _rng(seed: int, identity: int, what: int) -> np.random.Generator:
    return np.random.default_rng([seed, identity, what])


def draw_traits(seed: int, identity: int) -> Traits:
    """The choices of one person.

    Args:
      seed: of the set.
      identity: number of the person.
    """
    rng = _rng(seed, identity, 1)
    age = float(rng.beta(1.3, 2.2))
    tone = rng.uniform(0, len(_SKIN) - 1)
    skin = np.array([np.interp(tone, np.arange(len(_SKIN)), _SKIN[:, i]) for i in range(3)])
    skin = skin * rng.uniform(0.93, 1.05) * (1.0 + rng.normal(0, 0.02, 3))
    weights = np.array([0.24, 0.22, 0.18, 0.1, 0.06, 0.12, 0.05, 0.03])
    if tone > 3.5:
        weights = np.array([0.6, 0.25, 0.06, 0.02, 0.01, 0.01, 0.04, 0.01])
    hair = _HAIR[rng.choice(len(_HAIR), p=weights / weights.sum())] * rng.uniform(0.8, 1.15)
    hair = hair + np.clip(age - 0.55, 0, 1) * (np.array([0.75, 0.74, 0.73]) - hair)
    bearded = rng.random() < 0.5
    beard = str(rng.choice(_BEARDS)) if bearded else "none"
    styles = (
        ("hair_short", "hair_volume", "hair_afro", "hair_long", "shaved", "bald")
        if bearded
        else ("hair_short", "hair_bob", "hair_long", "hair_fringe", "hair_afro", "hair_volume")
    )
    chances = (
        (0.36, 0.2, 0.08, 0.1, 0.14, 0.12) if bearded else (0.14, 0.28, 0.28, 0.18, 0.06, 0.06)
    )
    style = str(rng.choice(styles, p=chances))
    glasses = str(rng.choice(("", "glasses", "glasses_round"), p=(0.75, 0.15, 0.1)))
    makeup = 0.0 if bearded else float(rng.uniform(0, 1))
    return Traits(style, np.clip(hair, 0, 1), np.clip(skin, 0, 1), beard, glasses, makeup, age)


def draw_shape(seed: int, identity: int, shape_names: tuple[str, ...]) -> np.ndarray:
    """Shape coefficients of one person.

    Args:
      seed: of the set.
      identity: number of the person.
      shape_names: of the model; hair styles and glasses among them follow the traits, other modes
        are normal with a spread that avoids caricatures (0.65 for modes of a scan's statistics,
        which are many, 0.85 for named dimensions of the head).

    Returns:
      (K,) float32.
    """
    rng = _rng(seed, identity, 2)
    traits = draw_traits(seed, identity)
    named = any(name in HAIR_STYLES for name in shape_names)
    spread = 0.85 if named else 0.65
    values = np.clip(rng.normal(0, spread, len(shape_names)), -2.2, 2.2)
    for index, name in enumerate(shape_names):
        if name in HAIR_STYLES:
            values[index] = 1.0 if name == traits.hair_style else 0.0
        elif name == "glasses":
            values[index] = 1.0 if traits.glasses else 0.0
        elif name == "glasses_round":
            values[index] = 1.0 if traits.glasses == name else 0.0
    return values.astype(np.float32)


class TextureMaps(NamedTuple):
    """What each texel of a model's texture shows.

    Attributes:
      position: (t t 3) float32 on the template, cm.
      part: (t t) uint8 of `PARTS`.
      uv: (t t 2) float32 its own place.
      landmarks: (68 3) on the template.
      eyes: (2 3) centres of the left and right eyeball.
    """

    position: np.ndarray
    part: np.ndarray
    uv: np.ndarray
    landmarks: np.ndarray
    eyes: np.ndarray


_MAPS: dict[tuple[int, int], tuple[Any, TextureMaps]] = {}


def texture_maps(arrays: Mapping[str, np.ndarray], size: int) -> TextureMaps:
    """Bakes a model's template into its texture; gaps take the nearest texel.

    Args:
      arrays: under the keys of the clean npz, `uv` in [0, 1], `face_part` of `PARTS`, lengths cm.
      size: width and height of the texture.
    """
    key = (id(arrays["uv"]), size)
    if key not in _MAPS:
        # The array is kept, so that its id stays its own.
        _MAPS[key] = (arrays["uv"], _bake(arrays, size))
    return _MAPS[key][1]


def _bake(arrays: Mapping[str, np.ndarray], size: int) -> TextureMaps:
    import jax.numpy as jnp

    from talking_heads_jax.ops.rasterizer import rasterize, require_complete

    uv = np.asarray(arrays["uv"], np.float32)
    flat = np.concatenate([2 * uv - 1, np.zeros((len(uv), 1), np.float32)], axis=1)
    corners_uv = jnp.asarray(arrays["faces_uv"], jnp.int32)
    # The triangles hardly overlap, but their boxes do.
    found = rasterize(
        jnp.asarray(flat)[None], corners_uv, height=size, width=size, budget=8 * size**2
    )
    require_complete(found)
    face = np.asarray(found.face_id[0])
    weight = np.asarray(found.barycentric[0])
    template = np.asarray(arrays["v_template"], np.float32)
    corners = template[np.asarray(arrays["faces"])[np.maximum(face, 0)]]
    position = np.einsum("hwk,hwkc->hwc", weight, corners)
    part = np.asarray(arrays["face_part"])[np.maximum(face, 0)]
    nearest = ndimage.distance_transform_edt(face < 0, return_distances=False, return_indices=True)
    rows, columns = nearest
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    places = np.stack(np.meshgrid(axis, axis, indexing="xy"), axis=-1)
    joints = [str(name) for name in arrays["joint_names"]]
    eyes = [arrays["J_template"][joints.index(name)] for name in ("eye_L", "eye_R")]
    return TextureMaps(
        position[rows, columns],
        part[rows, columns],
        places[rows, columns],
        template[np.asarray(arrays["landmarks68"])],
        np.asarray(eyes, np.float32),
    )


def _distance_to_line(points: np.ndarray, line: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of (n 2) points to a polyline (m 2), and where along it (0..1) the foot lies."""
    x, y = points.T
    best = np.full(len(points), np.inf, np.float32)
    along = np.zeros(len(points), np.float32)
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    starts = np.concatenate([[0.0], np.cumsum(lengths)])
    for a, b, start, length in zip(line[:-1], line[1:], starts[:-1], lengths, strict=True):
        (dx, dy), (ex, ey) = (x - a[0], y - a[1]), b - a
        t = np.clip((dx * ex + dy * ey) / max(length**2, 1e-9), 0.0, 1.0)
        distance = np.hypot(dx - t * ex, dy - t * ey)
        closer = distance < best
        best = np.where(closer, distance, best)
        along = np.where(closer, (start + t * length) / starts[-1], along)
    return best, along


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Whether (n 2) points lie inside a closed polygon (m 2)."""
    inside = np.zeros(len(points), bool)
    x, y = points.T
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (a[1] > y) != (b[1] > y)
        slope = (b[0] - a[0]) / (b[1] - a[1] if b[1] != a[1] else 1e-9)
        inside ^= crosses & (x < a[0] + slope * (y - a[1]))
    return inside


def _mixed(color: np.ndarray, other: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return color + np.asarray(weight)[..., None] * (np.asarray(other) - color)


class _Painter:
    """Paints one person; the state is the list of texels (n) of the part being painted."""

    def __init__(self, seed: int, identity: int, maps: TextureMaps) -> None:
        self.traits = draw_traits(seed, identity)
        self.rng = _rng(seed, identity, 3)
        self.noise_seed = int(self.rng.integers(1, 1 << 30))
        self.maps = maps
        size = len(maps.part)
        self.color = np.full((size, size, 3), 0.5, np.float32)
        self.gloss = np.zeros((size, size), np.float32)

    def noise(self, points: np.ndarray, layer: int, octaves: int = 3) -> np.ndarray:
        return fractal_noise(points, self.noise_seed + 101 * layer, octaves=octaves)

    def run(self) -> np.ndarray:
        painters = {
            ("face_skin", "eyelids", "lips", "ears", "scalp", "neck"): self._skin,
            ("eyeball",): self._eyeball,
            ("teeth",): self._teeth,
            ("mouth_interior",): self._mouth,
            ("hair",): self._hair,
            ("clothes",): self._clothes,
            ("glasses",): self._glasses,
        }
        for names, painter in painters.items():
            chosen = np.isin(self.maps.part, [PARTS.index(name) for name in names])
            if chosen.any():
                color, gloss = painter(self.maps.position[chosen], self.maps.uv[chosen], chosen)
                self.color[chosen], self.gloss[chosen] = color, gloss
        texture = np.concatenate([self.color, self.gloss[..., None]], axis=-1)
        return np.rint(255 * np.clip(texture, 0, 1)).astype(np.uint8)

    # Skin, with all that is painted on it.

    def _skin(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        traits, rng, marks = self.traits, self.rng, self.maps.landmarks
        part = self.maps.part[chosen]
        front = smoothstep(-1.0, 3.0, p[:, 2])
        a = np.abs(p[:, 0])
        color = np.broadcast_to(traits.skin_color, p.shape).astype(np.float32)
        blood = np.array([1.0, 0.62, 0.58]) * traits.skin_color
        # Broad unevenness, blotches, pores.
        color = color * (1 + 0.05 * self.noise(p / 3.1, 1))[:, None]
        color = _mixed(color, blood, 0.16 * np.clip(self.noise(p / 1.6, 2), 0, 1))
        color = color * (1 + (0.02 + 0.02 * traits.age) * self.noise(p / 0.22, 3, 2))[:, None]
        eyes = 0.5 * (marks[36:42].mean(0) + marks[42:48].mean(0))
        nose, mouth = marks[33], marks[48:60].mean(0)
        for side in (-1, 1):
            cheek = np.array([side * 4.6, 0.45 * eyes[1] + 0.55 * nose[1]])
            near = np.exp(-0.5 * (((p[:, :2] - cheek) / [1.7, 1.4]) ** 2).sum(1)) * front
            color = _mixed(color, blood, (0.22 + 0.25 * traits.makeup) * near)
        tip = np.exp(-((p - marks[30]) ** 2).sum(1) / 2.2)
        color = _mixed(color, blood, 0.25 * tip)
        ear = part == PARTS.index("ears")
        color = _mixed(color, blood, 0.2 * ear)
        color = self._spots(color, p, front)
        # Shadow below the jaw and inside the nostrils, lines of age.
        under = smoothstep(marks[8, 1] + 0.6, marks[8, 1] - 1.2, p[:, 1]) * smoothstep(
            11.5, 8.0, p[:, 2]
        )
        color = color * (1 - 0.22 * under * (part == PARTS.index("neck")))[:, None]
        for nostril in (32, 34):
            hole = marks[nostril] + np.array([0.0, 0.08, -0.1])
            color = _mixed(
                color, 0.25 * blood, np.exp(-0.5 * ((p - hole) ** 2 / [0.05, 0.03, 0.2]).sum(1))
            )
        for side, corner in ((-1, 31), (1, 35)):
            start = marks[corner, :2] + [side * 0.25, 0.5]
            end = marks[48 if side < 0 else 54, :2] + [side * 0.7, 0.1]
            distance, _ = _distance_to_line(p[:, :2], np.stack([start, end]))
            line = np.exp(-((distance / 0.16) ** 2)) * front
            color = color * (1 - (0.05 + 0.3 * traits.age**1.5) * line)[:, None]
        wrinkle = np.exp(-((np.sin(2.6 * p[:, 1] + 0.5 * self.noise(p / 3, 4)) / 0.25) ** 2))
        wrinkle *= smoothstep(eyes[1] + 3.2, eyes[1] + 4.0, p[:, 1]) * smoothstep(5, 3, a) * front
        color = color * (1 - 0.16 * traits.age**2 * wrinkle)[:, None]
        color = self._eye_region(color, p, front, blood)
        color = self._beard(color, p, front, mouth)
        color, gloss_lips = self._lips(color, p, front)
        color = self._brows(color, p, front)
        color = self._scalp(color, p, eyes, ear)
        zone = np.exp(-0.5 * ((a / 2.0) ** 2 + ((p[:, 1] - eyes[1] - 3) / 2.5) ** 2)) + tip
        gloss = 0.22 + 0.22 * np.clip(zone * front, 0, 1) + 0.05 * self.noise(p / 0.5, 5, 1)
        gloss = np.clip(gloss - 0.1 * rng.random(), 0.03, 1) + gloss_lips
        return color, gloss

    def _spots(self, color: np.ndarray, p: np.ndarray, front: np.ndarray) -> np.ndarray:
        """Moles and freckles, at places of their own for each person."""
        rng, skin = self.rng, self.traits.skin_color
        for _ in range(int(rng.integers(1, 7))):
            at = np.array([rng.uniform(-6, 6), rng.uniform(-6.5, 9.5)])
            size = rng.uniform(0.09, 0.26)
            spot = np.exp(-((((p[:, :2] - at) ** 2).sum(1) / size**2) ** 2)) * front
            color = _mixed(color, skin * rng.uniform(0.3, 0.55), rng.uniform(0.6, 0.95) * spot)
        freckled = rng.random() < 0.3
        if freckled:
            dots = smoothstep(0.35, 0.62, value_noise(p / 0.26, self.noise_seed + 7))
            where = np.exp(-0.5 * (((p[:, 1] - 0.8) / 1.9) ** 2)) * front
            color = _mixed(color, skin * np.array([0.72, 0.55, 0.45]), 0.38 * dots * where)
        if self.traits.age > 0.6:
            blots = smoothstep(0.5, 0.8, fractal_noise(p / 0.9, self.noise_seed + 8, octaves=3))
            color = _mixed(color, skin * 0.75, 0.3 * blots * front)
        return color

    def _eye_region(
        self, color: np.ndarray, p: np.ndarray, front: np.ndarray, blood: np.ndarray
    ) -> np.ndarray:
        marks, traits = self.maps.landmarks, self.traits
        shadow = np.array([self.rng.uniform(0.3, 0.7), 0.35, self.rng.uniform(0.35, 0.65)])
        for first in (36, 42):
            outline = marks[first : first + 6, :2]
            middle = outline.mean(0)
            width = np.linalg.norm(outline[0] - outline[3])
            offset = (p[:, :2] - middle) / width
            above = smoothstep(-0.05, 0.3, offset[:, 1])
            near = np.exp(-0.5 * ((offset[:, 0] / 0.62) ** 2 + (offset[:, 1] / 0.4) ** 2)) * front
            tint = 0.78 * traits.skin_color
            color = _mixed(color, tint, 0.5 * near)
            bag = np.exp(-0.5 * ((offset[:, 0] / 0.5) ** 2 + ((offset[:, 1] + 0.38) / 0.1) ** 2))
            color = _mixed(color, 0.7 * traits.skin_color, (0.18 + 0.3 * traits.age) * bag * front)
            if traits.makeup > 0.35:
                lid = near * above * smoothstep(0.5, 0.25, offset[:, 1])
                color = _mixed(color, shadow * traits.skin_color, 0.7 * traits.makeup * lid)
            upper, _ = _distance_to_line(p[:, :2], outline[:4])
            lower, _ = _distance_to_line(p[:, :2], outline[[3, 4, 5, 0]])
            lash = np.exp(-((upper / (0.13 + 0.07 * traits.makeup)) ** 2))
            color = _mixed(color, np.array([0.07, 0.05, 0.05]), 0.9 * lash * front)
            color = _mixed(color, 0.5 * blood, 0.6 * np.exp(-((lower / 0.09) ** 2)) * front)
            crease, along = _distance_to_line(p[:, :2], outline[:4] + np.array([0.0, 0.42]))
            line = np.exp(-((crease / 0.1) ** 2)) * np.sin(np.pi * along) ** 0.5
            color = color * (1 - 0.3 * line * front)[:, None]
        return color

    def _beard(
        self, color: np.ndarray, p: np.ndarray, front: np.ndarray, mouth: np.ndarray
    ) -> np.ndarray:
        kind, marks = self.traits.beard, self.maps.landmarks
        if kind == "none":
            return color
        a, y = np.abs(p[:, 0]), p[:, 1]
        lip_top, nose = marks[51, 1], marks[33, 1]
        edge = 0.35 * self.noise(p / 0.7, 9, 2)
        half_width = 0.5 * (marks[54, 0] - marks[48, 0])
        moustache = smoothstep(half_width + 0.7, half_width - 0.1, a + edge)
        moustache *= smoothstep(nose + 0.1, nose - 0.5, y + edge) * smoothstep(
            lip_top - 1, lip_top, y
        )
        chin = smoothstep(half_width + 0.6, half_width - 0.3, a + edge)
        chin *= smoothstep(marks[57, 1] - 0.1, marks[57, 1] - 0.6, y + 0.3 * edge)
        low = mouth[1] - 0.6 + 0.62 * np.clip(a - half_width, 0, 5) ** 1.15
        sides = smoothstep(half_width - 0.5, half_width + 0.8, a)
        jaw = sides * smoothstep(low + 0.6, low - 0.5, y + edge) * smoothstep(-2.0, 2.0, p[:, 2])
        mask = {
            "stubble": np.maximum.reduce([moustache, chin, jaw]),
            "full": np.maximum.reduce([moustache, chin, jaw]),
            "goatee": np.maximum(0.9 * moustache, chin),
            "moustache": moustache,
        }[kind]
        mask = mask * smoothstep(marks[8, 1] - 2.2, marks[8, 1] - 0.4, y)
        strands = 0.5 + 0.5 * value_noise(p * [9.0, 3.0, 9.0], self.noise_seed + 10)
        strength = 0.42 if kind == "stubble" else 0.9
        hair = self.traits.hair_color * (0.7 + 0.5 * strands[:, None])
        return _mixed(color, hair, strength * mask * (0.65 + 0.35 * strands))

    def _lips(
        self, color: np.ndarray, p: np.ndarray, front: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        marks, traits, rng = self.maps.landmarks, self.traits, self.rng
        outline = marks[48:60, :2]
        distance, _ = _distance_to_line(p[:, :2], np.concatenate([outline, outline[:1]]))
        signed = np.where(_inside(p[:, :2], outline), -distance, distance)
        near = p[:, 2] > marks[48:60, 2].min() - 1.8
        mask = smoothstep(0.14, -0.14, signed) * front * near
        natural = traits.skin_color * np.array([0.93, 0.62, 0.6])
        stick = np.array([rng.uniform(0.45, 0.85), rng.uniform(0.08, 0.3), rng.uniform(0.15, 0.4)])
        lips = natural + (0.85 * traits.makeup if traits.makeup > 0.5 else 0.0) * (stick - natural)
        lines = 1 + 0.06 * value_noise(p * [6.0, 0.6, 0.6], self.noise_seed + 11)
        color = _mixed(color, lips * lines[:, None], 0.95 * mask)
        between, _ = _distance_to_line(p[:, :2], marks[[48, 60, 61, 62, 63, 64, 54], :2])
        seam = np.exp(-((between / 0.12) ** 2)) * front * near
        color = color * (1 - 0.6 * seam)[:, None]
        return color, (0.18 + 0.25 * traits.makeup) * mask

    def _brows(self, color: np.ndarray, p: np.ndarray, front: np.ndarray) -> np.ndarray:
        marks, rng = self.maps.landmarks, self.rng
        thick = rng.uniform(0.22, 0.5)
        raised, bent = rng.uniform(-0.25, 0.3), rng.uniform(-0.25, 0.35)
        strength = rng.uniform(0.65, 1.0)
        dark = 0.75 * self.traits.hair_color
        for points in (marks[17:22, :2], marks[22:27, :2][::-1]):
            t = np.linspace(0, 1, 5)
            line = points + np.stack([0 * t, raised + bent * np.sin(np.pi * t)], -1)
            distance, along = _distance_to_line(p[:, :2], line)
            taper = smoothstep(0.0, 0.45, along) ** 0.6 * (
                0.55 + 0.45 * smoothstep(1.0, 0.85, along)
            )
            fray = 1 + 0.3 * value_noise(p * [7.0, 3.0, 3.0], self.noise_seed + 12)
            mask = smoothstep(1.2, 0.65, distance / (thick * taper * fray + 1e-3)) * front
            strands = 0.8 + 0.3 * value_noise(p * [10.0, 4.0, 4.0], self.noise_seed + 13)
            color = _mixed(color, dark * strands[:, None], strength * mask)
        return color

    def _scalp(
        self, color: np.ndarray, p: np.ndarray, eyes: np.ndarray, ear: np.ndarray
    ) -> np.ndarray:
        style = self.traits.hair_style
        turn = np.rad2deg(np.arctan2(np.abs(p[:, 0]), p[:, 2]))
        stations = (0, 20, 33, 43, 52, 62, 75, 92, 105, 120, 140, 180)
        rows = np.array((6.9, 6.9, 6.4, 5.0, 3.1, 2.1, 2.2, 1.8, -1.6, -6.0, -8.3, -8.7)) + eyes[1]
        recede = 2.2 * self.rng.random() * self.traits.age * np.exp(-(((turn - 22) / 14) ** 2))
        line = np.interp(turn, stations, rows) + recede
        fray = 0.45 * self.noise(p / 0.8, 14, 3)
        mask = smoothstep(-0.35, 0.55, p[:, 1] + fray - line) * ~ear
        if style == "bald":
            bare = smoothstep(3.5, 6.5, p[:, 1] - eyes[1] + 0.8 * (p[:, 2] > 0))
            mask = 0.45 * mask * (1 - bare)
        elif style == "shaved":
            mask = 0.62 * mask
        strands = 0.78 + 0.35 * value_noise(p * [5.0, 2.0, 5.0], self.noise_seed + 15)
        return _mixed(color, self.traits.hair_color * strands[:, None], 0.96 * mask)

    # The other parts.

    def _eyeball(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rng, eyes = self.rng, self.maps.eyes
        near_left = np.abs(p[:, :1] - eyes[:1, 0]) < np.abs(p[:, :1] - eyes[1:, 0])
        d = p - np.where(near_left, eyes[0], eyes[1])
        angle = np.rad2deg(np.arctan2(np.hypot(d[:, 0], d[:, 1]), d[:, 2]))
        spoke = np.arctan2(d[:, 1], d[:, 0])
        sclera = np.array([0.93, 0.92, 0.90]) - 0.05 * self.traits.age * np.array([0, 0.3, 1])
        color = np.broadcast_to(sclera, p.shape) * (1 - 0.18 * smoothstep(38, 62, angle))[:, None]
        color = _mixed(color, np.array([0.86, 0.6, 0.55]), 0.4 * smoothstep(45, 75, angle))
        iris = _IRIS[rng.integers(len(_IRIS))] * rng.uniform(0.85, 1.2)
        ring = np.stack([np.cos(spoke), np.sin(spoke)], -1)
        fibres = 1 + 0.3 * value_noise(np.concatenate([7 * ring, angle[:, None] / 14], 1), 77)
        body = iris * fibres[:, None] * (0.8 + 0.5 * smoothstep(24, 12, angle))[:, None]
        edge = rng.uniform(25.5, 28.5)
        color = _mixed(color, body, smoothstep(edge + 1.5, edge - 0.8, angle))
        limbus = np.exp(-(((angle - edge + 0.8) / 2.2) ** 2))
        color = _mixed(color, 0.25 * iris, 0.75 * limbus)
        pupil = rng.uniform(9.0, 12.5)
        color = _mixed(color, np.array([0.02, 0.02, 0.02]), smoothstep(pupil + 1, pupil - 1, angle))
        return color, np.full(len(p), 1.0)

    def _teeth(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        white = np.array([0.95, 0.93, 0.86]) - 0.14 * self.rng.random() * np.array([0.5, 0.7, 1.3])
        turn = np.arctan2(p[:, 0], p[:, 2] - 6.75)
        gap = np.abs(np.sin(7 * np.pi * turn / np.deg2rad(78)))
        color = white * (1 - 0.4 * np.exp(-((gap / 0.2) ** 2)))[:, None]
        deep = smoothstep(9.8, 7.6, p[:, 2])
        return color * (1 - 0.55 * deep)[:, None], np.full(len(p), 0.6)

    def _mouth(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        tongue = (p[:, 1] < self.maps.landmarks[57, 1] + 0.95) & (np.abs(p[:, 0]) < 1.7)
        tongue &= p[:, 2] > 6.9
        color = np.where(tongue[:, None], [0.68, 0.33, 0.33], [0.34, 0.10, 0.10])
        color = color * (0.25 + 0.75 * smoothstep(5.0, 9.6, p[:, 2]))[:, None]
        return color * (1 + 0.08 * self.noise(p / 0.5, 16, 2))[:, None], np.full(len(p), 0.3)

    def _hair(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        places = uv / (uv.max(0) - uv.min(0) + 1e-6)
        bend = 0.02 * value_noise(places * [14, 5], self.noise_seed + 17)
        across = places[:, :1] + bend[:, None]
        curly = self.traits.hair_style == "hair_afro"
        stretch = [80, 80] if curly else [120, 5]
        point = np.concatenate([across, places[:, 1:]], axis=1)
        strands = value_noise(point * stretch, self.noise_seed + 18)
        locks = value_noise(point * ([30, 30] if curly else [34, 3]), self.noise_seed + 19)
        light = 1 + 0.28 * strands + 0.3 * locks
        tips = self.traits.hair_color * self.rng.uniform(0.9, 1.5)
        along = (places[:, 1] - places[:, 1].min()) / np.ptp(places[:, 1])
        color = _mixed(np.broadcast_to(self.traits.hair_color, p.shape), tips, 0.6 * along**2)
        return color * light[:, None], 0.25 + 0.12 * locks

    def _clothes(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng
        kind = str(rng.choice(_CLOTHES))
        first, second = rng.uniform(0.08, 0.85, 3), rng.uniform(0.08, 0.9, 3)
        color = np.broadcast_to(first, p.shape).copy()
        scale = rng.uniform(0.6, 1.6)
        around = np.arctan2(p[:, 0], p[:, 2])
        if kind in ("stripes", "checks"):
            color = _mixed(
                color, second, smoothstep(-0.15, 0.15, np.sin(2 * np.pi * p[:, 1] / scale / 1.6))
            )
        if kind == "checks":
            color = _mixed(
                color, 0.5 * second, 0.6 * smoothstep(-0.1, 0.1, np.sin(p[:, 0] * 4 / scale))
            )
        if kind == "knit":
            color = color * (1 + 0.2 * np.sin(60 * around) * np.sin(9 * p[:, 1]))[:, None]
        if kind == "collar":
            color = _mixed(color, second, smoothstep(-12.9, -12.3, p[:, 1] - 0.05 * p[:, 2]))
        color = color * (1 + 0.08 * self.noise(p / 1.2, 20, 3))[:, None]
        return color, np.full(len(p), 0.03)

    def _glasses(
        self, p: np.ndarray, uv: np.ndarray, chosen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        frames = ((0.05, 0.05, 0.06), (0.30, 0.17, 0.09), (0.55, 0.5, 0.42), (0.5, 0.08, 0.1))
        color = np.array(frames[self.rng.integers(len(frames))])
        return np.broadcast_to(color, p.shape), np.full(len(p), 0.7)


def paint(
    seed: int, identity: int, arrays: Mapping[str, np.ndarray], size: int = 512
) -> np.ndarray:
    """Paints a person's texture.

    Args:
      seed: of the set.
      identity: number of the person.
      arrays: the model, see `texture_maps`.
      size: width and height of the texture.

    Returns:
      (t t 4) uint8: RGB albedo and the strength of highlights; u to the right, v down.
    """
    return _Painter(seed, identity, texture_maps(arrays, size)).run()
