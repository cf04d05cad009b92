"""Endpoints of a Space. Nothing is started."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .access import Access
from .store import HubError, Repo

HARDWARE = ("cpu-basic", "cpu-upgrade", "zero-a10g", "t4-small", "t4-medium", "l4x1", "a10g-small", "a100-large")
SPACE = "/api/{type:repo_type}/{owner}/{name}"


class Spaces(Access):
    def routes(self) -> list[Route]:
        return [
            Route(f"{SPACE}/hardware", self.hardware, methods=["POST"]),
            Route(f"{SPACE}/secrets", self.secrets, methods=["POST"]),
            Route(f"{SPACE}/variables", self.variables, methods=["POST"]),
        ]

    def space(self, request: Request) -> Repo:
        repo = self.repo(request, write=True)
        if repo.type != "space":
            raise HubError(404, f"{repo.id} is a {repo.type}, not a Space")
        return repo

    async def hardware(self, request: Request) -> Response:
        space, body = self.space(request), await request.json()
        if body["flavor"] not in HARDWARE:
            raise HubError(400, f'"flavor" must be one of [{", ".join(HARDWARE)}]')
        space.hardware = body["flavor"]
        hardware = {"current": space.hardware, "requested": space.hardware}
        return JSONResponse({"stage": "RUNNING", "hardware": hardware, "gcTimeout": None, "storage": None})

    async def secrets(self, request: Request) -> Response:
        return await self._change(request, self.space(request).secrets)

    async def variables(self, request: Request) -> Response:
        return await self._change(request, self.space(request).variables)

    async def _change(self, request: Request, values: dict[str, dict]) -> Response:
        body = await request.json()
        values[body["key"]] = {"value": body["value"]}
        return JSONResponse({})
