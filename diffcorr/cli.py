"""The command ``diffcorr``: the public API from a shell."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffcorr
from diffcorr.cli_backbones import add_backbones_command
from diffcorr.cli_data import add_data_commands
from diffcorr.cli_report import add_report_command
from diffcorr.cli_score import add_score_commands
from diffcorr.errors import DiffcorrError, StoreError

MATCH_EXAMPLE = """example:
  diffcorr match a.jpg b.jpg --point 120,88 --point 40,60 --out match.png

Prints a line for every point: where it is in the source, where it was found in the target, and with
what confidence. Points are x,y in pixels of the image file, from its top left corner."""

SEGMENT_EXAMPLE = """example:
  diffcorr segment photo.jpg --tau 0.9 --out masks.png
  diffcorr segment photo.jpg --words dog,grass,sky --out named.png

Prints a line for every segment: its id, its share of the image, its bounding box in pixels, and its name
where there are words to name it by."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; what the user can mend is one line on stderr and exit status 1."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == ["score", "import"]:
        words[:2] = ["score-import"]  # beside a positional argument argparse knows no commands
    args = _parser().parse_args(words)
    try:
        _check_outputs(args)
        args.run(args)
    except DiffcorrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffcorr",
        description="Ask frozen diffusion models where things are.",
        epilog="example:\n  diffcorr match a.jpg b.jpg --point 120,88 --out match.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"diffcorr {diffcorr.__version__}")
    names = "{match,segment,data,score,report,backbones}"
    commands = parser.add_subparsers(title="commands", required=True, metavar=names)

    match = _command(commands, "match", "find points of one image in another", MATCH_EXAMPLE)
    match.add_argument("source", help="image in which the points are given")
    match.add_argument("target", help="image in which they are looked for")
    match.add_argument(
        "--point", type=_point, action="append", required=True, metavar="X,Y", help="may be repeated"
    )
    match.set_defaults(run=_match)

    segment = _command(commands, "segment", "cut an image into segments", SEGMENT_EXAMPLE)
    segment.add_argument("image", help="image to cut")
    segment.add_argument("--tau", type=float, help="larger values merge more (default: the preset's)")
    segment.add_argument(
        "--words", type=_words, metavar="A,B,...", help="names to choose from; segments of one name are one"
    )
    segment.add_argument("--caption", help="what the image shows, in a sentence whose words name segments")
    segment.add_argument("--captioner", help="a captioning model that says it: a folder or hub name")
    segment.add_argument(
        "--template", default="a photo of a {}", help="how a word without a caption is shown to the model"
    )
    segment.set_defaults(run=_segment)
    add_data_commands(commands)
    add_score_commands(commands, _setting)
    add_report_command(commands, _setting)
    add_backbones_command(commands)
    return parser


def _command(commands: Any, name: str, about: str, example: str) -> argparse.ArgumentParser:
    """A command with the options that all have."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--backbone",
        default="tiny",
        help="tiny (the default), sd14, sd15, sd21, a local diffusers folder, or a hub name",
    )
    command.add_argument("--preset", help="name in configs/method (default: one that suits the backbone)")
    command.add_argument("--device", default="cpu", help="cpu (the default), cuda, ...")
    command.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    command.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the preset, such as steps=40; may be repeated",
    )
    command.add_argument("--out", metavar="PNG", help="write a figure")
    command.add_argument("--json", metavar="FILE", help="write the result for machines; - prints it instead")
    return command


def _match(args: argparse.Namespace) -> None:
    matcher = diffcorr.Matcher.from_pretrained(args.backbone, **_options(args))
    match = matcher.match(args.source, args.target, args.point)
    lines = [
        f"({x:g}, {y:g}) -> ({u:.1f}, {v:.1f})  confidence {c:.2f}"
        for (x, y), (u, v), c in zip(match.points, match.targets, match.confidence, strict=True)
    ]
    if args.out:
        match.plot(args.out)
    result = {"source": args.source, "target": args.target, **match.to_dict()}
    _tell(args, lines, {"method": matcher.method.name, **result})


def _segment(args: argparse.Namespace) -> None:
    changes = {} if args.tau is None else {"tau": args.tau}
    segmenter = diffcorr.Segmenter.from_pretrained(args.backbone, **_options(args) | changes)
    segmentation = segmenter.segment(
        args.image, args.words, args.caption, args.captioner, template=args.template
    )
    result = segmentation.to_dict()
    lines = [
        "segment {}: {:.1f} % of the image, box {} {} {} {}".format(
            s["id"], 100 * s["area"] / segmentation.mask.size, *s["bbox"]
        )
        + (f", {s['word']}" if "word" in s else "")
        for s in result["segments"]
    ]
    if args.out:
        segmentation.plot(args.out)
    _tell(args, lines, {"method": segmenter.method.name, "image": args.image, **result})


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What both ``from_pretrained`` take."""
    for key, _ in args.set:
        if key in ("backbone", "preset", "device", "seed"):
            raise DiffcorrError(f"expected --{key} ..., found --set {key}=...: use the option")
    # a bar for each weight file would stand between the lines of the result
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    preset = {"preset": args.preset} if args.preset else {}
    return {**dict(args.set), **preset, "device": args.device, "seed": args.seed}


def _tell(args: argparse.Namespace, lines: Sequence[str], result: dict[str, Any]) -> None:
    """Print the result and write it where asked, with what is needed to repeat it."""
    about = {key: getattr(args, key) for key in ("backbone", "preset", "seed")}
    about |= {"settings": dict(args.set), "diffcorr": diffcorr.__version__}
    text = json.dumps({**result, **about}, indent=2)
    if args.json == "-":
        print(text)
        return
    if args.json:
        from diffcorr.stores.files import write_atomic

        write_atomic(Path(args.json), lambda to: to.write_text(text + "\n", encoding="utf-8"))
    print("\n".join(lines))


def _check_outputs(args: argparse.Namespace) -> None:
    """StoreError, before any work is done, unless everything can be written."""
    from diffcorr.stores.files import writable_folder  # so late that --help does not wait for torch

    outputs = [getattr(args, key, None) for key in ("out", "json")]  # not every command has both
    for path in (Path(name) for name in outputs if name and name != "-"):
        writable_folder(path.parent)
        if path.is_dir():
            raise StoreError(f"expected a file to write, found the folder {str(path)!r}: add a file name")


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected X,Y such as 120,88, found {text!r}") from None
    return x, y


def _words(text: str) -> list[str]:
    """``dog,fire truck`` as a list."""
    return [word.strip() for word in text.split(",")]


def _setting(text: str) -> tuple[str, object]:
    """``steps=40`` as (name, value): JSON where it is any, else a string."""
    key, found, value = text.partition("=")
    if not found or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE such as steps=40, found {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


if __name__ == "__main__":
    sys.exit(main())
