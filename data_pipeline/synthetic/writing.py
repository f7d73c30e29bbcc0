"""Writes the built-in talking-head set to disk: what `talking-heads synthesize` runs.

Letters: t time, h w image.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.preprocess.arrays import ClipFrames, write_clips
from data_pipeline.preprocess.finishing import PrepareSummary
from data_pipeline.synthetic.clip_plan import PlannedClip, plan_clips
from data_pipeline.synthetic.head_set import HeadSet


def write_talking_heads(
    output: Path,
    *,
    size: int = 64,
    identities: Mapping[str, int] | None = None,
    num_frames: int = 8,
    stride: int = 10,
    takes: int = 1,
    seed: int = 0,
    motion: str = "default",
    poses: str = "moderate",
    morphable: Any = "procedural",
    extras: Sequence[str] = ("vertices",),
    image_format: str = "png",
    progress: bool = True,
) -> PrepareSummary:
    """Renders clips of the built-in talking heads into a data set that training reads.

    The same arguments give the same pictures; a run that was interrupted goes on where it stopped.

    Args:
      output: the data set; new, empty, or begun by the same call.
      size: height and width of the images, 32 to 1024.
      identities: split to number of people; None for 300 to train and 24 to test on.
      num_frames: of each clip.
      stride: every how many frames of the motion, at 25 per second, one is taken.
      takes: clips of each person.
      seed: of the people, their looks and their motion.
      motion: 'default' or 'rigid_bust'.
      poses: how far heads turn: 'moderate' or 'wide'; those of `extrapolation` turn further.
      morphable: 'procedural', 'ict', or a model with the same attributes.
      extras: keys of `EXTRA_FIELDS` to store besides `PLAIN_FIELDS`.
      image_format: 'png' (exact) or 'jpeg'.
      progress: shows a progress bar and prints the outcome.

    Returns:
      What was written.

    Raises:
      ArgumentError: an option that makes no sense.
      AssetNotFoundError: the face model's file is not registered.
      DataError: `output` holds another data set, or the disk is full.
    """
    identities = {"train": 300, "test": 24} if identities is None else dict(identities)
    plans = plan_clips(identities, num_frames=num_frames, stride=stride, takes=takes)
    heads = HeadSet(
        size=size, seed=seed, motion=motion, poses=poses, morphable=morphable, extras=extras
    )
    heads.shapes()  # what the renderer refuses, it refuses before anything is written
    recipe = {
        **heads.recipe,
        "identities": {split: count for split, count in identities.items() if count},
        "num_frames": num_frames,
        "stride": stride,
        "takes": takes,
    }

    def remaining(staged: frozenset[str]) -> Iterator[ClipFrames]:
        return render_clips(heads, [plan for plan in plans if plan.clip_id not in staged])

    return write_clips(
        output,
        remaining,
        size=size,
        recipe=recipe,
        image_format=image_format,
        mesh=heads.mesh() if "vertices" in extras else None,
        total=len(plans),
        progress=progress,
    )


def render_clips(heads: HeadSet, plans: Sequence[PlannedClip]) -> Iterator[ClipFrames]:
    """Yields clips in the order of their plans.

    Args:
      heads: the renderer.
      plans: the clips.
    """
    for plan, records in zip(plans, heads.render_clips(plans), strict=True):
        columns = {
            name: np.stack([record[name] for record in records])
            for name in records[0]
            if name != "morphable"
        }
        yield ClipFrames(
            plan.clip_id,
            columns.pop("image"),
            identity_id=plan.identity_id,
            fps=plan.fps,
            frame_stride=plan.stride,
            split=plan.split,
            morphable=records[0]["morphable"],
            **columns,
        )
