"""The face classifier: its configuration, model and image processor."""
