"""The Hub of the tests answers as the Hub does: what `huggingface_hub` makes of it, as it is."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_hub import Hub

WEIGHTS = bytes(range(256)) * 1000
CARD = b"---\nlicense: mit\n---\n# A model\n"
REPO = "owner/model"


@pytest.fixture
def repo(owner) -> str:
    owner.create_repo(REPO)
    owner.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="model.safetensors", repo_id=REPO)
    return REPO


def sha(api: HfApi, revision: str | None = None) -> str:
    return api.model_info(REPO, revision=revision).sha


def sent(hub: Hub, pattern: str) -> int:
    """Count the requests of this kind."""
    return sum(bool(re.search(pattern, f"{request.method} {request.path}")) for request in hub.requests)


def read(hub: Hub, path: str, revision: str | None = None, cache="cache", **options) -> bytes:
    file = hf_hub_download(
        REPO, path, revision=revision, endpoint=hub.url, cache_dir=hub.store.folder / cache, **options
    )
    return Path(file).read_bytes()


# -------------------------------------------------------------------------------- files, commits, refs


def test_a_file_comes_back_and_is_named_by_its_content_as_git_and_lfs_do(hub, owner, repo):
    owner.upload_file(path_or_fileobj=CARD, path_in_repo="README.md", repo_id=REPO)
    assert read(hub, "model.safetensors", token="hf_stranger") == WEIGHTS
    listed = {file.path: file for file in owner.list_repo_tree(REPO)}
    assert set(listed) == {".gitattributes", "README.md", "model.safetensors"}
    assert listed["model.safetensors"].lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    git = subprocess.run(["git", "hash-object", "--stdin"], input=CARD, capture_output=True, check=True).stdout
    assert listed["README.md"].blob_id == git.decode().strip()
    assert listed["README.md"].lfs is None


def test_folders_are_listed_level_by_level_and_whole(owner, repo):
    for path in ("a/b/one.txt", "a/two.txt", "zero.txt"):
        owner.upload_file(path_or_fileobj=path.encode(), path_in_repo=path, repo_id=REPO, commit_message=path)
    names = {".gitattributes", "model.safetensors", "zero.txt"}
    assert {entry.path for entry in owner.list_repo_tree(REPO)} == names | {"a"}
    assert {entry.path for entry in owner.list_repo_tree(REPO, "a")} == {"a/b", "a/two.txt"}
    whole = {entry.path: entry for entry in owner.list_repo_tree(REPO, recursive=True, expand=True)}
    assert set(whole) == names | {"a", "a/b", "a/b/one.txt", "a/two.txt"}
    assert whole["a/b"].last_commit.title == "a/b/one.txt"
    assert whole["a"].last_commit.title == "a/two.txt"
    assert [entry.path for entry in owner.get_paths_info(REPO, ["a/b", "a/two.txt", "none"])] == ["a/b", "a/two.txt"]
    with pytest.raises(EntryNotFoundError):
        list(owner.list_repo_tree(REPO, "none"))


def test_branches_and_commits_are_read_by_name(hub, owner, repo):
    first = sha(owner)
    owner.create_branch(REPO, branch="next/try")
    owner.upload_file(path_or_fileobj=b"new", path_in_repo="new.txt", repo_id=REPO, revision="next/try")
    assert sha(owner) == sha(owner, first[:9]) == first != sha(owner, "next/try")
    assert read(hub, "new.txt", "next/try") == b"new"
    with pytest.raises(EntryNotFoundError):
        read(hub, "new.txt", "main")
    with pytest.raises(RevisionNotFoundError):
        owner.model_info(REPO, revision="none")
    with pytest.raises(HfHubHTTPError, match="409"):
        owner.create_branch(REPO, branch="next/try")
    assert {ref.name for ref in owner.list_repo_refs(REPO).branches} == {"main", "next/try"}
    titles = [commit.title for commit in owner.list_repo_commits(REPO)]
    assert titles == ["Upload model.safetensors with huggingface_hub", "initial commit"]


def test_a_commit_adds_and_deletes_at_once_or_not_at_all(owner, repo):
    owner.upload_file(path_or_fileobj=b"1", path_in_repo="old/one.txt", repo_id=REPO)
    before = sha(owner)
    adding = CommitOperationAdd("new.txt", b"2")
    with pytest.raises(EntryNotFoundError):
        owner.create_commit(REPO, [adding, CommitOperationDelete("none.txt")], commit_message="half")
    assert sha(owner) == before
    adding = CommitOperationAdd("new.txt", b"2")
    owner.create_commit(REPO, [adding, CommitOperationDelete("old/")], commit_message="whole")
    assert set(owner.list_repo_files(REPO)) == {".gitattributes", "model.safetensors", "new.txt"}


def test_a_commit_on_an_old_parent_is_refused(owner, repo):
    before = sha(owner)
    owner.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=REPO, parent_commit=before)
    with pytest.raises(HfHubHTTPError, match="412"):
        owner.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=REPO, parent_commit=before)


def test_unchanged_files_make_no_commit(owner, repo):
    before = sha(owner)
    owner.upload_file(path_or_fileobj=WEIGHTS, path_in_repo="model.safetensors", repo_id=REPO)
    assert sha(owner) == before


def test_a_pull_request_has_files_of_its_own(hub, owner, repo):
    stranger = HfApi(hub.url, token="hf_stranger")
    first = stranger.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=REPO, create_pr=True)
    assert first.pr_revision == "refs/pr/1"
    stranger.upload_file(path_or_fileobj=b"3", path_in_repo="c.txt", repo_id=REPO, revision="refs/pr/1")
    assert read(hub, "a.txt", "refs/pr/1") == b"1"
    assert not owner.file_exists(REPO, "a.txt")


# -------------------------------------------------------------------------------- rights

ANYTHING = {"path_or_fileobj": b"x", "path_in_repo": "x.txt"}
DOINGS = {
    "read": lambda api: api.model_info(REPO),
    "write": lambda api: api.upload_file(repo_id=REPO, **ANYTHING),
    "propose": lambda api: api.upload_file(repo_id=REPO, create_pr=True, **ANYTHING),
    "create": lambda api: api.create_repo("owner/other"),
    "delete": lambda api: api.delete_repo(REPO),
}
REFUSED = {  # token -> of a public repository, of a private one
    False: ({"write": 401, "propose": 401, "create": 401, "delete": 401}, dict.fromkeys(DOINGS, 401)),
    "hf_wrong": (dict.fromkeys(DOINGS, 401), dict.fromkeys(DOINGS, 401)),
    "hf_reader": ({"write": 403, "propose": 403, "create": 403, "delete": 403},) * 2,
    "hf_stranger": ({"write": 403, "create": 403, "delete": 403}, dict.fromkeys(DOINGS, 404) | {"create": 403}),
    "hf_owner": ({}, {}),
}


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("token", REFUSED)
def test_who_may_do_what(token, private, hub, owner, repo):
    owner.update_repo_settings(REPO, private=private)
    api, refused = HfApi(hub.url, token=token), {}
    for name, do in DOINGS.items():
        try:
            do(api)
        except HfHubHTTPError as error:
            refused[name] = error.response.status_code
    assert refused == REFUSED[token][private]


def test_a_name_is_taken_and_a_repository_has_one_type(owner, repo):
    with pytest.raises(HfHubHTTPError, match="409"):
        owner.create_repo(REPO)
    assert owner.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(RepositoryNotFoundError):
        owner.dataset_info(REPO)


# -------------------------------------------------------------------------------- cards

BROKEN_CARDS = {
    "no YAML": ("model", "tags: [a", "bad YAML"),
    "no object": ("model", "- a", "object"),
    "licence": ("model", "license: apache", '"license" must be one of'),
    "language": ("dataset", "language: English", '"language"'),
    "base model": ("model", "base_model: /home/me/model", '"base_model"'),
    "tags": ("model", "tags: dialogue", '"tags" must be an array'),
    "no value": (
        "model",
        "model-index: [{name: m, results: [{task: {type: t}, dataset: {name: d, type: d}, metrics: [{type: r}]}]}]",
        "metrics[0].value",
    ),
    "configs": ("dataset", "configs: [{data_files: a.parquet}]", "config_name"),
    "no SDK": ("space", "title: Chat", '"sdk" must be one of'),
    "a number": ("space", "sdk: gradio\nsdk_version: 6.3", '"sdk_version" must be a string'),
    "colour": ("space", "sdk: gradio\ncolorFrom: orange", '"colorFrom" must be one of'),
    "length": ("space", f"sdk: gradio\nshort_description: {'very ' * 20}long", "60 characters"),
}


@pytest.mark.parametrize("name", BROKEN_CARDS)
def test_a_broken_card_is_refused_before_and_in_a_commit(name, hub, owner):
    repo_type, front, expected = BROKEN_CARDS[name]
    sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
    owner.create_repo(REPO, repo_type=repo_type, **sdk)
    before = owner.repo_info(REPO, repo_type=repo_type).sha
    card = f"---\n{front}\n---\n".encode()
    with pytest.raises(ValueError, match="Invalid metadata in README") as refused:
        owner.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=REPO, repo_type=repo_type)
    assert expected in str(refused.value)
    assert sent(hub, "POST .*/commit/") == 0
    assert owner.repo_info(REPO, repo_type=repo_type).sha == before


# -------------------------------------------------------------------------------- by hand


def test_the_command_prints_the_environment_to_set():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.loopback_hub", "--port", "0"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        try:
            told = "".join(server.stdout.readline() for _ in range(4))
            api = HfApi(re.search(r"HF_ENDPOINT=(\S+)", told)[1], token=re.search(r"HF_TOKEN=(\S+)", told)[1])
            assert "HF_HUB_DISABLE_XET=1" in told
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
                assert api.whoami()["name"] == "owner"
        finally:
            server.terminate()
