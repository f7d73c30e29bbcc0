"""Pictures of edits: which frame shows what, panels, and many frames on one sheet.

Letters: h w image, t frames.
"""

from collections.abc import Sequence

import numpy as np

from talking_heads_jax.errors import ArgumentError, requirement
from talking_heads_jax.inference.edit_changes import Change
from talking_heads_jax.inference.overlay import label_rows
from talking_heads_jax.media.resize import resize_image
from talking_heads_jax.tracking.overlay import draw_track
from talking_heads_jax.tracking.track import empty_track

#: Frames of a sheet, and in one row of it.
MOST_PICTURES, MOST_COLUMNS = 400, 13
# Smaller pictures are enlarged: labels would be cut off, and eyes not be seen.
_SMALLEST_SIDE = 128
_BLANK = 255


def frame_labels(changes: Sequence[Change], count: int) -> list[tuple[str, ...]]:
    """What moves in every frame, and where it is: texts such as 'head.yaw +20'.

    Args:
      changes: of the edits; those that hold for the whole clip are left out.
      count: t.
    """
    moving = [change for change in changes if len(change.values) > 1]
    curves = [(change, change.over(count)) for change in moving]
    return [
        tuple(
            f"{change.name} {'+= ' if change.offset else ''}{curve[frame]:.3g}"
            for change, curve in curves
            if np.isfinite(curve[frame])
        )
        for frame in range(count)
    ]


def sheet(frames: Sequence[np.ndarray], labels: Sequence[tuple[str, ...]]) -> np.ndarray:
    """All frames in one picture: a new row for every other set of things that move.

    Args:
      frames: t of (h w 3) uint8.
      labels: of `frame_labels`.

    Returns:
      uint8 RGB.

    Raises:
      ArgumentError: more than `MOST_PICTURES`.
    """
    check_sheet(len(frames))
    rows: list[list[int]] = []
    moved: list[str] | None = None
    for index, texts in enumerate(labels):
        names = [text.split(" ")[0] for text in texts]
        if names != moved or len(rows[-1]) == MOST_COLUMNS:
            rows.append([])
        moved = names
        rows[-1].append(index)
    columns = max(map(len, rows))
    times = -(-_SMALLEST_SIDE // min(frames[0].shape[:2]))
    height, width = (side * times for side in frames[0].shape[:2])
    table = np.full((len(rows), columns, height, width, 3), _BLANK, np.uint8)
    texts = [[""] * columns for _ in rows]
    for row, members in enumerate(rows):
        for column, index in enumerate(members):
            table[row, column] = frames[index].repeat(times, axis=0).repeat(times, axis=1)
            texts[row][column] = _short(labels[index])
    return label_rows(table, texts)


def check_sheet(count: int) -> None:
    """Raises if a sheet would be too large to look at.

    Args:
      count: of its frames.

    Raises:
      ArgumentError: more than `MOST_PICTURES`.
    """
    if count > MOST_PICTURES:
        raise ArgumentError(
            requirement(
                "a picture", f"show at most {MOST_PICTURES} frames", count, "Write a video (.mp4)."
            )
        )


def mesh_panel(vertices_px: np.ndarray, faces: np.ndarray, resolution: int) -> np.ndarray:
    """A mesh, shaded, on grey: what the model is told of a frame.

    Args:
      vertices_px: (v 3) in pixels of the model's square.
      faces: (f 3).
      resolution: side of the square.

    Returns:
      (resolution resolution 3) uint8.
    """
    blank = np.full((resolution, resolution, 3), 128, np.uint8)
    nothing = empty_track(1, fps=1.0, frame_size=(resolution, resolution))
    drawn = draw_track(blank, nothing, 0, vertices_px=vertices_px, faces=faces)
    return resize_image(drawn, (resolution, resolution)) if len(drawn) != resolution else drawn


def _short(texts: tuple[str, ...]) -> str:
    return f"{texts[0]} ..." if len(texts) > 2 else ", ".join(texts)
