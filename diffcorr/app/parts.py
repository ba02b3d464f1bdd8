"""Pieces that several tabs have: a picture with its upload button, polite errors, whose session it is."""

from __future__ import annotations

import functools
import html
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr

from diffcorr.app.engine import Cancelled
from diffcorr.app.pictures import MAX_BYTES, MAX_PIXELS
from diffcorr.errors import DiffcorrError

log = logging.getLogger(__name__)
F = TypeVar("F", bound=Callable[..., Any])

LIMITS = f"at most {MAX_BYTES // 2**20} MB and {MAX_PIXELS // 10**6} megapixels"
SORRY = "That did not work"
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""What needs the model waits in one line; everything else does not."""


def polite(handler: F) -> F:
    """What a visitor did wrong as a message on the page; anything else in the server's log alone."""

    @functools.wraps(handler)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return handler(*args, **kwargs)
        except DiffcorrError as error:
            raise gr.Error(html.escape(str(error)), duration=20, title=SORRY, print_exception=False) from None
        except Cancelled:
            raise gr.Error(
                "stopped, as you asked", duration=5, title="Cancelled", print_exception=False
            ) from None
        except gr.Error:
            raise
        except Exception:
            log.exception("an error in the page")
            raise gr.Error(
                "an error of this program; its log says more", title=SORRY, print_exception=False
            ) from None

    return wrapped  # type: ignore[return-value]


def visitor(request: gr.Request | None) -> str:
    """Whose session a call belongs to."""
    return str(getattr(request, "session_hash", "") or "")


def shown_image(label: str, elem_id: str, height: int | None = 420) -> gr.Image:
    """A picture that is shown under its heading, and can be clicked where a tab listens."""
    gr.Markdown(f"### {label}")  # Gradio would lay its own label over the picture's corner
    return gr.Image(
        label=label,
        show_label=False,
        elem_id=elem_id,
        interactive=False,
        type="numpy",
        format="png",
        height=height,
        buttons=["download", "fullscreen"],
        alt_text=label,
    )


def upload_button(label: str, elem_id: str) -> gr.UploadButton:
    """A button that opens the file dialog, by mouse or keyboard."""
    return gr.UploadButton(label, elem_id=elem_id, file_types=["image"], type="filepath", size="sm")
