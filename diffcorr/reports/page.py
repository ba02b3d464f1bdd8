"""A page of text, tables and figures, written as Markdown and as one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from diffcorr.reports.canvas import save_figure
from diffcorr.stores.files import writable_folder, write_atomic


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph. `Code` in backticks and [links](https://...) are understood, nothing else."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of short paragraphs."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table whose first ``num_names`` columns are text and whose others are numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure, saved as ``figures/<name>.png``, with what it shows in words."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Fold:
    """Blocks that a reader opens."""

    summary: str
    blocks: Sequence[Block]


Block = Heading | Text | Points | Table | Picture | Fold

_CODE_OR_LINK = re.compile(r"`([^`]+)`|\[([^\]]+)\]\((https?://[^)\s]+)\)")

_STYLE = """
body { margin: 2.5rem auto; max-width: 76rem; padding: 0 1.5rem; color: #20242c; background: #fff;
  font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.25; margin: 2.2rem 0 .6rem; } h1 { margin-top: 0; }
p, li { max-width: 60rem; } code { background: #f1f2f5; padding: .1em .3em; border-radius: 3px; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: 14px; margin: .8rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e4e6eb; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { border-bottom: 2px solid #6a7080; vertical-align: bottom; } .name { text-align: left; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #6a7080; }
details { margin: .8rem 0; } summary { cursor: pointer; font-weight: 600; }
"""


def write_page(title: str, blocks: Sequence[Block], folder: Path, name: str = "report") -> list[Path]:
    """Write ``<name>.md``, ``<name>.html`` and the figures of a page.

    Names and captions are the user's words: nothing in them is taken for HTML.

    Returns:
        The two pages; figures lie in ``folder/figures``, and are inside of the HTML page too.

    Raises:
        StoreError: the folder cannot be written.
    """
    writable_folder(folder)
    for picture in _pictures(blocks):
        save_figure(picture.figure, _path(folder, picture))
    whole = [Heading(title, 1), *blocks]
    written = []
    for suffix, text in (("md", markdown(whole)), ("html", _html_page(title, whole, folder))):
        path = folder / f"{name}.{suffix}"
        write_atomic(path, lambda to, text=text: to.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        written.append(path)
    return written


def markdown(blocks: Sequence[Block]) -> str:
    """The blocks as Markdown, ending in a line break."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {_escape(block.text)}"
        case Text():
            return _escape(block.text)
        case Points():
            return "\n".join(f"- {_escape(item)}" for item in block.items)
        case Table():
            width = len(block.head)
            rule = ["---"] * block.num_names + ["---:"] * (width - block.num_names)
            lines = [list(map(_cell, block.head)), rule, *([_cell(c) for c in row] for row in block.rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture():
            return f"![{_escape(block.caption)}](figures/{block.name}.png)"
        case Fold():
            inner = markdown(block.blocks)
            return f"<details><summary>{html.escape(block.summary)}</summary>\n\n{inner}\n</details>"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _cell(text: str) -> str:
    return _escape(text).replace("|", "\\|").replace("\n", " ")


def _html_page(title: str, blocks: Sequence[Block], folder: Path) -> str:
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading():
            return f"<h{block.level}>{html.escape(block.text)}</h{block.level}>"
        case Text():
            return f"<p>{_inline(block.text)}</p>"
        case Points():
            return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in block.items) + "</ul>"
        case Table():
            head = _html_row("th", block.head, block.num_names)
            rows = "\n".join(_html_row("td", row, block.num_names) for row in block.rows)
            inner = f"<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>"
            return f'<div class="table"><table>\n{inner}\n</table></div>'
        case Picture():
            data = base64.b64encode(_path(folder, block).read_bytes()).decode()
            alt = html.escape(block.caption)
            image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
            return f"<figure>{image}<figcaption>{_inline(block.caption)}</figcaption></figure>"
        case Fold():
            inner = "\n".join(_html(b, folder) for b in block.blocks)
            return f"<details><summary>{html.escape(block.summary)}</summary>\n{inner}\n</details>"


def _html_row(tag: str, cells: Sequence[str], num_names: int) -> str:
    open_tags = [f'<{tag} class="name">' if n < num_names else f"<{tag}>" for n in range(len(cells))]
    inner = "".join(f"{o}{_inline(c)}</{tag}>" for o, c in zip(open_tags, cells, strict=True))
    return f"<tr>{inner}</tr>"


def _inline(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        code, words, address = found.groups()
        return f"<code>{code}</code>" if code else f'<a href="{address}">{words}</a>'

    return _CODE_OR_LINK.sub(replaced, html.escape(text))


def _pictures(blocks: Sequence[Block]) -> Iterator[Picture]:
    for block in blocks:
        if isinstance(block, Picture):
            yield block
        elif isinstance(block, Fold):
            yield from _pictures(block.blocks)


def _path(folder: Path, picture: Picture) -> Path:
    return folder / "figures" / f"{picture.name}.png"
