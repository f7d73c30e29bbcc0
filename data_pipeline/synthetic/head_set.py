"""The renderer of all splits, and its frames as fields of the record.

Shared by the writer of data sets, the TFDS builder and the source that renders while training: the
same (seed, identity, take, frame) is the same picture in all of them. Letters: h w image.
"""

import contextlib
import functools
import itertools
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from data_pipeline.mesh import Mesh, mesh_of_model
from data_pipeline.synthetic.clip_plan import PlannedClip
from data_pipeline.synthetic.identities import Identity
from data_pipeline.synthetic.talking_heads import (
    MODELS,
    MOTIONS,
    SyntheticFrame,
    SyntheticTalkingHeads,
)
from talking_heads_jax.errors import check_choice

#: Raised when the same arguments begin to give other pictures: no data set is then continued, and
#: no training resumed, with frames of two kinds.
PICTURES = 1

#: What every record of the set can hold besides the required fields: small, and exact.
PLAIN_FIELDS = (
    *("mask", "landmarks68_px", "landmarks68_visible", "angles", "morphable", "shape_coeffs"),
    *("expression_coeffs", "joint_pose", "camera25"),
)
#: Extra of the renderer -> the field of the record that it fills; they are large.
EXTRA_FIELDS: Mapping[str, str] = {
    "vertices": "vertices",
    "depth": "depth",
    "normals": "normals",
    "flow": "flow_to_next_px",
}
POSES = ("moderate", "wide")
EXTRAPOLATION = "extrapolation"


class HeadSet:
    """Renders planned clips; may be used by many threads at once.

    Attributes:
      size: height and width of the images.
      fields: names of the fields of a record that it fills.
      recipe: what decides the pictures, as JSON values.
    """

    def __init__(
        self,
        *,
        size: int,
        seed: int = 0,
        motion: str = "default",
        poses: str = "moderate",
        morphable: Any = "procedural",
        extras: Collection[str] = (),
    ) -> None:
        """Describes the set; nothing is built before a clip is asked for.

        Args:
          size: height and width of the images.
          seed: of the people, their looks and their motion.
          motion: 'default' or 'rigid_bust'.
          poses: how far heads turn, one of `POSES`; those of `extrapolation` turn further.
          morphable: see `SyntheticTalkingHeads`.
          extras: keys of `EXTRA_FIELDS` that are wanted besides `PLAIN_FIELDS`.

        Raises:
          ArgumentError: an option that makes no sense.
        """
        # What would be refused when the first frame is drawn, after everything else has begun.
        check_choice("poses", poses, POSES)
        check_choice("motion", motion, MOTIONS)
        if isinstance(morphable, str):
            check_choice("morphable", morphable, MODELS)
        for name in extras:
            check_choice("fields", name, tuple(EXTRA_FIELDS))
        self.size, self.extras = size, tuple(name for name in EXTRA_FIELDS if name in extras)
        self.fields = (*PLAIN_FIELDS, *(EXTRA_FIELDS[name] for name in self.extras))
        self._poses = poses
        self._options = {"size": size, "seed": seed, "motion": motion, "morphable": morphable}
        self._heads = functools.lru_cache(maxsize=2)(self._build)
        self._building, self._compiling = threading.Lock(), threading.Lock()
        self._compiled = False
        self.recipe = {
            "made_by": "synthetic_talking_heads",
            "pictures": PICTURES,
            "size": size,
            "seed": seed,
            "motion": motion,
            "poses": poses,
            "morphable": getattr(morphable, "name", morphable),
            "extras": list(self.extras),
        }

    def mesh(self) -> Mesh:
        """The topology of the heads' face model, as it lies beside their records."""
        return mesh_of_model(self._renderer("train").model)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the fields that depend on the face model, as in a clip table."""
        model = self._renderer("train").model
        shapes = {
            "shape_coeffs": (model.num_shape,),
            "expression_coeffs": (model.num_expression,),
            "joint_pose": (3 * len(model.joint_names),),
            "vertices": (model.num_vertices, 3),
        }
        return {name: shape for name, shape in shapes.items() if name in self.fields}

    def states(self, plan: PlannedClip) -> list[Any]:
        """How the head stands in every frame of a clip; cheap.

        Args:
          plan: the clip.
        """
        heads = self._renderer(plan.split)
        return heads.clip(plan.identity, plan.take, plan.num_frames, plan.stride)

    def identity(self, split: str, number: int) -> Identity:
        """Draws and paints a person.

        Args:
          split: whose people.
          number: of the person.
        """
        return self._renderer(split).identity(number)

    def render(
        self, plan: PlannedClip, index: int, states: Sequence[Any], identity: Identity
    ) -> dict[str, Any]:
        """Renders one frame.

        Args:
          plan: the clip.
          index: of the frame in the clip.
          states: of the clip.
          identity: who is shown.

        Returns:
          The image and `fields`, without what a data set adds.
        """
        heads = self._renderer(plan.split)
        wanted = states[index : index + 2] if "flow" in self.extras else states[index : index + 1]
        with contextlib.nullcontext() if self._compiled else self._compiling:
            # Of many threads that begin together, one compiles and the others wait for it.
            frames = [heads.render(identity, state) for state in wanted]
            self._compiled = True
        return self._fields(heads, frames[0], frames[1] if len(frames) > 1 else None)

    def render_clips(self, plans: Iterable[PlannedClip]) -> Iterator[list[dict[str, Any]]]:
        """Renders all frames of some clips, on all cores.

        Args:
          plans: the clips.

        Yields:
          Of each clip its frames, as `render` returns them.
        """
        for _, same in itertools.groupby(plans, key=lambda plan: plan.split):
            yield from self._render_split(list(same))

    def _render_split(self, plans: Sequence[PlannedClip]) -> Iterator[list[dict[str, Any]]]:
        heads = self._renderer(plans[0].split)
        with ThreadPoolExecutor(heads.num_threads, "painter") as painters:

            def wanted() -> Iterator[tuple[int, Any]]:
                # To paint a person takes as long as to render a few clips: painted ahead.
                for place, plan in enumerate(plans):
                    for later in plans[place + 1 : place + 1 + heads.num_threads]:
                        painters.submit(heads.identity, later.identity)
                    for state in self.states(plan):
                        yield plan.identity, state

            frames = heads.render_iter(wanted())
            for plan in plans:
                clip = [next(frames) for _ in range(plan.num_frames)]
                yield [
                    self._fields(heads, frame, following)
                    for frame, following in zip(clip, [*clip[1:], None], strict=True)
                ]

    def _renderer(self, split: str) -> SyntheticTalkingHeads:
        with self._building:  # a second thread waits instead of building another
            return self._heads(split == EXTRAPOLATION)

    def _build(self, turned_away: bool) -> SyntheticTalkingHeads:
        poses = EXTRAPOLATION if turned_away else self._poses
        return SyntheticTalkingHeads(**self._options, poses=poses, fields=self.extras)

    def _fields(
        self, heads: SyntheticTalkingHeads, frame: SyntheticFrame, following: SyntheticFrame | None
    ) -> dict[str, Any]:
        coefficients = frame.coefficients
        fields = {
            "image": frame.image,
            "mask": frame.mask,
            "landmarks68_px": frame.landmarks68_px,
            "landmarks68_visible": frame.landmarks68_visible,
            "angles": frame.angles,
            "morphable": heads.model.name,
            "shape_coeffs": coefficients.shape_coeffs,
            "expression_coeffs": coefficients.expression_coeffs,
            "joint_pose": np.reshape(coefficients.pose, -1),
            "camera25": frame.camera25,
        }
        if "vertices" in self.extras:
            fields["vertices"] = frame.vertices_px
        for name in ("depth", "normals"):
            if name in self.extras:
                fields[name] = getattr(frame, name)
        if "flow" in self.extras:
            fields["flow_to_next_px"] = (
                np.full((self.size, self.size, 2), np.nan, np.float32)
                if following is None
                else heads.flow_px(frame, following)
            )
        return fields
