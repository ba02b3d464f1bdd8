"""The command ``diffcorr app``: the web page."""

from __future__ import annotations

import argparse
from typing import Any

from diffcorr.cli_common import add_command

EXAMPLE = """example:
  diffcorr app
  diffcorr app --backbone sd15 --device cuda --port 8000 --runs outputs

Opens a page on this machine: click points and see where they are in another picture, cut pictures into
segments, see the words of a caption, look through the pairs of a finished run. Needs the extra `app`
(pip install "diffcorr[app]"). Nobody else can reach the page unless --host says so: it has no password.

exit status: 0 ended, 2 wrong arguments or input"""


def add_app_command(commands: Any) -> None:
    """Add ``app`` to the parsers of ``diffcorr``."""
    app = add_command(commands, "app", "open the web page", EXAMPLE)
    app.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)"
    )
    app.add_argument("--port", type=int, default=7860, help="(default: 7860)")
    app.add_argument(
        "--backbone", default="tiny", help="tiny (the default), sd15, a local diffusers folder, or a hub name"
    )
    app.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    app.add_argument("--dtype", default="float32", help="of the weights (default: float32)")
    app.add_argument(
        "--runs", default="outputs", metavar="FOLDER", help="run folders below it can be browsed"
    )
    app.set_defaults(run=_app)


def _app(args: argparse.Namespace) -> None:
    from diffcorr.app import serve  # so late that --help does not wait for torch

    serve(args.host, args.port, args.backbone, args.device, args.dtype, args.runs)
