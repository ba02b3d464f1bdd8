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
  diffcorr report ablation outputs/ablations/sigma   # the runs of a sweep; has a --help of its own

Writes report.md and report.html (one file that needs no other), figures, and the table of methods and
protocols by itself as protocols.json and protocols.md. No model runs and nothing is predicted."""


ABLATION_EXAMPLE = """example:
  diffcorr report ablation outputs/ablations/sigma
  diffcorr report ablation outputs/ablations/rounds --reference method.fit.rounds=4 --out report

Writes report.md and report.html, figures, and a row for each setting as ablation.csv and ablation.json.
Works while the sweep goes on and where runs have failed: what is not complete is listed, not scored."""


def add_report_command(commands: Any, setting: Callable[[str], tuple[str, object]]) -> None:
    """Add ``report`` to the parsers of ``diffcorr``; ``setting`` reads KEY=VALUE."""
    report = commands.add_parser(
        "report",
        help="tables, curves, parts and pairs of stored predictions, or a sweep's ablations",
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
    _add_ablation(commands)


def _add_ablation(commands: Any) -> None:
    ablation = commands.add_parser(
        "report-ablation",
        prog="diffcorr report ablation",
        description="The runs of a sweep: the score over each swept value, over two, and against its cost.",
        epilog=ABLATION_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ablation.add_argument("folders", nargs="+", metavar="FOLDER", help="of a sweep, or of single runs")
    ablation.add_argument("--key", nargs="+", metavar="KEY", help="swept keys (default: those that differ)")
    ablation.add_argument(
        "--reference",
        nargs="+",
        type=_key_value,
        metavar="KEY=VALUE",
        help="the setting that others are compared to (default: the preset's values, else the best)",
    )
    ablation.add_argument("--metric", metavar="NAME", help="(default: pck@0.10 or miou)")
    ablation.add_argument("--protocol", metavar="NAME", help="(default: that of the runs)")
    ablation.add_argument("--method", metavar="NAME", help="of the stored methods (default: each run's own)")
    ablation.add_argument("--no-flops", action="store_true", help="do not build the model to count FLOPs")
    ablation.add_argument(
        "--out", dest="to", metavar="FOLDER", help="where to (default: report in the first folder)"
    )
    ablation.set_defaults(run=_report_ablation)


def _key_value(text: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not (key and found):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    return key, value


def _report_ablation(args: argparse.Namespace) -> None:
    from diffcorr.runs.ablation import report_ablation

    for path in report_ablation(
        args.folders,
        args.to,
        keys=args.key,
        flops=not args.no_flops,
        metric=args.metric,
        protocol=args.protocol,
        method=args.method,
        reference=dict(args.reference) if args.reference else None,
    ):
        print(path)


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
