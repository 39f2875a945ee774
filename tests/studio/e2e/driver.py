"""The page of the studio as a person uses it."""

from __future__ import annotations

import re
import time
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Locator, expect

from fractalgen.studio.document import Document, Note
from tests.browser import EAR, Tab, until
from tests.studio.server import Server

BAR = 4 * 480

# Nothing is known from other tests; what a page keeps over a reload stays.
NEW = "sessionStorage.known ?? localStorage.clear(); sessionStorage.known = true;"

# Where in the window a point of the roll is, when two frames in a row say the same: the view fits itself to new music.
STILL = """
window.still = async (point) => {
  const frame = () => new Promise((after) => requestAnimationFrame(() => requestAnimationFrame(after)));
  const now = () => {
    const { left, top } = studio.roll.canvas.getBoundingClientRect(), [x, y] = point();
    return [left + x, top + y];
  };
  for (let before = null, at = now(); ; before = at, at = now()) {
    if (String(before) === String(at)) return at;
    await frame();
  }
};
"""

# What a page asks for takes half a second more from now on; what it sends does not.
SLOW_SERVER = """
const quick = fetch;
fetch = async (path, request) => {
  if (request.method === "GET") await new Promise((after) => setTimeout(after, 500));
  return quick(path, request);
};
null;
"""


class StudioTab(Tab):
    """The page of a project."""

    waited = 0.0  # seconds in which nothing was left to do but to wait, of all tabs

    def __init__(
        self,
        browser: Browser | BrowserContext,
        server: Server,
        project: str | None = None,
        *,
        sound: bool = False,
        **options: Any,
    ) -> None:
        """Open it; without ``sound`` there are no samples to decode, which saves a second."""
        super().__init__(browser, **options)
        self.server = server
        if not sound:
            self.page.route("**/samples.json", lambda route: route.fulfill(json={"notes": []}))
        self.page.add_init_script(EAR)
        self.page.add_init_script(NEW)
        self.page.add_init_script(STILL)
        self.page.goto(server.url if project is None else f"{server.url}#{project}")
        self.ready()
        self.project = str(self.js("studio.project.id"))

    def ready(self) -> None:
        """Wait until the page can be used."""
        self.page.wait_for_selector("body[data-ready]")
        self.rest()

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.page.evaluate(expression)

    def until(self, condition: str) -> None:
        """Wait for an expression to become true."""
        begin = time.monotonic()
        until(self.page, condition)
        StudioTab.waited += time.monotonic() - begin

    def hear(self) -> None:
        """Wait until the loudspeaker gets sound."""
        self.until("peak() > 0.002")
        assert self.js("studio.player.context.state") == "running"
        assert self.js("studio.player.piano.samples.length") == 30

    def rest(self) -> None:
        """Wait until nothing is composed, everything is saved, and the controls say so."""
        self.until("studio.job === null && !studio.project.busy && !studio.refreshing")

    def button(self, name: str | re.Pattern[str], within: str = "body") -> Locator:
        """A button by what it is called, or a part of that."""
        return self.page.locator(within).get_by_role("button", name=name)

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def edit(self, name: str) -> None:
        """Choose what the menu of edits has."""
        self.button("Edit", within="#bar").click()
        self.page.get_by_role("menuitem", name=name).click()

    def stop(self) -> None:
        """Stop playing, unless the piece has ended."""
        if self.js("studio.playing"):
            self.press("Space")

    def fill(self, label: str, text: str) -> None:
        """Write into a field of the panel and leave it."""
        field = self.page.locator("#panel").get_by_label(label, exact=True)
        field.fill(text)
        field.press("Tab")

    def compose(self, button: str | re.Pattern[str] = re.compile("^Compose \\d+ bar")) -> None:
        """Press a button that composes, and wait for the result."""
        self.button(button).click()
        self.rest()

    def place(self, tick: float, pitch: float) -> tuple[float, float]:
        """Where the middle of a pitch's row is at a tick, in the window, as soon as the roll stands still."""
        at = self.js(f"still(() => [studio.roll.x({tick}), studio.roll.y({pitch}) + studio.roll.row / 2])")
        return float(at[0]), float(at[1])

    def lane(self, tick: float, y: float) -> tuple[float, float]:
        """A place above the notes: the ruler (``y`` 14), the form (38), the chords (60)."""
        return self.place(tick, 60)[0], float(self.js("studio.roll.canvas.getBoundingClientRect().top")) + y

    def drag(self, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Drag with the mouse."""
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move((start[0] + stop[0]) / 2, (start[1] + stop[1]) / 2)
        mouse.move(*stop)
        mouse.up()

    def mark(self, first: int, last: int) -> None:
        """Mark whole bars by a drag on the ruler."""
        self.drag(self.lane((first - 0.8) * BAR, 14), self.lane((last - 0.2) * BAR, 14))

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file on the page, and wait until it is opened."""
        data = self.page.evaluate_handle(
            "([name, bytes]) => { const data = new DataTransfer();"
            " data.items.add(new File([new Uint8Array(bytes)], name)); return data; }",
            [name, list(content)],
        )
        for kind in ("dragenter", "dragover"):
            self.page.dispatch_event("#roll", kind, {"dataTransfer": data})
        expect(self.page.get_by_text("Drop it")).to_be_visible()
        self.page.dispatch_event("#roll", "drop", {"dataTransfer": data})
        self.page.get_by_text(f"Opened {name}").wait_for()
        self.rest()

    def document(self) -> dict[str, Any]:
        """The piece as it is saved."""
        self.rest()
        return dict(self.server.get(f"projects/{self.project}")["document"])

    def close(self) -> None:
        """Nothing may have been complained about, nor anything asked of another machine."""
        self.check()
        assert self.page.locator(".toast.error").count() == 0
        assert all(url.startswith((self.server.url, "blob:", "data:")) for url in self.requests), self.requests
        self.page.close()


def song(bars: int) -> Document:
    """A melody, a bass of half notes, and chords; no note crosses a bar line."""
    melody = [Note(i, 69 + (i * 5) % 12, i * 240, 240, 70 + i % 40, 0) for i in range(8 * bars)]
    bass = [Note(1000 + i, 38 + (i * 7) % 9, i * 960, 960, 64, 1) for i in range(2 * bars)]
    notes = tuple(sorted((*melody, *bass), key=lambda note: (note.start, note.pitch)))
    chords = tuple((bar * BAR, ("Dm", "Gm7", "A7", "Bb")[bar % 4]) for bar in range(bars))
    return Document(bars * BAR, ((0, 120.0),), key="D minor", notes=notes, chords=chords)


Place = tuple[int, int, int, int]  # pitch, start, duration and velocity of a note


def places(document: dict[str, Any]) -> set[Place]:
    """The notes of a document, whatever their numbers."""
    return {tuple(note[1:5]) for note in document["notes"]}
