"""How long the ten tasks of a composer take in the studio, driven as the tests drive them (``tests/studio/e2e``).

``seconds``: from the open page (or, in the first one, from opening it) to the end of the task; nobody has to think or
to find a button.  ``waiting``: the share of it in which only the machine works.

    python -m benchmarks.studio_tasks [--model NAME] [--threads N] [--json FILE]
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from benchmarks import measure, parser
from fractalgen.studio.document import Document
from tests.browser import chromium
from tests.studio.e2e import test_editing as editing
from tests.studio.e2e import test_listening as listening
from tests.studio.e2e import test_tasks as tasks
from tests.studio.e2e.driver import StudioTab
from tests.studio.server import Server

TASKS: dict[str, Callable[..., None]] = {
    "open the page, hear a first piece": tasks.test_from_opening_the_page_to_hearing_the_first_piece,
    "compose bars 5 to 8 anew": tasks.test_bars_5_to_8_are_composed_anew,
    "choose one of three alternatives": tasks.test_one_of_three_alternatives_is_chosen,
    "undo all of 12 steps, and redo": editing.test_undo_goes_back_to_the_start_and_redo_to_the_end,
    "drop a MIDI file and accompany it": tasks.test_a_midi_file_is_dropped_and_accompanied,
    "give chords, twice": tasks.test_chords_are_given,
    "loop a bar": listening.test_a_selection_is_looped,
    "take away 7 files": tasks.test_the_piece_is_taken_away,
    "reload the page": editing.test_the_page_is_reloaded,
    "kill the server, go on": editing.test_the_server_is_killed_and_the_composer_goes_on,
}


def timed(name: str, browser: Browser, server: Server, flags: Sequence[str]) -> dict[str, Any]:
    """The times of a task."""
    tabs: list[StudioTab] = []
    begin, waited = time.monotonic(), StudioTab.waited

    def opened(piece: Document | None = None, *, sound: bool = False, **options: Any) -> StudioTab:
        nonlocal begin, waited
        tabs.append(StudioTab(browser, server, server.project(piece), sound=sound, **options))
        if name != next(iter(TASKS)):
            begin, waited = time.monotonic(), StudioTab.waited
        return tabs[-1]

    with tempfile.TemporaryDirectory() as folder:
        given: dict[str, Any] = {"open_studio": opened, "tmp_path": Path(folder), "browser": browser}
        needed = inspect.signature(TASKS[name]).parameters
        if "own_server" in needed:  # it is killed, and has no other piece
            given["own_server"] = Server(Path(folder), *flags)
            begin, waited = time.monotonic(), StudioTab.waited
        TASKS[name](**{parameter: given[parameter] for parameter in needed})
        seconds = time.monotonic() - begin
        if "own_server" in given:
            given["own_server"].kill()
    waiting = (StudioTab.waited - waited) / seconds
    for tab in tabs:
        tab.close()
    return {"task": name, "seconds": seconds, "waiting": waiting}


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print."""
    rows: list[dict[str, Any]] = []
    flags = ["--device", "cpu", "--threads", str(options.threads)]
    flags += ["--model", options.model] if options.model else []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = Server(Path(folder), *flags)
        stack.callback(server.kill)
        server.post(f"projects/{server.project()}/compose", state=0, mode="new", flags={"bars": 1})  # warms up
        while server.get("jobs"):
            time.sleep(0.1)
        browser = stack.enter_context(chromium())
        print("| task | seconds | waiting |\n|---|---|---|")
        for name in TASKS:
            rows.append(timed(name, browser, server, flags))
            print("| {task} | {seconds:.1f} | {waiting:.0%} |".format(**rows[-1]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.studio_tasks", "how long the tasks of a composer take")
    top.add_argument("--model", help="a shipped model (default: the studio's)")
    top.add_argument("--threads", type=int, default=1, help="threads of the model")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
