"""The command ``diffcorr match``: points of one image in others."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffcorr
from diffcorr.cli_common import (
    add_command,
    add_model_options,
    add_outputs,
    add_preset_options,
    model_options,
    point,
    tell,
)
from diffcorr.errors import DiffcorrError

if TYPE_CHECKING:
    from diffcorr import Match, Matcher

EXAMPLE = """example:
  diffcorr match a.jpg b.jpg --point 120,88 --point 40,60 --out match.png --json match.json
  diffcorr match a.jpg b.jpg c.jpg --point 120,88 --out match.png      # match-1.png and match-2.png
  diffcorr match a.jpg b.jpg --grid 16 --preset packed --mutual 16     # every 16 pixels, what both agree on
  diffcorr match a.jpg b.jpg --point 120,88 --save eye.safetensors     # and later, without fitting:
  diffcorr match --fitted eye.safetensors c.jpg d.jpg

Prints a line for every point: where it is in the source, where it was found in the target, and with
what confidence. Points are x,y in pixels of the image file, from its top left corner.

exit status: 0 found, 2 wrong arguments or input"""


def add_match_command(commands: Any) -> None:
    """Add ``match`` to the parsers of ``diffcorr``."""
    match = add_command(commands, "match", "find points of one image in others", EXAMPLE)
    match.add_argument("source", help="image in which the points are given (left out with --fitted)")
    match.add_argument("targets", nargs="*", metavar="target", help="images in which they are looked for")
    asked = match.add_mutually_exclusive_group(required=True)
    asked.add_argument("--point", type=point, action="append", metavar="X,Y", help="may be repeated")
    asked.add_argument("--grid", type=float, metavar="PIXELS", help="a grid of points so many pixels apart")
    asked.add_argument("--fitted", metavar="FILE", help="points that were fitted and saved before")
    match.add_argument(
        "--cycle", action="store_true", help="also the way back, and how far from the point it ends"
    )
    match.add_argument(
        "--mutual", type=float, metavar="PIXELS", help="keep points whose way back ends within so many pixels"
    )
    match.add_argument("--save", metavar="FILE", help="keep the fitted points (safetensors)")
    add_model_options(match)
    add_preset_options(match)
    add_outputs(match)
    match.set_defaults(run=_match)


def _match(args: argparse.Namespace) -> None:
    targets = [args.source, *args.targets] if args.fitted else args.targets
    if not targets:
        raise DiffcorrError("expected a target image, found the source alone: name one or more targets")
    if args.fitted and (args.save or args.cycle or args.mutual is not None):
        raise DiffcorrError("expected --fitted alone, found --save, --cycle or --mutual: they fit points")
    matcher = diffcorr.Matcher.from_pretrained(args.backbone, **model_options(args))
    matches = _find(args, matcher, targets)
    lines: list[str] = []
    for name, match in zip(targets, matches, strict=True):
        lines += [name] if len(targets) > 1 else []
        lines += _lines(match)
    for path, match in zip(_numbered(args.out, len(matches)), matches, strict=True):
        if path:
            match.plot(path)
    found = [{"target": name, **match.to_dict()} for name, match in zip(targets, matches, strict=True)]
    about = {"method": matcher.method.name, "source": args.fitted or args.source}
    tell(args, lines, {**about, **found[0]} if len(found) == 1 else {**about, "targets": found})


def _find(args: argparse.Namespace, matcher: Matcher, targets: Sequence[str]) -> list[Match]:
    from diffcorr.inputs import as_image  # so late that --help does not wait for torch
    from diffcorr.match import grid_points
    from diffcorr.terminal import FitBar

    images = [as_image(target) for target in targets]  # a wrong path is told before anything is fitted
    if args.fitted:
        fitted = diffcorr.FittedPoints.load(args.fitted)
        return [matcher.find(fitted, image) for image in images]
    source = as_image(args.source)
    points = grid_points(source, args.grid) if args.grid is not None else args.point
    cycle = args.cycle or args.mutual is not None
    found = matcher.match_all(source, images, points, cycle=cycle, progress=FitBar())
    if args.save:
        matcher.fit(source, points).save(args.save)  # fitted already
    return found if args.mutual is None else [match.mutual(args.mutual) for match in found]


def _lines(match: Match) -> list[str]:
    rows = zip(match.points, match.targets, match.confidence, strict=True)
    lines = [f"({x:g}, {y:g}) -> ({u:.1f}, {v:.1f})  confidence {c:.2f}" for (x, y), (u, v), c in rows]
    if match.cycle_error is not None:
        errors = match.cycle_error
        lines = [f"{line}  way back {e:.1f} px" for line, e in zip(lines, errors, strict=True)]
    return lines or ["no point is left"]


def _numbered(out: str | None, count: int) -> list[Path | None]:
    """``match.png`` itself for one figure, ``match-1.png``, ``match-2.png`` ... for several."""
    if not out:
        return [None] * count
    path = Path(out)
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]
