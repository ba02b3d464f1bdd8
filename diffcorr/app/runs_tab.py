"""The tab that looks through the pairs of a finished run."""

from __future__ import annotations

from typing import Any

import gradio as gr

from diffcorr.app.parts import SORRY, polite, shown_image
from diffcorr.app.pictures import picture_of
from diffcorr.app.points import say_points
from diffcorr.app.runs import FILTERS, OpenRun, RunFolders
from diffcorr.reports import as_array, short_layer_name
from diffcorr.runs.stored import StoredMethod

NONE = "No run folder is here yet: `python eval.py` makes one."


def build_runs_tab(folders: RunFolders, match_tab: dict[str, Any], tabs: gr.Tabs) -> None:
    """Lay the tab out inside of the present Blocks."""
    gr.Markdown(
        f"Run folders below `{folders.root.name}`. A right point has a solid line and a filled circle, a "
        "wrong one a dashed line and a cross, with a dotted line on to the truth."
    )
    with gr.Row():
        run = gr.Dropdown(folders.names(), value=None, label="Run", elem_id="run")
        method = gr.Dropdown([], label="Method", elem_id="run-method", allow_custom_value=True)
        which = gr.Radio(list(FILTERS), value=FILTERS[0], label="Which pairs", elem_id="run-filter")
        again = gr.Button("Look for runs again", size="sm")
    with gr.Row():
        place = gr.Slider(1, 2, value=1, step=1, label="Pair", elem_id="run-pair")
        layer = gr.Slider(0, 2, value=0, step=1, label="Layer (0 = all together)", elem_id="run-layer")
        send = gr.Button("Open this pair in the match tab", elem_id="run-send")
    info = gr.Markdown(NONE if not folders.names() else "", elem_id="run-info")
    figure = shown_image("Pair", "run-figure", height=None)

    def at(name: str, chosen: str, which: str, number: float) -> tuple[OpenRun, StoredMethod, list[int], int]:
        """The run, its method, the pairs of the filter, and the place of one among them."""
        opened = folders.open(name)
        stored = opened.method(chosen)
        places = opened.places(stored, which)
        return opened, stored, places, min(max(int(number), 1), max(1, len(places))) - 1

    def show(name: str, chosen: str, which: str, number: float, layer: float) -> tuple[Any, str, Any]:
        opened, stored, places, index = at(name, chosen, which, number)
        if not places:
            return None, f"None of the pairs is of this kind ({which}).", gr.skip()
        view = opened.view(stored, places[index])
        layers = list(view.layers)
        chosen_layer = layers[int(layer) - 1] if 0 < int(layer) <= len(layers) else None
        told = f"layer {short_layer_name(chosen_layer)} alone" if chosen_layer else "all layers together"
        if not layers:
            told = "this method stores no layers"
        protocol = f"alpha {opened.protocol.alphas[0]:g}, protocol {opened.protocol.name}"
        text = (
            f"Pair {index + 1} of {len(places)}: {view.pair.category}, `{view.pair.pair_id}`. "
            f"{int(view.right.sum())} of {len(view.right)} points right ({protocol}). Shown: {told}."
        )
        return (
            as_array(opened.draw(view, chosen_layer)),
            text,
            gr.Slider(maximum=max(1, len(layers)), value=0),
        )

    @polite
    def choose_run(name: str | None, which: str) -> tuple[Any, ...]:
        if not name:
            return tuple(gr.skip() for _ in range(5))
        opened = folders.open(name)
        # what is at stake first, baselines after it
        methods = sorted(opened.stored, key=lambda label: not label.startswith("prompt_fit"))
        return gr.Dropdown(methods, value=methods[0]), *refreshed(name, methods[0], which)

    def refreshed(name: str, chosen: str, which: str) -> tuple[Any, ...]:
        """The first pair of a choice, with sliders that fit it."""
        _, _, places, _ = at(name, chosen, which, 1)
        image, text, layers = show(name, chosen, which, 1, 0)
        pairs = gr.Slider(maximum=max(2, len(places)), value=1, label=f"Pair (1 to {len(places)})")
        return pairs, layers, text, image

    @polite
    def choose(name: str | None, chosen: str | None, which: str) -> tuple[Any, ...]:
        if not name or not chosen:
            return tuple(gr.skip() for _ in range(4))
        return refreshed(name, chosen, which)

    @polite
    def turn(
        name: str | None, chosen: str | None, which: str, number: float, layer: float
    ) -> tuple[Any, ...]:
        if not name or not chosen:
            return gr.skip(), gr.skip()
        image, text, _ = show(name, chosen, which, number, layer)
        return image, text

    @polite
    def hand_over(
        name: str | None, chosen: str | None, which: str, number: float, visit: Any
    ) -> tuple[Any, ...]:
        if not name or not chosen:
            raise gr.Error("choose a run first", title=SORRY, print_exception=False)
        opened, _, places, index = at(name, chosen, which, number)
        pair = opened.columns.pairs[places[index]]
        visit.source, visit.target = (
            picture_of(opened.data.image(image_id)) for image_id in (pair.source_id, pair.target_id)
        )
        return gr.Tabs(selected="match"), *match_tab["show"](visit, say_points(pair.source_points))

    @polite
    def look_again() -> tuple[Any, str]:
        names = folders.names()
        return gr.Dropdown(names), "" if names else NONE

    shown = [place, layer, info, figure]
    run.change(choose_run, [run, which], [method, *shown], show_progress_on=figure)
    method.input(choose, [run, method, which], shown, show_progress_on=figure)
    which.input(choose, [run, method, which], shown, show_progress_on=figure)
    for slider in (place, layer):
        slider.input(
            turn,
            [run, method, which, place, layer],
            [figure, info],
            show_progress="hidden",
            trigger_mode="always_last",
        )
    again.click(look_again, None, [run, info])
    inputs = [run, method, which, place, match_tab["visit"]]
    send.click(hand_over, inputs, [tabs, *match_tab["pictures"]], show_progress_on=info)
