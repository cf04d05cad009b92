"""The endpoints of files: listed, downloaded, uploaded, committed."""

import base64
import hashlib
import json
from itertools import takewhile
from urllib.parse import parse_qs, unquote

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from . import cards
from .access import REPO, Access, at
from .store import LFS_SIZE, LFS_SUFFIXES, Commit, HubError, Repo, pointer


class Files(Access):
    def routes(self) -> list[Route]:
        routes = [
            Route(f"{REPO}/tree/{{revision}}", self.tree),
            Route(f"{REPO}/tree/{{revision}}/{{path:path}}", self.tree),
            Route(f"{REPO}/paths-info/{{revision}}", self.paths_info, methods=["POST"]),
            Route(f"{REPO}/preupload/{{revision}}", self.preupload, methods=["POST"]),
            Route(f"{REPO}/commit/{{revision}}", self.commit_files, methods=["POST"]),
            Route("/lfs/{oid}", self.lfs_upload, methods=["PUT"]),
            Route("/lfs/{oid}/verify", self.lfs_verify, methods=["POST"]),
        ]
        for prefix in ("/{type:repo_type}", ""):
            repo = f"{prefix}/{{owner}}/{{name}}"
            routes += [
                Route(f"{repo}.git/info/lfs/objects/batch", self.lfs_batch, methods=["POST"]),
                Route(f"{repo}/resolve/{{revision}}/{{path:path}}", self.resolve),
            ]
        return routes

    # ---------------------------------------------------------------- down

    async def resolve(self, request: Request) -> Response:
        repo = self.readable(request)
        commit, path = self.commit(request, repo), unquote(request.path_params["path"])
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise HubError(404, "Entry not found", "EntryNotFound", headers)
        file = commit.files[path]
        headers["ETag"] = f'"{file["oid"]}"'
        if file["lfs"]:
            headers |= {"X-Linked-ETag": f'"{file["sha256"]}"', "X-Linked-Size": str(file["size"])}
        return FileResponse(self.store.blob(file["sha256"]), headers=headers)

    async def tree(self, request: Request) -> Response:
        repo = self.repo(request)
        commit, query = self.commit(request, repo), request.query_params
        folder = unquote(request.path_params.get("path", ""))
        prefix = f"{folder}/" if folder else ""
        below = [path for path in commit.files if path.startswith(prefix)]
        if folder and not below:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        paths = set(below)
        for path in below:
            parts = path.removeprefix(prefix).split("/")
            paths |= {prefix + "/".join(parts[:depth]) for depth in range(1, len(parts))}
        if query.get("recursive", "").lower() not in ("true", "1"):
            paths = {path for path in paths if "/" not in path.removeprefix(prefix)}
        expand = query.get("expand", "").lower() in ("true", "1")
        return JSONResponse([self._entry(repo, commit, path, expand) for path in sorted(paths)])

    async def paths_info(self, request: Request) -> Response:
        repo = self.repo(request)
        commit, form = self.commit(request, repo), parse_qs((await request.body()).decode())
        expand = form.get("expand", [""])[0].lower() == "true"
        entries = [self._entry(repo, commit, path, expand) for path in form.get("paths", [])]
        return JSONResponse([entry for entry in entries if entry])

    def _entry(self, repo: Repo, commit: Commit, path: str, expand: bool) -> dict | None:
        """A file or folder as listings show it."""

        def content(commit: Commit) -> list:
            files = commit.files.items()
            return sorted((name, file["oid"]) for name, file in files if name == path or name.startswith(f"{path}/"))

        if not content(commit):
            return None
        if file := commit.files.get(path):
            row = {"type": "file", "path": path, "size": file["size"], "oid": file["oid"]}
            if file["lfs"]:
                size = len(pointer(file["sha256"], file["size"]))
                row["lfs"] = {"oid": file["sha256"], "size": file["size"], "pointerSize": size}
        else:
            oid = hashlib.sha1(repr(content(commit)).encode()).hexdigest()
            row = {"type": "directory", "path": path, "size": 0, "oid": oid}
        if expand:
            *_, last = takewhile(lambda earlier: content(earlier) == content(commit), repo.history(commit))
            row["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
        return row

    # ---------------------------------------------------------------- up

    async def preupload(self, request: Request) -> Response:
        """Say which files go by LFS, and the stored version of each, so that the client skips unchanged ones."""
        repo, rows = self.repo(request), []
        files = self.commit(request, repo).files
        for row in (await request.json())["files"]:
            there = files.get(row["path"])
            large = row["path"].rpartition(".")[2] in LFS_SUFFIXES or row["size"] > LFS_SIZE
            rows.append(
                {
                    "path": row["path"],
                    "uploadMode": "lfs" if large or b"\0" in base64.b64decode(row["sample"]) else "regular",
                    "shouldIgnore": False,
                    "oid": there and there["sha256" if there["lfs"] else "oid"],
                }
            )
        return JSONResponse({"files": rows})

    async def lfs_batch(self, request: Request) -> Response:
        self.writer(request)
        self.repo(request)
        objects = []
        for row in (await request.json())["objects"]:
            objects.append({"oid": row["oid"], "size": row["size"]})
            if not self.store.blob(row["oid"]).exists():
                href = at(request, f"/lfs/{row['oid']}")
                objects[-1]["actions"] = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        return JSONResponse({"transfer": "basic", "objects": objects})

    async def lfs_upload(self, request: Request) -> Response:
        """A signed address on the real Hub: no token comes with it. What does not arrive as a whole is not kept."""
        oid, found = request.path_params["oid"], hashlib.sha256()
        part = self.store.blob(f"{oid}.{id(request)}.part")
        try:
            with part.open("wb") as file:
                async for chunk in request.stream():
                    found.update(chunk)
                    file.write(chunk)
            if found.hexdigest() != oid:
                raise HubError(400, f"expected the SHA-256 {oid}, found {found.hexdigest()}")
            part.replace(self.store.blob(oid))
        finally:
            part.unlink(missing_ok=True)
        return Response()

    async def lfs_verify(self, request: Request) -> Response:
        size = self.store.lfs_file(request.path_params["oid"])["size"]
        if size != (await request.json())["size"]:
            raise HubError(400, f"the object has {size} bytes")
        return Response()

    async def commit_files(self, request: Request) -> Response:
        """All of it or nothing: whatever can be wrong is found before the commit is made."""
        as_pull = request.query_params.get("create_pr") == "1"
        # Everybody who may read may open a pull request, and add to their own.
        repo, author = self.repo(request), self.writer(request).user
        revision = unquote(request.path_params["revision"])
        own = any(revision == f"refs/pr/{pull.num}" and pull.author == author for pull in repo.pulls)
        repo = self.repo(request, write=not (as_pull or own))
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        [header] = [line["value"] for line in lines if line["key"] == "header"]
        parent = repo.at(revision)
        if "parentCommit" in header and not as_pull and not parent.oid.startswith(header["parentCommit"]):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        if as_pull and "parentCommit" in header:
            parent = repo.at(header["parentCommit"])
        elif not as_pull and not repo.ref(revision).startswith(("refs/heads/", "refs/pr/")):
            raise HubError(400, f"{revision} is no branch")
        files = self._changed(repo, dict(parent.files), lines)
        ref, pull = None if as_pull else repo.ref(revision), None
        if as_pull:
            pull = repo.open_pull(
                title=header["summary"],
                description=header.get("description", ""),
                author=author,
                base=repo.ref(revision),
                start=parent.oid,
            )
            ref = f"refs/pr/{pull.num}"
        title, message = header["summary"], header.get("description", "")
        commit = repo.add_commit(ref, files, author=author, title=title, message=message, parent=parent.oid)
        answer = {
            "success": True,
            "commitOid": commit.oid,
            "commitUrl": at(request, f"{repo.url}/commit/{commit.oid}"),
        }
        if pull:
            answer["pullRequestUrl"] = at(request, f"{repo.url}/discussions/{pull.num}")
        return JSONResponse(answer)

    def _changed(self, repo: Repo, files: dict, lines: list[dict]) -> dict:
        """The files after what a commit says."""
        for line in lines:
            kind, value = line["key"], line["value"]
            if kind == "file":
                content = base64.b64decode(value["content"])
                if value["path"] == "README.md" and (errors := cards.validate(content.decode(), repo.type)[0]):
                    raise HubError(400, "Invalid metadata in README.md: " + "; ".join(errors))
                files[value["path"]] = self.store.file(content)
            elif kind == "lfsFile":
                files[value["path"]] = self.store.lfs_file(value["oid"])
            elif kind == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise HubError(404, f"{value['path']} does not exist", "EntryNotFound")
            elif kind == "deletedFolder":
                folder = value["path"].rstrip("/") + "/"
                files = {path: file for path, file in files.items() if not path.startswith(folder)}
            elif kind != "header":
                raise HubError(400, f"unknown key {kind}")
        return files
