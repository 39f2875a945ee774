"""The site of the documentation: built, and crawled as a reader would."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOADED = {"img": "src", "script": "src", "source": "src", "video": "src", "iframe": "src"}


class Page(HTMLParser):
    """What a page links to, what it loads, the places in it, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.add(values["href"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "modulepreload", "preconnect"):
            self.loads.add(values["href"])
        if LOADED.get(tag, "") in values:
            self.loads.add(values[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="the site needs fractalgen-piano[docs]")
    folder = tmp_path_factory.mktemp("docs")
    subprocess.run([sys.executable, ROOT / "scripts" / "build_docs.py", folder], check=True)
    return folder / "site"


@pytest.mark.slow
def test_every_link_leads_somewhere_and_every_page_is_found(site: Path) -> None:
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    found: dict[Path, set[Path]] = defaultdict(set)
    for path, page in pages.items():
        for target in page.links | page.loads:
            address = urlsplit(target)
            if address.scheme:
                continue
            file = (path.parent / unquote(address.path)).resolve() if address.path else path
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{path.relative_to(site)}: {target}"
            found[path].add(file)
            if address.fragment and file in pages:
                assert unquote(address.fragment) in pages[file].places, f"{path.relative_to(site)}: {target}"
    reached, new = set(), {site / "index.html"}
    while new:
        reached |= new
        new = set().union(*(found[path] for path in new)) & pages.keys() - reached
    assert reached == pages.keys()
    assert site / "docs" / "cookbook.html" in reached


@pytest.mark.slow
def test_reading_needs_no_other_server(site: Path) -> None:
    for path in site.rglob("*.html"):
        outside = {target for target in Page(path.read_text(encoding="utf-8")).loads if urlsplit(target).netloc}
        assert not outside, f"{path.relative_to(site)} loads {outside}"
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


@pytest.mark.slow
def test_the_reference_tells_of_arguments_settings_and_errors(site: Path) -> None:
    text = (site / "docs" / "reference" / "composing.html").read_text(encoding="utf-8")
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "Compose pieces from nothing." in plain
    assert "classifier-free guidance scale" in plain  # the help of a setting
    assert "setting(" not in plain
    assert ":class:" not in plain
