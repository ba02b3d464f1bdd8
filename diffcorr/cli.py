"""The command ``diffcorr``: the public API from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import diffcorr
from diffcorr.cli_app import add_app_command
from diffcorr.cli_backbones import add_backbones_command
from diffcorr.cli_common import check_outputs, setting
from diffcorr.cli_data import add_data_commands
from diffcorr.cli_match import add_match_command
from diffcorr.cli_report import add_report_command
from diffcorr.cli_score import add_score_commands
from diffcorr.cli_segment import add_segment_commands
from diffcorr.errors import DiffcorrError

EXAMPLE = """example:
  diffcorr match a.jpg b.jpg --point 120,88 --out match.png
  diffcorr match --help

exit status: 0 done, 1 a data set that `data check` finds unsound, 2 wrong arguments or input"""

REFUSED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; what the user can mend is one line on stderr and exit status 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == ["score", "import"]:
        words[:2] = ["score-import"]  # beside a positional argument argparse knows no commands
    if words[:2] == ["report", "ablation"]:
        words[:2] = ["report-ablation"]
    args = _parser().parse_args(words)
    try:
        check_outputs(args)
        args.run(args)
    except DiffcorrError as error:
        from diffcorr.terminal import paint

        print(f"{paint('error:', 'red', sys.stderr)} {error}", file=sys.stderr)
        return int(getattr(args, "refused", REFUSED))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffcorr",
        description="Ask frozen diffusion models where things are.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"diffcorr {diffcorr.__version__}")
    names = "{match,segment,words,app,data,score,report,backbones}"
    commands = parser.add_subparsers(title="commands", required=True, metavar=names)

    add_match_command(commands)
    add_segment_commands(commands)
    add_app_command(commands)
    add_data_commands(commands)
    add_score_commands(commands, setting)
    add_report_command(commands, setting)
    add_backbones_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
