"""The command ``diffcorr report``: everything about stored predictions on one page."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffcorr.cli_score import add_data_options, add_handling, handling_of

EXAMPLE = """example:
  diffcorr report outputs/partworld
  diffcorr report outputs/partworld --data partworld --out outputs/partworld/report
  diffcorr report outputs/mine predictions --data spair --data-option root=SPair-71k

Writes report.md and report.html (one file that needs no other), figures, and the table of methods and
protocols by itself as protocols.json and protocols.md. No model runs and nothing is predicted."""


def add_report_command(commands: Any, setting: Callable[[str], tuple[str, object]]) -> None:
    """Add ``report`` to the parsers of ``diffcorr``; ``setting`` reads KEY=VALUE."""
    report = commands.add_parser(
        "report",
        help="tables, curves, parts and pairs of stored predictions",
        description="Methods under every protocol with intervals, curves, parts, pairs, published numbers.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument(
        "folders", nargs="+", metavar="RUN_FOLDER", help="run folder, or folder of stored predictions"
    )
    add_data_options(report, setting)
    report.add_argument(
        "--protocol",
        nargs="+",
        metavar="NAME",
        help="the first is that of curves, parts and pairs (default: all presets, standard first)",
    )
    report.add_argument("--method", nargs="+", metavar="NAME", help="of the stored methods (default: all)")
    report.add_argument(
        "--figures", type=int, default=3, metavar="N", help="of the best and the worst pairs (default: 3)"
    )
    add_handling(report)
    report.add_argument(
        "--out", dest="to", metavar="FOLDER", help="where to (default: report in the first run folder)"
    )
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    from diffcorr.metrics import Handling
    from diffcorr.runs.chapter import read_chapter
    from diffcorr.runs.report import PRESETS, write_report
    from diffcorr.runs.score import load_protocols
    from diffcorr.runs.stored import StoredRun, all_data

    protocols = load_protocols(args.protocol or PRESETS)
    runs = [StoredRun(path) for path in args.folders]
    chapters = [
        read_chapter(
            runs,
            data,
            protocols,
            handling=Handling(**handling_of(args)),
            methods=args.method,
            chosen=args.config,
            strict=args.protocol is not None,
        )
        for data in all_data(runs, args.data, dict(args.data_option))
    ]
    folder = Path(args.to) if args.to else (runs[0].root or runs[0].folder) / "report"
    for path in write_report(chapters, folder, max(0, args.figures)):
        print(path)
