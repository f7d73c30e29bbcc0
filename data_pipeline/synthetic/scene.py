"""Camera, light and the set's fixed numbers: what every frame of the synthetic set shares.

Lengths in cm, axes of the morphable models: y up, z towards the camera, +x at the picture's right
for a head at rest. Light is a second-order spherical harmonic of nine coefficients per colour, plus
one direction for the highlights. Letters: n directions.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from talking_heads_jax.batch import Camera
from talking_heads_jax.geometry.cameras import EG3D_RADIUS, frontal_camera
from talking_heads_jax.typing import Array, Float

#: Camera to pivot.
CAMERA_DISTANCE = 110.0
#: Where the camera looks and what a rigid bust turns about: near the middle of the head. The
#: origin of the models lies between the ears.
PIVOT = (0.0, 3.4, 1.0)
#: Height of the picture at the pivot's distance; a head is 23 to 25 cm from chin to crown.
FRAME_HEIGHT = 32.5
FOCAL = CAMERA_DISTANCE / FRAME_HEIGHT  # in picture sizes
#: Planes of the depth test.
NEAR, FAR = 60.0, 200.0
#: World units of the stored 25-number camera per cm: one scale for the whole set.
EG3D_SCALE = EG3D_RADIUS / CAMERA_DISTANCE
#: Pixels per cm at the pivot, in picture sizes: the scale of the z of `vertices_px`.
PIXELS_PER_CM = FOCAL / CAMERA_DISTANCE


class Light(NamedTuple):
    """What lights a head; the colour of a surface is albedo · irradiance + highlight.

    Attributes:
      harmonics: (9 3) coefficients of the irradiance in the basis of `harmonic_basis`, per colour.
      direction: (3) unit vector to the lamp, in world axes.
      highlight: (3) colour of the lamp's reflection.
    """

    harmonics: np.ndarray
    direction: np.ndarray
    highlight: np.ndarray


def scene_camera() -> Camera:
    """The set's camera: a batch of one, in cm, looking at `PIVOT` from straight ahead."""
    return frontal_camera(CAMERA_DISTANCE, FOCAL, PIVOT)


def harmonic_basis(directions: Float[Array, "*n 3"]) -> Float[Array, "*n 9"]:
    """Real spherical harmonics up to the second order, in Cartesian form.

    Args:
      directions: unit vectors x, y, z.

    Returns:
      1, y, z, x, xy, yz, 3z² − 1, xz, x² − y², each with its norm.
    """
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    return jnp.stack(
        [
            jnp.full_like(x, 0.28209479),
            0.48860251 * y,
            0.48860251 * z,
            0.48860251 * x,
            1.09254843 * x * y,
            1.09254843 * y * z,
            0.31539157 * (3 * z * z - 1),
            1.09254843 * x * z,
            0.54627422 * (x * x - y * y),
        ],
        axis=-1,
    )


# The clamped cosine of Lambert's law in harmonics, per coefficient and divided by pi.
# Source: Ramamoorthi and Hanrahan, "An efficient representation for irradiance environment maps",
# 2001, A_l of equation 8.
_LAMBERT = np.repeat([1.0, 2.0 / 3.0, 0.25], [1, 3, 5])


def lamp_harmonics(direction: np.ndarray) -> np.ndarray:
    """(9) coefficients of the irradiance of a distant lamp of unit strength: about max(n · d, 0).

    Args:
      direction: (3) unit vector to the lamp.
    """
    basis = np.asarray(harmonic_basis(jnp.asarray(direction, jnp.float32)), np.float64)
    return np.pi * _LAMBERT * basis


def draw_light(rng: np.random.Generator) -> Light:
    """Draws the light of one identity: ambient .5 to .7, a key lamp, a weak lamp opposite.

    Args:
      rng: source of randomness.
    """
    warmth = rng.uniform(-1, 1)
    tint = 1 + warmth * np.array([0.05, 0.005, -0.06])
    ambient = rng.uniform(0.5, 0.7)
    side, height = np.deg2rad(rng.uniform(-65, 65)), np.deg2rad(rng.uniform(5, 55))
    key = np.array([np.sin(side) * np.cos(height), np.sin(height), np.cos(side) * np.cos(height)])
    fill = np.array([-key[0], 0.1, 0.6])
    fill /= np.linalg.norm(fill)
    strength = rng.uniform(0.35, 0.65) * 1.15 / (ambient + 0.5)
    harmonics = strength * np.outer(lamp_harmonics(key), tint)
    harmonics += rng.uniform(0.0, 0.12) * np.outer(lamp_harmonics(fill), 2 - tint)
    # The sky is a little brighter than the floor.
    around = ambient * np.array([3.5449077, 0.35, 0.0, 0.0, 0, 0, 0, 0, 0])
    harmonics += np.outer(around, 1 - 0.4 * (tint - 1))
    return Light(
        harmonics.astype(np.float32),
        key.astype(np.float32),
        (strength * tint).astype(np.float32),
    )
