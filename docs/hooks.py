"""What the site does to Markdown that also has to read well on a code host (``hooks:`` of mkdocs.yml).

- A link out of ``docs/`` has to exist in the repository, and becomes its path in code type.
- ``<!-- include: ../CONTRIBUTING.md#adding-things -->`` is replaced by that section, its links set right.
- What ``<details>`` holds is Markdown, too.
- Sphinx roles in docstrings (``:class:`Name```) become plain code.

What is wrong is a warning, which ends a strict build.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

log = logging.getLogger("mkdocs.hooks.docs")

CODE_OR_LINK = re.compile(
    r"(?P<code>^ {0,3}```.*?^ {0,3}```|`[^`\n]+`)|(?P<image>!?)\[(?P<label>[^\]]*)\]\((?P<target>[^)\s]+)\)",
    re.DOTALL | re.MULTILINE,
)
INCLUDE = re.compile(r"<!-- include: (?P<path>[^#\s]+)#(?P<anchor>\S+) -->")
HEADING = re.compile(r"^(#+) +(.+)$", re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):<code>~?([\w.]*\.)?(\w+)</code>")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Includes and links of one page."""
    root, docs = Path(config.config_file_path).parent, Path(config.docs_dir)
    folder = (docs / page.file.src_uri).parent
    text = rewrite(markdown, folder, folder, docs, root)

    def section(found: re.Match[str]) -> str:
        path = plain(folder / found["path"])
        included = path.read_text(encoding="utf-8") if path.is_file() else ""
        part = section_of(included, found["anchor"])
        if part is None:
            log.warning("%s includes %s, which is not there", page.file.src_uri, found[0])
            return ""
        return rewrite(part, path.parent, folder, docs, root)

    return INCLUDE.sub(section, text).replace("<details>", '<details markdown="1">')


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Roles of docstrings."""
    return ROLE.sub(r"<code>\2</code>", html)


def rewrite(text: str, written_in: Path, shown_in: Path, docs: Path, root: Path) -> str:
    """The text with its links as they have to be on the site.

    Args:
        text: Markdown.
        written_in: the folder that its links are relative to.
        shown_in: the folder of the page that shows it.
        docs: folder of all pages.
        root: of the repository.
    """

    def replace(found: re.Match[str]) -> str:
        if found["code"] or re.match(r"[a-z]+:|#", found["target"]):
            return found[0]
        name, _, anchor = found["target"].partition("#")
        path = plain(written_in / name)
        if path.is_relative_to(docs):  # MkDocs looks whether it is there
            target = Path(os.path.relpath(path, shown_in)).as_posix() + (f"#{anchor}" if anchor else "")
            label = target if found["label"] == found["target"] else found["label"]
            return f"{found['image']}[{label}]({target})"
        if not (path.exists() and path.is_relative_to(root)):
            log.warning("link to %s, which is not in the repository (from %s)", found["target"], written_in)
            return found[0]
        shown = path.relative_to(root).as_posix()
        label = found["label"].strip("`")
        return f"`{shown}`" if shown.endswith(label) else f"{found['label']} (`{shown}`)"

    return CODE_OR_LINK.sub(replace, text)


def plain(path: Path) -> Path:
    """The path without ``..``."""
    return Path(os.path.normpath(path))


def section_of(text: str, anchor: str) -> str | None:
    """What stands under a heading, up to the next of its level or above; None where there is none."""
    code = [m.span() for m in re.finditer(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)]
    headings = [m for m in HEADING.finditer(text) if not any(a <= m.start() < b for a, b in code)]
    for place, heading in enumerate(headings):
        if slug(heading[2]) == anchor:
            level = len(heading[1])
            after = (m.start() for m in headings[place + 1 :] if len(m[1]) <= level)
            return text[heading.end() : next(after, len(text))].strip() + "\n"
    return None


def slug(heading: str) -> str:
    """A heading as an anchor, as MkDocs and code hosts make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
