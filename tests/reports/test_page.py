"""A page as Markdown and as one HTML file, read back by a parser that knows nothing of the package."""

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from diffcorr.errors import StoreError
from diffcorr.reports import draw_sheet
from diffcorr.reports.page import Fold, Heading, Picture, Points, Table, Text, markdown, write_page

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Tags that open and close, every attribute, and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.words: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def blocks(name: str = "dift"):
    picture = Picture(
        "worst-1", draw_sheet([np.zeros((16, 16, 3), np.uint8)], ["a"]), f"worst: <{name}> & co"
    )
    table = Table(["method", "standard"], [[name, "40.7 [22.2, 59.1]"], ["b|c", ""]])
    inner = [Text("of `one` and [a paper](https://arxiv.org/abs/2305.15581)"), Points(["first", "second"])]
    return [Heading("Chapter"), table, picture, Fold(f"more of {name}", [*inner, picture])]


def test_html_needs_no_other_file(tmp_path):
    markdown_page, html_page = write_page("A title", blocks(), tmp_path / "out")
    assert (markdown_page.name, html_page.name) == ("report.md", "report.html")
    reader = read(html_page.read_text(encoding="utf-8"))
    png = base64.b64encode((tmp_path / "out" / "figures" / "worst-1.png").read_bytes()).decode()
    sources = [value for _, name, value in reader.attributes if name == "src"]
    assert sources == [f"data:image/png;base64,{png}"] * 2
    assert [value for _, name, value in reader.attributes if name == "href"] == [
        "https://arxiv.org/abs/2305.15581"
    ]
    assert {"script", "link"}.isdisjoint(reader.tags)
    text = " ".join(reader.words)
    for words in (
        "A title",
        "Chapter",
        "40.7 [22.2, 59.1]",
        "b|c",
        "second",
        "worst: <dift> & co",
        "a paper",
    ):
        assert words in text
    assert reader.tags.count("tr") == 3
    assert reader.tags.count("code") == 1


def test_markdown_is_a_page_of_the_same(tmp_path):
    (page, _) = write_page("A title", blocks(), tmp_path)
    assert page.read_text(encoding="utf-8") == (
        "# A title\n\n## Chapter\n\n"
        "| method | standard |\n| --- | ---: |\n| dift | 40.7 [22.2, 59.1] |\n| b\\|c |  |\n\n"
        "![worst: &lt;dift> &amp; co](figures/worst-1.png)\n\n"
        "<details><summary>more of dift</summary>\n\n"
        "of `one` and [a paper](https://arxiv.org/abs/2305.15581)\n\n- first\n- second\n\n"
        "![worst: &lt;dift> &amp; co](figures/worst-1.png)\n\n</details>\n"
    )


def test_names_are_words_and_never_tags(tmp_path):
    evil = '<script>alert("1")</script><img src=x onerror=y>'
    (markdown_page, html_page) = write_page(evil, blocks(evil), tmp_path)
    reader = read(html_page.read_text(encoding="utf-8"))
    assert "script" not in reader.tags
    assert reader.tags.count("img") == 2
    assert evil in "".join(reader.words)
    assert "<script" not in markdown_page.read_text(encoding="utf-8")
    link = '[x](javascript:alert(1)) [y](https://h/"onclick=z)'
    found = read(write_page("t", [Text(link)], tmp_path)[1].read_text(encoding="utf-8"))
    assert [(t, n) for t, n, _ in found.attributes if t == "a"] in ([], [("a", "href")])
    assert not any(n == "onclick" for _, n, _ in found.attributes)


def test_a_cell_stays_in_its_line():
    assert markdown([Table(["a"], [["x\ny"]])]) == "| a |\n| --- |\n| x y |\n"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        write_page("t", blocks(), tmp_path / "file" / "out")
