"""Judges of replies: the simulator's truth, a regressor of people's ratings, and a language model."""
