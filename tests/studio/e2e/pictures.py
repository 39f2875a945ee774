"""The pictures of docs/studio.md: ``python -m tests.studio.e2e.pictures [FOLDER]``, with the shipped model."""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser

from tests.browser import chromium
from tests.studio.e2e.driver import StudioTab
from tests.studio.server import Server

DOCS = Path(__file__).resolve().parents[3] / "docs"
SEED = 5


def picture(tab: StudioTab) -> Image.Image:
    """The window."""
    return Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB")


def opened(browser: Browser, server: Server, name: str, **options: object) -> StudioTab:
    """The page of a new project, which is called so."""
    tab = StudioTab(browser, server, server.post("projects", name=name)["id"], **options)  # type: ignore[arg-type]
    tab.js(f"studio.panel.set('seed', {SEED})")
    return tab


def composed(browser: Browser, server: Server) -> Image.Image:
    """A piece, a third of which is composed."""
    tab = opened(browser, server, "Morning", width=1440, height=900)
    tab.button("Compose 16 bars").click()
    tab.until("studio.composing && studio.live.done > 44 && studio.live.samples[0].patches.at(-1).sounds")
    return picture(tab)


def alternatives(browser: Browser, server: Server) -> Image.Image:
    """Three ways of two bars."""
    tab = opened(browser, server, "Evening", width=1440, height=900)
    tab.compose()
    tab.mark(6, 7)
    tab.button("3 ways").click()
    tab.rest()
    tab.page.wait_for_timeout(1500)
    return picture(tab)


def region(browser: Browser, server: Server) -> Image.Image:
    """A region and the history, by day."""
    tab = opened(browser, server, "Noon", width=1440, height=900, color_scheme="light")
    tab.compose()
    for first in (3, 9):
        tab.mark(first, first + 1)
        tab.compose("Recompose the region")
    tab.mark(5, 8)
    tab.button("History").click()
    tab.page.wait_for_timeout(3000)
    return picture(tab)


def phone(browser: Browser, server: Server) -> Image.Image:
    """The same on a phone."""
    tab = opened(browser, server, "Night", width=360, height=720, has_touch=True, is_mobile=True, device_scale_factor=2)
    tab.page.locator("#compose").tap()
    tab.rest()
    tab.page.wait_for_timeout(3000)
    return picture(tab)


def film(browser: Browser, server: Server, path: Path) -> None:
    """The roll while eight bars are composed, as fast as it is."""
    tab = opened(browser, server, "Dawn", width=960, height=600)
    tab.js("studio.panel.set('bars', 8)")
    tab.button("Compose 8 bars").click()
    tab.until("studio.composing")
    frames: list[Image.Image] = []
    times = [time.monotonic()]
    while len(frames) < 12 or tab.js("studio.job !== null || studio.live.drawUnder(studio.roll, performance.now())"):
        frames.append(picture(tab).resize((720, 450), Image.Resampling.LANCZOS))
        times.append(time.monotonic())
    palette = frames[len(frames) // 2].quantize(64)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    lengths = [max(40, round(1000 * (end - begin))) for begin, end in pairwise(times)]
    lengths[-1] = 2500
    small[0].save(path, save_all=True, append_images=small[1:], duration=lengths, loop=0, optimize=True)


PICTURES: dict[str, Callable[[Browser, Server], Image.Image]] = {
    "studio": composed,
    "studio_alternatives": alternatives,
    "studio_region": region,
    "studio_phone": phone,
}


def main(folder: Path = DOCS) -> None:
    """Make all of them."""
    with tempfile.TemporaryDirectory() as projects, chromium() as browser:
        server = Server(Path(projects), "--device", "cpu")
        try:
            for name, make in PICTURES.items():
                path = folder / f"{name}.png"
                make(browser, server).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
                print(path, path.stat().st_size)
            film(browser, server, folder / "studio.gif")
            print(folder / "studio.gif", (folder / "studio.gif").stat().st_size)
        finally:
            server.kill()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
