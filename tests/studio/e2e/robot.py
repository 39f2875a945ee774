"""A robot that composes and edits at random.

    python -m tests.studio.e2e.robot [--steps 100] [--seed 1] [--model NAME]

Every state must stay as it was left.  The memory of server and worker is printed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.browser import chromium
from tests.studio.e2e.driver import BAR, StudioTab
from tests.studio.server import Server


class Robot:
    """Does what a person might do next; ``seen``: the documents of the states that it has been in."""

    def __init__(self, tab: StudioTab, seed: int) -> None:
        self.tab, self.random = tab, random.Random(seed)
        self.seen: dict[int, Any] = {}
        self.look()

    def look(self) -> None:
        """Remember the state that the piece is in."""
        self.tab.rest()
        project = self.tab.server.get(f"projects/{self.tab.project}")
        assert self.seen.setdefault(project["head"], project["document"]) == project["document"]
        assert project["head"] == self.tab.js("studio.project.head")

    def bars(self) -> int:
        """The length of the piece."""
        return int(self.tab.js("Math.round(studio.piece.length / 1920)"))

    def step(self) -> None:
        """One thing more."""
        what = self.random.choice(self.composing if self.random.random() < 0.4 else self.editing)
        what(self)
        self.look()

    def mark(self) -> None:
        first = self.random.randint(1, max(1, min(self.bars(), 7)))
        self.tab.press("0")
        self.tab.mark(first, min(first + 1, max(1, self.bars())))

    def compose(self) -> None:
        self.tab.press("Escape")
        self.tab.page.locator("#mode-new").click()
        self.tab.fill("Bars", str(self.random.randint(1, 4)))
        self.tab.page.locator("#compose").click()

    def go_on(self) -> None:
        if 0 < self.bars() < 12 and self.tab.js("studio.piece.notes.length"):
            self.tab.press("c")
        else:
            self.compose()

    def anew(self) -> None:
        self.mark()
        self.tab.press("r")

    def vary(self) -> None:
        if self.tab.js("studio.piece.notes.length"):
            self.mark()
            self.tab.press("v")

    def choose(self) -> None:
        self.mark()
        self.tab.press("a")
        self.tab.rest()
        self.tab.page.locator("#strip article").first.wait_for()
        if self.random.random() < 0.7:
            self.tab.page.locator("#strip .accept").nth(self.random.randrange(3)).click()
        else:
            self.tab.page.locator("#strip .dismiss").click()

    def stop(self) -> None:
        self.tab.press("Escape")
        self.tab.page.locator("#mode-new").click()
        self.tab.fill("Bars", "32")
        self.tab.page.locator("#compose").click()
        self.tab.page.wait_for_timeout(self.random.randint(0, 300))
        self.tab.press("Escape")

    def draw(self) -> None:
        tick, pitch = self.random.randrange(0, 4 * BAR, 120), self.random.randint(50, 76)
        self.tab.press("0", "2")
        self.tab.drag(self.tab.place(tick + 10, pitch), self.tab.place(tick + 400, pitch))
        self.tab.press("1")

    def pick(self) -> bool:
        """Choose one note, or all."""
        self.tab.press("Escape", "Control+a" if self.random.random() < 0.3 else "n")
        return bool(self.tab.js("studio.selection.size"))

    def change(self) -> None:
        if self.pick():
            keys = ["ArrowUp", "ArrowRight", "Shift+ArrowDown", "Shift+ArrowRight", "Alt+ArrowUp", "q", "k", "Delete"]
            self.tab.press(*self.random.sample(keys, 2))

    def paste(self) -> None:
        if self.pick() and self.bars() < 24:
            self.tab.press("Control+c", ".", "Control+v")

    def chord(self) -> None:
        self.tab.press("0")
        self.tab.page.mouse.click(*self.tab.lane(self.random.randrange(4) * BAR + 20, 60))
        self.tab.page.keyboard.type(self.random.choice(["Am", "F#7", "Bbmaj7", "N.C.", "C/E"]))
        self.tab.press("Enter")

    def tempo(self) -> None:
        self.tab.page.locator("#tempo").fill(str(self.random.randint(40, 240)))
        self.tab.press("Enter")

    def undo(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            self.tab.press("Control+z")
            self.look()

    def redo(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            self.tab.press("Control+y")
            self.look()

    def jump(self) -> None:
        self.tab.page.locator("#history").click()
        states = self.tab.page.locator("#states button")
        states.first.wait_for()
        states.nth(self.random.randrange(states.count())).click()
        self.tab.page.locator("#history").click()

    def listen(self) -> None:
        self.tab.press("Space")
        self.tab.page.wait_for_timeout(100)
        self.tab.press("Space")

    def around(self) -> None:
        self.tab.press(*self.random.choices(["+", "-", "l", "m", "p", "t", "w", "Home", "End", ",", "."], k=4))

    composing = (compose, go_on, anew, anew, vary, choose, stop)
    editing = (draw, draw, change, change, change, paste, chord, tempo, undo, redo, jump, listen, around)

    def back(self) -> None:
        """Undo all; then every state must be as it was left."""
        self.tab.page.locator("#roll-box").focus()
        for _ in self.seen:  # there cannot be more before the first
            self.tab.press("Control+z")
            self.tab.rest()
        assert self.tab.document() == self.seen[0]
        for state, document in self.seen.items():
            assert self.tab.server.get(f"projects/{self.tab.project}/states/{state}")["document"] == document


def resident(process: int) -> int:
    """Bytes of memory that a process and its children hold."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    children = [task.read_text().split() for task in Path(f"/proc/{process}/task").glob("*/children")]
    own = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))
    return own + sum(resident(int(child)) for row in children for child in row)


def main() -> None:
    """Let it work, and look at the memory of the studio meanwhile (Linux)."""
    parser = argparse.ArgumentParser(prog="python -m tests.studio.e2e.robot")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="pop909-ar", help="a shipped model")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = Server(folder, "--model", options.model, "--device", "cpu")
        stack.callback(server.kill)
        server.warm()
        browser = stack.enter_context(chromium())
        robot = Robot(StudioTab(browser, server, width=1000, height=600, reduced_motion="reduce"), options.seed)
        sizes = []
        for _ in range(options.steps):
            robot.step()
            sizes.append(resident(server.process.pid) >> 20)
        robot.back()
        robot.tab.close()
    print(f"{options.steps} steps, {len(robot.seen)} states, MiB after each step: {sizes}")


if __name__ == "__main__":
    main()
