"""The rows behind docs/results.md, as data: what is rendered, trained and measured.

A stage of a recipe is a row. Rows name the rows they need; `results.py` runs them in that order.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MINUTES = 12.0  # what a row may take on two cores


@dataclasses.dataclass(frozen=True)
class DataRow:
    """A data set of built-in talking heads.

    Attributes:
      name: of the row, and of the folder.
      size: height and width of the frames in pixels.
      identities: people per split.
      num_frames: of each clip.
      stride: every how many frames of the motion, at 25 per second.
      morphable: the head that is drawn; anything but 'procedural' is a registered file.
      needs: names of rows.
      minutes: it may take on two cores.
    """

    name: str
    size: int
    identities: Mapping[str, int]
    num_frames: int = 8
    stride: int = 10
    morphable: str = "procedural"
    needs: tuple[str, ...] = ()
    minutes: float = MINUTES

    @property
    def asset(self) -> str:
        """Name of the registered file it needs; '' for none."""
        return "" if self.morphable == "procedural" else self.morphable


@dataclasses.dataclass(frozen=True)
class ProbeRow:
    """The evaluation probe.

    Attributes:
      name: of the row.
      data: name of the data row it is trained on.
      steps: of its training.
      needs: names of rows.
      minutes: it may take on two cores.
    """

    name: str
    data: str
    steps: int
    needs: tuple[str, ...] = ()
    minutes: float = MINUTES


@dataclasses.dataclass(frozen=True)
class TrainingRow:
    """One training with one seed, and its evaluation on people it has not seen.

    Attributes:
      name: of the row.
      label: in the table.
      table: key of `TABLES`.
      config: file under configs/, with :VARIANT.
      data: name of the data row.
      seed: of the training.
      overrides: dotted config keys -> values.
      protocols: names of files in configs/eval.
      headline: keep the checkpoint, reduced, and the pictures in results/.
      pose_error: measure the pose editor too.
      asset: name of a registered file that it and its data need; without it the row is left out.
      heads: whose heads its data shows; '' for the built-in one: the probe knows no other, and no
        other's pictures are kept.
      versus: names of the rows it is compared with, pair by pair.
      needs: names of rows, the probe's for its columns.
      minutes: it may take on two cores.
    """

    name: str
    label: str
    table: str
    config: str
    data: str
    seed: int = 0
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    protocols: tuple[str, ...] = ("synthetic_same",)
    headline: bool = False
    pose_error: bool = False
    asset: str = ""
    heads: str = ""
    versus: tuple[str, ...] = ()
    needs: tuple[str, ...] = ("probe",)
    minutes: float = MINUTES


@dataclasses.dataclass(frozen=True)
class AbsentRow:
    """A line of a paper's table that stays empty here.

    Attributes:
      label: in the table.
      table: key of `TABLES`.
      reason: why.
    """

    label: str
    table: str
    reason: str


Row = DataRow | ProbeRow | TrainingRow

#: Marker in docs/results.md -> what its rows are compared by.
TABLES = MappingProxyType(
    {
        "headline": "64 px, unseen people",
        "fnevr-table-4": "32 px, unseen people",
        "gdpw-table-1": "32 px, unseen people",
    }
)

#: Endings of a headline row's pictures beside NAME.png, and what they show.
WORST_SUFFIXES = MappingProxyType({"synthetic_same": "-worst", "synthetic_cross": "-worst-cross"})
SWEEP_SUFFIX = "-sweep"
CODES_SUFFIX = "-codes"
PICTURES = MappingProxyType(
    {
        "": "some pairs: source, driving frame, prediction, error x4",
        "-worst": "the four people whose mouths it misses most",
        "-worst-cross": "the same across identities: source, driving frame, exact truth, "
        "prediction, error x4",
        SWEEP_SUFFIX: "yaw, pitch and roll swept separately",
        CODES_SUFFIX: "its codes along their two principal axes, and the head in these colours",
    }
)

_BOTH = ("synthetic_same", "synthetic_cross")
_TEST_PEOPLE = 24
_SPLITS = MappingProxyType({"train": 300, "test": _TEST_PEOPLE})


def _headlines() -> tuple[TrainingRow, ...]:
    rows = []
    for seed in (0, 1):
        suffix = f"-seed{seed}" if seed else ""
        shared = {"table": "headline", "data": "data-64", "seed": seed, "protocols": _BOTH}
        rows += [
            TrainingRow(
                name=f"fnevr-64{suffix}",
                label=f"FNeVR, seed {seed}",
                config="fnevr/synthetic_64.py",
                headline=not seed,
                pose_error=True,
                versus=(f"fomm-64{suffix}",),
                **shared,
            ),
            TrainingRow(
                name=f"fomm-64{suffix}",
                label=f"FOMM, seed {seed}",
                config="fomm/synthetic_64.py",
                headline=not seed,
                **shared,
            ),
        ]
    rows += [
        TrainingRow(
            name=f"gdpw-64-seed{seed}" if seed else "gdpw-64",
            label=f"GDPW, seed {seed}",
            table="headline",
            config="gdpw/synthetic_64.py",
            data="data-64",
            seed=seed,
            protocols=_BOTH,
            headline=not seed,
        )
        for seed in (0, 1)
    ]
    return tuple(rows)


def _guidances() -> tuple[TrainingRow, ...]:
    """GDPW's Table 1, the control of its section 4.5, and a second topology."""
    rows = (
        ("geometry", "geom. disp.", "geometry"),
        ("codes", "neural codes", "codes"),
        ("both", "geom. disp. + neural codes", ""),
        ("nmfc", "NMFC", "nmfc"),
        ("single-scale", "single scale (both)", "single_scale"),
        ("alpha", "alpha blending (both)", "alpha"),
    )
    shared = {"table": "gdpw-table-1", "protocols": _BOTH}
    # The paper's first question is codes against the field.
    versus = {"both": (), "codes": ("gdpw-both-32", "gdpw-geometry-32")}
    trainings = [
        TrainingRow(
            f"gdpw-{name}-32",
            label,
            config="gdpw/synthetic_32.py" + (f":{variant}" if variant else ""),
            data="data-32",
            versus=versus.get(name, ("gdpw-both-32",)),
            **shared,
        )
        for name, label, variant in rows
    ]
    return (
        *trainings,
        TrainingRow(
            "gdpw-ict-32",
            "ICT heads (both)",
            config="gdpw/synthetic_32.py:ict",
            data="data-ict-32",
            asset="ict",
            heads="ICT",
            **shared,
        ),
    )


def _ablations() -> tuple[TrainingRow, ...]:
    rows = (
        ("fomm-32", "FOMM", "fomm/synthetic_32.py"),
        ("fomm-spade-32", "FOMM + SPADE", "fnevr/synthetic_32.py:fomm_spade"),
        ("fomm-fvr-32", "FOMM + FVR", "fnevr/synthetic_32.py:fomm_fvr"),
        ("without-fw-32", "w/o F_w", "fnevr/synthetic_32.py:without_fw"),
        ("without-lsigma-32", "w/o L_sigma", "fnevr/synthetic_32.py:without_lsigma"),
        ("fnevr-32", "full", "fnevr/synthetic_32.py"),
    )
    return tuple(
        TrainingRow(
            name,
            label,
            "fnevr-table-4",
            config,
            "data-32",
            versus=("fnevr-32",) if name != "fnevr-32" else (),
        )
        for name, label, config in rows
    )


ROWS: tuple[Row, ...] = (
    DataRow("data-64", 64, _SPLITS),
    DataRow("data-32", 32, _SPLITS),
    DataRow("data-ict-32", 32, _SPLITS, morphable="ict"),
    DataRow("data-probe", 64, MappingProxyType({"probe": 600, "val": 60})),
    ProbeRow("probe", "data-probe", steps=2000),
    *_headlines(),
    *_ablations(),
    *_guidances(),
)

#: Lines of the papers' tables without a row.
ABSENT_ROWS = (AbsentRow("BFM", "gdpw-table-1", "not measured: licensed file"),)
