"""Who may talk to the studio: this machine's own pages and scripts, or whoever has the token.

A foreign page can neither read nor drive it: the Host header must be an address and not a foreign name (a name could be
pointed at this machine afterwards), and a request that a browser sends for another page is refused by its Origin or its
Sec-Fetch-Site.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self';"
    " media-src 'self' data: blob:; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "midi=(self), camera=(), microphone=(), geolocation=()",
}
UPLOAD, PROJECT_UPLOAD = 8 << 20, 256 << 20  # bytes of a request, and of a project file
_OPENING = "/api/projects/open"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen at."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI application that lets only allowed requests through to another one, with headers on the answers."""

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self.app, self.token = app, token
        name = socket.gethostname().lower()
        self.names = {"localhost", host.lower(), name, f"{name}.local"}
        self.loopback = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request or a WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, why = self._judge(scope, headers)
        if status == 303:
            await _answer(send, 303, "", [("location", scope["path"]), ("set-cookie", self._cookie(scope))])
        elif status:
            await refuse(scope, receive, send, status, why)
        else:
            await self._serve(scope, headers, receive, send)

    async def _serve(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        most = PROJECT_UPLOAD if scope["path"] == _OPENING else UPLOAD
        declared = headers.get("content-length", "0")
        too_much = f"more than {most >> 20} MB"
        if scope["type"] == "http" and (not declared.isdecimal() or int(declared) > most):
            await refuse(scope, receive, send, 413, too_much)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if scope["type"] == "http" and size > most:
                raise HTTPException(413, too_much)  # which FastAPI answers
            return message

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(row for row in more if row[0] not in there)]
            await send(message)

        await self.app(scope, counted, marked)

    def _judge(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str]:
        """The status of a refusal and its reason; 0: it is allowed."""
        host = headers.get("host", "")
        if not self._known(host):
            return 403, "the Host header names another machine"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "the request comes from another page"
        if scope["path"].startswith("/api") and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403, "the request comes from another page"
        if self.token is None:
            return 0, ""
        given = headers.get("authorization", "")
        query = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._right(given.removeprefix("Bearer ")) or self._right(_cookies(headers).get(self._name(scope), "")):
            return 0, ""
        if self._right(query):
            return (303, "") if scope["path"] == "/" else (0, "")
        return 401, "the token is needed: open the address that the studio printed, or send Authorization: Bearer TOKEN"

    def _known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            _ = urlsplit(f"//{host}").port
        except ValueError:
            return False
        if name in self.names:
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or not self.loopback
        except ValueError:
            return False

    def _right(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(token.encode(), self.token.encode())

    @staticmethod
    def _name(scope: Scope) -> str:
        server = scope.get("server")
        return f"fractalgen_studio_{server[1] if server else 0}"  # cookies are not told apart by port

    def _cookie(self, scope: Scope) -> str:
        return f"{self._name(scope)}={self.token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000"


def _cookies(headers: dict[str, str]) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    """Answer a request with an error, or do not accept a WebSocket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4000 + status, "reason": why[:120]})
        return
    await _answer(send, status, json.dumps({"detail": why}), [("content-type", "application/json")])


async def _answer(send: Send, status: int, body: str, headers: list[tuple[str, str]]) -> None:
    rows = [(name.encode(), value.encode("latin-1")) for name, value in (*headers, *HEADERS.items())]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": body.encode()})
