"""Storage of the Hub: repositories whose commits name files by content, and refs that point at commits.

Contents lie under their SHA-256 in `blobs/`, all else in `repos.json`, so that a server that is started again on the
same folder goes on with what it had.
"""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

# What goes by LFS whatever its size, as the attributes in every new repository say.
LFS_SUFFIXES = "arrow bin gz h5 npy npz parquet pkl pt pth safetensors whl zip".split()  # noqa: SIM905
# The Hub writes one into every new Space, with the newest version of the SDK.
SPACE_README = """---
title: {title}
emoji: 📊
colorFrom: purple
colorTo: red
sdk: {sdk}
sdk_version: 4.44.1
app_file: app.py
pinned: false
---

Check out the configuration reference at https://huggingface.co/docs/hub/spaces-config-reference
"""
GIT_ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
LFS_SIZE = 10 * 2**20  # bytes; larger files are never regular ones


class HubError(Exception):
    """An answer that is no success. `code` is what the client goes by (`X-Error-Code`)."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | (headers or {})


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def pointer(sha256: str, size: int) -> bytes:
    """Return the pointer that git stores for an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


@dataclass
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, dict]  # path -> size, sha256, oid (git's), lfs (bool)


@dataclass
class PullRequest:
    num: int
    title: str
    description: str
    author: str
    base: str  # the ref that it goes into
    fork: str  # the commit that it began at
    date: str
    status: str = "open"
    merged: str | None = None  # commit


@dataclass
class Repo:
    type: str  # model, dataset, space
    id: str
    private: bool = False
    gated: str | bool = False
    created: str = field(default_factory=now)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    # of a Space
    sdk: str | None = None
    secrets: dict[str, dict] = field(default_factory=dict)
    variables: dict[str, dict] = field(default_factory=dict)
    hardware: str = "cpu-basic"

    @property
    def url(self) -> str:
        """Path of its page."""
        return f"/{self.id}" if self.type == "model" else f"/{self.type}s/{self.id}"

    def ref(self, revision: str) -> str:
        """Full name of a branch, tag or pull request.

        Raises:
            HubError: 404, there is none.
        """
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return name
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def at(self, revision: str) -> Commit:
        """The commit that a ref, or the beginning of a commit's own name, stands for."""
        found = [oid for oid in self.commits if len(revision) >= 7 and oid.startswith(revision)]
        return self.commits[found[0] if len(found) == 1 else self.refs[self.ref(revision)]]

    def history(self, commit: Commit) -> list[Commit]:
        """The commit and those before it, the newest first."""
        commits = [commit]
        while commits[-1].parent:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def add_commit(self, ref: str, files: dict, *, author: str, title: str, message: str = "", parent=None) -> Commit:
        """Put a commit on `parent` and let `ref` point at it."""
        date = now()
        oid = hashlib.sha1(json.dumps([self.id, parent, title, date, files]).encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, message, author, date, files)
        self.refs[ref] = oid
        return self.commits[oid]

    def open_pull(self, *, title: str, description: str, author: str, base: str, start: str) -> PullRequest:
        pull = PullRequest(len(self.pulls) + 1, title, description, author, base, start, now())
        self.pulls.append(pull)
        self.refs[f"refs/pr/{pull.num}"] = start
        return pull


class Store:
    """All repositories, in a folder."""

    def __init__(self, folder: str | Path):
        self.open(folder)

    def open(self, folder: str | Path) -> None:
        """Begin anew, with blobs in this folder."""
        self.folder = Path(folder)
        (self.folder / "blobs").mkdir(parents=True, exist_ok=True)
        self.repos: dict[tuple[str, str], Repo] = {}

    def blob(self, sha256: str) -> Path:
        return self.folder / "blobs" / sha256

    def file(self, content: bytes) -> dict:
        """Keep a regular file; what a commit says of it."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.blob(sha256).write_bytes(content)
        return {"size": len(content), "sha256": sha256, "oid": git_oid(content), "lfs": False}

    def lfs_file(self, sha256: str) -> dict:
        """The same of a file that was uploaded by LFS.

        Raises:
            HubError: 400, it wasn't.
        """
        if not self.blob(sha256).exists():
            raise HubError(400, f"LFS object {sha256} was not uploaded")
        size = self.blob(sha256).stat().st_size
        return {"size": size, "sha256": sha256, "oid": git_oid(pointer(sha256, size)), "lfs": True}

    def read(self, repo: Repo, path: str, revision: str = "main") -> bytes | None:
        """Content of a file, None where there is none."""
        file = repo.at(revision).files.get(path)
        return file and self.blob(file["sha256"]).read_bytes()

    def create(self, type: str, id: str, *, author: str, **settings) -> Repo:
        """A new repository, with one commit as on the Hub.

        Raises:
            HubError: 409, the name is taken.
        """
        if (type, id) in self.repos:
            raise HubError(409, f"You already created this {type} repo: {id}")
        repo = self.repos[type, id] = Repo(type, id, **settings)
        files = {".gitattributes": self.file(GIT_ATTRIBUTES)}
        if type == "space":
            title = id.partition("/")[2].replace("-", " ").title()
            files["README.md"] = self.file(SPACE_README.format(title=title, sdk=repo.sdk).encode())
        repo.add_commit("refs/heads/main", files, author=author, title="initial commit")
        return repo
