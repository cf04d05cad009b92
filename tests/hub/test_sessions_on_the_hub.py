"""Session datasets: pushed as Parquet, loaded whole or as a stream, and still what `validate_sessions` takes."""

import pytest
from clients import client
from fresh import error_of, in_fresh_process
from loopback_hub import cards


def push_sessions():
    import math

    from datasets import Dataset, DatasetDict

    from geli_hf.cli import main
    from geli_hf.data.rows import write_jsonl
    from geli_hf.sessions import session_features, validate_sessions

    def row(number):
        roles = ("assistant", "user") if number % 2 else ("user", "assistant")
        return {
            "session_id": f"s{number}",
            "conversation_id": f"c{number // 2}",
            "rater_id": f"r{number % 3}",
            "messages": [{"role": roles[i % 2], "content": f"word {number} ü {i}"} for i in range(4)],
            "score": math.nan if number == 5 else float(number),
            "feedback": {"affect": [0.25, math.nan]},
            "start": [0.0, 1.5, 2.5, math.nan],
            "stop": [1.0, 2.0, 3.0, math.nan],
        }

    features = session_features(["affect"], times=True)
    splits = {"train": range(8), "test": range(8, 11)}
    parts = {name: Dataset.from_list([row(i) for i in rows], features=features) for name, rows in splits.items()}
    for part in parts.values():
        validate_sessions(part)
    DatasetDict(parts).push_to_hub("owner/sessions")
    parts["train"].push_to_hub("owner/sessions", config_name="small")
    parts["test"].push_to_hub("owner/sessions", create_pr=True, split="validation")
    parts["train"].push_to_hub("org/sessions", private=True)

    # By the command, from files.
    for name, part in parts.items():
        write_jsonl(part.remove_columns(["start", "stop"]), f"rows/{name}.jsonl")
    main(["push", "dataset", "rows", "--repo", "owner/rows"])
    return {name: [repr(row) for row in part] for name, part in parts.items()}


def load_and_read(token):
    from datasets import load_dataset

    from geli_hf import load_sessions, validate_sessions
    from geli_hf.sessions import session_features

    found, features = {}, session_features(["affect"], times=True)
    for streaming in (False, True):
        loaded = load_dataset("owner/sessions", "default", streaming=streaming)
        assert set(loaded) == {"train", "test"}, loaded
        for name, part in loaded.items():
            assert part.features == features, part.features
            found[f"{name} {streaming}"] = [repr(row) for row in part]
    for part in load_dataset("owner/sessions", "default").values():
        validate_sessions(part)
    found["read"] = [repr(row) for row in load_sessions("owner/sessions", split="test")]
    found["small"] = load_dataset("owner/sessions", "small", split="train").num_rows
    proposed = load_dataset("owner/sessions", "default", revision="refs/pr/1", split="validation")
    found["validation"] = [repr(row) for row in proposed]
    sent = load_dataset("owner/rows")
    for part in sent.values():
        validate_sessions(part)
    streamed, expected = load_dataset("owner/rows", split="test", streaming=True), session_features(["affect"])
    found["sent"] = {
        "rows": {split: len(part) for split, part in sent.items()},
        "streamed": [row["conversation_id"] for row in streamed],
        "sessions": len(load_sessions("owner/rows")),
        "schema": [sent["train"].features == expected, streamed.features == expected],
    }
    found["no token"] = error_of(load_dataset, "org/sessions")  # first: from a cache it would be answered
    found["private"] = load_dataset("org/sessions", token=token, split="train").num_rows
    found["none"] = error_of(load_sessions, "owner/none")
    return found


def load_again():
    from geli_hf import load_sessions

    return {
        "warm": [repr(row) for row in load_sessions("owner/sessions", split="test")],
        "cold": error_of(load_sessions, "owner/others"),
        "split": error_of(load_sessions, "owner/sessions", split="tset"),
    }


def load_online(token):
    """First on a disk that is full."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))  # no file grows larger
    from geli_hf import load_sessions

    full = error_of(load_sessions, "owner/sessions", split="test")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    return load_and_read(token) | load_again() | {"full": full}


def load_offline():
    """Load offline. Without our own copy of the rows they come from the cache of `datasets`."""
    import os

    found = [load_again()]
    os.environ["GELI_HF_CACHE"] = os.path.abspath("empty")
    return [*found, load_again()]


@pytest.fixture(scope="module")
def pushed(shared_hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pushing")
    return in_fresh_process(push_sessions, folder, client(shared_hub, folder, "hf_owner"))


@pytest.fixture(scope="module")
def loaded(shared_hub, pushed, tmp_path_factory):
    """The loaded rows, and the folder of the cache."""
    folder = tmp_path_factory.mktemp("loading")
    helpers = (load_and_read, load_again)
    return in_fresh_process(load_online, folder, client(shared_hub, folder), helpers=helpers, token="hf_owner"), folder


def test_sessions_are_pushed_by_split_with_their_schema(shared_hub, pushed):
    repo = shared_hub.store.repos["dataset", "owner/sessions"]
    files = repo.at("main").files
    assert {path for path in files if not path.endswith(".parquet")} == {".gitattributes", "README.md"}
    assert len([path for path in files if path.endswith(".parquet")]) == 3
    card = shared_hub.store.read(repo, "README.md").decode()
    for line in ("configs:", "- config_name: default", "- config_name: small", "path: data/train-*", "dtype: float32"):
        assert line in card


def test_sessions_come_back_as_they_were(pushed, loaded):
    found, _ = loaded
    for name, rows in pushed.items():
        assert found[f"{name} False"] == found[f"{name} True"] == rows
    assert found["validation"] == found["read"] == pushed["test"]
    assert found["small"] == found["private"] == 8
    for refused in ("no token", "none"):
        assert "doesn't exist on the Hub or cannot be accessed" in found[refused]
    assert "HF_HUB_OFFLINE" not in found["cold"]
    assert found["split"].startswith("ValueError: owner/sessions, split 'tset': ")


def test_files_go_as_parquet_with_splits_and_come_back_whole_and_as_a_stream(shared_hub, loaded):
    repo = shared_hub.store.repos["dataset", "owner/rows"]
    assert len(repo.history(repo.at("main"))) == 2
    card = shared_hub.store.read(repo, "README.md").decode()
    assert cards.validate(card, "dataset") == ([], [])
    sent = loaded[0]["sent"]
    assert sent["rows"] == {"train": 8, "test": 3}
    assert sent["streamed"] == ["c4", "c4", "c5"]
    assert sent["sessions"] == 8
    assert sent["schema"] == [True, True]


def test_a_full_disk_is_named_and_half_a_download_is_not_loaded(pushed, loaded):
    found, _ = loaded
    assert found["warm"] == pushed["test"]
    assert "owner/sessions: on the Hub, and can't be loaded." in found["full"]


def test_cached_repositories_load_offline(shared_hub, pushed, loaded):
    _, folder = loaded
    asked = len(shared_hub.requests)
    environment = client(shared_hub, folder, HF_HUB_OFFLINE="1")
    for found in in_fresh_process(load_offline, folder, environment, helpers=(load_again,)):
        assert found["warm"] == pushed["test"]
        assert "HF_HUB_OFFLINE is set" in found["cold"]
        assert "`hf download --repo-type dataset " in found["cold"]
    assert len(shared_hub.requests) == asked
