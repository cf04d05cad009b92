"""What the apps of the Spaces share, and the one module here that needs Gradio: handlers, downloads, the set-up.

An app imports it first: a Space with ZeroGPU lends its GPU to functions that its package `spaces` has marked, and that
has to be imported before torch, which importing this module doesn't do. It also tells the C library how to keep house.
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
from contextlib import contextmanager

# glibc has heaps for each thread, and keeps the more in them the larger the tensors were that were freed: a busy page
# grew by an eighth within minutes. It listens before the first thread begins.
if platform.libc_ver()[0] == "glibc":
    for parameter, value in ((-8, 2), (-3, 256 * 1024)):  # M_ARENA_MAX and M_MMAP_THRESHOLD of malloc.h
        ctypes.CDLL(None).mallopt(parameter, value)
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported

try:
    from spaces import GPU as on_gpu
except ImportError:

    def on_gpu(function):
        """The function as it is: there is no GPU to be lent."""
        return function


import gradio as gr
from transformers.utils import logging

from .look import style_sheet, theme

logger = logging.get_logger("geli_hf.demo")

SORRY = "Something went wrong here. What you see is still there; please try again."
# Takes what `for_browser` gives.
SAVE_JS = """(file) => {
  if (!file) return;
  const [name, url] = JSON.parse(file);
  const link = document.createElement('a');
  link.href = url; link.download = name; document.body.append(link); link.click(); link.remove();
}"""


def friendly(handler: Callable) -> Callable:
    """The handler, which says that something went wrong, and not what: an error may hold what somebody has said."""

    @contextmanager
    def told_kindly():
        try:
            yield
        except gr.Error:
            raise
        except Exception as error:
            place = error.__traceback__
            while place.tb_next:
                place = place.tb_next
            where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
            logger.error(f"{handler.__name__}: {type(error).__name__} at {where}")
            raise gr.Error(SORRY, print_exception=False) from None

    if inspect.isgeneratorfunction(handler):  # which Gradio has to see, too

        @functools.wraps(handler)
        def guarded(*arguments, **named):
            with told_kindly():
                yield from handler(*arguments, **named)

    else:

        @functools.wraps(handler)
        def guarded(*arguments, **named):
            with told_kindly():
                return handler(*arguments, **named)

    return guarded


def for_browser(name: str, kind: str, content: bytes) -> str:
    """A file that the browser saves and the server never writes down.

    Args:
        kind: its media type.
    """
    return json.dumps([name, f"data:{kind};base64,{base64.b64encode(content).decode()}"])


def launch_options(max_file_size: str, css: str = "") -> dict:
    """Arguments of `Blocks.launch` that a page is served with.

    Args:
        max_file_size: of an upload, as Gradio has it, such as "1mb".
        css: of this page alone.
    """
    return {
        "theme": theme(),
        "css": style_sheet() + css,
        "max_file_size": max_file_size,
        "footer_links": [],
        "show_error": False,
    }


def serve(demo: gr.Blocks, options: dict) -> None:
    """Serve the page until the process ends; four are answered at once, and 64 may wait."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # for what several people ask is computed side by side
    demo.queue(default_concurrency_limit=4, max_size=64).launch(**options)
