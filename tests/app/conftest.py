"""A finished run to browse, a server of the page, and a browser that looks at it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffcorr.data.partworld import PartWorldPairs
from diffcorr.stores.predictions import PredictionStore
from diffcorr.types import PointPrediction

REPOSITORY = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SHOTS = REPOSITORY / "outputs" / "app"
CONFIG = """
data:
  _target_: diffcorr.data.partworld.PartWorldPairs
  split: val
  kind: same
  num_pairs: 3
backbone:
  name: tiny
"""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "app: opens the page in a browser; run by `make test-app`")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with one run: the truth but in the second pair, where the first point is far off.

    Two layers: one says the same, the other the upper left corner.
    """
    root = tmp_path_factory.mktemp("runs")
    folder = root / "mine" / "first"
    folder.mkdir(parents=True)
    (folder / "config-correspondence.yaml").write_text(CONFIG)
    data = PartWorldPairs("val", num_pairs=3)
    with PredictionStore(folder / "predictions") as store:
        for place, pair in enumerate(data.pairs):
            points = list(pair.target_points)
            if place == 1:
                points[0] = (1.0, 127.0)
            rows = [
                PointPrediction(
                    pair.pair_id, keypoint, "", *point, 0.5, {"layer.a": point, "layer.b": (1.0, 1.0)}
                )
                for keypoint, point in zip(pair.keypoints, points, strict=True)
            ]
            store.add("prompt_fit", 0, rows, "abc")
    return root


@pytest.fixture(scope="session")
def address(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server of the page listens, a process of its own."""
    pytest.importorskip("gradio", reason="gradio is not installed (pip install 'diffcorr[app]')")
    pytest.importorskip("playwright", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "diffcorr.cli", "app", "--port", str(port), "--runs", str(runs)]
    with log.open("w") as file:
        # torch's threads would leave nothing for the browser
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(command, stdout=file, stderr=file, cwd=REPOSITORY, env=env)
    try:
        for _ in range(600):
            if "Ctrl-C" in log.read_text() or server.poll() is not None:
                break
            time.sleep(0.5)
        assert server.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in log.read_text(), log.read_text()[-4000:]
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="session")
def browser(address: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # root, as in CI, has no sandbox
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page, opened by a new visitor."""
    context = browser.new_context(viewport={"width": 1280, "height": 1300})
    yield open_page(context, address)
    context.close()


def open_page(context: Any, address: str) -> Any:
    page = context.new_page()
    page.set_default_timeout(40_000)
    page.goto(address)
    page.wait_for_selector("#find")
    return page


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(600)  # what fades in
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)
