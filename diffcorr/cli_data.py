"""The commands ``diffcorr data ...``: which data sets there are, and whether one on disk is whole."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from typing import Any

from diffcorr.errors import DataError, UnknownNameError

EXAMPLE = """example:
  diffcorr data list
  diffcorr data unpack CUB_200_2011.tgz datasets
  diffcorr data check cub datasets/CUB_200_2011"""


def add_data_commands(commands: Any) -> None:
    """Add ``data`` with its commands to the parsers of ``diffcorr``."""
    data = commands.add_parser(
        "data",
        help="data sets: list, check, unpack",
        description="Data sets: where to get them, and whether what is on disk is whole.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = data.add_subparsers(title="commands", required=True, metavar="{list,check,unpack}")
    listing = actions.add_parser("list", help="the data sets, and where to get them")
    listing.set_defaults(run=_list)
    checking = actions.add_parser("check", help="read all of a data set: counts, images, keypoints")
    checking.add_argument("name", help="such as cub; see diffcorr data list")
    checking.add_argument("root", help="its folder, or the parent of it")
    checking.set_defaults(run=_check)
    for action in (listing, checking):
        action.add_argument("--json", dest="as_json", action="store_true", help="print it for machines")
    unpacking = actions.add_parser("unpack", help="unpack a download: no links, nothing outside the folder")
    unpacking.add_argument("archive", help="zip or tar file")
    unpacking.add_argument("folder", help="where to")
    unpacking.set_defaults(run=_unpack)


def _classes() -> dict[str, Any]:
    """The class of every option of ``configs/data``."""
    from diffcorr.config import load_option, option_names  # so late that --help does not wait for torch

    found = {}
    for name in option_names("data"):
        module, _, title = str(load_option("data", name)._target_).rpartition(".")
        found[name] = getattr(import_module(module), title)
    return found


def _list(args: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    for name, found in _classes().items():
        about = getattr(found, "about", None)
        row: dict[str, Any] = {"name": name, "what": (found.__doc__ or "").partition("\n")[0]}
        if about is not None:
            row |= {key: getattr(about, key) for key in ("title", "source", "licence", "size", "layout")}
            row |= {"citation": about.citation, "images": about.num_images, "pairs": dict(about.num_pairs)}
        rows.append(row)
    if args.as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['name']}: {row['what']}")
        for key in ("source", "licence", "size", "layout"):
            if key in row:
                print(f"  {key}: {row[key]}")
        counts = [f"{row['images']:,} images"] if row.get("images") else []
        counts += [f"{count:,} {split} pairs" for split, count in row.get("pairs", {}).items()]
        if counts:
            print(f"  complete: {', '.join(counts)}")


def _check(args: argparse.Namespace) -> None:
    from diffcorr.data.check import check

    known = {name: found for name, found in _classes().items() if hasattr(found, "about")}
    if args.name not in known:
        raise UnknownNameError("data set on disk", args.name, known)
    report = check(known[args.name], args.root)
    print(json.dumps(report.to_dict(), indent=2) if args.as_json else "\n".join(report.lines()))
    if not report.sound:
        raise DataError(
            f"expected a sound {args.name} in {args.root}, found {len(report.problems)} problem(s): "
            f"mend them or get the data again from {known[args.name].about.source}"
        )


def _unpack(args: argparse.Namespace) -> None:
    from diffcorr.data.archives import unpack

    for path in unpack(args.archive, args.folder):
        print(path)
