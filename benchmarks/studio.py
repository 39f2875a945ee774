"""How soon the studio answers: seconds from the button to the first visible note, and to the last.

A piece of 4 and one of 16 bars are composed, and two bars of the 16 anew: through the page in a browser (a click, until
the notes stand on the screen) and through the interface alone (a request, until the messages arrive).  The median of
several seeds counts.  ``ONEDNN_MAX_CPU_ISA=AVX2`` stands for processors without bfloat16 units.

    python -m benchmarks.studio [--model NAME] [--isa default AVX2] [--threads 1 2] [--repeats 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from websockets.sync.client import connect

from benchmarks import measure, parser
from benchmarks.compare_tables import by_row
from tests.browser import chromium
from tests.studio.e2e.driver import BAR, StudioTab
from tests.studio.server import Server

WORKS = ("4 bars", "16 bars", "bars 7-8 of 16")
LONG = 16
REGION = {"start": 6 * BAR, "end": 8 * BAR}

# From the click to the first frame with a block of notes on the screen, and to that with the whole piece.
CLOCK = """
() => {
  window.timed = new Promise((done) => addEventListener("click", ({ timeStamp }) => {
    let first = null;
    requestAnimationFrame(function look(now) {
      const { live, job, composing } = studio;
      if (composing && live.samples[0].patches.some(({ sounds, born }) => sounds && now - born > 50)) first ??= now;
      if (job === null) done([first ?? now, now].map((at) => (at - timeStamp) / 1000));
      else requestAnimationFrame(look);
    });
  }, { capture: true, once: true }));
}
"""


def wishes(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is asked for; the last is about the result of the one before."""
    for bars, name in ((4, WORKS[0]), (LONG, WORKS[1])):
        yield name, {"mode": "new", "flags": {"bars": bars, "seed": seed}}
    yield WORKS[2], {"mode": "region", "flags": {"seed": seed}, "region": REGION}


def through_interface(server: Server, seed: int) -> Iterator[tuple[str, float, float]]:
    """Seconds until a patch with notes is told, and until all is."""
    project = server.project()
    state = 0
    with connect(f"{server.url.replace('http', 'ws')}api/live?project={project}", max_size=None) as socket:
        for name, wish in wishes(seed):
            begin, first = time.perf_counter(), None
            parent = state if wish["mode"] == "region" else 0
            server.post(f"projects/{project}/compose", state=parent, **wish)
            while (message := json.loads(socket.recv(600)))["type"] != "done":
                if message["type"] == "error":
                    raise RuntimeError(message["message"])
                if message["type"] == "patch" and message["notes"] and first is None:
                    first = time.perf_counter() - begin
            last = time.perf_counter() - begin
            (state,) = message["states"]
            yield name, last if first is None else first, last


def through_page(tab: StudioTab, seed: int) -> Iterator[tuple[str, float, float]]:
    """Seconds until a block of notes is drawn, and until the piece is."""
    tab.js(f"studio.panel.set('seed', {seed})")
    for name, wish in wishes(seed):
        if wish["mode"] == "new":
            tab.page.locator("#mode-new").click()
            tab.fill("Bars", str(wish["flags"]["bars"]))
            button = tab.page.locator("#compose")
        else:
            tab.mark(7, 8)
            button = tab.button("Recompose the region")
        tab.page.evaluate(CLOCK)
        button.click()
        first, last = tab.js("timed")
        tab.rest()
        yield name, first, last


def timed(options: argparse.Namespace, isa: str, threads: int) -> dict[str, dict[str, float]]:
    """The median seconds of every work: to the first note and to the last, by page and by interface."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    if isa != "default":
        environment["ONEDNN_MAX_CPU_ISA"] = isa
    flags = ["--device", "cpu", "--threads", str(threads), *(["--model", options.model] if options.model else [])]
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = Server(Path(folder), *flags, env=environment)
        stack.callback(server.kill)
        tab = None
        if not options.no_page:
            tab = StudioTab(stack.enter_context(chromium()), server, sound=True)
        for seed in range(options.repeats + 1):
            ways = {"interface": through_interface(server, seed), **({"page": through_page(tab, seed)} if tab else {})}
            for way, times in ways.items():
                for name, first, last in times:
                    if seed:  # the first round warms up
                        row = found.setdefault(name, {})
                        row.setdefault(f"{way} first", []).append(first)
                        row.setdefault(f"{way} last", []).append(last)
    return {name: {column: round(median(times), 3) for column, times in row.items()} for name, row in found.items()}


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print."""
    rows: list[dict[str, Any]] = []
    for isa in options.isa:
        for threads in options.threads:
            for name, times in timed(options, isa, threads).items():
                rows.append({"isa": isa, "threads": threads, "work": name, **times})
    print(by_row(rows))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.studio", "how soon the studio answers")
    top.add_argument("--model", help="a shipped model (default: the studio's)")
    top.add_argument("--isa", nargs="+", default=["default", "AVX2"], help="values of ONEDNN_MAX_CPU_ISA")
    top.add_argument("--threads", nargs="+", type=int, default=[1], help="threads of the model")
    top.add_argument("--repeats", type=int, default=5, help="seeds, after one that warms up")
    top.add_argument("--no_page", action="store_true", help="only the interface")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
