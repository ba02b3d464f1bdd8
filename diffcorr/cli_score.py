"""The commands ``diffcorr score`` and ``diffcorr score import``: stored predictions under any protocol."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffcorr

SCORE_EXAMPLE = """example:
  diffcorr score outputs/demo --protocol standard per_point
  diffcorr score predictions --data spair --data-option root=SPair-71k --by category --against dift
  diffcorr score import theirs.csv predictions --method theirs

Prints one table in percent, every column with its protocol's name. A folder called import is ./import.
Of a method that ran with several settings the newest complete run counts, and a line says so.
The protocols: docs/protocols.md. --by: category, keypoint, part, geometry, visibility, difficulty, or a
tag."""

IMPORT_EXAMPLE = """example:
  diffcorr score import theirs.csv outputs/theirs --method theirs

Columns (CSV with a head, or a JSON list of objects): pair_id, keypoint, x, y in pixels of the original
target image; optional confidence, seed."""

_WHAT = {
    "missing": "a keypoint without a prediction",
    "unknown": "a prediction of a pair or keypoint that the data do not have",
    "duplicates": "several predictions of one keypoint",
    "nan": "a prediction that is not finite",
}


def add_score_commands(commands: Any, setting: Callable[[str], tuple[str, object]]) -> None:
    """Add ``score`` and ``score import`` to the parsers of ``diffcorr``; ``setting`` reads KEY=VALUE."""
    plain = argparse.RawDescriptionHelpFormatter
    score = commands.add_parser(
        "score",
        help="score stored predictions under any protocol, or import some",
        description="Score stored predictions under any protocol, without model and images.",
        epilog=SCORE_EXAMPLE,
        formatter_class=plain,
    )
    score.add_argument("predictions", help="run folder, or folder of stored predictions")
    add_data_options(score, setting)
    score.add_argument(
        "--protocol", nargs="+", default=["standard"], metavar="NAME", help="one or more (default: standard)"
    )
    score.add_argument("--method", nargs="+", metavar="NAME", help="of the store's methods (default: all)")
    score.add_argument("--by", nargs="+", default=[], metavar="NAME", help="scores of parts, too")
    score.add_argument("--against", metavar="METHOD", help="differences of the others to it, with intervals")
    add_handling(score)
    score.add_argument("--json", metavar="FILE", help="write it for machines; - prints it instead")
    score.set_defaults(run=_score)

    importing = commands.add_parser(
        "score-import",
        prog="diffcorr score import",
        description="Add the predictions of another system to a store.",
        epilog=IMPORT_EXAMPLE,
        formatter_class=plain,
    )
    importing.add_argument("file", help=".csv or .json")
    importing.add_argument("store", help="folder of stored predictions; created where missing")
    importing.add_argument("--method", required=True, metavar="NAME", help="to score them under")
    importing.add_argument("--seed", type=int, default=0, help="of rows that name none (default: 0)")
    importing.set_defaults(run=_import)


def add_data_options(command: argparse.ArgumentParser, setting: Callable[[str], tuple[str, object]]) -> None:
    """Which pairs: ``--data`` and ``--data-option``."""
    command.add_argument("--data", metavar="NAME", help="name in configs/data (default: the run's own)")
    command.add_argument(
        "--data-option",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of it, such as split=val; may be repeated",
    )


def add_handling(command: argparse.ArgumentParser) -> None:
    """What becomes of predictions that do not fit the pairs, and which configuration counts."""
    # the choices of diffcorr.metrics.matching.CHOICES, said here so that --help does not wait for torch
    for name, choices in {
        "missing": ("error", "skip", "wrong"),
        "unknown": ("error", "skip"),
        "duplicates": ("error", "first", "last"),
        "nan": ("error", "skip", "wrong"),
    }.items():
        command.add_argument(
            f"--{name}", choices=choices, default="error", help=f"{_WHAT[name]} (default: error)"
        )
    command.add_argument(
        "--config",
        nargs="+",
        default=[],
        metavar="HASH",
        help="of a method that ran with several settings (default: the newest that is complete)",
    )


def handling_of(args: argparse.Namespace) -> dict[str, Any]:
    """The choices of `add_handling`."""
    return {name: getattr(args, name) for name in _WHAT}


def _score(args: argparse.Namespace) -> None:
    from diffcorr.metrics import Handling
    from diffcorr.reports.tables import results_table
    from diffcorr.runs.score import load_protocols, score_stored
    from diffcorr.runs.stored import StoredRun, the_data

    protocols = load_protocols(args.protocol)
    options = dict(args.data_option)
    run = StoredRun(args.predictions)
    data = the_data([run], args.data, options)
    handling = handling_of(args)
    scores = score_stored(
        run,
        data,
        protocols,
        handling=Handling(**handling),
        methods=args.method,
        by=args.by,
        against=args.against,
        chosen=args.config,
    )
    about = {"predictions": args.predictions, "data": data.name, "split": data.split}
    about |= {"data_options": options, "handling": handling, "diffcorr": diffcorr.__version__}
    records = [record.to_dict() for record in scores.records]
    result = {**about, "counts": scores.counts, "records": records, "comparisons": scores.comparisons}
    text = json.dumps(result, indent=2)
    if args.json == "-":
        print(text)
        return
    if args.json:
        from diffcorr.stores.files import write_atomic

        write_atomic(Path(args.json), lambda to: to.write_text(text + "\n", encoding="utf-8"))
    print(results_table(scores.records), end="")
    for count in scores.counts:
        print(say_count(count, handling))
    for row in scores.comparisons:
        low, high = row["interval95"]
        print(
            f"{row['method']} - {row['against']}, {row['metric']} ({row['protocol']}): "
            f"{row['difference']:+.1f} [{low:+.1f}, {high:+.1f}], 95 % of "
            f"resamples of {row['num_items']} pairs"
        )


def say_count(count: dict[str, Any], handling: dict[str, Any]) -> str:
    """What a method's score is over, and what is not in it."""
    said = [f"{count['points']} points of {count['pairs']} pairs"]
    if handled := [f"{count[k]} {k} ({handling[k]})" for k in _WHAT if count[k]]:
        said.append(", ".join(handled))
    if count["superseded"]:
        older = ", ".join(count["superseded"])
        said.append(f"configuration {count['config_hash']} counts, not {older}")
    if count["elsewhere"]:
        said.append(f"{count['elsewhere']} predictions of other pairs of this run")
    return f"{count['method']}, seed {count['seed']}: {'; '.join(said)}"


def _import(args: argparse.Namespace) -> None:
    from diffcorr.stores.importers import import_predictions

    count = import_predictions(args.file, args.store, args.method, args.seed)
    print(f"{count} predictions of {args.method} added to {args.store}")
