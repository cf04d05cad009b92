"""The user of a request, and that user's rights."""

from dataclasses import dataclass
from urllib.parse import unquote

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request

from .store import Commit, HubError, Repo, Store


class RepoTypes(StringConvertor):
    regex = "models|datasets|spaces"


register_url_convertor("repo_type", RepoTypes())
REPO = "/api/{type:repo_type}/{owner}/{name}"


@dataclass(frozen=True)
class Account:
    user: str
    can_write: bool = True
    organisations: tuple[str, ...] = ()

    def owns(self, repo_id: str) -> bool:
        return repo_id.partition("/")[0] in (self.user, *self.organisations)


class Access:
    """Args: what there is, and the accounts by their tokens."""

    def __init__(self, store: Store, accounts: dict[str, Account]):
        self.store, self.accounts = store, accounts

    def account(self, request: Request) -> Account | None:
        """None without a token."""
        _, _, token = request.headers.get("authorization", "").partition(" ")
        if not token:
            return None
        if token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts[token]

    def writer(self, request: Request) -> Account:
        account = self.account(request)
        if account is None:
            raise HubError(401, "Invalid username or password.")
        if not account.can_write:
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return account

    def repo(self, request: Request, *, write: bool = False) -> Repo:
        """The repository that the path names, for somebody who may read or write it."""
        params, account = request.path_params, self.account(request)
        repo_type = params.get("type", "models").removesuffix("s")
        repo = self.store.repos.get((repo_type, f"{params['owner']}/{params['name']}"))
        if repo is None or (repo.private and not (account and account.owns(repo.id))):
            # That a private repository exists is nobody's business.
            raise HubError(404 if account else 401, "Repository not found", "RepoNotFound")
        if write and not self.writer(request).owns(repo.id):
            raise HubError(403, f"Forbidden: you don't have write access to {repo.id}")
        return repo

    def commit(self, request: Request, repo: Repo) -> Commit:
        """The one that the path names, or else that of the main branch."""
        return repo.at(unquote(request.path_params.get("revision", "main")))

    def readable(self, request: Request) -> Repo:
        """The repository that the path names, for somebody who may read its files: one may be listed, but gated."""
        repo, account = self.repo(request), self.account(request)
        if repo.gated and not (account and account.owns(repo.id)):
            raise HubError(403 if account else 401, f"Access to {repo.type} {repo.id} is restricted", "GatedRepo")
        return repo


def at(request: Request, path: str) -> str:
    """Address of a path of this server."""
    return f"{request.url.scheme}://{request.url.netloc}{path}"
