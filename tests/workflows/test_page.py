"""The page links relatively to files that are there, and escapes what it is given."""

from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.workflows.page import Figure, Section, Table, write_page


class Collector(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.cells, self.open_tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for key, value in attrs if key == "src"]
        self.open_tags.append(tag)

    def handle_data(self, data):
        if self.open_tags and self.open_tags[-1] in ("td", "th"):
            self.cells.append(data.strip())


def test_write_page_links_figures_relatively_and_keeps_cells(tmp_path):
    (tmp_path / "media").mkdir()
    picture, video = tmp_path / "media" / "a b.png", tmp_path / "clip.mp4"
    picture.write_bytes(b"")
    video.write_bytes(b"")
    table = Table(("row", "l1"), (("model", "0.1"), ("copy <&>", "0.2")), best=0)
    section = Section(
        "One & two", "x < y", (Figure(picture, "p", 64), Figure(video, "v", 64), table)
    )
    page = write_page(tmp_path / "index.html", title="t", sections=[section])
    parser = Collector()
    parser.feed(page.read_text(encoding="utf-8"))
    assert parser.links == ["media/a%20b.png", "clip.mp4"]
    assert all((tmp_path / unquote(link)).is_file() for link in parser.links)
    assert [cell for cell in parser.cells if cell] == [
        "row",
        "l1",
        "model",
        "0.1",
        "copy <&>",
        "0.2",
    ]
    assert str(tmp_path) not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["missing.png", "../outside.png"])
def test_write_page_refuses_figures_it_cannot_carry(tmp_path, name):
    (tmp_path / "outside.png").write_bytes(b"")
    folder = tmp_path / "page"
    folder.mkdir()
    with pytest.raises(ArgumentError, match="be a file inside"):
        figure = Figure(folder / name, "c", 64)
        write_page(folder / "index.html", title="t", sections=[Section("s", "", (figure,))])
