"""What an evaluation measured; partial results of shards, written, read and joined.

A pair is scored by one process alone, and its means are kept as they are: joined results equal
those of a single run to the last digit.
"""

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from talking_heads_jax.errors import DataError, TalkingHeadsError, check_file, requirement
from talking_heads_jax.evaluation.pair_files import pairs_digest, pairs_document, parse_pairs
from talking_heads_jax.evaluation.pairs import Pair, PairList
from talking_heads_jax.metrics.recipes import Recipe, select_recipes
from talking_heads_jax.serialization.npz_file import read_npz

PARTIAL_FILE, PICTURES_FILE = "partial.json", "pictures.npz"
_FORMAT, _VERSION = "talking_heads_jax partial evaluation", 2


@dataclasses.dataclass(frozen=True)
class GalleryRow:
    """Pictures of one frame for the report.

    Attributes:
      position: of the pair in its list.
      pair: its name.
      frame: number in the driving clip.
      images: name -> (h w 3) uint8.
    """

    position: int
    pair: str
    frame: int
    images: dict[str, np.ndarray]


@dataclasses.dataclass
class EvaluationResult:
    """What an evaluation measured.

    Attributes:
      pair_list: all pairs of the evaluation.
      positions: those that were scored here, increasing.
      recipes: in the order of the tables; empty where there is no truth.
      systems: the rows that are no trivial answers, in the order of the tables.
      truth: what predictions were compared with, in words; '' where nothing is known.
      oracle: the row that knows the answer; '' where none does.
      values: row name -> recipe name -> mean over the frames of each pair; NaN where no frame shows
        the recipe's region.
      references: row name -> recipe name -> a number that no pair was scored for: what guessing
        scores, and what the probe gets wrong on true pictures.
      initial_frames: system -> rest frame of each pair; systems without relative motion are absent.
      gallery: pictures of some pairs.
    """

    pair_list: PairList
    positions: list[int]
    recipes: tuple[Recipe, ...]
    systems: tuple[str, ...]
    truth: str
    oracle: str
    values: dict[str, dict[str, list[float]]]
    references: dict[str, dict[str, float]]
    initial_frames: dict[str, list[int]]
    gallery: list[GalleryRow]

    @property
    def pairs(self) -> list[Pair]:
        """The pairs that were scored."""
        return [self.pair_list.pairs[i] for i in self.positions]

    @property
    def pair_names(self) -> list[str]:
        """Their names, in the order of the values."""
        return [pair.name for pair in self.pairs]

    @property
    def identity_ids(self) -> list[str]:
        """Whom each pair's source shows."""
        return [pair.source_identity for pair in self.pairs]

    @property
    def driving_identity_ids(self) -> list[str]:
        """Whom each pair's driving clip shows."""
        return [pair.driving_identity for pair in self.pairs]

    @property
    def num_frames(self) -> list[int]:
        """Driving frames of each pair."""
        return [len(pair.driving_frames) for pair in self.pairs]


def write_partial(
    folder: Path, result: EvaluationResult, info: Mapping[str, Any], data: Mapping[str, Any]
) -> list[Path]:
    """Writes the result of one shard.

    Args:
      folder: exists.
      result: of the shard.
      info: of the report; the same for all shards.
      data: of the pair list, see `pair_files.pairs_document`.

    Returns:
      The files written.
    """
    pictures = {
        f"{row.position}/{row.frame}/{number:02d}/{name}": image
        for row in result.gallery
        for number, (name, image) in enumerate(row.images.items())
    }
    with (folder / PICTURES_FILE).open("wb") as file:
        np.savez_compressed(file, **pictures)
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "pairs": pairs_document(result.pair_list, data),
        "info": dict(info),
        "positions": result.positions,
        "recipes": [recipe.name for recipe in result.recipes],
        "systems": list(result.systems),
        "truth": result.truth,
        "oracle": result.oracle,
        "values": result.values,
        "references": result.references,
        "initial_frames": result.initial_frames,
    }
    # JSON's floats are Python's repr: they come back bit for bit, NaN included.
    (folder / PARTIAL_FILE).write_text(json.dumps(document) + "\n", encoding="utf-8")
    return [folder / PARTIAL_FILE, folder / PICTURES_FILE]


def read_partial(folder: Path) -> tuple[EvaluationResult, dict[str, Any], dict[str, Any]]:
    """Reads the result of one shard.

    Args:
      folder: the OUTPUT of a run with --shard.

    Returns:
      The result, the report's info, and what the pair list says about the data.

    Raises:
      DataError: the folder holds no such result, or a damaged one.
    """
    path = Path(folder) / PARTIAL_FILE
    remedy = "Give the output folders of runs with --shard."
    check_file(path, DataError)
    check_file(path.with_name(PICTURES_FILE), DataError)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT or document["version"] != _VERSION:
            raise ValueError("another format or version")
        pair_list, data = parse_pairs(document["pairs"], f"{path}")
        positions = [int(i) for i in document["positions"]]
        values = {
            str(row): {str(name): [float(x) for x in column] for name, column in columns.items()}
            for row, columns in document["values"].items()
        }
        initial = {
            str(row): [int(x) for x in column] for row, column in document["initial_frames"].items()
        }
        references = {
            str(row): {str(name): float(value) for name, value in columns.items()}
            for row, columns in document["references"].items()
        }
        recipes = select_recipes(document["recipes"])
        columns = [column for row in values.values() for column in row.values()]
        if any(len(column) != len(positions) for column in [*columns, *initial.values()]):
            raise ValueError("columns of different lengths")
        if any(set(row) != {recipe.name for recipe in recipes} for row in values.values()):
            raise ValueError("rows of different recipes")
        systems = tuple(str(name) for name in document["systems"])
        if values and not {*systems, str(document["oracle"] or systems[0])} <= set(values):
            raise ValueError("systems without a row")
        if not all(0 <= i < len(pair_list.pairs) for i in positions):
            raise ValueError("positions outside the list of pairs")
        result = EvaluationResult(
            pair_list,
            positions,
            recipes,
            systems,
            str(document["truth"]),
            str(document["oracle"]),
            values,
            references,
            initial,
            _read_pictures(path.with_name(PICTURES_FILE), pair_list),
        )
        return result, dict(document["info"]), data
    except DataError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        TalkingHeadsError,
    ) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            requirement(f"{path}", "be a shard's readable result", reason, remedy)
        ) from None


def merge_results(parts: Sequence[tuple[str, EvaluationResult]]) -> EvaluationResult:
    """Joins the results of all shards.

    Args:
      parts: (name for messages, result) in any order.

    Raises:
      DataError: shards of different evaluations, one that is given twice, or one that is missing.
    """
    first_name, first = parts[0]
    # A shard without pairs (there were more shards than pairs) has no rest frames to compare.
    filled = next((part for _, part in parts if part.positions), first)
    owner: dict[int, tuple[str, int]] = {}
    for name, part in parts:
        for what, one, other in (
            ("pairs", pairs_digest(first.pair_list), pairs_digest(part.pair_list)),
            ("metrics", first.recipes, part.recipes),
            ("rows", list(first.values), list(part.values)),
            ("systems", first.systems, part.systems),
            ("truth", first.truth, part.truth),
            ("references", first.references, part.references),
            (
                "rest frames",
                list(filled.initial_frames),
                list((part if part.positions else filled).initial_frames),
            ),
        ):
            if one != other:
                raise DataError(
                    requirement(
                        f"the {what} of {name}",
                        f"be those of {first_name}",
                        "others",
                        "Merge the shards of one evaluation.",
                    )
                )
        for index, position in enumerate(part.positions):
            if position in owner:
                raise DataError(
                    requirement(
                        f"pair '{part.pair_list.pairs[position].name}'",
                        "be in one shard only",
                        f"{owner[position][0]} and {name}",
                        "Give each shard once.",
                    )
                )
            owner[position] = (name, index)
    missing = sorted(set(range(len(first.pair_list.pairs))) - set(owner))
    if missing:
        raise DataError(
            requirement(
                "the shards",
                f"hold all {len(first.pair_list.pairs)} pairs",
                f"{len(owner)}, without '{first.pair_list.pairs[missing[0]].name}'",
                "Give the outputs of all shards.",
            )
        )
    by_name = dict(parts)
    order = sorted(owner)
    sources = [(by_name[owner[i][0]], owner[i][1]) for i in order]
    return dataclasses.replace(
        first,
        positions=order,
        values={
            row: {name: [part.values[row][name][i] for part, i in sources] for name in columns}
            for row, columns in first.values.items()
        },
        initial_frames={
            row: [part.initial_frames[row][i] for part, i in sources]
            for row in filled.initial_frames
        },
        gallery=sorted(
            (row for _, part in parts for row in part.gallery), key=lambda row: row.position
        ),
    )


def _read_pictures(path: Path, pair_list: PairList) -> list[GalleryRow]:
    rows: dict[int, GalleryRow] = {}
    pictures = read_npz(path, f"{path}")
    for key in sorted(pictures, key=lambda key: [int(x) for x in key.split("/")[:3]]):
        position, frame, _, name = key.split("/", 3)
        image = pictures[key]
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(f"picture {key} is no image")
        pair = pair_list.pairs[int(position)].name
        row = rows.setdefault(int(position), GalleryRow(int(position), pair, int(frame), {}))
        row.images[name] = image
    return list(rows.values())
