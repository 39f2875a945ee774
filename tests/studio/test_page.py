"""The page of the studio in a real browser, as a person uses it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from fractalgen.music.pianoroll import PianoRoll
from tests import tiny
from tests.browser import Tab

pytestmark = pytest.mark.slow
PATIENCE = 60.0  # seconds


class Server:
    """A studio of its own process, which can be killed and started again at the same address."""

    def __init__(self, model: str, folder: Path) -> None:
        self.command = [
            sys.executable,
            "-m",
            "fractalgen",
            "studio",
            "--checkpoint",
            model,
            "--output_dir",
            str(folder),
        ]
        self.port = "0"
        self.start()

    def start(self) -> None:
        """Start it; the first line of what it prints names the address."""
        command = [*self.command, "--port", self.port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line
        self.url, self.port = found[0], found[1]

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class StudioTab(Tab):
    """A page of the studio."""

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        super().__init__(browser, **options)
        self.page.goto(url)
        self.page.wait_for_selector("body[data-ready]")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"never true: {expression}; problems: {self.problems}"
            time.sleep(0.05)

    def compose(self, press: str = "#compose") -> None:
        """Press a button that composes, and wait for the result."""
        head = self.page.evaluate("studio.project.head + studio.project.states.size")
        self.page.click(press)
        self.wait(f"studio.project.head + studio.project.states.size !== {head} && studio.job === null")

    def notes(self) -> Any:
        """The notes of the piece."""
        return self.page.evaluate("JSON.stringify(studio.piece.notes)")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("studio")
    config = tiny.model_config(plan_width=8, reveal_share=0.3, attributes=("key",))
    running = Server(tiny.save_model(folder / "tiny.safetensors", config), folder / "projects")
    yield running
    running.kill()


@pytest.fixture
def studio(browser: Browser, server: Server) -> Iterator[StudioTab]:
    """A page with a new project, in English."""
    page = StudioTab(browser, server.url)
    page.page.click("#projects")
    page.page.click("#new-project")
    page.wait("studio.piece.notes.length === 0")
    yield page
    page.check()
    page.context.close()


def test_compose_hear_undo_redo_and_reload(studio: StudioTab) -> None:
    page = studio.page
    page.fill("#flag-bars", "2")
    studio.compose()
    notes = studio.notes()
    assert notes != "[]"
    page.keyboard.press("Space")
    studio.wait("studio.player.playing")
    page.keyboard.press("Space")
    page.keyboard.press("Control+z")
    studio.wait("studio.piece.notes.length === 0")
    page.keyboard.press("Control+y")
    studio.wait("studio.piece.notes.length > 0")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert studio.notes() == notes


def test_a_region_is_composed_anew_and_all_else_stays(studio: StudioTab) -> None:
    page = studio.page
    page.set_input_files("#file", "docs/example.mid")
    studio.wait("studio.piece.notes.length > 0")
    before = page.evaluate("studio.piece.notes")
    page.evaluate("studio.setRegion({start: 1920, end: 3840, low: 0, high: 128}, true)")
    studio.compose("#region-compose")
    after = page.evaluate("studio.piece.notes")

    def outside(notes: Any) -> set[tuple[int, int, int]]:
        return {(note["pitch"], note["start"], note["velocity"]) for note in notes if not 1920 <= note["start"] < 3840}

    assert outside(before) <= outside(after)  # the rest of a note that the region cuts may be composed otherwise
    assert after != before


def test_one_of_three_alternatives_is_taken(studio: StudioTab) -> None:
    page = studio.page
    page.fill("#flag-bars", "2")
    page.select_option("#samples", "3")
    studio.compose()
    studio.wait("document.querySelectorAll('#strip canvas').length === 3")
    page.get_by_role("button", name=re.compile("Take")).nth(1).click()
    studio.wait("document.querySelectorAll('#strip canvas').length === 0")
    assert studio.notes() != "[]"


def test_the_piece_is_taken_away_as_midi(studio: StudioTab, tmp_path: Path) -> None:
    page = studio.page
    page.fill("#flag-bars", "2")
    studio.compose()
    page.click("#take")
    with page.expect_download() as download:
        page.click("#take-mid")
    download.value.save_as(tmp_path / "piece.mid")
    assert len(PianoRoll.from_midi(tmp_path / "piece.mid").notes()) == page.evaluate("studio.piece.notes.length")


def test_a_killed_server_loses_nothing(studio: StudioTab, server: Server) -> None:
    page = studio.page
    page.fill("#flag-bars", "2")
    studio.compose()
    notes = studio.notes()
    server.kill()
    studio.wait("!document.querySelector('#banner').hidden")
    server.start()
    studio.wait("document.querySelector('#banner').hidden")
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert studio.notes() == notes
    studio.problems.clear()  # the browser tells of the requests that failed


def test_a_mistake_gets_one_line_and_the_studio_goes_on(studio: StudioTab) -> None:
    page = studio.page
    page.fill("#flag-chords", "H")
    page.click("#compose")
    page.locator("#toasts").get_by_text("--chords").wait_for()
    page.fill("#flag-chords", "")
    page.fill("#flag-bars", "2")
    studio.compose()
    studio.problems.clear()  # the browser tells of the answer 400


def test_phone_and_chinese(browser: Browser, server: Server) -> None:
    page = StudioTab(browser, server.url, locale="zh-TW", width=360, height=640, has_touch=True)
    assert page.page.evaluate("document.documentElement.lang") == "zh-TW"
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    unnamed = (
        "[...document.querySelectorAll('button')].filter((b) => !(b.ariaLabel || b.title || b.textContent.trim()))"
    )
    assert page.page.evaluate(f"{unnamed}.map((button) => button.id)") == []
    page.check()
    page.context.close()
