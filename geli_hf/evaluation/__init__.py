"""Evaluation of reward models, policies and methods of attribution.

`rewards` compares saved reward models with turn ratings, `policies` compares aligned policies with their base by one
of the `judges`, `methods` is the benchmark of methods of attribution, and `report` describes a training run.
"""
