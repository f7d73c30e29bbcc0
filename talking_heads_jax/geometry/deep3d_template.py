"""The five points by which Deep3DFaceRecon aligns faces, and the numbers of its camera.

Numpy only: a data worker without jax reads it too. Axes of the template: x to the image's right,
y up, z out of the nose; decimetres. Letters: d coordinates of a point.
"""

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement

#: (5 3) eyes (image left, image right), tip of the nose, corners of the mouth (left, right).
#: Source: Deep3DFaceRecon (Deng et al. 2019), the 5 points made from its 68 standard landmarks.
TEMPLATE_FIVE_POINTS = np.array(
    [
        [-0.3115, 0.2904, 0.1338],
        [0.3098, 0.2897, 0.1318],
        [0.0033, -0.0462, 0.5524],
        [-0.2522, -0.3813, 0.2241],
        [0.2485, -0.3813, 0.2224],
    ]
)
TEMPLATE_FIVE_POINTS.setflags(write=False)

#: Deep3DFaceRecon's picture: focal length, centre and size in pixels.
FOCAL_PX, CENTER_PX, SIZE_PX = 1015.0, 112.0, 224
#: Distance of its camera from the origin of the face model, decimetres.
CAMERA_DISTANCE = 10.0
#: Pixels per decimetre of the template in its crop of `SIZE_PX` pixels.
TEMPLATE_SCALE_PX = 102.0

# The landmarks behind the five points. The eyes are the mean of two corners of a lid's outline.
_EYES = ((36, 39), (42, 45))
_OTHERS = (30, 48, 54)


def five_points(points: np.ndarray) -> np.ndarray:
    """Eyes, nose and corners of the mouth (... 5 d), from 68 landmarks.

    Args:
      points: (... 68 d) in Multi-PIE order, or (... 5 d), which are returned as they are.

    Raises:
      ArgumentError: another number of points.
    """
    points = np.asarray(points, np.float64)
    count = points.shape[-2] if points.ndim >= 2 else 0
    if count == 5:
        return points
    if count != 68:
        raise ArgumentError(
            requirement(
                "The landmarks of an alignment",
                "be 68 points in Multi-PIE order, or 5 (eyes, nose, corners of the mouth)",
                points.shape,
                "Import or detect 68 landmarks.",
            )
        )
    eyes = [points[..., list(pair), :].mean(-2) for pair in _EYES]
    return np.stack([*eyes, *(points[..., index, :] for index in _OTHERS)], axis=-2)
