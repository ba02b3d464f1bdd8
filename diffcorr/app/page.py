"""The page as a whole."""

from __future__ import annotations

import gradio as gr

import diffcorr
from diffcorr.app.engine import Engine
from diffcorr.app.examples import examples
from diffcorr.app.match_tab import build_match_tab
from diffcorr.app.runs import RunFolders
from diffcorr.app.runs_tab import build_runs_tab
from diffcorr.app.segment_tab import build_segment_tab, build_words_tab

STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto; }
#source img { cursor: crosshair; }
#state { min-height: 72px; }
#answers { max-height: 460px; overflow-y: auto; }
#source-info, #target-info, #segment-info { min-height: 48px; }
:focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 2px; }
"""


def theme() -> gr.themes.Base:
    """System fonts: nothing is fetched from anywhere."""
    system = gr.themes.utils.fonts.Font
    return gr.themes.Soft(
        primary_hue="blue",
        font=[system("system-ui"), system("sans-serif")],
        font_mono=[system("ui-monospace"), system("monospace")],
    )


def build_page(engine: Engine, folders: RunFolders) -> gr.Blocks:
    """All tabs, on one model.

    Args:
        engine: the model.
        folders: runs that can be browsed.
    """
    drawn = examples()
    # uploads and results are deleted an hour after they came
    page = gr.Blocks(title="diffcorr", analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        gr.Markdown(
            f"# diffcorr\nAsk a frozen diffusion model where things are. Model: **{engine.name}** on "
            f"{engine.backbone.device.type}, version {diffcorr.__version__}."
            + (" It knows nothing but the drawings of the examples." if engine.name == "tiny" else "")
        )
        with gr.Tabs() as tabs:
            with gr.Tab("Match points", id="match"):
                match_tab = build_match_tab(engine, drawn)
            with gr.Tab("Segments", id="segments"):
                build_segment_tab(engine, drawn)
            with gr.Tab("Words", id="words"):
                build_words_tab(engine, drawn)
            with gr.Tab("Runs", id="runs"):
                build_runs_tab(folders, match_tab, tabs)
    # whoever waits sees the place in the line; a line without end would only time out
    return page.queue(max_size=32, default_concurrency_limit=4)
