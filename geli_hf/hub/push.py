"""Pushes to the Hub: files and a card in one commit or not at all, with the Hub's own client."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id

from .cards.base import CARD
from .cards.update import read_metadata

TITLE = "geli push: "  # begins the title of this package's commits
CREATION = "initial commit"  # the title of the commit with which the Hub makes a repository
AGAIN = "The same command again sends only what the Hub does not have yet."
LOST = "The connection was lost, and it may have been published: look at the Hub before you push again."
HINTS = {
    401: "The Hub does not know you: log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
    403: "Your token may not write there: make one of the kind `write` (settings, access tokens), or choose an owner "
    "after --repo that is you or your organisation; --create-pr proposes it to the owner.",
    404: "Nothing there has that name, or it is private and not yours: check --repo and --revision.",
    409: "The name is taken, or another push is under way: wait and try again, or choose another name after --repo.",
}


@dataclass(frozen=True, kw_only=True)
class Push:
    """Files for a repository of the Hub, and the options of their commit.

    Args:
        repo: owner/name.
        what: the kind of content, in words.
        files: local files by their path in the repository.
        card: text of README.md; None leaves the one on the Hub.
        private: make a new repository private.
        create_pr: open a pull request.
        revision: branch, made if it does not exist. Default: the main one.
        replace_card: replace the card on the Hub even if a person edited it there.
        commit_message, commit_description: of the commit.
        token: in place of this machine's.

    Raises:
        ValueError: `repo` is not owner/name.
    """

    repo_type: ClassVar[str]
    stale: ClassVar[tuple[str, ...]] = ()  # patterns of files on the Hub that a push deletes unless it sends them

    repo: str
    what: str
    files: Mapping[str, Path]
    card: str | None
    private: bool | None = False
    create_pr: bool = False
    revision: str | None = None
    replace_card: bool = False
    commit_message: str | None = None
    commit_description: str | None = None
    token: str | bool | None = field(default=None, repr=False)

    def __post_init__(self):
        check_repo_id(self.repo)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by path, with the card."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        if self.card is not None:
            sizes[CARD] = len(self.card.encode())
        return dict(sorted(sizes.items()))

    def create(self, api: HfApi) -> None:
        """Make the repository; the Hub refuses a name that is taken."""
        api.create_repo(self.repo, repo_type=self.repo_type, private=self.private or None)

    def finish(self, api: HfApi) -> None:
        """Do the rest after the commit."""

    def check(self, there: Collection[str]) -> None:
        """Raise a ValueError if the files on the Hub must not be replaced."""

    def merged(self, card: str) -> str:
        """Update the edited card of the Hub."""
        return card


@dataclass(frozen=True)
class Pushed:
    """The result of a push: its commit, and `card_kept` if the card on the Hub stayed because a person edited it."""

    commit: CommitInfo
    card_kept: bool

    @property
    def url(self) -> str:
        """Address of the commit or of the pull request."""
        return self.commit.pr_url or self.commit.commit_url


def check_repo_id(repo: str) -> None:
    """Raise a ValueError unless a name is owner/name, as the Hub takes it."""
    validate_repo_id(repo)
    if repo.count("/") != 1:
        raise ValueError(f"--repo: expected owner/name, found {repo!r}")


def full_name(repo: str, token: str | bool | None = None) -> str:
    """The name of a repository with its owner, by default the token's."""
    if "/" in repo:
        return repo
    with explained_errors(token=token):
        return f"{HfApi(token=token).whoami()['name']}/{repo}"


def read_card(folder: Path) -> str | None:
    """Text of a folder's README.md; None without one.

    Raises:
        ValueError: its front matter is not YAML.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8-sig")
    try:
        read_metadata(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return text


def is_private(repo: str, repo_type: str) -> bool | None:
    """True for a private repository; None if there is none that this machine's token sees."""
    with explained_errors():
        info = _info(HfApi(), repo, repo_type)
    return None if info is None else bool(info.private)


def send(push: Push) -> Pushed:
    """Commit everything at once, in a new repository if there is none.

    A README.md whose last commit is not by this package was edited on the Hub and stays.

    Raises:
        OSError, ValueError: nothing was published, unless the message says that it may have been.
    """
    api = HfApi(token=push.token)
    with explained_errors(token=push.token):
        info = _info(api, push.repo, push.repo_type)
        if info is not None and push.private and not info.private:
            raise ValueError(
                f"--private: {push.repo} exists and is public. Make it private in its settings, leave --private out, "
                "or choose another name"
            )
        if info is None:
            push.create(api)
        with _delete_if_it_fails(api, push) if info is None else nullcontext():
            commit, card = _commit(api, push)
    pushed = Pushed(commit, card_kept=card != push.card)
    with explained_errors(f"{pushed.url}: pushed, but not all is set; the same command sets the rest. ", push.token):
        push.finish(api)
    return pushed


def _commit(api: HfApi, push: Push) -> tuple[CommitInfo, str | None]:
    """Make the commit. Returns it and the card that it holds."""
    revision = push.revision or "main"
    parent = _head(api, push, revision)
    there = set(api.list_repo_files(push.repo, repo_type=push.repo_type, revision=parent))
    push.check(there)
    card = push.card
    if card is not None and CARD in there and not push.replace_card:
        edited = _edited_card(api, push, parent)
        card = card if edited is None else push.merged(edited)
    adds = [CommitOperationAdd(name, str(path)) for name, path in push.files.items()]
    if card is not None:
        adds.append(CommitOperationAdd(CARD, card.encode()))
    gone = sorted(name for name in there - set(push.files) - {CARD} if any(fnmatch(name, each) for each in push.stale))
    try:
        commit = api.create_commit(
            push.repo,
            [*adds, *(CommitOperationDelete(name) for name in gone)],
            commit_message=push.commit_message or f"{TITLE}{push.what}",
            commit_description=push.commit_description,
            repo_type=push.repo_type,
            revision=revision,
            create_pr=push.create_pr,
            parent_commit=parent,
        )
    except HTTPError as error:
        response = getattr(error, "response", None)
        if response is None or response.status_code >= 500:  # the Hub may have made it, and only its answer is lost
            error.add_note(LOST)
        raise
    return commit, card


@contextmanager
def _delete_if_it_fails(api: HfApi, push: Push) -> Iterator[None]:
    """Delete the repository that was made for this push if the push fails and nothing else is in it."""
    try:
        yield
    except BaseException as error:
        where = {"repo_type": push.repo_type}
        try:
            first, *later = api.list_repo_commits(push.repo, **where)
            refs = api.list_repo_refs(push.repo, include_pull_requests=True, **where)
            targets = {ref.target_commit for ref in [*refs.branches, *refs.tags, *(refs.pull_requests or ())]}
            if not later and targets == {first.commit_id}:
                api.delete_repo(push.repo, **where)
            else:
                error.add_note(f"{push.repo} was made for this push, has other commits, and stays.")
        except Exception:
            error.add_note(f"{push.repo} was made for this push and stays: delete it in its settings.")
        raise


def _info(api: HfApi, repo: str, repo_type: str) -> ModelInfo | None:
    try:
        return api.repo_info(repo, repo_type=repo_type)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401 and (api.token or get_token()) is not None:
            raise  # the token is wrong
        return None


def _head(api: HfApi, push: Push, revision: str) -> str:
    """The parent commit; a branch that does not exist is made."""
    if revision != "main" and not revision.startswith("refs/"):
        api.create_branch(push.repo, repo_type=push.repo_type, branch=revision, exist_ok=True)
    return api.repo_info(push.repo, repo_type=push.repo_type, revision=revision).sha


def _edited_card(api: HfApi, push: Push, revision: str) -> str | None:
    """The card on the Hub if a person edited it: its last commit is not by this package, nor the Hub's own first."""
    where = {"repo_type": push.repo_type, "revision": revision}
    [entry] = api.get_paths_info(push.repo, [CARD], expand=True, **where)
    last = entry.last_commit
    if last is not None and last.title.startswith(TITLE):
        return None
    first = api.list_repo_commits(push.repo, **where)[-1]
    if last is not None and last.title == CREATION and last.oid == first.commit_id:
        return None
    return Path(api.hf_hub_download(push.repo, CARD, **where)).read_text(encoding="utf-8")


@contextmanager
def explained_errors(done: str = "", token: str | bool | None = None) -> Iterator[None]:
    """Raise the client's errors as OSError with a hint, and with tokens masked.

    Args:
        done: what was published already, in words.
        token: the token in use, beside this machine's.

    Raises:
        OSError: from the client's error.
    """
    try:
        yield
    except (HTTPError, OfflineModeIsEnabled, RuntimeError) as error:  # RuntimeError: a file that did not upload
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = HINTS.get(status, AGAIN)
        message = "\n".join([f"{done}{error}", *getattr(error, "__notes__", ()), hint])
        for secret in (token, get_token()):
            if isinstance(secret, str):
                message = message.replace(secret, "hf_***")
        raise OSError(message) from None
