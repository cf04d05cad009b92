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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# glibc has heaps for each thread, and keeps the more in them the larger the freed tensors were: a busy page grew by an
# eighth within minutes. It reads these before the first thread begins.
if platform.libc_ver()[0] == "glibc":
    for parameter, value in ((-8, 2), (-3, 256 * 1024)):  # M_ARENA_MAX and M_MMAP_THRESHOLD of malloc.h
        ctypes.CDLL(None).mallopt(parameter, value)
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported
if "SPACE_ID" in os.environ:  # the Hub's proxies, which alone reach a Space, are in its own network
    os.environ.setdefault("FORWARDED_ALLOW_IPS", "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16")

try:
    from spaces import GPU as on_gpu
except ImportError:

    def on_gpu(function):
        """Return the function as it is: there is no GPU to be lent."""
        return function


import gradio as gr
from starlette.middleware import Middleware
from transformers.utils import logging

from .limits import Guard, Limits, network_of
from .look import theme

logger = logging.get_logger("geli_hf.demo")

HERE = Path(__file__).parent
SORRY = "Something went wrong here. What you see is still there; please try again."
QUIET = {"show_progress": "hidden", "api_visibility": "private"}  # of an event
# Rating and deletion have places of their own in the queue, so that no reply keeps them waiting.
QUICK = QUIET | {"concurrency_id": "quick", "concurrency_limit": 8}
AT_ONCE = QUIET | {"queue": False}  # needs no place in the queue; its errors are not shown


def refuse(text: str) -> gr.Error:
    """Make an error that tells the visitor why nothing happened; raise it."""
    return gr.Error(text, title="Not yet", print_exception=False)


def address_of(request: gr.Request) -> str:
    """Return the address whose requests are counted together."""
    return network_of(request.client.host if request.client else "")


@contextmanager
def _without_message(handler: Callable) -> Iterator[None]:
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


def guarded(handler: Callable) -> Callable:
    """Make an event handler report an error without its message, which may hold a visitor's words."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generate(*arguments, **named):
            with _without_message(handler):
                yield from handler(*arguments, **named)

        return generate

    @functools.wraps(handler)
    def handle(*arguments, **named):
        with _without_message(handler):
            return handler(*arguments, **named)

    return handle


def for_browser(name: str, media_type: str, content: bytes) -> str:
    """Encode a file that the browser saves and the server never writes, as `gr.DownloadButton` would."""
    return json.dumps([name, f"data:{media_type};base64,{base64.b64encode(content).decode()}"])


def on_download(button: gr.Button, handler: Callable, inputs, file: gr.Textbox) -> None:
    """Let the browser save the file that a handler makes with `for_browser`.

    Args:
        button: asks for it.
        handler: makes the file, or "".
        inputs: of the handler.
        file: a hidden text that carries it.
    """
    script = (HERE / "save.js").read_text(encoding="utf-8")
    button.click(handler, inputs, file, **QUICK).then(None, file, js=script, **QUIET)


def html(value: str | Path = "", *, js: Path | None = None, **options) -> gr.HTML:
    """Create an HTML component in the demos' own style.

    Args:
        value: its HTML, or a file of it.
        js: a file of JavaScript that runs when the component is loaded.
        options: of `gr.HTML`.
    """
    value = value.read_text(encoding="utf-8") if isinstance(value, Path) else value
    script = None if js is None else js.read_text(encoding="utf-8")
    return gr.HTML(value, apply_default_css=False, js_on_load=script, **options)


def camera() -> gr.HTML:
    """Create a camera whose event `frame` has two pictures a second, as data URLs in `url`."""
    return html(HERE / "camera.html", js=HERE / "camera.js", elem_id="camera")


def serve(demo: gr.Blocks, limits: Limits, *, uploads: bool = False, at_once: int = 4, **options) -> None:
    """Serve the page. The queue has no end, since `Guard` counts what each address puts into it.

    Args:
        demo: the page.
        limits: of an address.
        uploads: whether the page takes files.
        at_once: events that run side by side.
        options: of `Blocks.launch`.
    """
    demo.queue(default_concurrency_limit=at_once, max_size=None).launch(
        theme=theme(),
        css_paths=HERE / "look.css",
        max_file_size=f"{limits.video_megabytes}mb",
        footer_links=[],
        show_error=False,
        app_kwargs={"middleware": [Middleware(Guard, limits=limits, uploads=uploads)]},
        **options,
    )
