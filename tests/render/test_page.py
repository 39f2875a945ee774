"""The HTML page: what is written into it, and that nothing else gets in (``test_player.py`` opens it in a browser)."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fractalgen.config import RenderConfig
from fractalgen.errors import UserError
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import HOLD, ONSET
from fractalgen.render.page import LEGIBLE, MODULES, PAPERS, PIANO, PLAYER, page, save_html
from fractalgen.trace import Trace
from tests import tiny

PATCHES = (128, 16, 4, 1)
LEVELS = len(PATCHES)
CONFIG = RenderConfig()
HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'> & \"é\" <!--"


def made_up(kind: str = "ar", width: int = 64, known_until: int = 0, notes: int = 40, **changes: Any) -> Trace:
    """A consistent record of a random roll of pitches 40 to 79, as a sampler would leave it."""
    rng = np.random.default_rng(7)
    tokens = np.zeros((128, width), np.uint8)
    for pitch, start in zip(rng.integers(40, 80, notes), rng.integers(0, width // 4, notes) * 4, strict=True):
        tokens[pitch, start : start + 3] = rng.integers(8, 34), HOLD, HOLD
    tokens[60, :6] = HOLD  # a note from before the piece
    facts: dict[str, Any] = {"seed": 7, "checkpoint": "made-up", "settings": {"temperature": 0.9, "tempo": 90.0}}
    count = 8 if kind == "mar" else 8 * width // 16  # four iterations of two batches
    facts["seconds"] = np.linspace(0.1, 2.0, count).astype(np.float32)
    known = np.broadcast_to(np.arange(width) < known_until, tokens.shape)
    return dataclasses.replace(tiny.trace(tokens, kind=kind, known=known, moments=count), **facts | changes)


class Tags(HTMLParser):
    """Every tag of a page with its attributes, and the texts right behind them, by tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self._open = tag

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open][-1] += data


def contents(text: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a page says about its piece, and its arrays, read independently of the player."""
    data, packed, *_ = Tags(text).texts["script"]
    piece = json.loads(data)
    content = zlib.decompress(base64.b64decode(packed))
    arrays = {
        name: np.frombuffer(content, np.dtype(kind).newbyteorder("<"), count, start)
        for name, kind, start, count in piece["arrays"]
    }
    return piece, arrays


def rgb(hexadecimal: str) -> list[int]:
    """Red, green and blue, 0 to 255."""
    return [int(pair, 16) for pair in re.findall("..", hexadecimal[1:])]


@pytest.mark.parametrize("kind", ["ar", "mar"])
def test_the_page_holds_the_whole_trace(kind: str) -> None:
    chances = np.arange(128 * 64).reshape(128, 64).astype(np.uint8)
    chances[:, :20] = 0
    trace = made_up(kind, known_until=20, chances=chances)
    piece, arrays = contents(page(trace, CONFIG))
    for name in ("tokens", "decided", "steps", "known", "seconds", "chances"):
        wanted = getattr(trace, name)
        np.testing.assert_array_equal(arrays[name].reshape(wanted.shape), wanted)
    assert piece["shape"] == [128, 64]
    assert piece["generators"] == [kind] * 4
    assert piece["patch_sizes"] == list(PATCHES)
    assert piece["bars"] == [0, 16, 32, 48]
    assert piece["beats"] == list(range(0, 64, 4))
    assert piece["tempos"] == [[0, pytest.approx(90, abs=1e-3)]]
    facts = dict(piece["facts"])
    assert (facts["Model"], facts["Seed"], facts["temperature"]) == ("made-up", "7", "0.9")
    assert facts["Length"] == "4 bars, 64 steps, 0:11"  # 64 steps of a sixteenth at 90: 10.7 s


def test_a_finished_roll_brings_its_length_tempi_and_meters(tmp_path: Path) -> None:
    trace = made_up()
    roll = PianoRoll(trace.tokens[:, :60], tempos=((0, 60.0), (24, 120.0)), time_signatures=((0, 3, 4),))
    roll.to_midi(tmp_path / "wanted.mid")
    piece, arrays = contents(page(trace, CONFIG, roll=roll))
    assert piece["shape"] == [128, 60]
    assert piece["bars"] == [0, 12, 24, 36, 48]
    assert piece["tempos"] == [[0, 60.0], [24, 120.0]]
    assert base64.b64decode(piece["midi"]) == (tmp_path / "wanted.mid").read_bytes()
    np.testing.assert_array_equal(arrays["decided"].reshape(4, 128, 60), trace.decided[:, :, :60])


def test_nothing_is_fetched_and_only_the_player_may_run() -> None:
    text = page(made_up(), CONFIG)
    parsed = Tags(text)
    for tag, attributes in parsed.tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith(("#", "data:,")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"https?:|url\(|@import|XMLHttpRequest|WebSocket|import\(", text)
    assert text.count("fetch(") == 1  # the piano's, for samples at an address: here it has them
    (policy,) = (a["content"] for tag, a in parsed.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_strings_from_files_are_data() -> None:
    trace = made_up(checkpoint=HOSTILE, settings={HOSTILE: HOSTILE, "tempo": 120})
    text = page(trace, dataclasses.replace(CONFIG, gif_title=HOSTILE))
    parsed, harmless = Tags(text), Tags(page(made_up(), CONFIG))
    assert [tag for tag, _ in parsed.tags] == [tag for tag, _ in harmless.tags]
    assert parsed.texts["title"] == parsed.texts["h1"] == [HOSTILE]
    piece, _ = contents(text)
    assert piece["title"] == HOSTILE
    assert [HOSTILE, HOSTILE] in piece["facts"]


def test_pages_are_small_and_equal_for_equal_traces() -> None:
    text = page(made_up(width=256, notes=400), CONFIG)
    assert len(text.encode()) < 400_000
    assert text == page(made_up(width=256, notes=400), CONFIG)
    whole = made_up(width=2400, notes=4000)
    whole.tokens[21:109, 0] = ONSET  # every key has its sample
    assert len(page(whole, CONFIG).encode()) < 950_000
    assert len(page(whole, dataclasses.replace(CONFIG, page_piano="full")).encode()) < 4_500_000


@pytest.mark.parametrize(
    ("choice", "folder", "needed"), [("small", "small", [39, 57, 63, 105]), ("full", "", [42, 60, 108])]
)
def test_the_page_holds_the_samples_that_it_needs(choice: Any, folder: str, needed: list[int]) -> None:
    tokens = np.zeros((128, 64), np.uint8)
    tokens[[42, 60, 61, 120], 0] = ONSET  # of those that are equally near the lower one is taken
    text = page(made_up(tokens=tokens), dataclasses.replace(CONFIG, page_piano=choice))
    table = json.loads(Tags(text).texts["script"][2])
    assert [note["pitch"] for note in table["notes"]] == needed
    for note in table["notes"]:
        assert base64.b64decode(note["data"]) == (PIANO / folder / f"{note['pitch']:03}.mp3").read_bytes()
    assert "Alexander Holm, CC BY 3.0" in dict(contents(text)[0]["facts"])["Sound"]


def test_the_modules_are_joined_whole() -> None:
    script = Tags(page(made_up(), CONFIG)).texts["script"][-1]
    assert not re.search(r"^\s*(import|export)\b", script, flags=re.MULTILINE)
    for name in MODULES:
        lines = (PLAYER / name).read_text(encoding="utf-8").splitlines()
        kept = [line.removeprefix("export ") for line in lines if not line.startswith("import ")]
        assert "\n".join(kept) in script
        for line in set(lines) - set(kept):  # a name is imported as it is, and from a module further up
            origin = re.fullmatch(r'import \{[\w, ]+\} from "\./(\w+\.js)";|export .*', line)
            assert origin, line
            assert origin[1] is None or MODULES.index(origin[1]) < MODULES.index(name)
    assert {path.name for path in PLAYER.glob("*.js")} == set(MODULES)


@pytest.mark.parametrize("cmap", ["viridis", "magma", "gray", "binary", "jet"])
def test_notes_are_legible_on_either_paper(cmap: str) -> None:
    def luminance(colour: str) -> float:
        """Relative luminance as WCAG 2.1 defines it."""
        share = np.array(rgb(colour)) / 255
        return float(
            np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        )

    piece, _ = contents(page(made_up(), dataclasses.replace(CONFIG, gif_cmap=cmap)))
    css = (PLAYER / "player.css").read_text(encoding="utf-8")
    for theme, paper in PAPERS.items():
        background = "#{:02x}{:02x}{:02x}".format(*paper)
        assert f"--roll: {background}" in css
        ramp = piece["ramps"][theme]
        assert len(ramp) == 64
        for colour in ramp:
            one, other = sorted((luminance(colour), luminance(background)))
            assert (other + 0.05) / (one + 0.05) >= LEGIBLE - 0.01, (theme, colour)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, read_only: Path) -> None:
    trace = made_up()
    with pytest.raises(UserError, match="--view density: the trace has no chances"):
        page(trace, CONFIG, view="density")
    with pytest.raises(UserError, match="--gif_cmap plaid"):
        page(trace, dataclasses.replace(CONFIG, gif_cmap="plaid"))
    with pytest.raises(ValueError, match="not the piece"):
        page(trace, CONFIG, roll=PianoRoll(np.zeros((128, 64), np.uint8)))
    with pytest.raises(UserError, match=r"piece\.html: cannot be written"):
        save_html(trace, read_only / "piece.html", CONFIG)
