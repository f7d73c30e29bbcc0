"""What the documents say can be typed, and what they point to exists."""

import re
import shlex
from pathlib import Path

import pytest

from talking_heads_jax.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def shell_lines(text: str) -> list[str]:
    """Lines of fenced blocks and inline code that call the console script, comments cut off."""
    fenced = [
        line for block in re.findall(r"```\w*\n(.*?)```", text, re.S) for line in block.split("\n")
    ]
    inline = re.findall(r"`(talking-heads [^`]+)`", text)
    lines = [line.split("  #")[0].strip().removeprefix("$ ") for line in [*fenced, *inline]]
    return [line for line in lines if line.startswith("talking-heads ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing, f"{page.name} links to {missing}"


def test_every_page_can_be_reached():
    """Each page is linked from the index or from a page beside it."""
    linked = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)", page.read_text(encoding="utf-8"))
    }
    lost = [page.name for page in PAGES[1:] if page.name != "index.md" and page not in linked]
    assert not lost, f"no page links to {lost}"


def test_commands_of_the_readme_parse():
    """Full commands (those that name an output, a folder, ...) are accepted by the parser."""
    lines = shell_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    full = [line for line in lines if "--" in line]
    assert len(full) >= 4
    for line in full:
        arguments = build_parser().parse_args(shlex.split(line)[1:])
        assert callable(arguments.run), line


def test_readme_stays_on_one_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 60


def test_make_targets_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for name in re.findall(r"`make ([a-z]+)", page.read_text(encoding="utf-8")):
            assert name in targets, f"{page.name}: make {name}"
