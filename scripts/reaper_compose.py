"""A ReaScript for REAPER: a studio composes a piece, which is inserted at the edit cursor in the tempo of the project.

In REAPER: Actions, Show action list, New action, Load ReaScript, this file.  It needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from reaper_python import RPR_GetUserInputs, RPR_InsertMedia, RPR_Master_GetTempo, RPR_ShowMessageBox

STUDIO = os.environ.get("FRACTALGEN_STUDIO", "http://127.0.0.1:8765")
TOKEN = os.environ.get("FRACTALGEN_TOKEN", "")  # of a studio on another machine


def call(method: str, path: str, **body: Any) -> bytes:
    """The answer of the studio."""
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {TOKEN}"} if TOKEN else {})}
    data = json.dumps(body).encode() if body else None
    with urlopen(Request(f"{STUDIO}/api{path}", data, headers, method=method), timeout=60) as answer:
        content: bytes = answer.read()
        return content


def compose(flags: dict[str, Any]) -> str:
    """The path of a MIDI file with a new piece."""
    project = json.loads(call("POST", "/projects", name="From REAPER"))["id"]
    job = json.loads(call("POST", f"/projects/{project}/compose", state=0, mode="new", flags=flags))["job"]
    while any(waiting["job"] == job for waiting in json.loads(call("GET", "/jobs"))):
        time.sleep(0.1)
    head = json.loads(call("GET", f"/projects/{project}"))["head"]
    if head == 0:
        raise ValueError("nothing was composed; the studio's page says why if these flags are tried there")
    folder = tempfile.mkdtemp(prefix="fractalgen-")
    path = os.path.join(folder, "piece.mid")
    with open(path, "wb") as file:
        file.write(call("GET", f"/projects/{project}/states/{head}/mid"))
    return path


def main() -> None:
    """Ask for bars, key and chords, compose, insert."""
    answer = RPR_GetUserInputs("FractalGen", 3, "Bars,Key (empty: any),Chords (empty: free),extrawidth=200", "8,,", 512)
    if not answer[0]:
        return
    bars, key, chords = (text.strip() for text in answer[4].split(",", 2))
    flags = {"bars": bars, "key": key, "chords": chords, "tempo": RPR_Master_GetTempo()}
    try:
        RPR_InsertMedia(compose({name: value for name, value in flags.items() if value}), 0)
    except HTTPError as error:
        RPR_ShowMessageBox(json.loads(error.read())["detail"], "FractalGen", 0)
    except (URLError, ValueError) as error:
        RPR_ShowMessageBox(f"{STUDIO}: {error}", "FractalGen", 0)


main()
