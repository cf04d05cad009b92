"""Endpoints of accounts, repositories, refs and cards."""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import cards
from .access import REPO, Access, at
from .store import HubError, pointer


class Manage(Access):
    def routes(self) -> list[Route]:
        endpoints = {
            ("GET", "/api/whoami-v2"): self.whoami,
            ("POST", "/api/validate-yaml"): self.validate_yaml,
            ("POST", "/api/repos/create"): self.create,
            ("DELETE", "/api/repos/delete"): self.delete,
            ("GET", REPO): self.info,
            ("GET", f"{REPO}/revision/{{revision}}"): self.info,
            ("PUT", f"{REPO}/settings"): self.settings,
            ("GET", f"{REPO}/refs"): self.refs,
            ("GET", f"{REPO}/commits/{{revision}}"): self.commits,
            ("POST", f"{REPO}/branch/{{branch}}"): self.create_branch,
            ("POST", f"{REPO}/super-squash/{{revision}}"): self.squash,
        }
        return [Route(path, endpoint, methods=[method]) for (method, path), endpoint in endpoints.items()]

    # ---------------------------------------------------------------- accounts and repositories

    async def whoami(self, request: Request) -> Response:
        account = self.account(request)
        if account is None:
            raise HubError(401, "Invalid username or password.")
        token = {"type": "access_token", "accessToken": {"role": "write" if account.can_write else "read"}}
        organisations = [{"type": "org", "name": name} for name in account.organisations]
        return JSONResponse({"type": "user", "name": account.user, "orgs": organisations, "auth": token})

    async def validate_yaml(self, request: Request) -> Response:
        body = await request.json()
        found = cards.validate(body["content"], body.get("repoType") or "model")
        errors, warnings = ([{"message": text} for text in texts] for texts in found)
        return JSONResponse({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    async def create(self, request: Request) -> Response:
        account, body = self.writer(request), await request.json()
        repo_type, repo_id = body.get("type", "model"), f"{body.get('organization') or account.user}/{body['name']}"
        if not account.owns(repo_id):
            raise HubError(403, f"You don't have the rights to create a {repo_type} under this namespace: {repo_id}")
        status = 200
        if (repo_type, repo_id) in self.store.repos:
            status = 409
        else:
            settings = {key: body[key] for key in ("sdk", "hardware") if key in body}
            private = body.get("visibility") == "private"
            self.store.create(repo_type, repo_id, author=account.user, private=private, **settings)
        answer = {"name": repo_id, "url": at(request, self.store.repos[repo_type, repo_id].url)}
        if status == 409:  # the client wants the address here too
            answer["error"] = f"You already created this {repo_type} repo"
        return JSONResponse(answer, status)

    async def delete(self, request: Request) -> Response:
        account, body = self.writer(request), await request.json()
        owner = body.get("organization") or account.user
        request.path_params.update(type=f"{body.get('type', 'model')}s", owner=owner, name=body["name"])
        repo = self.repo(request, write=True)
        del self.store.repos[repo.type, repo.id]
        return Response()

    async def settings(self, request: Request) -> Response:
        repo, body = self.repo(request, write=True), await request.json()
        repo.gated = body.get("gated", repo.gated)
        repo.private = body.get("visibility", "private" if repo.private else "public") == "private"
        return JSONResponse({"private": repo.private, "gated": repo.gated})

    async def info(self, request: Request) -> Response:
        repo = self.repo(request)
        commit = self.commit(request, repo)
        data = cards.metadata((self.store.read(repo, "README.md", commit.oid) or b"").decode())
        siblings = [{"rfilename": path} for path in commit.files]
        if request.query_params.get("blobs"):
            for sibling, file in zip(siblings, commit.files.values()):
                sibling |= {"size": file["size"], "blobId": file["oid"]}
                if file["lfs"]:
                    size = len(pointer(file["sha256"], file["size"]))
                    sibling["lfs"] = {"sha256": file["sha256"], "size": file["size"], "pointerSize": size}
        row = {
            "id": repo.id,
            "author": repo.id.split("/")[0],
            "sha": commit.oid,
            "createdAt": repo.created,
            "lastModified": commit.date,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": data.get("tags", []),
            "cardData": data,
            "siblings": siblings,
        }
        row |= {key: data[key] for key in ("pipeline_tag", "library_name", "model-index") if key in data}
        if repo.type == "space":
            row["sdk"] = data.get("sdk", repo.sdk)
        return JSONResponse(row)

    # ---------------------------------------------------------------- refs

    async def refs(self, request: Request) -> Response:
        repo = self.repo(request)
        answer = {"converts": []}
        for key, prefix in {"branches": "refs/heads/", "tags": "refs/tags/", "pullRequests": "refs/pr/"}.items():
            answer[key] = [
                {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                for ref, oid in repo.refs.items()
                if ref.startswith(prefix)
            ]
        return JSONResponse(answer)

    async def commits(self, request: Request) -> Response:
        repo = self.repo(request)
        return JSONResponse(
            [
                {
                    "id": commit.oid,
                    "authors": [{"user": commit.author}],
                    "date": commit.date,
                    "title": commit.title,
                    "message": commit.message,
                }
                for commit in repo.history(self.commit(request, repo))
            ]
        )

    async def squash(self, request: Request) -> Response:
        """Keep the files of a branch, without its history."""
        repo, body = self.repo(request, write=True), await request.json()
        branch = repo.ref(unquote(request.path_params["revision"]))
        files = repo.at(branch).files
        repo.add_commit(branch, files, author=self.writer(request).user, title=body.get("message", "squashed"))
        return Response()

    async def create_branch(self, request: Request) -> Response:
        repo, revision = self.repo(request, write=True), (await request.json()).get("startingPoint", "main")
        ref = f"refs/heads/{unquote(request.path_params['branch'])}"
        if ref in repo.refs:
            raise HubError(409, f"Reference already exists: {ref}")
        repo.refs[ref] = repo.at(revision).oid
        return Response()
