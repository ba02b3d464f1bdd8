"""Imports go one way, and what only one place may do is done there only.

The rules are read from the sources' syntax trees, so that an import inside a function counts too.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "diffcorr"

BASE = {"types", "errors", "memory", "processes"}
MODELS = BASE | {"data", "backbones"}
METHOD = MODELS | {"attention", "stores"}
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "memory": {"errors"},
    "processes": {"errors"},
    "stores": BASE,
    "config": BASE | {"stores"},
    "data": BASE,
    "backbones": BASE | {"data"},
    "attention": MODELS,
    "pretraining": MODELS,
    "correspondence": METHOD,
    "segmentation": METHOD,
    "joint": METHOD | {"correspondence", "segmentation"},
    "metrics": METHOD | {"correspondence", "segmentation", "joint"},
    "reports": METHOD | {"correspondence", "segmentation", "joint", "metrics"},
}
"""For each part what it may import beside itself; parts that are not listed (the entry points and
the public API) stand on top and may import everything."""

Wrong = Callable[[ast.AST, Path], bool]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path, package: Path = PACKAGE) -> str:
    """``data`` for diffcorr/data/x.py, ``errors`` for diffcorr/errors.py."""
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST, path: Path, package: Path = PACKAGE) -> Iterator[str]:
    """Full names of all modules (and names taken from them) that a file imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                folder = path.parents[node.level - 1].relative_to(package.parent)
                base = ".".join([*folder.parts, *([base] if base else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def backward_edges(tree: ast.AST, path: Path, package: Path = PACKAGE) -> list[str]:
    part = part_of(path, package)
    if part not in MAY_IMPORT:
        return []
    # ``from diffcorr import x`` counts as x, and the package itself (its version, its API) as the top.
    inner = [
        name.split(".")[1:2]
        for name in imported_modules(tree, path, package)
        if name.split(".")[0] == "diffcorr"
    ]
    found = {names[0] if names else "diffcorr" for names in inner}
    return sorted(found - MAY_IMPORT[part] - {part})


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def called_names(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def offenders(wrong: Wrong) -> list[str]:
    return [str(path.relative_to(REPOSITORY)) for path in SOURCES if wrong(parse(path), path)]


def imports_any(*modules: str) -> Wrong:
    def wrong(tree: ast.AST, path: Path) -> bool:
        names = imported_modules(tree, path)
        return any(name == module or name.startswith(f"{module}.") for name in names for module in modules)

    return wrong


def test_imports_go_one_way():
    edges = [
        f"{path.relative_to(REPOSITORY)} -> {target}"
        for path in SOURCES
        for target in backward_edges(parse(path), path)
    ]
    assert edges == []


@pytest.mark.parametrize(
    ("path", "code", "edges"),
    [
        ("data/a.py", "from diffcorr.errors import DataError", []),
        ("data/a.py", "import diffcorr.data.b", []),
        ("data/a.py", "from diffcorr.backbones import unet", ["backbones"]),
        ("data/a.py", "import diffcorr.metrics.pck as pck", ["metrics"]),
        ("data/a.py", "from diffcorr import reports", ["reports"]),
        ("data/a.py", "import diffcorr", ["diffcorr"]),
        ("data/a.py", "def f():\n    from ..stores import records", ["stores"]),
        ("data/deep/a.py", "from ...errors import DataError\nfrom ..b import c", []),
        ("correspondence/a.py", "from diffcorr.segmentation import merge", ["segmentation"]),
        ("segmentation/a.py", "from diffcorr.stores.masks import MaskStore", []),
        ("metrics/a.py", "from diffcorr.reports.tables import results_table", ["reports"]),
        ("errors.py", "from diffcorr.types import Point", ["types"]),
        ("cli.py", "from diffcorr.reports import draw_matches", []),
    ],
)
def test_the_check_sees_backward_edges(tmp_path, path, code, edges):
    package = tmp_path / "diffcorr"
    assert backward_edges(ast.parse(code), package / path, package) == edges


LOWER = set(MAY_IMPORT) - {"reports"}
"""Everything left of the reports."""


def test_nothing_left_of_the_reports_draws_or_prints():
    draws = imports_any("matplotlib")
    assert offenders(lambda tree, path: part_of(path) in LOWER and draws(tree, path)) == []
    assert offenders(lambda tree, path: part_of(path) in LOWER and "print" in called_names(tree)) == []


def test_nothing_touches_global_figures():
    assert offenders(imports_any("matplotlib.pyplot", "pylab")) == []


def test_nothing_unpickles():
    assert offenders(imports_any("pickle", "dill", "cloudpickle", "joblib", "shelve")) == []
    assert offenders(imports_any("torch.load", "torch.serialization")) == []

    def loads_objects(tree: ast.AST, path: Path) -> bool:
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        keywords = [{word.arg: ast.unparse(word.value) for word in call.keywords} for call in calls]
        return any(
            given.get("allow_pickle", "False") != "False"
            # Lightning's own checkpoints are torch files; read as plain tensors they run no code.
            or (ast.unparse(call.func) == "torch.load" and given.get("weights_only") != "True")
            for call, given in zip(calls, keywords, strict=True)
        )

    assert offenders(loads_objects) == []


def test_one_place_instantiates():
    def instantiates(tree: ast.AST, path: Path) -> bool:
        return bool(called_names(tree) & {"hydra.utils.instantiate", "hydra.utils.call"}) or imports_any(
            "hydra.utils.instantiate", "hydra.utils.call"
        )(tree, path)

    assert offenders(instantiates) == ["diffcorr/config.py"]


def test_every_listed_part_that_is_there_has_sources():
    assert {part_of(path) for path in SOURCES} >= {"types", "errors", "stores", "config", "reports"}
