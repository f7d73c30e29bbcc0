"""The pictures of docs/synthetic.md: a grid of frames, and a sheet of the truth channels.

python -m data_pipeline.synthetic.gallery --output docs/pictures
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.synthetic.channels import expression_coeffs, joint_pose
from data_pipeline.synthetic.motion import CHANNELS
from data_pipeline.synthetic.scene import CAMERA_DISTANCE
from data_pipeline.synthetic.talking_heads import (
    FrameState,
    SyntheticFrame,
    SyntheticTalkingHeads,
)
from talking_heads_jax.morphable.parts import PARTS

#: Columns of the grid: yaw, pitch, roll in degrees and what the face does.
COLUMNS: tuple[tuple[tuple[float, float, float], dict[str, float]], ...] = (
    ((0, 0, 0), {}),
    ((-22, 0, 0), {"jaw": 0.9, "lip_lower_down": 0.3}),
    ((18, 6, 0), {"smile_L": 1.0, "smile_R": 1.0, "squint": 0.4, "lip_upper_up": 0.3}),
    ((0, -8, 6), {"pucker": 1.0, "brow_inner_up": 0.8}),
    ((30, 0, -5), {"blink_L": 1.0, "blink_R": 1.0}),
    ((-8, 4, 0), {"brow_outer_up_L": 1.0, "brow_outer_up_R": 1.0, "gaze_yaw": 0.4, "jaw": 0.35}),
    ((-60, 0, 0), {}),
)

# A colour per class of the mask.
_CLASS_COLORS = np.array(
    [
        (24, 24, 28),
        (236, 188, 160),
        (200, 130, 120),
        (250, 250, 250),
        (220, 60, 90),
        (255, 245, 180),
        (110, 10, 30),
        (230, 150, 60),
        (150, 130, 110),
        (90, 60, 150),
        (190, 160, 90),
        (60, 130, 190),
        (70, 200, 120),
    ],
    np.uint8,
)


def make_state(
    heads: SyntheticTalkingHeads, angles_deg: tuple[float, float, float], **channels: float
) -> FrameState:
    """A state given by hand.

    Args:
      heads: the set, for its model and kind of motion.
      angles_deg: yaw, pitch, roll.
      **channels: values of `motion.CHANNELS`; the others rest.
    """
    curves = {name: np.array([channels.get(name, 0.0)]) for name in CHANNELS}
    angles = np.deg2rad(np.array([angles_deg], np.float64))
    rigid = heads.motion == "rigid_bust"
    pose = joint_pose(angles, curves, heads.model.joint_names, rigid_bust=rigid)
    return FrameState(
        identity=0,
        take=0,
        frame_index=0,
        angles=angles[0].astype(np.float32),
        expression_coeffs=expression_coeffs(curves, heads.model.expression_names)[0],
        pose=pose[0],
        rigid_bust=rigid,
    )


def frame_grid(heads: SyntheticTalkingHeads, identities: list[int]) -> np.ndarray:
    """A row per identity, a column per state of `COLUMNS`: (h w 3) uint8.

    Args:
      heads: the set.
      identities: numbers.
    """
    states = [make_state(heads, angles, **channels) for angles, channels in COLUMNS]
    frames = heads.render_many([(number, state) for number in identities for state in states])
    images = [frame.image for frame in frames]
    rows = [images[i : i + len(states)] for i in range(0, len(images), len(states))]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def _with_points(frame: SyntheticFrame) -> np.ndarray:
    """The image with its landmarks: green where seen, red where hidden."""
    image = frame.image.copy()
    for (x, y), seen in zip(frame.landmarks68_px, frame.landmarks68_visible, strict=True):
        row, column = int(y), int(x)
        color = (60, 255, 90) if seen else (255, 60, 60)
        image[max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = color
    return image


def truth_sheet(heads: SyntheticTalkingHeads, identity: int) -> np.ndarray:
    """The channels of one frame side by side in two rows: (h w 3) uint8.

    Image, mask, landmarks, another frame; depth, normals, position map, flow to that frame.

    Args:
      heads: the set.
      identity: number.
    """
    first = make_state(heads, (14, 4, 0), jaw=0.6, smile_L=0.3, smile_R=0.3)
    second = make_state(heads, (-8, -2, 3), blink_L=0.6, blink_R=0.6)
    fields = ["depth", "normals", "position_map", "flow"]
    frame, other = heads.render_many([(identity, first), (identity, second)], fields=fields)
    seen = (frame.face_id >= 0)[..., None]

    def picture(values: np.ndarray) -> np.ndarray:
        return np.where(seen, 255 * np.clip(values, 0, 1), 24).astype(np.uint8)

    depth = (CAMERA_DISTANCE + 8 - frame.depth) / 22
    flow = heads.flow_px(frame, other) / (0.12 * heads.size)
    upper = [frame.image, _CLASS_COLORS[frame.mask], _with_points(frame), other.image]
    lower = [
        picture(np.repeat(depth[..., None], 3, axis=-1)),
        picture(0.5 + 0.5 * frame.normals),
        picture((frame.position_map + np.array([9, 9, 6])) / [18, 25, 20]),
        picture(np.concatenate([0.5 + 0.5 * flow, np.full_like(depth[..., None], 0.5)], axis=-1)),
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in (upper, lower)])


def main() -> int:
    """Writes both pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--identities", type=int, nargs="+", default=[20027, 20012, 20013, 20025])
    options = parser.parse_args()
    assert len(_CLASS_COLORS) == len(PARTS)
    heads = SyntheticTalkingHeads(size=options.size)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, picture in (
        ("synthetic_frames.jpg", frame_grid(heads, options.identities)),
        ("synthetic_truth.jpg", truth_sheet(heads, options.identities[0])),
    ):
        Image.fromarray(picture).save(options.output / name, quality=88)
        print(f"written: {options.output / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
