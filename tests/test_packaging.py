"""What the package says of its dependencies."""

import tomllib
from pathlib import Path

import diffcorr

ROOT = Path(__file__).parents[1]


def pins(name: str) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


def test_the_oldest_versions_that_are_tested_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(line.split(",")[0].split(">=") for line in project["dependencies"])
    oldest = pins("constraints-oldest.txt")
    assert {"diffusers", "transformers", "lightning"} <= set(oldest)
    assert oldest == {name: bounds[name] for name in oldest}


def test_every_direct_dependency_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.partition(">=")[0] for line in project["dependencies"]}
    assert names <= set(pins("constraints.txt"))


def test_the_citation_names_this_version() -> None:
    assert f"\nversion: {diffcorr.__version__}\n" in (ROOT / "CITATION.cff").read_text()
