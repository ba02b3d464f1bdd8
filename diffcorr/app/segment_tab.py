"""The tab in which pictures are cut into segments, and the one that shows the words of a caption."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from diffcorr.app.engine import Engine
from diffcorr.app.examples import Example
from diffcorr.app.parts import LIMITS, MODEL_QUEUE, polite, shown_image, upload_button, visitor
from diffcorr.app.pictures import Picture, draw_points, read_upload
from diffcorr.errors import ImageError
from diffcorr.reports import as_array
from diffcorr.segmenter import AttentionMaps, Segmentation


class Visit:
    """What one visitor has in these tabs (no dataclass: Gradio would show one to the browser)."""

    def __init__(self) -> None:
        self.picture: Picture | None = None
        self.maps: AttentionMaps | None = None
        self.segments: Segmentation | None = None
        self.words: list[str] = []  # that segments were named by


def summary(segments: Segmentation) -> str:
    """Number, share and name of the segments, largest first."""
    about = segments.to_dict()["segments"]
    lines = [f"**{len(about)} segments**"]
    for segment in sorted(about, key=lambda s: -s["area"])[:12]:
        name = f" {segment['word']}" if "word" in segment else ""
        lines.append(f"- {segment['id']}{name}: {100 * segment['area'] / segments.mask.size:.1f} %")
    return "\n".join(lines) + ("\n- ..." if len(about) > 12 else "")


MASKS = tempfile.TemporaryDirectory(prefix="diffcorr-", ignore_cleanup_errors=True)
"""Of this process, gone at its end."""


def mask_file(segments: Segmentation) -> str:
    """The mask as a PNG in a folder of its own, of which Gradio's cache of files takes a copy."""
    path = Path(tempfile.mkdtemp(dir=MASKS.name)) / "segments.png"
    segments.save(path)
    return str(path)


def build_segment_tab(engine: Engine, drawn: list[Example]) -> None:
    """Lay the tab out inside of the present Blocks."""
    visit = gr.State(Visit(), time_to_live=4 * 3600)
    gr.Markdown(
        "The model looks at the picture once; **tau** then merges what it saw, larger values into fewer "
        f"segments. Pictures: {LIMITS}."
    )
    with gr.Row():
        with gr.Column(scale=1):
            up = upload_button("Upload a picture", "segment-up")
            names = [example.name for example in drawn]
            samples = gr.Radio(names, label="Or an example (drawings)", elem_id="segment-examples")
            tau = gr.Slider(0.02, 2.0, value=engine.default_tau(), step=0.01, label="tau", elem_id="tau")
            words = gr.Textbox(
                label="Words to name segments by, with commas between them",
                placeholder="cat, grass, sky",
                elem_id="segment-words",
            )
            name = gr.Button("Name the segments", elem_id="segment-name")
            download = gr.DownloadButton(
                "Download the mask (PNG)", interactive=False, elem_id="mask-download"
            )
            info = gr.Markdown(elem_id="segment-info")
        with gr.Column(scale=2):
            figure = shown_image("Segments", "segments", height=None)
    shown = [figure, info, download]

    def show(visit: Visit) -> tuple[Any, ...]:
        if visit.segments is None:
            return None, "", gr.DownloadButton(interactive=False)
        button = gr.DownloadButton(value=mask_file(visit.segments), interactive=True)
        return as_array(visit.segments.plot()), summary(visit.segments), button

    def read(visit: Visit, tau: float, request: gr.Request) -> tuple[Any, ...]:
        assert visit.picture is not None
        with engine.turn(visitor(request)):
            visit.maps = engine.segmenter().read(visit.picture.pixels)
            visit.segments, visit.words = engine.segmenter().merge(visit.maps, tau), []
        return show(visit)

    @polite
    def take(path: str, visit: Visit, tau: float, request: gr.Request) -> tuple[Any, ...]:
        visit.picture = read_upload(path)
        return read(visit, tau, request)

    @polite
    def take_example(chosen: str, visit: Visit, tau: float, request: gr.Request) -> tuple[Any, ...]:
        example = next((e for e in drawn if e.name == chosen), None)
        if example is None:
            return tuple(gr.skip() for _ in shown)
        visit.picture = example.source
        return read(visit, tau, request)

    def put_names(visit: Visit, chosen: list[str], tau: float, request: gr.Request) -> tuple[Any, ...]:
        assert visit.maps is not None
        with engine.turn(visitor(request)):
            segments = engine.segmenter().merge(visit.maps, tau)
            visit.segments, visit.words = engine.segmenter().name(segments, chosen), chosen
        return show(visit)

    @polite
    def merge(visit: Visit, tau: float) -> tuple[Any, ...]:
        if visit.maps is None:
            return show(visit)
        visit.segments = engine.segmenter().merge(visit.maps, tau)
        return show(visit)

    @polite
    def label(visit: Visit, text: str, tau: float, request: gr.Request) -> tuple[Any, ...]:
        if visit.maps is None:
            raise ImageError("expected a picture, found none: upload one or choose an example")
        return put_names(visit, [word.strip() for word in text.split(",")], tau, request)

    @polite
    def label_again(visit: Visit, tau: float, request: gr.Request) -> tuple[Any, ...]:
        if not visit.words:
            return tuple(gr.skip() for _ in shown)
        return put_names(visit, visit.words, tau, request)

    up.upload(take, [up, visit, tau], shown, show_progress_on=info, **MODEL_QUEUE)
    samples.input(take_example, [samples, visit, tau], shown, show_progress_on=info, **MODEL_QUEUE)
    tau.change(merge, [visit, tau], shown, show_progress="hidden", trigger_mode="always_last")
    # names take a pass of the model: segments follow the slider at once, their names where it stops
    tau.release(label_again, [visit, tau], shown, show_progress_on=info, **MODEL_QUEUE)
    for event in (name.click, words.submit):
        event(label, [visit, words, tau], shown, show_progress_on=info, **MODEL_QUEUE)


def build_words_tab(engine: Engine, drawn: list[Example]) -> None:
    """Lay the tab out inside of the present Blocks."""
    visit = gr.State(Visit(), time_to_live=4 * 3600)
    gr.Markdown(f"Where the model sees each word of a caption. Pictures: {LIMITS}.")
    with gr.Row():
        with gr.Column(scale=1):
            up = upload_button("Upload a picture", "words-up")
            names = [example.name for example in drawn]
            samples = gr.Radio(names, label="Or an example (drawings)", elem_id="words-examples")
            picture = shown_image("Picture", "words-picture", height=280)
            caption = gr.Textbox(label="Caption", placeholder="a picture of a cat", elem_id="caption")
            run = gr.Button("Show the words", variant="primary", elem_id="words-run")
        with gr.Column(scale=2):
            figure = shown_image("One map for each word", "word-maps", height=None)

    @polite
    def take(path: str, visit: Visit) -> tuple[Any, ...]:
        visit.picture = read_upload(path)
        return draw_points(visit.picture, []), None

    @polite
    def take_example(chosen: str, visit: Visit) -> tuple[Any, ...]:
        example = next((e for e in drawn if e.name == chosen), None)
        if example is None:
            return gr.skip(), gr.skip(), gr.skip()
        visit.picture = example.source
        return draw_points(visit.picture, []), None, re.sub(r"\s+", " ", example.caption)

    @polite
    def show(visit: Visit, text: str, request: gr.Request) -> Any:
        if visit.picture is None:
            raise ImageError("expected a picture, found none: upload one or choose an example")
        with engine.turn(visitor(request)):
            return as_array(engine.words().map(visit.picture.pixels, text).plot())

    up.upload(take, [up, visit], [picture, figure], show_progress_on=picture)
    samples.input(take_example, [samples, visit], [picture, figure, caption], show_progress_on=picture)
    for event in (run.click, caption.submit):
        event(show, [visit, caption], figure, **MODEL_QUEUE)
