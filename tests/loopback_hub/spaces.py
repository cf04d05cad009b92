"""The endpoints that run a Space. Nothing is started: the stage follows from what was pushed."""

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
            Route(f"{SPACE}/sleeptime", self.sleep_time, methods=["POST"]),
            Route(f"{SPACE}/pause", self.pause, methods=["POST"]),
            Route(f"{SPACE}/restart", self.restart, methods=["POST"]),
            Route(f"{SPACE}/secrets", self.secrets, methods=["GET", "POST", "DELETE"]),
            Route(f"{SPACE}/variables", self.variables, methods=["GET", "POST", "DELETE"]),
        ]

    def space(self, request: Request, *, write: bool = True) -> Repo:
        repo = self.repo(request, write=write)
        if repo.type != "space":
            raise HubError(404, f"{repo.id} is a {repo.type}, not a Space")
        return repo

    def _answer(self, space: Repo) -> Response:
        """The runtime, as every one of these endpoints tells it."""
        card = cards.metadata((self.store.read(space, "README.md") or b"").decode())
        if space.paused:
            stage = "PAUSED"
        elif cards.validate((self.store.read(space, "README.md") or b"").decode(), "space")[0]:
            stage = "CONFIG_ERROR"
        elif card.get("app_file", "app.py") not in space.at("main").files:
            stage = "NO_APP_FILE"
        else:
            stage = "RUNNING"
        current = space.hardware if stage == "RUNNING" else None
        hardware = {"current": current, "requested": space.hardware}
        return JSONResponse({"stage": stage, "hardware": hardware, "gcTimeout": space.sleep_time, "storage": None})

    async def runtime(self, request: Request) -> Response:
        return self._answer(self.space(request, write=False))

    async def hardware(self, request: Request) -> Response:
        space, body = self.space(request), await request.json()
        if body["flavor"] not in HARDWARE:
            raise HubError(400, f'"flavor" must be one of [{", ".join(HARDWARE)}]')
        space.hardware, space.sleep_time = body["flavor"], body.get("sleepTimeSeconds", space.sleep_time)
        return self._answer(space)

    async def sleep_time(self, request: Request) -> Response:
        space = self.space(request)
        space.sleep_time = (await request.json())["seconds"]
        return self._answer(space)

    async def pause(self, request: Request) -> Response:
        space = self.space(request)
        space.paused = True
        return self._answer(space)

    async def restart(self, request: Request) -> Response:
        space = self.space(request)
        space.paused, space.restarts = False, space.restarts + 1
        return self._answer(space)

    async def secrets(self, request: Request) -> Response:
        """What was put in is never read back."""
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
        elif request.method == "DELETE":
            values.pop((await request.json())["key"], None)
