"""A stand-in of the Hugging Face Hub for tests: repositories in memory, behind the addresses that its library uses."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_the_tests"


class Hub(BaseHTTPRequestHandler):
    """One branch, ``main``, in each repository; large files go by LFS as on the Hub.  Writing needs :data:`TOKEN`."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    private: ClassVar[set[str]] = set()
    objects: ClassVar[dict[str, bytes]] = {}
    requests: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = self._parts()
        if len(parts) < 5:
            self._refuse(404, "")
            return
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        if (files := self._files(name, parts[3])) is None:
            return
        if path not in files:
            self._refuse(404, "EntryNotFound")
            return
        content = files[path]
        self._answer(
            200, content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": revision(files)}
        )

    def do_POST(self) -> None:
        parts, body = self._parts(), self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "")
        elif parts == ["api", "repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else wanted["name"]
            exists = name in self.repositories
            self.repositories.setdefault(name, {})
            if wanted.get("private") or wanted.get("visibility") == "private":
                self.private.add(name)
            self._json({"url": f"{self._root()}/{name}", "name": name}, 409 if exists else 200)
        elif parts[-2:] == ["objects", "batch"]:
            objects = [
                {**item, "actions": {"upload": {"href": self._object(item)}}} for item in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif parts == ["api", "validate-yaml"]:
            self._json({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": mode(file["path"]), "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": files})
        else:  # the commit
            name = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.repositories[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.repositories[name][value["path"]] = self.objects[value["oid"]]
            oid = revision(self.repositories[name])
            self._json({"success": True, "commitOid": oid, "commitUrl": f"{self._root()}/{name}/commit/{oid}"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer(200, b"")

    def _parts(self) -> list[str]:
        self.requests.append(f"{self.command} {self.path}")
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def _root(self) -> str:
        return f"http://{self.headers['Host']}"

    def _object(self, item: dict[str, Any]) -> str:
        return f"{self._root()}/objects/{item['oid']}"

    def _files(self, name: str, wanted: str) -> dict[str, bytes] | None:
        files = self.repositories.get(name)
        hidden = name in self.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"
        if files is None or hidden:  # the Hub does not tell which
            self._refuse(401, "RepoNotFound")
            return None
        if wanted not in ("main", revision(files)):
            self._refuse(404, "RevisionNotFound")
            return None
        return files

    def _json(self, content: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code} if code else {})

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Be quiet."""


def mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"


def revision(files: dict[str, bytes]) -> str:
    """The name of a state of a repository."""
    return hashlib.sha1(b"".join(path.encode() + files[path] for path in sorted(files))).hexdigest()


@contextmanager
def serve() -> Iterator[tuple[str, type[Hub]]]:
    """A Hub of its own that is served; its address, and the class that holds its state."""
    handler = type("OneHub", (Hub,), {"repositories": {}, "private": set(), "objects": {}, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
