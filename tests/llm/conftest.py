"""The fixtures of `llm_fixtures`."""

from llm_fixtures import decomposer, online, rows, server, sessions  # noqa: F401
