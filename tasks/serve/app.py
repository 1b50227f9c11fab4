"""The application: the page, its JSON API with OpenAPI, and OpenAI's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from family.inference.loaded import Loaded
from tasks.serve.api import api_router
from tasks.serve.guard import Guard, problem
from tasks.serve.limits import Limits, RefusedError
from tasks.serve.openai import openai_router
from tasks.serve.served import Catalogue

OF_A_KIND = ("string_type", "list_type", "dict_type", "model_type", "int_type", "float_type")
"""Errors that say no more than that a value is of another kind."""
STATIC = Path(__file__).parent / "static"
SAID = {
    404: "there is nothing at this address",
    405: "this address is not asked in this way",
    400: "the body is no JSON that can be read",
}


def make_app(
    models: dict[str, Loaded], limits: Limits | None = None, host: str = "127.0.0.1"
) -> Any:
    """An ASGI application that serves models.

    Args:
        models: name -> a model that is ready.
        host: where the server listens.

    Raises:
        UserError: a model of which nothing can be served.
    """
    limits = limits or Limits()
    catalogue = Catalogue(models, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        catalogue.close()

    app = FastAPI(
        title="Transformer Family",
        version="1",
        description="Models of `family serve`: what each task answers, as JSON.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # pages of other sites
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.catalogue = catalogue
    app.include_router(api_router(catalogue))
    app.include_router(openai_router(catalogue))
    app.add_exception_handler(RefusedError, on_refused)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC))
    return Guard(app, limits, host)


# --- Errors, one sentence each ---


def said(request: Request, error: RefusedError) -> Response:
    headers = {"retry-after": "1"} if error.status == 429 else {}
    return JSONResponse(problem(error, request.url.path), error.status, headers)


async def on_refused(request: Request, error: Any) -> Response:
    return said(request, error)


async def on_invalid(request: Request, error: Any) -> Response:
    first = clearest(error.errors())
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path")]
    place = [part for part in place if part.replace("_", "").isalnum()]  # no branch of a union
    if not place and not request.headers.get("content-type", "").startswith("application/json"):
        return said(
            request, RefusedError(422, f"{SAID[400]}: send content-type: application/json.")
        )
    if first["type"] == "json_invalid":
        return said(request, RefusedError(400, f"{SAID[400]}: {first['ctx']['error']}."))
    why = first["msg"].removeprefix("Value error, ").rstrip(".")
    name = ".".join(place) or "the body"
    return said(request, RefusedError(422, f"{name}: {why[:1].lower()}{why[1:]}.", name))


def clearest(errors: Sequence[Any]) -> Any:
    """The first error, or of what may be of several kinds that of the kind that fits best."""
    same = [one for one in errors if one["loc"][:2] == errors[0]["loc"][:2]]
    return max(same, key=lambda one: (one["type"] not in OF_A_KIND, len(one["loc"])))


async def on_http(request: Request, error: Any) -> Response:
    words = SAID.get(error.status_code, str(error.detail).rstrip(".").lower())
    answer = said(request, RefusedError(error.status_code, f"{words}."))
    answer.headers.update(error.headers or {})
    return answer


async def on_failure(request: Request, error: Any) -> Response:
    """Ours to mend: the trace is in the log, and not in the answer."""
    return said(request, RefusedError(500, "the server failed at this: its log says more."))
