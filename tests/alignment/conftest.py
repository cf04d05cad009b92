"""The fixtures of `policy_fixtures`."""

from policy_fixtures import policy_folder, reward_model, sessions  # noqa: F401
