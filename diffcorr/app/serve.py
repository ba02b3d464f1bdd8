"""Start the page's server."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from diffcorr.app.engine import Engine
from diffcorr.app.pictures import MAX_BYTES
from diffcorr.app.runs import RunFolders
from diffcorr.errors import DiffcorrError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    host: str = "127.0.0.1",
    port: int = 7860,
    backbone: str = "tiny",
    device: str | None = None,
    dtype: str = "float32",
    runs: str | os.PathLike[str] = "outputs",
    block: bool = True,
) -> str:
    """Serve the page until it is interrupted.

    Args:
        host: address to listen on.
        port: 1..65535.
        backbone, device, dtype: as in `Matcher.from_pretrained`; device None = a GPU where there is one.
        runs: folder below which run folders can be browsed.
        block: False returns once the page can be opened.

    Returns:
        The page's address.

    Raises:
        DiffcorrError: Gradio is missing, the port is taken, or a model that cannot be loaded.
    """
    # nothing leaves this machine: Gradio reads this on import
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise DiffcorrError(
            "expected Gradio, found none: pip install 'diffcorr[app]', or pip install 'gradio>=6'"
        ) from None
    from diffcorr.app.page import STYLE, build_page, theme

    if not 0 < port < 65536:
        raise DiffcorrError(f"expected a port in 1..65535, found {port}")
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine.load(backbone, chosen, dtype)
    page = build_page(engine, RunFolders(Path(runs)))
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,  # what a visitor may read is raised as gr.Error
            max_file_size=MAX_BYTES,
            ssr_mode=False,
            footer_links=[],
            theme=theme(),
            css=STYLE,
        )
    except OSError as error:
        reason = str(error).partition(". ")[0]  # Gradio's advice is about its own arguments
        raise DiffcorrError(
            f"expected to listen on {host}:{port}, found {reason}: choose another --port or --host"
        ) from error
    print(f"{engine.name} on {chosen}: {address}  (Ctrl-C ends it)", flush=True)
    if host not in LOOPBACK:
        print(f"{host}: whoever can reach this machine can use this page; it has no password", flush=True)
    if block:
        page.block_thread()
    return str(address)
