"""What the web demos are made of: pure functions and small classes that know nothing of Gradio, and one look for all.

The pages themselves are in `spaces/`. Only `look.theme` and `serving` need Gradio, which is optional.
"""
