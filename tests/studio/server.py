"""A studio in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

from fractalgen.studio.document import Document


class Server:
    """``fractalgen studio`` with a client; it can be ended and started again at the same address."""

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.command = [sys.executable, "-m", "fractalgen", "studio", "--output_dir", str(folder), *flags]
        self.port, self.env = "0", env
        self.start()

    def start(self) -> None:
        """Start it; the first line of what it prints names the address."""
        command = [*self.command, "--port", self.port]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=self.env, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line
        self.url, self.port = found[0], found[1]
        self.client = httpx2.Client(base_url=self.url, timeout=120)
        self.get("info")  # answers as soon as the models are there

    def warm(self) -> None:
        """Wait until the worker has read the model and composed with it: the first piece takes longest."""
        project = self.project()
        self.compose(project, flags={"bars": 1})
        self.idle()
        self.client.delete(f"/api/projects/{project}")

    def end(self, number: int, *, all_processes: bool = False) -> int:
        """End it by a signal; returns its status."""
        os.killpg(self.process.pid, number) if all_processes else self.process.send_signal(number)
        status = self.process.wait(20)
        self.client.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def kill(self) -> None:
        """End it as a power failure would."""
        self.end(signal.SIGKILL)

    def get(self, path: str) -> Any:
        """What the interface answers."""
        return self._data(self.client.get(f"/api/{path}"))

    def post(self, path: str, **body: Any) -> Any:
        """What the interface answers."""
        return self._data(self.client.post(f"/api/{path}", json=body))

    @staticmethod
    def _data(answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return answer.json()

    def project(self, document: Document | None = None) -> str:
        """A new project, with a piece in it."""
        project = str(self.post("projects", name="A piece")["id"])
        if document is not None:
            self.post(f"projects/{project}/states", parent=0, document=document.to_json())
        return project

    def compose(self, project: str, **wish: Any) -> int:
        """Begin a job, by default of a new piece; returns its number."""
        return int(self.post(f"projects/{project}/compose", **{"state": 0, "mode": "new", **wish})["job"])

    def idle(self) -> None:
        """Wait until nothing is composed."""
        while self.get("jobs"):
            time.sleep(0.02)

    def children(self) -> list[int]:
        """The numbers of its processes (Linux)."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
