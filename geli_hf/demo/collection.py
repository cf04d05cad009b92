"""Rated sessions of people who agreed, in a folder or a private dataset on the Hub.

Each session is a file of its own, written once, when the session is closed: so it can be deleted by itself, and no
unfinished session is uploaded. `load_sessions(folder)` reads them all.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from huggingface_hub import CommitScheduler, HfApi

from ..data.rows import write_jsonl
from ..sessions import Session, SessionError, validate_session
from .conversation import session_id_of

FOLDER_IN_REPO = "data"


class Collection:
    """Store of rated sessions.

    Args:
        folder: where the sessions are written.
        repo: id of a private dataset on the Hub that they are uploaded to; it is created. None: no upload.
        minutes: between two uploads.
        api: the client; by default that of the environment's token.
    """

    def __init__(self, folder: str | Path, repo: str | None = None, *, minutes: float = 10, api: HfApi | None = None):
        self.folder, self.repo, self.minutes = Path(folder), repo, minutes
        self.folder.mkdir(parents=True, exist_ok=True)
        self.api = api or HfApi()
        self.scheduler = repo and CommitScheduler(
            repo_id=repo,
            folder_path=self.folder,
            every=minutes,
            path_in_repo=FOLDER_IN_REPO,
            repo_type="dataset",
            private=True,
            allow_patterns="*.jsonl",
            hf_api=self.api,
        )
        self._no_upload = self.scheduler.lock if self.scheduler else nullcontext()

    def add(self, row: Session) -> Path:
        """Write a closed, rated session; one of the same id is replaced.

        Raises:
            SessionError: the row is not valid, or has no rating.
        """
        validate_session(row, "this session", {})
        if row["score"] != row["score"]:
            raise SessionError("this session, field 'score': a session is collected when it is rated; rate it first")
        with self._no_upload:
            return write_jsonl([row], self._path(row["session_id"]))

    def delete(self, key: str) -> str:
        """Delete the session of this key.

        Returns:
            `"here"` if it had not been uploaded, `"hub"` if it had, and the dataset's history was rewritten, or
            `"unknown"` if there is none of that key.
        """
        path = self._path(session_id_of(key))
        with self._no_upload:
            here = path.exists()
            path.unlink(missing_ok=True)
            name = f"{FOLDER_IN_REPO}/{path.name}"
            if self.repo and self.api.file_exists(self.repo, name, repo_type="dataset"):
                message = "Delete a session on request"
                self.api.delete_file(name, self.repo, repo_type="dataset", commit_message=message)
                # The history still holds a deleted file; squashing leaves one commit without it.
                self.api.super_squash_history(self.repo, repo_type="dataset")
                return "hub"
        return "here" if here else "unknown"

    def _path(self, session_id: str) -> Path:
        return self.folder / f"{session_id}.jsonl"
