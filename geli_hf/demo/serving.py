"""Set-up of the Gradio apps: event handlers without leaks, downloads, and launch.

An app imports this module first. A Space with ZeroGPU lends its GPU to functions that its package `spaces` has marked,
and that package has to be imported before torch, which this module doesn't import. It also sets up the allocator.
"""

from __future__ import annotations

import base64
import ctypes
import functools
import inspect
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

# glibc has heaps for each thread, and keeps the more in them the larger the freed tensors were: a busy page grew by an
# eighth within minutes. It reads these before the first thread begins.
if platform.libc_ver()[0] == "glibc":
    for parameter, value in ((-8, 2), (-3, 256 * 1024)):  # M_ARENA_MAX and M_MMAP_THRESHOLD of malloc.h
        ctypes.CDLL(None).mallopt(parameter, value)
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported

try:
    from spaces import GPU as on_gpu
except ImportError:

    def on_gpu(function):
        """Return the function as it is: there is no GPU to be lent."""
        return function


import gradio as gr
from transformers.utils import logging

from .look import theme

logger = logging.get_logger("geli_hf.demo")

WEIGHTS = Path(__file__).parents[1] / "weights"
SORRY = "Something went wrong here. What you see is still there; please try again."
QUIET = {"show_progress": "hidden", "api_visibility": "private"}  # of an event
CAMERA = QUIET | {"stream_every": 0.5, "preprocess": False}  # of an event that a camera streams to
# Saves a file of `for_browser`.
SAVE_JS = """(file) => {
  if (!file) return;
  const [name, url] = JSON.parse(file);
  const link = document.createElement('a');
  link.href = url; link.download = name; document.body.append(link); link.click(); link.remove();
}"""


def guarded(handler: Callable) -> Callable:
    """Make an event handler a generator that reports an error without its message, which may hold a visitor's words.

    Args:
        handler: returns its outputs, or yields them several times.
    """

    @functools.wraps(handler)
    def generate(*arguments, **named):
        try:
            outputs = handler(*arguments, **named)
            if inspect.isgenerator(outputs):
                yield from outputs
            else:
                yield outputs
        except gr.Error:
            raise
        except Exception as error:
            place = error.__traceback__
            while place.tb_next:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
            logger.error(f"{handler.__name__}: {type(error).__name__} at {where}")
            raise gr.Error(SORRY, print_exception=False) from None

    return generate


def for_browser(name: str, media_type: str, content: bytes) -> str:
    """Encode a file that the browser saves and the server never writes."""
    return json.dumps([name, f"data:{media_type};base64,{base64.b64encode(content).decode()}"])


def on_download(event: Callable, handler: Callable, inputs, file: gr.Textbox) -> None:
    """Let the browser save the file that a handler makes with `for_browser`.

    Args:
        event: such as `button.click`.
        handler: makes the file, or "".
        inputs: of the handler.
        file: a hidden text that carries it.
    """
    event(handler, inputs, file, **QUIET).then(None, file, js=SAVE_JS, **QUIET)


def html(value: str | Path = "", *, js: Path | None = None, **options) -> gr.HTML:
    """Create an HTML component in the demos' own style.

    Args:
        value: its HTML, or a file of it.
        js: a file of JavaScript that runs when the component is loaded.
        options: of `gr.HTML`.
    """
    value = value.read_text(encoding="utf-8") if isinstance(value, Path) else value
    script = {} if js is None else {"js_on_load": js.read_text(encoding="utf-8")}
    return gr.HTML(value, apply_default_css=False, **script, **options)


def launch_options(max_file_size: str) -> dict:
    """Return the arguments of `Blocks.launch`.

    Args:
        max_file_size: of an upload, as Gradio writes it, such as "1mb".
    """
    return {
        "theme": theme(),
        "css_paths": Path(__file__).with_name("look.css"),
        "max_file_size": max_file_size,
        "footer_links": [],
        "show_error": False,
    }


def serve(demo: gr.Blocks, options: dict) -> None:
    """Serve the page until the process ends; four events run at once, and 64 may wait."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # several visitors' events run side by side
    demo.queue(default_concurrency_limit=4, max_size=64).launch(**options)
