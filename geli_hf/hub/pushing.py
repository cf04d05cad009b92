"""One commit or nothing: files and a card to a repository of the Hub, by its own client."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import NoReturn

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id

CARD = "README.md"
TITLE = "geli push: "  # how a commit of ours is told from a person's
AGAIN = "Nothing was published; the same command again sends only what the Hub does not have yet."
HINTS = {
    401: "The Hub does not know who you are: log in with `hf auth login`, or set HF_TOKEN to a token that may write.",
    403: "Your token may not write there: make one of the kind `write` (settings, access tokens), or choose an owner "
    "after --repo that is you or an organisation of yours; --create-pr proposes it to the owner.",
    404: "There is nothing there by that name, or it is private and not yours: look at --repo and --revision.",
    409: "Something there is in the way: another push at the same time, or the name is taken. Wait and try again, or "
    "choose another name after --repo.",
    412: "Somebody changed the repository meanwhile: look at what they did, and try again.",
    429: "The Hub asks for patience{wait}: try again later.",
}


@dataclass(frozen=True)
class Push:
    """What to send where, and how.

    Args:
        what: the kind of thing, in words.
        files: by the path there.
        card: the text of README.md; None leaves the one there as it is.
        stale: patterns of what is deleted there if it is not among the files, such as earlier weights.
        kind_of: given the names of the files on the Hub, what they are, in the words of `what`.
        merged: given the card on the Hub, what to make of it where it is kept.
        replace_card: replace the one on the Hub even if somebody edited it there.
    """

    repo: str
    repo_type: str
    what: str
    files: Mapping[str, Path]
    card: str | None
    stale: tuple[str, ...] = ()
    kind_of: Callable[[Collection[str]], str | None] = lambda names: None
    merged: Callable[[str], str] = str
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    replace_card: bool = False

    def sizes(self) -> dict[str, int]:
        """Bytes by path, the card among them."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        if self.card is not None:
            sizes[CARD] = len(self.card.encode())
        return dict(sorted(sizes.items()))


@dataclass(frozen=True)
class Pushed:
    url: str  # of the commit, or of the pull request
    card_kept: bool  # the one that was edited on the Hub


def check_repo_id(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise ValueError(f"--repo: {error}") from None
    if repo.count("/") != 1:
        raise ValueError(f"--repo: expected owner/name, found {repo!r}")


def is_private(repo: str, repo_type: str) -> bool | None:
    """None if there is no such repository, or none that this token sees."""
    with hints():
        info = _info(HfApi(), repo, repo_type)
    return None if info is None else bool(info.private)


def send(push: Push) -> Pushed:
    """Make the repository if there is none, and commit everything at once.

    A README.md whose last commit is no push of this command was edited by somebody on the Hub, and is kept.

    Raises:
        OSError, ValueError: it did not work, and nothing was published; the message says what to do.
    """
    api = HfApi()
    with hints():
        info = _info(api, push.repo, push.repo_type)
        if info is not None and push.private and not info.private:
            raise ValueError(
                f"--private: {push.repo} is there already, and public. Make it private in its settings, leave "
                "--private out, or choose another name"
            )
        if info is None:
            api.create_repo(push.repo, repo_type=push.repo_type, private=push.private or None, exist_ok=True)
        revision = push.revision or "main"
        parent = _head(api, push, revision)
        there = set(api.list_repo_files(push.repo, repo_type=push.repo_type, revision=parent))
        if push.kind_of(there) not in (None, push.what):
            raise ValueError(
                f"--repo: {push.repo} is taken by another kind of model ({push.kind_of(there)}), which this "
                f"{push.what} would replace. Choose another name"
            )
        card = push.card
        if card is not None and CARD in there and not push.replace_card:
            edited = _edited_card(api, push, parent)
            card = card if edited is None else push.merged(edited)
        adds = [CommitOperationAdd(name, str(path)) for name, path in push.files.items()]
        if card is not None:
            adds.append(CommitOperationAdd(CARD, card.encode()))
        gone = sorted(
            name for name in there - set(push.files) - {CARD} if any(fnmatch(name, each) for each in push.stale)
        )
        commit = api.create_commit(
            push.repo,
            [*adds, *(CommitOperationDelete(name) for name in gone)],
            commit_message=f"{TITLE}{push.what}",
            repo_type=push.repo_type,
            revision=revision,
            create_pr=push.create_pr,
            parent_commit=parent,
        )
    return Pushed(commit.pr_url or commit.commit_url, card_kept=card != push.card)


def _info(api: HfApi, repo: str, repo_type: str) -> ModelInfo | None:
    try:
        return api.repo_info(repo, repo_type=repo_type)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401 and get_token() is not None:
            raise  # with a token, it is the token that is wrong
        return None


def _head(api: HfApi, push: Push, revision: str) -> str:
    """The commit to build on; a branch that is not there is made."""
    try:
        return api.repo_info(push.repo, repo_type=push.repo_type, revision=revision).sha
    except RevisionNotFoundError:
        if revision.startswith("refs/"):
            raise
    api.create_branch(push.repo, repo_type=push.repo_type, branch=revision)
    return api.repo_info(push.repo, repo_type=push.repo_type, revision=revision).sha


def _edited_card(api: HfApi, push: Push, revision: str) -> str | None:
    """The card there if a person, or another program, had the last word on it."""
    where = {"repo_type": push.repo_type, "revision": revision}
    [entry] = api.get_paths_info(push.repo, [CARD], expand=True, **where)
    if entry.last_commit is not None and entry.last_commit.title.startswith(TITLE):
        return None
    return Path(api.hf_hub_download(push.repo, CARD, **where)).read_text(encoding="utf-8")


@contextmanager
def hints() -> Iterator[None]:
    """The client's own errors with what to do beside them, as OSError or ValueError, and never with the token."""
    try:
        yield
    except OfflineModeIsEnabled as error:
        _say(error, "Unset HF_HUB_OFFLINE: a push needs the Hub.")
    except (HfHubHTTPError, EntryNotFoundError) as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        hint = HINTS.get(status, AGAIN if status is None or status >= 500 else "")
        wait = response.headers.get("Retry-After") if status == 429 else None
        _say(error, hint.replace("{wait}", f" ({wait} s)" if wait else ""))
    except HTTPError as error:  # no answer at all
        _say(error, f"The connection was lost. {AGAIN}")
    except RuntimeError as error:  # what the client makes of a file that it could not upload
        _say(error, AGAIN)
    except ValueError as error:
        if "Invalid metadata in README.md" not in str(error):
            raise
        _say(error, f"Correct the lines between the dashes of {CARD}. Nothing was published.")


def _say(error: Exception, hint: str) -> NoReturn:
    text = f"{error}\n{hint}".strip()
    if token := get_token():
        text = text.replace(token, "hf_***")
    raise (ValueError if isinstance(error, ValueError) else OSError)(text) from None
