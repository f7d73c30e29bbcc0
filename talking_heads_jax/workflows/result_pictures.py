"""Pictures of a trained row for docs/results.md: some pairs, its worst ones, and the pose sweep."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.media.image import read_image, write_image

#: Height of one frame on the page; frames of fewer pixels are shown in whole multiples.
_SHOWN_PX = 192
_WORST_BY = "l1/masked-mouth"
_NUM_WORST = 4
_SWEEP_DEG = 20.0
_SWEEP_STEPS = 7


def copy_enlarged(source: Path, target: Path, *, size: int) -> None:
    """Copies a picture grid so that its frames can be looked at on a page.

    Args:
      source: png.
      target: png.
      size: of the frames in it, pixels.
    """
    write_image(target, enlarged(read_image(source), size=size))


def enlarged(grid: np.ndarray, *, size: int) -> np.ndarray:
    """Repeats pixels, so that nothing is smoothed away.

    Args:
      grid: (h w 3) of frames.
      size: of one frame, pixels.
    """
    times = max(1, _SHOWN_PX // size)
    return grid.repeat(times, axis=0).repeat(times, axis=1)


def worst_pairs(errors: Sequence[float], count: int) -> list[int]:
    """Positions of the pairs with the largest errors, in the order of the list.

    Args:
      errors: of all pairs; NaN, where no frame shows the region, is never among them.
      count: at most so many.
    """
    values = np.asarray(errors, np.float64)
    known = np.flatnonzero(np.isfinite(values))
    chosen = known[np.argsort(-values[known], kind="stable")[:count]]
    return sorted(chosen.tolist())


def draw_worst(loaded: Any, data: Path, output: Path, *, protocol: str) -> None:
    """Draws the pairs of the test people whose mouths the model misses most.

    Args:
      loaded: of `load_model`.
      data: folder of the data set.
      output: png: source, driving frame, (exact truth,) prediction, error.
      protocol: a file in configs/eval.

    Raises:
      DataError: the data set is another one, or of another version of the renderer.
    """
    from configs.eval import load_protocol
    from talking_heads_jax import build
    from talking_heads_jax.evaluation.answers import MODEL_ROW
    from talking_heads_jax.evaluation.mesh_answers import checkpoint_answer
    from talking_heads_jax.evaluation.pairs import build_pairs
    from talking_heads_jax.evaluation.protocols import Protocol
    from talking_heads_jax.evaluation.report import picture_grid
    from talking_heads_jax.evaluation.runner import evaluate_pairs, fitting_batch_size

    chosen = Protocol.from_config(load_protocol(protocol)["protocol"])
    clips = build.open_clips(data, split="test", resolution=loaded.model.resolution)
    pair_list = build_pairs(chosen, clips.values())
    batch_size = fitting_batch_size(pair_list, 8)
    answer = checkpoint_answer(
        loaded.model, loaded.variables, batch_size=batch_size, relative=chosen.relative
    )
    truth = None
    if chosen.exact_truth:
        truth = build.open_exact_truth(data, clips=clips, split="test")
    result = evaluate_pairs(
        {MODEL_ROW: answer},
        pair_list,
        clips,
        recipes=(_WORST_BY,),
        batch_size=batch_size,
        truth=truth,
        gallery_pairs=len(pair_list.pairs),
    )
    worst = worst_pairs(result.values[MODEL_ROW][_WORST_BY], _NUM_WORST)
    rows = [result.gallery[index] for index in worst]
    grid = picture_grid(dataclasses.replace(result, gallery=rows))
    write_image(output, enlarged(grid, size=loaded.model.resolution))


def draw_sweep(loaded: Any, data: Path, output: Path) -> None:
    """Draws Figure 5 of the paper of the first test clip's first frame.

    Args:
      loaded: of `load_model`, with a trained pose editor.
      data: folder of the data set.
      output: png.
    """
    from talking_heads_jax import build
    from talking_heads_jax.inference.overlay import label_rows
    from talking_heads_jax.inference.pose_sweep import ANGLES, sweep_pose

    clips = build.open_clips(data, split="test", resolution=loaded.model.resolution)
    clip = next(iter(clips.values()))
    own = np.rad2deg(np.asarray(clip.angles[0], np.float64))
    values = np.linspace(-_SWEEP_DEG, _SWEEP_DEG, _SWEEP_STEPS)
    source = np.asarray(clip.frames[0])
    frames = sweep_pose(loaded.model, loaded.variables, source, values, source_angles_deg=own)
    labels = [[f"{name} {value:+.0f}" for value in values] for name in ANGLES]
    write_image(output, label_rows(frames, labels))
