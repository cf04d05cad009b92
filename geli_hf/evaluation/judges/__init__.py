"""Judges of replies: the simulator's truth, a model fitted to ratings, and a language model."""
