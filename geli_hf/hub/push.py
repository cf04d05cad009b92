"""One commit or nothing: files and a card to a repository of the Hub, by its own client."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import ClassVar, NoReturn

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token, metadata_load
from huggingface_hub.constants import REPO_TYPES_URL_PREFIXES
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
from yaml import YAMLError

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


@dataclass(frozen=True, kw_only=True)
class Push:
    """What to send where, and how.

    Args:
        what: the kind of thing, in words.
        files: by the path there.
        card: the text of README.md; None leaves the one there as it is.
        create_pr: open a pull request, in place of a commit.
        revision: a branch, which is made if it is not there; None is the main one.
        replace_card: replace the card on the Hub even if somebody edited it there.
        message, description: of the commit.
        token: in place of the one that this machine is logged in with.
    """

    repo_type: ClassVar[str]
    stale: ClassVar[tuple[str, ...]] = ()  # patterns of what is deleted there if it is not among the files

    repo: str
    what: str
    files: Mapping[str, Path]
    card: str | None
    private: bool = False
    create_pr: bool = False
    revision: str | None = None
    replace_card: bool = False
    message: str | None = None
    description: str | None = None
    token: str | bool | None = field(default=None, repr=False)

    def __post_init__(self):
        check_repo_id(self.repo)

    def sizes(self) -> dict[str, int]:
        """Bytes by path, the card among them."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        if self.card is not None:
            sizes[CARD] = len(self.card.encode())
        return dict(sorted(sizes.items()))

    def create(self, api: HfApi) -> None:
        """Make the repository, which nobody else may have made meanwhile."""
        api.create_repo(self.repo, repo_type=self.repo_type, private=self.private or None)

    def finish(self, api: HfApi, *, new: bool) -> None:
        """What is left to do after the commit, in a repository that was made for it or that was there."""

    def check(self, there: Collection[str]) -> None:
        """Raises ValueError if these files are not to be replaced by this."""

    def merged(self, card: str) -> str:
        """What to make of the card on the Hub where it is kept."""
        return card


@dataclass(frozen=True)
class Pushed:
    commit: CommitInfo
    card_kept: bool  # the one that was edited on the Hub

    @property
    def url(self) -> str:
        """Of the commit, or of the pull request."""
        return self.commit.pr_url or self.commit.commit_url


def check_repo_id(repo: str) -> None:
    try:
        validate_repo_id(repo)
    except ValueError as error:
        raise ValueError(f"--repo: {error}") from None
    if repo.count("/") != 1:
        raise ValueError(f"--repo: expected owner/name, found {repo!r}")


def full_name(repo: str, token: str | bool | None = None) -> str:
    """The name with its owner; without one it is of whoever the token is of."""
    if "/" in repo:
        return repo
    with hints(token=token):
        return f"{HfApi(token=token).whoami()['name']}/{repo}"


def read_card(folder: Path) -> str | None:
    """The text of the folder's README.md, None if there is none.

    Raises:
        ValueError: its front matter is no YAML.
    """
    path = folder / CARD
    if not path.is_file():
        return None
    try:
        metadata_load(path)
    except (ValueError, YAMLError) as error:
        raise ValueError(f"{path}: what stands between the dashes is no YAML: {error}") from None
    return path.read_text(encoding="utf-8")


def is_private(repo: str, repo_type: str) -> bool | None:
    """None if there is no such repository, or none that this token sees."""
    with hints():
        info = _info(HfApi(), repo, repo_type)
    return None if info is None else bool(info.private)


def send(push: Push) -> Pushed:
    """Make the repository if there is none, and commit everything at once.

    A README.md whose last commit is no push of this command was edited by somebody on the Hub, and is kept.

    Raises:
        OSError, ValueError: it did not work, and nothing was published, or the message says that it may have been;
            it also says what to do.
    """
    api = HfApi(token=push.token)
    with hints(token=push.token):
        info = _info(api, push.repo, push.repo_type)
        if info is not None and push.private and not info.private:
            raise ValueError(
                f"--private: {push.repo} is there already, and public. Make it private in its settings, leave "
                "--private out, or choose another name"
            )
        if info is None:
            push.create(api)
        with _taken_back(api, push) if info is None else nullcontext():
            commit, card = _commit(api, push)
    pushed = Pushed(commit, card_kept=card != push.card)
    with hints(f"{pushed.url}: pushed, but not all is done. ", token=push.token):
        push.finish(api, new=info is None)
    return pushed


def _commit(api: HfApi, push: Push) -> tuple[CommitInfo, str | None]:
    """All at once; and the card as it was sent."""
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
    message = push.message or f"{TITLE}{push.what}"
    try:
        commit = api.create_commit(
            push.repo,
            [*adds, *(CommitOperationDelete(name) for name in gone)],
            commit_message=message,
            commit_description=push.description,
            repo_type=push.repo_type,
            revision=revision,
            create_pr=push.create_pr,
            parent_commit=parent,
        )
    except HTTPError as error:
        answer = getattr(error, "response", None)
        if answer is not None and answer.status_code < 500:
            raise
        commit = _made_after_all(api, push, revision, parent, message)
        if commit is None:
            raise
    return commit, card


def _made_after_all(api: HfApi, push: Push, revision: str, parent: str, message: str) -> CommitInfo | None:
    """The commit on `parent`, where the Hub has made it and only its answer did not come."""
    where = {"repo_type": push.repo_type}
    try:
        refs = [revision]
        if push.create_pr:
            refs = [
                ref.ref for ref in api.list_repo_refs(push.repo, include_pull_requests=True, **where).pull_requests
            ]
        for ref in refs:
            last, *earlier = api.list_repo_commits(push.repo, revision=ref, **where)
            if last.title == message and earlier and earlier[0].commit_id == parent:
                url = f"{api.endpoint}/{REPO_TYPES_URL_PREFIXES.get(push.repo_type, '')}{push.repo}"
                discussion = f"{url}/discussions/{ref.rpartition('/')[2]}" if push.create_pr else None
                how = {"commit_message": message, "commit_description": push.description or "", "pr_url": discussion}
                return CommitInfo(f"{url}/commit/{last.commit_id}", oid=last.commit_id, **how)
    except HTTPError as error:
        raise _Unknown(str(error)) from None
    return None


class _Unknown(Exception):
    """Whether the commit was made."""


@contextmanager
def _taken_back(api: HfApi, push: Push) -> Iterator[None]:
    """If this fails, the repository that was made for it goes away again; unless something got into it meanwhile."""
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
                error.add_note(f"{push.repo} was made for this push and got something from elsewhere, so it stays.")
        except Exception:
            error.add_note(f"{push.repo} was made for this push and stays, without it: delete it in its settings.")
        raise


def _info(api: HfApi, repo: str, repo_type: str) -> ModelInfo | None:
    try:
        return api.repo_info(repo, repo_type=repo_type)
    except RepositoryNotFoundError as error:
        if error.response.status_code == 401 and (api.token or get_token()) is not None:
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
def hints(done: str = "", *, token: str | bool | None = None) -> Iterator[None]:
    """The client's own errors with what to do beside them, as OSError or ValueError, and never with the token.

    Args:
        done: what was published already, in words. Without it, nothing was.
        token: the one that was asked with, beside that of this machine.
    """
    again = "Do the rest by hand, or push again." if done else AGAIN
    say = partial(_say, done=done, secrets=(token, get_token()))
    try:
        yield
    except _Unknown as error:
        say(error, "The connection was lost, and it may have been published: look at the Hub before you push again.")
    except OfflineModeIsEnabled as error:
        say(error, "Unset HF_HUB_OFFLINE: a push needs the Hub.")
    except (HfHubHTTPError, EntryNotFoundError) as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        hint = HINTS.get(status, again if status is None or status >= 500 else "")
        wait = response.headers.get("Retry-After") if status == 429 else None
        say(error, hint.replace("{wait}", f" ({wait} s)" if wait else ""))
    except HTTPError as error:  # no answer at all
        say(error, f"The connection was lost. {again}")
    except RuntimeError as error:  # what the client makes of a file that it could not upload
        say(error, again)
    except ValueError as error:
        if "Invalid metadata in README.md" not in str(error):
            raise
        say(error, f"Correct the lines between the dashes of {CARD}. Nothing was published.")


def _say(error: Exception, hint: str, *, done: str, secrets: Collection) -> NoReturn:
    text = "\n".join([f"{done}{error}", *getattr(error, "__notes__", ()), hint]).strip()
    for secret in secrets:
        if isinstance(secret, str):
            text = text.replace(secret, "hf_***")
    raise (ValueError if isinstance(error, ValueError) else OSError)(text) from None
