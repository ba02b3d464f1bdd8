"""The figures of docs/how_it_works.md, drawn by the embedded model: ``python docs/figures/make.py``.

Seeds are fixed, so that the same versions draw the same pictures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from diffcorr.attention.words import word_maps
from diffcorr.config import compose, instantiate
from diffcorr.correspondence import FitItem, PromptFit, transfer
from diffcorr.correspondence.pack import PackFit
from diffcorr.data.partworld import PartWorldPairs, PartWorldSegmentation
from diffcorr.reports import draw_sheet, draw_word_maps, heatmaps, masks, save_figure
from diffcorr.segmentation import DiffSeg
from diffcorr.types import Point, UInt8Image

HERE = Path(__file__).parent
WIDTH = 1300
"""Of a picture at most, in pixels."""
SIDE = 384
"""At which panels are composed."""


def save(figure: Figure, name: str) -> None:
    """Write a figure as a PNG with a palette, a third of the size."""
    path = HERE / name
    save_figure(figure, path)
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    small.quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def marked(image: UInt8Image, point: Point, size: int) -> UInt8Image:
    """The image with a cross at a point, given in pixels of an image of ``size``."""
    picture = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    x, y = (value * SIDE / size for value in point)
    draw = ImageDraw.Draw(picture)
    for color, width in (("black", 7), ("white", 3)):
        draw.line([(x - 14, y), (x + 14, y)], color, width)
        draw.line([(x, y - 14), (x, y + 14)], color, width)
    return np.asarray(picture)


def maps_over(
    image: UInt8Image, point: Point, fields: dict[str, npt.NDArray[np.float32]], first: str
) -> Figure:
    """The image and maps over it, with a cross at the point in all of them."""
    size = len(image)
    panels = [heatmaps.overlay(image, field, (SIDE, SIDE)) for field in fields.values()]
    shown = [marked(panel, point, size) for panel in (image, *panels)]
    return draw_sheet(shown, [first, *fields], columns=len(shown))


def draw_fit() -> None:
    """One prompt from noise: its maps on the source as the fit goes on, and on the target at the end."""
    data = PartWorldPairs("val")
    pair = data.pairs[10]
    query = pair.queries()[0]
    source, target = data.image(pair.source_id), data.image(pair.target_id)
    config = compose("eval", [])
    method: PromptFit = instantiate(config.method)(backbone=instantiate(config.backbone))
    # as in the paper: from noise, where the preset starts from the model's features
    fit = replace(method.fit_config, init="gaussian", steps=60, rounds=2, lr=0.1)
    items = [FitItem(query, 0), FitItem(query, 1)]
    pack = PackFit(method.backbone, items, {query.image_id: source}, fit, method.variant)
    optimizer, snapshots = pack.optimizer(), {}
    for step in range(fit.steps + 1):
        if step in (0, 10, 30, fit.steps):
            snapshots[step] = pack.embeddings.detach().clone()
        if step < fit.steps:
            optimizer.zero_grad()
            pack.backward(step)
            optimizer.step()

    def look(picture: UInt8Image, embeddings: torch.Tensor) -> npt.NDArray[np.float32]:
        read, keys = method.transfer_config, [query.id]
        (found,) = transfer(
            method.backbone, picture, embeddings[None], read, method.variant, keys=keys, heatmaps=True
        )
        assert found.heatmap is not None
        return found.heatmap.numpy()

    steps = {f"after {step} steps": look(source, prompts) for step, prompts in snapshots.items()}
    save(maps_over(source, query.point, steps, "source, and the query"), "fit_source.png")
    last = snapshots[fit.steps]
    rounds = {"round 0": last[:1], "round 1": last[1:], "mean of both": last}
    found = {name: look(target, prompts) for name, prompts in rounds.items()}
    save(maps_over(target, pair.target_points[0], found, "target, and the true point"), "fit_target.png")


def draw_segments() -> None:
    """Where positions of a picture look, and what their maps become under several thresholds."""
    image = PartWorldSegmentation("val", num_images=3)[2]["image"]
    backbone = instantiate(compose("eval", ["task=segmentation"]).backbone)
    method: DiffSeg = instantiate(compose("eval", ["task=segmentation"]).method)
    (graph,) = method.affinity([image], backbone)
    (height, width), size = graph.grid, len(image)
    panels = []
    for x, y in ((45, 22), (78, 58), (100, 20), (20, 110)):
        row = (y * height // size) * width + x * width // size
        field = graph.values[row].reshape(height, width).numpy()
        panels.append(marked(heatmaps.overlay(image, field, (SIDE, SIDE)), (x, y), size))
    names = ["picture", "from the head", "from the wing", "from the sky", "from the sand"]
    save(draw_sheet([image, *panels], names, columns=5), "self_attention.png")
    taus = [0.05, 0.1, 0.2, 0.26, 0.5]
    found = method.sweep(graph, (size, size), taus)
    shown = [masks.overlay(image, mask.numpy(), size=(SIDE, SIDE)) for mask in found]
    captions = [
        f"tau {tau}: {len(mask.unique())} segment{'s' * (len(mask.unique()) > 1)}"
        for tau, mask in zip(taus, found, strict=True)
    ]
    save(draw_sheet(shown, captions, columns=5), "tau.png")


def draw_words() -> None:
    """Where the model looks for each word of a caption."""
    image = PartWorldSegmentation("val", num_images=3)[2]["image"]
    caption = "a pencil sketch of a white bird on yellow sand and teal sky"
    words, maps = word_maps(instantiate(compose("eval", []).backbone), image, caption, num_draws=8)
    chosen = [words.index(word) for word in ("sketch", "bird", "sand", "sky")]
    figure = draw_word_maps(image, [words[place] for place in chosen], maps[chosen].numpy(), title=caption)
    save(figure, "words.png")


if __name__ == "__main__":
    draw_fit()
    draw_segments()
    draw_words()
