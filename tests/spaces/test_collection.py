"""The collection of rated sessions: written, read by `load_sessions`, uploaded, and deleted with the key."""

import math

import pytest
from huggingface_hub import HfApi, constants
from loopback_hub import Hub
from talks import dialogue

from geli_hf import load_sessions
from geli_hf.demo.collection import Collection
from geli_hf.demo.conversation import Conversation, session_row
from geli_hf.sessions import SessionError


def rated(conversation: Conversation, score: float = math.nan, **columns) -> dict:
    return session_row(conversation.session_id, conversation.turns, score=score, **columns)


def test_an_added_session_is_loaded_and_deleted(tmp_path):
    collection = Collection(tmp_path / "sessions")
    first, second = dialogue("hi", "hello"), dialogue("hm", "well", "so", "good")
    collection.add(rated(first, 3))
    collection.add(rated(second, 8, feedback={"affect": [1.0, math.nan], "affect_mean": [0.9, math.nan]}))
    sessions = load_sessions(tmp_path / "sessions", cache_dir=tmp_path / "cache")
    assert sorted(sessions["score"]) == [3, 8]
    with_feedback = next(row for row in sessions if row["score"] == 8)
    assert with_feedback["messages"] == second.messages
    assert with_feedback["feedback"]["affect"][0] == 1
    assert math.isnan(with_feedback["feedback"]["affect"][1])
    assert collection.delete(first.session_id) == "unknown"  # the id is no key
    assert collection.delete("../" * 5 + "etc/passwd") == "unknown"
    assert collection.delete(first.key) == "here"
    assert collection.delete(first.key) == "unknown"
    assert load_sessions(tmp_path / "sessions", cache_dir=tmp_path / "cache")["score"][:] == [8]


def test_a_session_without_a_rating_is_refused(tmp_path):
    collection = Collection(tmp_path)
    with pytest.raises(SessionError, match="score"):
        collection.add(rated(dialogue("hi", "hello")))
    assert list(tmp_path.iterdir()) == []


def test_a_private_dataset_on_the_hub(tmp_path, monkeypatch):
    """Closed sessions are uploaded; one is deleted before the upload, and one after it, together with its history."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub(tmp_path / "hub") as hub:
        api = HfApi(hub.url, token="hf_owner")
        repo = f"{api.whoami()['name']}/collected"
        collection = Collection(tmp_path / "sessions", repo, minutes=60, api=api)
        try:
            early, late, kept = dialogue("hi", "hello"), dialogue("hm", "well"), dialogue("so", "good")
            collection.add(rated(early, 1))
            assert collection.delete(early.key) == "here"
            for conversation in (late, kept):
                collection.add(rated(conversation, 5))
            collection.scheduler.trigger().result()
            assert api.dataset_info(repo).private
            names = {f"data/{conversation.session_id}.jsonl" for conversation in (late, kept)}
            assert set(api.list_repo_files(repo, repo_type="dataset")) >= names
            assert collection.delete(late.key) == "hub"
            files = api.list_repo_files(repo, repo_type="dataset")
            assert f"data/{late.session_id}.jsonl" not in files
            assert f"data/{kept.session_id}.jsonl" in files
            assert len(api.list_repo_commits(repo, repo_type="dataset")) == 1
            collection.scheduler.trigger().result()
            assert f"data/{late.session_id}.jsonl" not in api.list_repo_files(repo, repo_type="dataset")
        finally:
            collection.scheduler.stop()
