"""`quality.json` and `quality.html`: how well the clips of a data set were tracked.

The page is one file without scripts or links: pictures are data URIs, all text is escaped, and a
content security policy forbids everything else.
"""

import base64
import html
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.preprocess.staged_clips import PRESENT, staged_pictures
from data_pipeline.schema import write_json
from talking_heads_jax.serialization.atomic_file import replacing

QUALITY_JSON = "quality.json"
QUALITY_HTML = "quality.html"

#: Pictures of so many clips are shown, the doubtful ones first: a page of every clip of a large
#: data set would be gigabytes.
PICTURED_CLIPS = 500

#: A median error above this share of the outer eye corners' distance is marked.
DOUBTFUL_ERROR = 0.06
#: As is a share of frames without a face above this.
DOUBTFUL_WITHOUT_FACE = 0.1

_STYLE = """
body { font: 14px/1.4 sans-serif; margin: 2em; max-width: 1200px; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { border: 1px solid #ccc; padding: .2em .6em; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
figure { display: inline-block; margin: .3em .6em .3em 0; }
figcaption { font-size: 12px; color: #555; }
section { border-top: 1px solid #ccc; margin-top: 1em; }
h2 { overflow-wrap: anywhere; font-size: 16px; }
.doubtful { background: #fff0d8; }
""".strip()
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_COLUMNS = (
    ("clip", "as below the source folder"),
    ("frames", "kept in the records / read"),
    ("without a face", "share of the frames read"),
    ("error", "median distance of the fitted landmarks, share of the outer eye corners' distance"),
    ("error, px", "the same in pixels of the original frame"),
    ("jitter raw", "high-frequency energy of the landmarks before smoothing"),
    ("jitter", "after smoothing"),
    ("cuts", "number of cuts inside the clip"),
    ("landmarks", "where they came from"),
)


def write_quality(
    folder: Path,
    staging: Path,
    rows: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
    not_written: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes both files.

    Args:
      folder: the data set.
      staging: the folder that holds the staged clips and their pictures.
      rows: every clip's row of the manifest; those of tracked clips hold `quality`.
      options: how was tracked, JSON values.
      not_written: which fields the records lack, and why.

    Returns:
      The summary over all clips, as in the file.

    Raises:
      OSError: the folder cannot be written to.
    """
    summary = summarize(rows)
    clips = [
        {
            "clip_id": row["clip_id"],
            "status": row["status"],
            **({"reason": row["reason"]} if "reason" in row else {}),
            "doubts": doubts(row),
            "quality": row.get("quality"),
        }
        for row in rows
    ]
    content = {"options": dict(options), "not_written": list(not_written), "summary": summary}
    write_json(folder / QUALITY_JSON, {**content, "clips": clips})
    page = _page(staging, rows, summary, options, not_written)
    with replacing(folder / QUALITY_HTML) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(page)
    return summary


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers over all clips of a data set.

    Args:
      rows: of the manifest.

    Returns:
      clips, skipped, doubtful (counts), frames read and their share without a face, and the median
      over the clips of the error share and of both jitters (None where no clip has them).
    """
    known = [row["quality"] for row in rows if row.get("quality")]
    frames = sum(quality["frames"] for quality in known)
    missing = sum(quality["frames"] * quality["share_without_face"] for quality in known)

    def median(name: str) -> float | None:
        values = [quality[name] for quality in known if quality[name] is not None]
        return statistics.median(values) if values else None

    return {
        "clips": len(rows),
        "skipped": sum(row["status"] != PRESENT for row in rows),
        "doubtful": sum(bool(doubts(row)) for row in rows if row["status"] == PRESENT),
        "frames": frames,
        "share_without_face": missing / frames if frames else None,
        "median_reprojection_share": median("reprojection_share"),
        "median_jitter_raw": median("jitter_raw"),
        "median_jitter": median("jitter"),
    }


def doubts(row: Mapping[str, Any]) -> list[str]:
    """Why somebody should look at a clip; empty where nothing is unusual.

    Args:
      row: of the manifest.
    """
    if row["status"] != PRESENT:
        return ["skipped"]
    quality, found = row.get("quality"), []
    if not quality:
        return ["not tracked"]
    error = quality["reprojection_share"]
    if error is not None and error > DOUBTFUL_ERROR:
        found.append(f"error above {DOUBTFUL_ERROR:.0%} of the eye distance")
    if quality["share_without_face"] > DOUBTFUL_WITHOUT_FACE:
        found.append(f"{quality['share_without_face']:.0%} of the frames without a face")
    if quality["cuts"]:
        found.append(f"cuts: {len(quality['cuts'])}")
    return found


def _page(
    staging: Path,
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    options: Mapping[str, Any],
    not_written: Sequence[str],
) -> Iterator[str]:
    """The page in pieces, so that its pictures need not be in memory together."""
    order = sorted(rows, key=_urgency)
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>Tracking quality</title>\n<style>{_STYLE}</style></head>\n<body>\n"
        "<h1>Tracking quality</h1>\n"
    )
    chosen = "; ".join(
        f"{name}: {value}" for name, value in options.items() if value not in (None, {}, "")
    )
    yield f"<p>{html.escape(chosen)}</p>\n"
    yield from (f"<p>{html.escape(reason)}</p>\n" for reason in not_written)
    yield (
        f"<p>{summary['clips']} clips, {summary['skipped']} skipped, {summary['doubtful']} with "
        f"something to look at (marked). Frames without a face: "
        f"{_percent(summary['share_without_face'])}. Medians over the clips: error "
        f"{_percent(summary['median_reprojection_share'])} of the outer eye corners' distance, "
        f"jitter {_number(summary['median_jitter_raw'])} raw, "
        f"{_number(summary['median_jitter'])} smoothed.</p>\n"
        "<p>Green: landmarks (orange: not visible). Magenta: the fitted model's. Blue: the face's "
        "box. Yellow: the crop.</p>\n"
    )
    yield "<table><thead><tr>"
    yield "".join(
        f'<th title="{html.escape(meaning)}">{html.escape(name)}</th>' for name, meaning in _COLUMNS
    )
    yield "</tr></thead><tbody>\n"
    for row in order:
        mark = ' class="doubtful"' if doubts(row) else ""
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
        yield f"<tr{mark}>{cells}</tr>\n"
    yield "</tbody></table>\n"
    for row in order[:PICTURED_CLIPS]:
        yield from _section(staging, row)
    if len(order) > PICTURED_CLIPS:
        yield f"<p>Pictures of {len(order) - PICTURED_CLIPS} more clips are left out.</p>\n"
    yield "</body></html>\n"


def _urgency(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Skipped clips first, then doubtful ones, then by error."""
    error = (row.get("quality") or {}).get("reprojection_share")
    return (row["status"] == PRESENT, not doubts(row), -(error or 0.0))


def _cells(row: Mapping[str, Any]) -> list[str]:
    quality = row.get("quality")
    if not quality:
        return [row["clip_id"], row["status"], *[""] * (len(_COLUMNS) - 2)]
    return [
        row["clip_id"],
        f"{row.get('frames', 0)} / {quality['frames']}",
        _percent(quality["share_without_face"]),
        _percent(quality["reprojection_share"]),
        _number(quality["reprojection_px"]),
        _number(quality["jitter_raw"]),
        _number(quality["jitter"]),
        str(len(quality["cuts"])),
        quality["landmark_source"],
    ]


def _section(staging: Path, row: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section><h2>{html.escape(row['clip_id'])}</h2>\n"
    notes = list((row.get("quality") or {}).get("notes", ()))
    if row["status"] != PRESENT:
        notes.insert(0, f"skipped: {row['reason']}")
    notes += [text for text in row.get("warnings", ()) if text not in notes]
    if notes:
        yield "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>\n"
    for caption, data in staged_pictures(staging, row["clip_id"]):
        encoded = base64.b64encode(data).decode("ascii")
        yield (
            f'<figure><img alt="" src="data:image/jpeg;base64,{encoded}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>\n"
        )
    yield "</section>\n"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
