"""What the commands that run a model share: options, results for people and for machines, values."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffcorr
from diffcorr.errors import DiffcorrError, StoreError


def add_command(commands: Any, name: str, about: str, example: str) -> argparse.ArgumentParser:
    """A command with an example below its help."""
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return command


def add_model_options(command: argparse.ArgumentParser) -> None:
    """Which model runs where."""
    command.add_argument(
        "--backbone",
        default="tiny",
        help="tiny (the default), sd14, sd15, sd21, a local diffusers folder, or a hub name",
    )
    command.add_argument("--device", default="cpu", help="cpu (the default), cuda, ...")
    command.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")


def add_preset_options(command: argparse.ArgumentParser) -> None:
    """Which method, with which changes."""
    command.add_argument("--preset", help="name in configs/method (default: one that suits the backbone)")
    command.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the preset, such as steps=40; may be repeated",
    )


def add_outputs(command: argparse.ArgumentParser) -> None:
    """Where results go."""
    command.add_argument("--out", metavar="PNG", help="write a figure")
    command.add_argument("--json", metavar="FILE", help="write the result for machines; - prints it instead")


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """What every ``from_pretrained`` takes, with the preset and its changes where the command has them."""
    changes = dict(getattr(args, "set", ()))
    for key in changes:
        if key in ("backbone", "preset", "device", "seed"):
            raise DiffcorrError(f"expected --{key} ..., found --set {key}=...: use the option")
    # a bar for each weight file would stand between the lines of the result
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    preset = {"preset": args.preset} if getattr(args, "preset", None) else {}
    return {**changes, **preset, "device": args.device, "seed": args.seed}


def tell(args: argparse.Namespace, lines: Sequence[str], result: dict[str, Any]) -> None:
    """Print the result and write it where asked, with what is needed to repeat it."""
    about = {key: getattr(args, key) for key in ("backbone", "preset", "seed") if key in args}
    about |= {"settings": dict(getattr(args, "set", ())), "diffcorr": diffcorr.__version__}
    text = json.dumps({**result, **about}, indent=2)
    if args.json == "-":
        print(text)
        return
    if args.json:
        from diffcorr.stores.files import write_atomic

        write_atomic(Path(args.json), lambda to: to.write_text(text + "\n", encoding="utf-8"))
    print("\n".join(lines))


def check_outputs(args: argparse.Namespace) -> None:
    """StoreError, before any work is done, unless everything can be written."""
    from diffcorr.stores.files import writable_folder  # so late that --help does not wait for torch

    # not every command has all of them
    outputs = [getattr(args, key, None) for key in ("out", "json", "mask", "save")]
    for path in (Path(name) for name in outputs if name and name != "-"):
        writable_folder(path.parent)
        if path.is_dir():
            raise StoreError(f"expected a file to write, found the folder {str(path)!r}: add a file name")


def point(text: str) -> tuple[float, float]:
    """``120,88`` as (x, y)."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected X,Y such as 120,88, found {text!r}") from None
    return x, y


def word_list(text: str) -> list[str]:
    """``dog,fire truck`` as a list."""
    return [word.strip() for word in text.split(",")]


def setting(text: str) -> tuple[str, object]:
    """``steps=40`` as (name, value): JSON where it is any, else a string."""
    key, found, value = text.partition("=")
    if not found or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE such as steps=40, found {text!r}")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
