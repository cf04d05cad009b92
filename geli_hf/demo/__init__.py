"""Parts of the web demos in `spaces/`, which lay out the pages and launch them.

Only `serving`, `chat_events` and `facial_events` import Gradio, which is optional.
"""
