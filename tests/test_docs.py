"""What the documentation says: Python that runs, commands that exist, links that lead somewhere, a site."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from omegaconf import OmegaConf
from PIL import Image

from diffcorr.cli import _parser
from diffcorr.config import compose, option_names
from diffcorr.data.partworld import PartWorldPairs

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
NOT_RUN = "# not run: "
"""The first line of a block that cannot run, with the reason."""
GROUPS = "attention|backbone|clusters|data|experiment|method|protocol|task|trainer|logger"


def blocks(page: Path, language: str) -> list[str]:
    return [found[3] for found in FENCE.finditer(page.read_text()) if found[2] == language]


def ids(page: Path) -> str:
    return page.name


WITH_PYTHON = [page for page in PAGES if any(not code.startswith(NOT_RUN) for code in blocks(page, "python"))]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=ids)
def test_python_blocks_run_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PartWorldPairs("test")
    pair = data.pairs[7]
    for name, image_id in {"a": pair.source_id, "b": pair.target_id, "photo": pair.target_id}.items():
        Image.fromarray(data.image(image_id)).resize((512, 512)).save(tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    variables: dict[str, object] = {}
    for number, code in enumerate(blocks(page, "python"), start=1):
        if not code.startswith(NOT_RUN):
            exec(compile(code, f"{page.name}, block {number}", "exec"), variables)


def test_the_start_page_leaves_what_it_promises() -> None:
    written = re.findall(r'"([\w.]+\.(?:png|safetensors))"', "".join(blocks(DOCS / "start.md", "python")))
    assert {"match.png", "heatmaps.png", "masks.png", "ids.png", "words.png"} <= set(written)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Every shell command of a page, in blocks and in code spans, as words; ``...`` stands for more."""
    text = page.read_text()
    lines = [
        line
        for language in ("bash", "shell", "sh")
        for code in blocks(page, language)
        for line in code.replace("\\\n", " ").splitlines()
    ]
    spans = [" ".join(found[1].split()) for found in INLINE.finditer(FENCE.sub("", text))]
    lines += [s for s in spans if re.match(r"(\w+=\S+ )*(python|diffcorr|make|torchrun|srun)\s", s + " ")]
    for line in lines:
        words = [word for word in shlex.split(line, comments=True) if word != "..."]
        for part in " ".join(shlex.quote(word) for word in words).split(" '&&' "):
            if part:
                yield shlex.split(part)


def all_commands() -> set[tuple[str, ...]]:
    return {tuple(words) for page in PAGES for words in command_lines(page)}


def entry_commands() -> list[tuple[str, tuple[str, ...]]]:
    """(eval or train, what follows) of every command that starts an entry point, however it is launched."""
    found = set()
    for words in all_commands():
        for place, word in enumerate(words):
            if word in ("eval.py", "train.py"):
                found.add((word.removesuffix(".py"), words[place + 1 :]))
    return sorted(found)


def values_of(override: Override) -> list[str]:
    """Each value of a sweep as an override of its own; any option of a glob stands for all."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.key_or_group
    if isinstance(swept := override.value(), Glob):
        return [f"{key}={swept.filter(option_names(key))[0]}"]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def single_runs(overrides: list[str]) -> list[list[str]]:
    """So many runs of a sweep that each value is in one."""
    choices = [values_of(o) for o in OverridesParser.create().parse_overrides(overrides)]
    longest = max(map(len, choices), default=1)
    return [[values[run % len(values)] for values in choices] for run in range(longest)]


def test_every_command_of_the_entry_points_composes() -> None:
    commands = entry_commands()
    assert len(commands) > 40
    composed: set[tuple[str, ...]] = set()
    for name, words in commands:
        if "--config-dir" in words:
            continue  # names files of the reader's own; tests/runs/test_own_variant.py runs it
        overrides = [word for word in words if word not in ("-m", "--multirun")]
        runs = single_runs(overrides)
        assert len(runs) == 1 or len(overrides) < len(words), f"a sweep without -m: {name}.py {words}"
        for run in runs:
            if (name, *run) not in composed:
                composed.add((name, *run))
                OmegaConf.to_container(compose(name, run), resolve=True)


def test_every_diffcorr_command_parses(capsys: pytest.CaptureFixture[str]) -> None:
    commands = sorted(words for words in all_commands() if Path(words[0]).name == "diffcorr")
    assert len(commands) > 20
    failed = {}
    for _, *words in commands:
        told, is_name = shlex.join(words), all(word.isalpha() for word in words)
        if " ".join(words[:2]) in ("score import", "report ablation"):
            words[:2] = ["-".join(words[:2])]  # as `main` does
        if is_name:
            words.append("--help")  # named, not given
        try:
            _parser().parse_args(words)
        except SystemExit as stop:
            failed |= {told: capsys.readouterr().err} if stop.code else {}
    assert failed == {}


def test_every_make_target_module_and_option_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in all_commands():
        if words[0] == "make":
            assert set(words[1:]) <= targets, words
        if words[:2] == ("python", "-m"):
            assert importlib.util.find_spec(words[2]), words
    spans = {span for page in PAGES for span in INLINE.findall(FENCE.sub("", page.read_text()))}
    named = [found for span in spans if (found := re.fullmatch(rf"({GROUPS})=([a-z]\w*)", span))]
    assert len(named) > 10
    assert [found[0] for found in named if found[2] not in option_names(found[1])] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]+`(?!\])", "", FENCE.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            path = Path(os.path.normpath(page.parent / target.partition("#")[0]))
            assert path.exists(), f"{page.name}: {target}"
            assert path.is_relative_to(ROOT), f"{page.name}: {target} is outside of the repository"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[page](b.md#part)", "[page](b.md#part)"),
        ("[x](https://x.org/a.py)", "[x](https://x.org/a.py)"),
        ("[code/m.py](../code/m.py)", "`code/m.py`"),
        ("[m.py](../code/m.py)", "`code/m.py`"),
        ("[the `code`](../code/m.py)", "the `code` (`code/m.py`)"),
        ("`[m.py](../code/m.py)`", "`[m.py](../code/m.py)`"),
        ("```\n[m.py](../code/m.py)\n```", "```\n[m.py](../code/m.py)\n```"),
    ],
)
def test_links_out_of_the_docs_become_paths(hooks, tmp_path: Path, text: str, shown: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "m.py").touch()
    docs = tmp_path / "docs"
    assert hooks.rewrite(text, docs, docs, docs, tmp_path) == shown


def test_included_links_are_seen_from_their_new_place(hooks, tmp_path: Path) -> None:
    page, docs = tmp_path / "docs" / "deep", tmp_path / "docs"
    text = "[docs/a.md](docs/a.md) ![picture](docs/figures/p.png)"
    shown = "[../a.md](../a.md) ![picture](../figures/p.png)"
    assert hooks.rewrite(text, tmp_path, page, docs, tmp_path) == shown


def test_a_dead_link_and_a_link_out_of_the_repository_are_told(
    hooks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    docs = tmp_path / "repository" / "docs"
    (tmp_path / "elsewhere").touch()
    hooks.rewrite("[a](../gone.py) [b](../../elsewhere)", docs, docs, docs, docs.parent)
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_a_section_ends_at_the_next_of_its_level(hooks) -> None:
    text = "# One\n\n## Some things\n\na\n\n```bash\n# no heading\n```\n\n### Below\n\nb\n\n## Next\n\nc\n"
    assert hooks.section_of(text, "some-things") == "a\n\n```bash\n# no heading\n```\n\n### Below\n\nb\n"
    assert hooks.section_of(text, "next") == "c\n"
    assert hooks.section_of(text, "no-heading") is None


def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    for package in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "start.html", "api/index.html"} <= set(pages)
    assert "from_pretrained" in pages["api/index.html"]
    for name, html in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?([^\"' >]+)", html)
        loaded += re.findall(r"<link[^>]*\shref=[\"']?([^\"' >]+)", html)
        assert [place for place in loaded if re.match(r"(https?:)?//", place)] == [], name
        assert ":class:" not in html, name
