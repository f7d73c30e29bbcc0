"""A self-contained web page: headings, pictures, videos and tables, all by relative link."""

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from talking_heads_jax.errors import ArgumentError, requirement

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
figure { display: inline-block; margin: 0 1rem 1rem 0 }
img, video { image-rendering: pixelated; max-width: 100% }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr.best { font-weight: bold }
figcaption, footer { color: #555 }
"""
_VIDEO_SUFFIXES = (".mp4", ".webm")


class Figure(NamedTuple):
    """A picture or video.

    Attributes:
      file: must lie in the page's folder.
      caption: plain text.
      width_px: as shown; small frames are enlarged without smoothing.
    """

    file: Path
    caption: str
    width_px: int


class Table(NamedTuple):
    """A table with one emphasised row.

    Attributes:
      header: one cell per column.
      rows: cells as text, the first names the row.
      best: number of the row in bold; None for none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None


class Section(NamedTuple):
    """A heading with text and what belongs to it.

    Attributes:
      title: plain text.
      text: plain text, one paragraph.
      items: figures and tables, in order.
    """

    title: str
    text: str
    items: Sequence[Figure | Table] = ()


def write_page(path: Path, *, title: str, sections: Iterable[Section], footer: str = "") -> Path:
    """Writes the page.

    Args:
      path: the .html file; figures are linked relative to its folder.
      title: of the page.
      sections: in order.
      footer: plain text at the end.

    Returns:
      `path`.

    Raises:
      ArgumentError: if a figure is missing or lies outside the page's folder, where a copy of the
        folder would lose it.
    """
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body += [f"<h2>{html.escape(section.title)}</h2>", f"<p>{html.escape(section.text)}</p>"]
        for item in section.items:
            body.append(_table(item) if isinstance(item, Table) else _figure(item, path.parent))
    body.append(f"<footer>{html.escape(footer)}</footer>")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    text = f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n'
    path.write_text(text + "\n".join(body) + "\n</body>\n</html>\n", encoding="utf-8")
    return path


def _table(table: Table) -> str:
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    rows = [f"<tr>{header}</tr>"]
    for number, row in enumerate(table.rows):
        mark = ' class="best"' if number == table.best else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row))
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _figure(figure: Figure, folder: Path) -> str:
    link = Path(os.path.relpath(figure.file, folder))
    if link.parts[0] == ".." or not figure.file.is_file():
        raise ArgumentError(
            requirement("a figure", f"be a file inside {folder}", figure.file, "Write it there.")
        )
    source = f'src="{quote(link.as_posix())}" width="{figure.width_px}"'
    caption = html.escape(figure.caption)
    if figure.file.suffix in _VIDEO_SUFFIXES:
        medium = f"<video {source} autoplay loop muted playsinline controls></video>"
    else:
        medium = f'<img {source} alt="{caption}">'
    return f"<figure>{medium}<figcaption>{caption}</figcaption></figure>"
