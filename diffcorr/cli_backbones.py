"""The commands ``diffcorr backbones``: which models there are, what they need, and which layer is which."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

EXAMPLE = """example:
  diffcorr backbones
  diffcorr backbones show sd15
  diffcorr backbones show /models/my-sdxl --kind cross

No weights are read: architectures are built without memory. What a name of the hub is made of is looked up
there; all other names work without a network."""


def add_backbones_command(commands: Any) -> None:
    """Add ``backbones`` to the parsers of ``diffcorr``."""
    backbones = commands.add_parser(
        "backbones",
        help="the models there are, what they need, and their attention layers",
        description="Backbones: the models of configs/backbone, what they need, and their attention layers.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    backbones.set_defaults(run=_list)
    actions = backbones.add_subparsers(title="commands", metavar="{show}")
    show = actions.add_parser("show", help="what one model needs, and all its attention layers")
    show.add_argument("name", help="such as sd15, a local diffusers folder, or a hub name")
    show.add_argument("--kind", choices=("cross", "self"), help="only these layers")
    show.set_defaults(run=_show)
    for action in (backbones, show):
        action.add_argument("--json", dest="as_json", action="store_true", help="print it for machines")


def describe(name: str) -> dict[str, Any]:
    """Needs and layers of a backbone, as plain values.

    Args:
        name: an option of ``configs/backbone``, a diffusers folder, or a hub name.

    Raises:
        UnknownNameError: none of these.
        BackboneError: a folder that holds no such model, or a hub that cannot be reached.
    """
    from diffcorr.backbones.catalog import CATALOG  # so late that --help does not wait for torch
    from diffcorr.config import instantiate, load_option, option_names

    known = [option for option in option_names("backbone") if option != "local"]
    node = load_option("backbone", name if name in known else "local")
    if name not in known:
        node.path_or_name = name
    node.weights, node.device, node.dtype = "random", "meta", "float32"
    backbone: Any = instantiate(node)
    latent = backbone.image_size // backbone.latent_downscale
    layers = [
        {
            "kind": layer.kind,
            "index": layer.index,
            "name": layer.name,
            "heads": layer.num_heads,
            "side": -(-latent // layer.downscale),
            "joint": layer.joint,
            "paper": layer.kind == "cross" and layer.index in backbone.paper_layers,
        }
        for kind in ("cross", "self")
        for layer in backbone.layers(kind)
    ]
    return {
        "name": name,
        "source": CATALOG[name].path if name in CATALOG and name != "tiny" else str(node.path_or_name),
        "parameters": sum(p.numel() for p in backbone.denoiser.parameters()),
        "needs": dataclasses.asdict(backbone.needs()),
        "layers": layers,
    }


def _list(args: argparse.Namespace) -> None:
    from diffcorr.backbones.catalog import CATALOG
    from diffcorr.config import option_names

    found: list[dict[str, Any]] = []
    for name in option_names("backbone"):
        if name in CATALOG and CATALOG[name].denoiser is None and name != "tiny":
            about = "described by its folder only: diffcorr backbones show FOLDER"
            found.append({"name": name, "source": CATALOG[name].path, "about": about})
        elif name != "local":
            found.append(describe(name))
    if args.as_json:
        print(json.dumps([_without_layers(entry) for entry in found], indent=2))
        return
    rows = [["name", "family", "parameters", "pixels", "multiple", "latents", "prompt", "cross", "self"]]
    for entry in found:
        if "needs" not in entry:
            rows.append([entry["name"], entry["about"]])
            continue
        needs = entry["needs"]
        counts = [str(sum(layer["kind"] == kind for layer in entry["layers"])) for kind in ("cross", "self")]
        latents = f"{needs['latent_channels']} x 1/{needs['latent_downscale']}"
        prompt = "{}x{}".format(*needs["embedding"])
        sizes = [f"{entry['parameters']:,}", str(needs["image_size"]), str(needs["multiple"])]
        rows.append([entry["name"], needs["family"], *sizes, latents, prompt, *counts])
    print(_table(rows))
    print("\nany diffusers folder of these families: backbone=local backbone.path_or_name=FOLDER")


def _show(args: argparse.Namespace) -> None:
    entry = describe(args.name)
    entry["layers"] = [layer for layer in entry["layers"] if args.kind in (None, layer["kind"])]
    if args.as_json:
        print(json.dumps(entry, indent=2))
        return
    needs = entry["needs"]
    print(
        f"{entry['name']}: {needs['family']}, {entry['parameters']:,} parameters, from {entry['source']}\n"
        f"input: {needs['image_size']} x {needs['image_size']} pixels, "
        f"or other sides that are multiples of {needs['multiple']}\n"
        f"latents: {needs['latent_channels']} channels at 1/{needs['latent_downscale']} of the side, "
        f"(mean - {needs['latent_shift']:g}) x {needs['latent_scale']:g}\n"
        f"prediction: {needs['prediction']} (never used here)\n"
        f"timestep: {needs['timestep']}\n"
        f"prompt: {needs['embedding'][0]} tokens of {needs['embedding'][1]}; {needs['prompt']}\n"
    )
    rows = [["kind", "index", "map", "heads", "name"]]
    rows += [
        [
            layer["kind"] + (" (joint)" if layer["joint"] else ""),
            f"{layer['index']}{'*' if layer['paper'] else ''}",
            f"{layer['side']}x{layer['side']}",
            str(layer["heads"]),
            layer["name"],
        ]
        for layer in entry["layers"]
    ]
    print(_table(rows))
    if any(layer["paper"] for layer in entry["layers"]):
        print("\n* read by prompt fitting with layers=paper")


def _without_layers(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "layers"}


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; a row with fewer cells does not count."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )
