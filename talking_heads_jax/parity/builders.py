"""The table of case builders: which function runs which case, by pattern of its name.

A builder gets a `GoldenCase` and constructor arguments that override the model's defaults (such as
`implementation`), and returns {output name: numpy array}; every size, width and input comes from
the case. Builders are imported when a case asks for them. They construct the registry's
models and the converter's variables: no module exists for parity alone.
"""

import dataclasses
import fnmatch
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from talking_heads_jax.parity.cases import GoldenCase

Run = Callable[[GoldenCase, Mapping[str, Any]], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Builder:
    """How a kind of case is run.

    Attributes:
      pattern: shell pattern of the case's name.
      path: `module:function` of the `Run`.
      row_steps: output pattern -> n where the format stores every n-th row and column.
    """

    pattern: str
    path: str
    row_steps: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def load(self) -> Run:
        """Imports the function."""
        module, function = self.path.split(":")
        return getattr(importlib.import_module(f"talking_heads_jax.parity.{module}"), function)

    def row_step(self, output: str) -> int:
        """The n of an output; 1 when all rows and columns are stored."""
        steps = [n for pattern, n in self.row_steps.items() if fnmatch.fnmatchcase(output, pattern)]
        return steps[0] if steps else 1


BUILDERS = (
    Builder("fomm_kp_detector", "first_order:detect_fomm_keypoints"),
    Builder("fnevr_kp_detector", "first_order:detect_fnevr_keypoints"),
    Builder("fomm_generator", "first_order:generate_fomm_frame"),
    Builder("fnevr_generator", "first_order:generate_fnevr_frame"),
    Builder("fomm_discriminator", "first_order:discriminate", {"feature_*": 4}),
    Builder("fomm_equivariance", "first_order:transform_thin_plate"),
    Builder("fomm_training_step", "training_step:take_step", {"prediction": 2}),
    Builder("gdpw_generator_*", "progressive_warping:generate_frame", {"warped_source": 2}),
    Builder("gdpw_discriminator", "progressive_warping:discriminate", {"feature_*": 4}),
    Builder(
        "vgg19_features",
        "fixed_networks:extract_vgg19_features",
        {"relu1_1": 8, "relu2_1": 8, "relu3_1": 4, "relu4_1": 2},
    ),
    Builder("fan_2d", "fixed_networks:find_fan_heatmaps", {"heatmaps_3": 2, "heatmaps_[0-2]": 4}),
    Builder("bisenet_face_parsing", "fixed_networks:parse_faces", {"logits": 4}),
    Builder("deca_regressor", "fixed_networks:estimate_deca"),
    Builder("deep3d_regressor", "fixed_networks:estimate_deep3d"),
    Builder("raster_opengl", "rasterizer:draw_opengl_mesh"),
    Builder("flame_lbs", "face_models:pose_flame"),
    Builder("deep3d_face_model", "face_models:shade_bfm"),
)


def find_builder(case_name: str) -> Builder | None:
    """The first builder whose pattern matches, or None."""
    for builder in BUILDERS:
        if fnmatch.fnmatchcase(case_name, builder.pattern):
            return builder
    return None
