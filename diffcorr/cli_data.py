"""The commands ``diffcorr data ...``: which data sets there are, getting one, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from diffcorr.errors import DataError, UnknownNameError

EXAMPLE = """example:
  diffcorr data list
  diffcorr data download cub datasets
  diffcorr data unpack CUB_200_2011.tgz datasets
  diffcorr data check cub datasets/CUB_200_2011"""


def add_data_commands(commands: Any) -> None:
    """Add ``data`` with its commands to the parsers of ``diffcorr``."""
    data = commands.add_parser(
        "data",
        help="data sets: list, download, check, unpack",
        description="Data sets: where to get them, and whether what is on disk is whole.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = data.add_subparsers(title="commands", required=True, metavar="{list,download,check,unpack}")
    listing = actions.add_parser("list", help="the data sets, and where to get them")
    listing.set_defaults(run=_list)
    checking = actions.add_parser("check", help="read all of a data set: counts, images, keypoints or labels")
    checking.add_argument("name", help="such as cub; see diffcorr data list")
    checking.add_argument("root", help="its folder, or the parent of it")
    checking.set_defaults(run=_check, refused=1)  # the answer is no, not a mistake
    for action in (listing, checking):
        action.add_argument("--json", dest="as_json", action="store_true", help="print it for machines")
    getting = actions.add_parser("download", help="fetch a data set from its host, unpack it and check it")
    getting.add_argument("name", help="such as cub; see diffcorr data list")
    getting.add_argument("root", help="folder to put it in")
    getting.add_argument("--yes", action="store_true", help="do not ask; you agree to the licence")
    getting.add_argument("--mirror", metavar="URL", help="address of a folder with the same files")
    getting.set_defaults(run=_download)
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
            row["labelled"] = dict(getattr(about, "num_labelled", {}))
            row["files"] = [file.url for file in about.downloads]
        rows.append(row)
    if args.as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['name']}: {row['what']}")
        for key in ("source", "licence", "size", "layout"):
            if key in row:
                print(f"  {key}: {row[key]}")
        if row.get("files"):
            print(f"  fetch: diffcorr data download {row['name']} FOLDER")
        counts = [f"{row['images']:,} images"] if row.get("images") else []
        counts += [f"{count:,} {split} pairs" for split, count in row.get("pairs", {}).items()]
        counts += [f"{count:,} labelled {split} images" for split, count in row.get("labelled", {}).items()]
        if counts:
            print(f"  complete: {', '.join(counts)}")


def _on_disk(name: str) -> Any:
    """The class of a data set that is files on disk.

    Raises:
        UnknownNameError: there is none of that name.
    """
    known = {option: found for option, found in _classes().items() if hasattr(found, "about")}
    if name not in known:
        raise UnknownNameError("data set on disk", name, known)
    return known[name]


def _check(args: argparse.Namespace) -> None:
    _report(_on_disk(args.name), args.name, args.root, args.as_json)


def _report(found: Any, name: str, root: str, as_json: bool = False) -> None:
    """Print what is there; DataError unless it can be used."""
    from diffcorr.data.check import check
    from diffcorr.data.check_labels import check_labels
    from diffcorr.data.segmentation_files import SegmentationFiles

    report = (check_labels if issubclass(found, SegmentationFiles) else check)(found, root)
    print(json.dumps(report.to_dict(), indent=2) if as_json else "\n".join(report.lines()))
    if not report.sound:
        raise DataError(
            f"expected a sound {name} in {root}, found {len(report.problems)} problem(s): "
            f"mend them or get the data again from {found.about.source}"
        )


def _download(args: argparse.Namespace) -> None:
    from diffcorr.data.download import download

    found = _on_disk(args.name)
    about = found.about
    if not about.downloads:
        raise DataError(f"expected files that can be fetched for {args.name}, found none: {about.source}")
    try:
        splits = found.available(args.root)
    except DataError:
        splits = []  # as it should be
    if splits:
        raise DataError(
            f"expected no {about.title} in {args.root}, found one: look at it with diffcorr data check "
            f"{args.name} {args.root}"
        )
    for key in ("title", "source", "licence", "size", "citation"):
        print(f"{key}: {getattr(about, key)}")
    for file in about.downloads:
        print(f"file: {args.mirror.rstrip('/') + '/' + file.name if args.mirror else file.url}")
    if not args.yes and not _agreed():
        raise DataError(f"{about.title} was not fetched: answer y, or add --yes")
    download(about.downloads, Path(args.root), _Progress(), args.mirror)
    _report(found, args.name, args.root)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        return False
    return input("Fetch it, and agree to the licence? [y/N] ").strip().lower() in ("y", "yes")


class _Progress:
    """A line on stderr every second, and when a file is there."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, name: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last < 1 and done != total:
            return
        self._last = now
        share = f" of {total / 1e6:,.1f} MB ({done / total:.0%})" if total else " MB"
        print(f"{name}: {done / 1e6:,.1f}{share}", file=sys.stderr)


def _unpack(args: argparse.Namespace) -> None:
    from diffcorr.data.archives import unpack

    for path in unpack(args.archive, args.folder):
        print(path)
