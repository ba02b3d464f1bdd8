"""The tab in which points are clicked and found."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from diffcorr.app.engine import Engine, tell_progress
from diffcorr.app.examples import Example
from diffcorr.app.parts import LIMITS, MODEL_QUEUE, polite, shown_image, upload_button, visitor
from diffcorr.app.pictures import Picture, clicked, draw_points, draw_ring, read_upload, shown_size
from diffcorr.app.points import MAX_POINTS, check_points, parse_points, say_points
from diffcorr.data.geometry import image_size
from diffcorr.errors import ImageError
from diffcorr.inputs import content_id
from diffcorr.match import Match
from diffcorr.matcher import Matcher
from diffcorr.reports import short_layer_name
from diffcorr.reports.heatmaps import overlay
from diffcorr.types import Point, UInt8Image

READY = "Ready."
HINT = (
    "Choose two pictures, click points on the **source** (or type them, x,y in each line, in its pixels), "
    "then **Find**. The numbers on the target are the answers."
)


class Visit:
    """What one visitor has in this tab (no dataclass: Gradio would show one to the browser)."""

    def __init__(self) -> None:
        self.source: Picture | None = None
        self.target: Picture | None = None
        self.match: Match | None = None
        self.matcher: Matcher | None = None
        self.settings: tuple[Any, ...] = ()
        self.answers: list[Point] = []

    def show_source(self, text: str) -> UInt8Image | None:
        """The source with the points of the text."""
        return None if self.source is None else draw_points(self.source, parse_points(text))

    def show_target(self) -> UInt8Image | None:
        """The target with the answers there are."""
        return None if self.target is None else draw_points(self.target, self.answers, answers=True)

    def forget(self) -> None:
        """The answers, which belong to other pictures or points."""
        self.match, self.answers = None, []


def fit_and_find(
    engine: Engine, visit: Visit, text: str, preset: str, seed: int, cycle: bool, who: str, bar: Any
) -> None:
    """Find the points of the text; what is fitted already is not fitted again.

    Raises:
        DiffcorrError: a picture or the points are missing, or lie outside.
        Cancelled: the visitor has stopped it.
    """
    if visit.source is None or visit.target is None:
        raise ImageError("expected a source and a target, found one missing: upload it or choose an example")
    points = parse_points(text)
    check_points(points, visit.source)
    with engine.turn(who) as check:
        settings = (preset, seed, content_id(visit.source.pixels))
        if visit.matcher is None or visit.settings != settings:
            visit.matcher, visit.settings = engine.matcher(preset, seed), settings
        visit.forget()
        told = tell_progress(check, bar)
        matcher, kept = visit.matcher, visit.source.to_kept(points)
        fitted = matcher.fit(visit.source.pixels, kept, told)
        bar(0.92, desc="looking in the target")
        check()
        match = matcher.find(fitted, visit.target.pixels, heatmaps=True)
        if cycle:
            match = matcher.go_back(match, told)
    visit.match = match
    visit.answers = visit.target.to_given([(x, y) for x, y in match.targets.tolist()])


def table(visit: Visit, text: str) -> str:
    """The answers as a Markdown table, with all that says how far to trust them."""
    match = visit.match
    if match is None or visit.target is None or visit.source is None:
        return ""
    scale = visit.target.size[0] / image_size(visit.target.pixels)[0]
    back = visit.source.size[0] / image_size(visit.source.pixels)[0]
    spread, cycle = match.spread, match.cycle_error
    heads = ["point", "source x, y", "target x, y", "confidence", "sharpness"]
    heads += ["rounds disagree by"] if spread is not None else []
    heads += ["way back ends off by"] if cycle is not None else []
    rows = []
    for n, (query, answer) in enumerate(zip(parse_points(text), visit.answers, strict=True)):
        sharp = 0.0 if match.sharpness is None else match.sharpness[n]
        row = [f"**{n + 1}**", "{:g}, {:g}".format(*query), "{:.1f}, {:.1f}".format(*answer)]
        row += [f"{match.confidence[n]:.2f}", f"{sharp:.2f}"]
        row += [f"{scale * spread[n]:.1f} px"] if spread is not None else []
        row += [f"{back * cycle[n]:.1f} px"] if cycle is not None else []
        rows.append(row)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def heat(visit: Visit, number: float, layer: float) -> tuple[UInt8Image | None, str]:
    """The heatmap of one point over the target, and what it is; layer 0 = all layers together."""
    match = visit.match
    if match is None or visit.target is None or match.heatmaps is None:
        return None, "Heatmaps are here once points are found."
    n = min(max(int(number), 1), len(match)) - 1
    names = list(match.layer_maps)
    place = min(max(int(layer), 0), len(names))
    field_HW = match.heatmaps[n] if place == 0 else match.layer_heatmap(n, names[place - 1])
    size = shown_size(visit.target)
    y, x = np.unravel_index(int(field_HW.argmax()), field_HW.shape)
    ratio = size[0] / field_HW.shape[1]
    image = draw_ring(overlay(visit.target.pixels, field_HW, size), ((x + 0.5) * ratio, (y + 0.5) * ratio))
    told = "all layers together" if place == 0 else f"layer {short_layer_name(names[place - 1])}"
    largest = f"the ring is its largest value, {field_HW.max():.3f}"
    return image, f"Point {n + 1}, {told} ({place} of {len(names)}); {largest}."


def build_match_tab(engine: Engine, drawn: list[Example]) -> dict[str, Any]:
    """Lay the tab out inside of the present Blocks; gives the parts that other tabs fill."""
    visit = gr.State(Visit(), time_to_live=4 * 3600)
    gr.Markdown(f"{HINT} Pictures: {LIMITS}. Up to {MAX_POINTS} points.")
    with gr.Row():
        with gr.Column():
            source = shown_image("Source: click points here", "source")
            source_up = upload_button("Upload a source", "source-up")
            source_info = gr.Markdown(elem_id="source-info")
        with gr.Column():
            target = shown_image("Target: the answers", "target")
            target_up = upload_button("Upload a target", "target-up")
            target_info = gr.Markdown(elem_id="target-info")
    names = [example.name for example in drawn]
    samples = gr.Radio(names, label="Or an example (drawings)", elem_id="examples")
    with gr.Row():
        with gr.Column(scale=1):
            points = gr.Textbox(
                label="Points in the source, x,y in each line", lines=4, max_lines=8, elem_id="points"
            )
            with gr.Row():
                undo = gr.Button("Remove last", size="sm")
                clear = gr.Button("Remove all", size="sm")
        with gr.Column(scale=1):
            with gr.Row():
                presets = engine.presets
                preset = gr.Dropdown(presets, value=presets[0], label="Method", elem_id="preset")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            cycle = gr.Checkbox(label="Also the way back (twice the time)", elem_id="cycle")
            with gr.Row():
                run = gr.Button("Find", variant="primary", elem_id="find")
                cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
            state = gr.Markdown(READY, elem_id="state")
    answers = gr.Markdown(elem_id="answers")
    with gr.Row():
        with gr.Column(scale=2):
            heatmap = shown_image("Where the model sees a point in the target", "heatmap")
        with gr.Column(scale=1):
            number = gr.Slider(1, 2, value=1, step=1, label="Point", elem_id="point-slider")
            layer = gr.Slider(0, 2, value=0, step=1, label="Layer (0 = all together)", elem_id="layer-slider")
            heat_info = gr.Markdown(elem_id="heat-info")

    pictures = [source, target, source_info, target_info, points, answers, state, heatmap, heat_info]

    def show(visit: Visit, text: str) -> tuple[Any, ...]:
        """All pictures of a visit without answers."""
        visit.forget()
        notes = [p.note if p else "" for p in (visit.source, visit.target)]
        return visit.show_source(text), visit.show_target(), *notes, text, "", READY, None, ""

    @polite
    def take_source(path: str, visit: Visit) -> tuple[Any, ...]:
        visit.source = read_upload(path)
        return show(visit, "")

    @polite
    def take_target(path: str, visit: Visit, text: str) -> tuple[Any, ...]:
        visit.target = read_upload(path)
        return show(visit, text)

    @polite
    def take_example(name: str, visit: Visit) -> tuple[Any, ...]:
        example = next((e for e in drawn if e.name == name), None)
        if example is None:
            return tuple(gr.skip() for _ in pictures)
        visit.source, visit.target = example.source, example.target
        return show(visit, say_points(example.points))

    @polite
    def click(visit: Visit, text: str, event: gr.SelectData) -> str:
        if visit.source is None:
            return text
        x, y = event.index
        return "\n".join(filter(None, [text.strip(), say_points([clicked(visit.source, x, y)])]))

    @polite
    def redraw(visit: Visit, text: str) -> UInt8Image | None:
        return visit.show_source(text)

    def shorten(text: str) -> str:
        return "\n".join(text.strip().splitlines()[:-1])

    @polite
    def find(
        visit: Visit,
        text: str,
        preset: str,
        seed: float | None,
        cycle: bool,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio is told
    ) -> tuple[Any, ...]:
        fit_and_find(engine, visit, text, preset, int(seed or 0), cycle, visitor(request), progress)
        assert visit.match is not None
        image, told = heat(visit, 1, 0)
        num_layers = len(visit.match.layer_maps)
        return (
            visit.show_target(),
            table(visit, text),
            f"Found {len(visit.answers)} point{'s' * (len(visit.answers) != 1)}.",
            image,
            told,
            # a slider of one value has no width to be dragged along
            gr.Slider(maximum=max(2, len(visit.answers)), value=1),
            gr.Slider(maximum=max(1, num_layers), value=0),
        )

    def stop(request: gr.Request) -> str:
        return "Stopping ..." if engine.stop(visitor(request)) else "Nothing is running."

    source_up.upload(take_source, [source_up, visit], pictures, show_progress_on=source_info)
    target_up.upload(take_target, [target_up, visit, points], pictures, show_progress_on=target_info)
    samples.input(take_example, [samples, visit], pictures, show_progress_on=source_info)
    source.select(click, [visit, points], points)
    points.change(redraw, [visit, points], source, show_progress="hidden", trigger_mode="always_last")
    undo.click(shorten, points, points, show_progress="hidden")
    clear.click(lambda: "", None, points, show_progress="hidden")
    found = [target, answers, state, heatmap, heat_info, number, layer]
    asked = [visit, points, preset, seed, cycle]
    # the bar is shown over one part of the page alone
    job = run.click(find, asked, found, show_progress_on=state, **MODEL_QUEUE)
    cancel.click(stop, None, state, queue=False, show_progress="hidden").then(lambda: None, cancels=[job])
    quiet: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
    for slider in (number, layer):
        slider.change(polite(heat), [visit, number, layer], [heatmap, heat_info], **quiet)
    return {"visit": visit, "pictures": pictures, "show": show}
