"""Who is let in: hosts, origins, tokens, and how much they may send."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from fractalgen.studio.security import POLICY, UPLOAD, Guard, is_loopback


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def live(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("in")
    await socket.close()


LIVE = "ws://127.0.0.1:8765/api/live"


def client(host: str = "127.0.0.1", token: str | None = None, base: str = "http://127.0.0.1:8765") -> TestClient:
    app = Starlette(
        routes=[
            Route("/", echo, methods=["GET", "POST"]),
            Route("/api/x", echo, methods=["GET", "POST"]),
            WebSocketRoute("/api/live", live),
        ]
    )
    return TestClient(Guard(app, host, token), base_url=base, follow_redirects=False)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example:8765"}, 403),
        ({"host": "10.0.0.1"}, 403),
        ({"host": ""}, 403),
        ({"host": "127.0.0.1:x"}, 403),
        ({"origin": "http://127.0.0.1:8765"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "http://localhost:8765"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_foreign_pages_are_kept_out(headers: dict[str, str], status: int) -> None:
    found = client().get("/api/x", headers=headers)
    assert found.status_code == status
    assert found.headers["content-security-policy"] == POLICY
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in found.headers
    if status == 200:
        with client().websocket_connect(LIVE, headers=headers) as socket:
            assert socket.receive_text() == "in"
    else:
        assert "\n" not in found.json()["detail"]
        with (
            pytest.raises(WebSocketDisconnect),
            client().websocket_connect(LIVE, headers=headers),
        ):
            pass


def test_other_machines_need_the_token() -> None:
    found = client("0.0.0.0", "s3cret", "http://10.0.0.7:8765")
    for path in ("/", "/api/x", "/?token=wrong"):
        assert found.get(path).status_code == 401
    assert found.get("/api/x", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert found.get("/api/x", headers={"authorization": "Bearer s3cret"}).status_code == 200
    assert found.get("/api/x", headers={"authorization": "Bearer s3cret", "host": "evil.example"}).status_code == 403
    with pytest.raises(WebSocketDisconnect), found.websocket_connect("ws://10.0.0.7:8765/api/live"):
        pass
    opened = found.get("/?token=s3cret")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict"} <= set(opened.headers["set-cookie"].split("; "))
    assert found.get("/api/x").status_code == 200
    with found.websocket_connect("ws://10.0.0.7:8765/api/live") as socket:
        assert socket.receive_text() == "in"


def test_large_bodies_are_refused_however_they_come() -> None:
    found = client()
    assert found.post("/api/x", content=b"x" * 1000).text == "1000"
    refused = found.post("/api/x", content=b"x" * (UPLOAD + 1))
    assert (refused.status_code, refused.json()) == (413, {"detail": "more than 8 MB"})
    chunked = found.post("/api/x", content=iter([b"x" * (1 << 20)] * 9))
    assert chunked.status_code == 413
    assert found.post("/api/x", content=b"", headers={"content-length": "-5"}).status_code == 413


def test_what_this_machine_alone_reaches() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org")] == [False] * 4
