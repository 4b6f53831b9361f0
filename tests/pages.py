"""The documents as the tests of them read them: blocks, tables, headings, commands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
GUIDES = DOCS / "guides"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without the indentation that a list gives them."""
    found = []
    for indent, name, body in _FENCE.findall(text(path)):
        if name == language:
            found.append("".join(line.removeprefix(indent) for line in body.splitlines(keepends=True)))
    return found


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", text(path))


def headings(path: Path) -> list[tuple[int, str]]:
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", prose(path), re.MULTILINE)]


def anchor(title: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def rows(path: Path, heading: str) -> list[list[str]]:
    """The cells of all tables under a heading, up to the next heading; without the head of each."""
    body = re.split(rf"^#+ {re.escape(heading)}$", prose(path), maxsplit=1, flags=re.MULTILINE)[1]
    lines = re.split(r"^#+ ", body, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    table = [line for line in lines if line.startswith("|")]
    rules = {index for index, line in enumerate(table) if set(line) <= set("|-: ")}
    kept = [line for index, line in enumerate(table) if index not in rules and index + 1 not in rules]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]


def coded(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def first_column(path: Path, heading: str) -> list[str]:
    return [name for row in rows(path, heading) for name in coded(row[0])]


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command in the page's examples."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words
