"""The decomposed reward model: its configuration, model and pipeline."""
