"""What stands before the API: who may ask, and how much at a time."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from tasks.serve.limits import Limits, RefusedError, too_busy

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI middleware: requests for other hosts and from the pages of other sites are refused, and so are
    bodies that are too large, alone or together.

    A page of another site may lead its name to this machine (DNS rebinding); its requests then bear that
    name in ``Host``. An address of numbers cannot be led elsewhere.

    Args:
        host: the name that the server was told to listen at.
    """

    def __init__(self, app: Any, limits: Limits, host: str) -> None:
        self.app, self.limits = app, limits
        self.names = {"localhost", host.lower(), socket.gethostname().lower()}
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken = 0
        try:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            self.check_origin(headers)
            self.check_size(length_of(headers))
            body, more = b"", True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                part, more = message.get("body", b""), message.get("more_body", False)
                body, taken, self.held = body + part, taken + len(part), self.held + len(part)
                self.check_size(taken)
            await self.app(scope, replayed(body, receive), with_headers(send))
        except RefusedError as error:
            await refuse(error, scope["path"], with_headers(send))
        finally:
            self.held -= taken

    def check_origin(self, headers: dict[bytes, str]) -> None:
        """Refuse requests for another host, or from another site.

        Raises:
            RefusedError: see above.
        """
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if not self.is_ours(host):
            raise RefusedError(
                403, "this server is asked for by its address or localhost, not by another name."
            )
        if origin is not None and origin.lower().partition("//")[2] != host.lower():
            raise RefusedError(403, "pages of other sites may not ask this server.")

    def is_ours(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True

    def check_size(self, size: int) -> None:
        """Refuse a body of so many bytes, if it is too large or all together are.

        Raises:
            RefusedError: see above.
        """
        if size > self.limits.body:
            raise RefusedError(
                413, f"a request may have {self.limits.body >> 20} MB at most: send less at a time."
            )
        if self.held > self.limits.bodies:
            raise too_busy("too much is being sent to this server")


def length_of(headers: dict[bytes, str]) -> int:
    """How long a body says that it is; 0 where it does not."""
    said = headers.get(b"content-length", "")
    return int(said) if said.isdecimal() and len(said) < 20 else 0


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, and what comes after it."""
    left: list[bytes] = [body]

    async def read() -> MutableMapping[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return read


def with_headers(send: Send) -> Send:
    """Answers with what a browser is told about them."""

    async def write(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return write


async def refuse(error: RefusedError, path: str, send: Send) -> None:
    """Answer without having read the request."""
    body = json.dumps(problem(error, path)).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def problem(error: RefusedError, path: str) -> dict[str, Any]:
    """A sentence as each API says it: OpenAI's has it inside of an object."""
    said = " ".join(error.said.split())
    if not path.startswith("/v1/"):
        return {"error": said}
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": said, "type": kind, "param": error.field, "code": None}}
