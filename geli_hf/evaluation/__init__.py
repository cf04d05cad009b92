"""Evaluation of reward models, policies and methods."""
