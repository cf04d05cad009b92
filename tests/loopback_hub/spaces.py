"""Endpoints of a Space. Nothing is started: its stage follows from its files."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import cards
from .access import Access
from .store import HubError, Repo, now

HARDWARE = ("cpu-basic", "cpu-upgrade", "zero-a10g", "t4-small", "t4-medium", "l4x1", "a10g-small", "a100-large")
SPACE = "/api/{type:repo_type}/{owner}/{name}"


class Spaces(Access):
    def routes(self) -> list[Route]:
        return [
            Route(f"{SPACE}/runtime", self.runtime),
            Route(f"{SPACE}/hardware", self.hardware, methods=["POST"]),
            Route(f"{SPACE}/secrets", self.secrets, methods=["GET", "POST"]),
            Route(f"{SPACE}/variables", self.variables, methods=["GET", "POST"]),
        ]

    def space(self, request: Request, *, write: bool = True) -> Repo:
        repo = self.repo(request, write=write)
        if repo.type != "space":
            raise HubError(404, f"{repo.id} is a {repo.type}, not a Space")
        return repo

    def _answer(self, space: Repo) -> Response:
        """The runtime, the answer of all endpoints here."""
        card = cards.metadata((self.store.read(space, "README.md") or b"").decode())
        if cards.validate((self.store.read(space, "README.md") or b"").decode(), "space")[0]:
            stage = "CONFIG_ERROR"
        elif card.get("app_file", "app.py") not in space.at("main").files:
            stage = "NO_APP_FILE"
        else:
            stage = "RUNNING"
        current = space.hardware if stage == "RUNNING" else None
        hardware = {"current": current, "requested": space.hardware}
        return JSONResponse({"stage": stage, "hardware": hardware, "gcTimeout": None, "storage": None})

    async def runtime(self, request: Request) -> Response:
        return self._answer(self.space(request, write=False))

    async def hardware(self, request: Request) -> Response:
        space, body = self.space(request), await request.json()
        if body["flavor"] not in HARDWARE:
            raise HubError(400, f'"flavor" must be one of [{", ".join(HARDWARE)}]')
        space.hardware = body["flavor"]
        return self._answer(space)

    async def secrets(self, request: Request) -> Response:
        """Secrets without their values."""
        space = self.space(request)
        await self._change(request, space.secrets)
        return JSONResponse({key: {**row, "value": None} for key, row in space.secrets.items()})

    async def variables(self, request: Request) -> Response:
        space = self.space(request, write=request.method != "GET")
        await self._change(request, space.variables)
        return JSONResponse({key: {"key": key, **row} for key, row in space.variables.items()})

    async def _change(self, request: Request, values: dict[str, dict]) -> None:
        if request.method == "POST":
            body = await request.json()
            values[body["key"]] = {
                "value": body["value"],
                "description": body.get("description"),
                "updatedAt": now(),
            }
