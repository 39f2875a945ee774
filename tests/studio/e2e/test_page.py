"""The page itself: names, contrast, focus, languages, phones, slow machines, and how it looks."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from fractalgen.studio.document import Document, Note
from tests.studio.e2e.conftest import Opener
from tests.studio.e2e.driver import BAR, StudioTab, places, song

pytestmark = pytest.mark.slow
GOLDEN = Path(__file__).parent / "golden"
TWO_FRAMES = "new Promise((after) => requestAnimationFrame(() => requestAnimationFrame(after)))"
PHONE: dict[str, Any] = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}


def everything(tab: StudioTab) -> None:
    """Open all parts of the page: alternatives, a region, history, a fold of settings."""
    tab.mark(2, 2)
    tab.button("3 ways").click()
    tab.rest()
    tab.button("History").click()
    tab.page.get_by_text("Advanced").click()
    expect(tab.page.get_by_role("article")).to_have_count(3)


def unnamed(page: Page, least: int = 1) -> list[Any]:
    """Controls that a screen reader has no name for."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "textbox", "combobox", "slider", "spinbutton", "checkbox", "radio", "menuitem", "dialog"}
    roles |= {"application", "radiogroup", "progressbar", "image", "toolbar", "navigation"}
    shown = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(shown) >= least
    return [node for node in shown if not node.get("name", {}).get("value", "").strip()]


def test_every_control_has_a_name(open_studio: Opener) -> None:
    tab = open_studio(song(4))
    everything(tab)
    assert unnamed(tab.page, 60) == []
    tab.button("Take away").click()
    expect(tab.page.locator("#take-menu a").first).to_be_visible()
    assert unnamed(tab.page) == []
    for name in ("Keyboard and mouse", "Projects"):
        tab.press("Escape")
        tab.button(name).click()
        assert unnamed(tab.page) == []
        expect(tab.page.get_by_role("dialog", name=name)).to_be_visible()
    assert tab.js("new Set([...document.querySelectorAll('[id]')].map(({ id }) => id)).size") == tab.js(
        "document.querySelectorAll('[id]').length"
    )


# Text that is drawn over what lies behind it, by the formula of WCAG 2.2.
CONTRASTS = """
const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  pen.clearRect(0, 0, 1, 1);
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data];
};
const over = ([r, g, b, a], under) => [r, g, b].map((value, i) => value * a / 255 + under[i] * (1 - a / 255));
const luminance = (colour) => {
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = colour.map((value) => linear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const paper = (element) => {
  const chain = [];
  for (let at = element; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
  return chain.reduce((under, colour) => over(rgba(colour), under), [255, 255, 255]);
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const text = [...element.childNodes].filter(({ nodeType }) => nodeType === 3).map(({ data }) => data).join("").trim();
  if (!text || element.closest(":disabled, noscript, option, datalist, .sr, [aria-hidden=true]")) continue;
  if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
  const style = getComputedStyle(element), back = paper(element);
  const [one, other] = [luminance(over(rgba(style.color), back)), luminance(back)];
  const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  found.push([text, Math.round(ratio * 100) / 100, large ? 3 : 4.5]);
}
return found;
"""


def test_texts_stand_out_in_both_themes(open_studio: Opener) -> None:
    tab = open_studio(song(4), reduced_motion="reduce")
    everything(tab)
    for theme in ("dark", "light"):
        assert tab.js("document.documentElement.dataset.theme") == theme
        found = tab.js(f"(() => {{{CONTRASTS}}})()")
        assert len(found) > 40
        assert [row for row in found if row[1] < row[2]] == []
        tab.press("t")


FOCUSED = """
(() => {
  const element = document.activeElement, box = element.getBoundingClientRect(), style = getComputedStyle(element);
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  const inside = box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight;
  window.walked ??= [];
  walked.push(element);
  return [element.id || element.outerHTML.slice(0, 80), ring || style.boxShadow !== "none", inside && box.width > 0];
})()
"""


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(open_studio: Opener) -> None:
    tab = open_studio(song(4), reduced_motion="reduce")
    seen = []
    for _ in range(120):
        tab.press("Tab")
        if tab.js("document.activeElement === document.body"):
            break
        seen.append(tab.js(FOCUSED))
    assert len(seen) < 120, "the focus is caught"
    assert [row for row in seen if not (row[1] and row[2])] == []
    left = tab.js(
        "[...document.querySelectorAll('button:enabled, a[href], input:enabled, select:enabled, summary')].filter("
        "(one) => one.tabIndex >= 0 && one.checkVisibility({ visibilityProperty: true }) && !walked.includes(one))"
        ".map(({ outerHTML }) => outerHTML.slice(0, 80))"
    )
    assert left == []


def test_a_piece_is_composed_and_edited_with_the_keyboard_alone(open_studio: Opener) -> None:
    tab = open_studio()
    says = tab.page.locator("#live")
    tab.press("Control+Enter")
    tab.rest()
    expect(says).to_contain_text("Composed in")
    tab.press("Tab", "Enter")  # the link that leads to the roll
    assert tab.js("document.activeElement.id") == "roll-box"
    expect(tab.page.get_by_role("application")).to_have_accessible_name(re.compile("notes. N goes to the next note"))
    before = tab.document()
    tab.press("n")
    expect(says).to_have_text(re.compile(r"[A-G]♯?-?\d · bar \d+ : \d : \d · [\d.]+/16 · velocity \d+"))
    tab.press("ArrowRight", "Alt+ArrowDown", "Delete", "Enter")
    assert len(tab.document()["notes"]) == len(before["notes"])
    tab.press("?")
    expect(tab.page.get_by_role("dialog")).to_be_visible()
    tab.press("Escape")
    tab.until("!document.querySelector('dialog[open]')")
    tab.press("h")
    tab.page.locator("#states button").last.press("Enter")
    assert tab.document()["notes"] == []


FITS = "document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight"
SMALL = """
[...document.querySelectorAll('header button, footer button, #go button, #bar button')]
  .filter((one) => one.checkVisibility() && one.getBoundingClientRect().width > 0)
  .map((one) => [one.id, one.offsetWidth, one.offsetHeight]).filter(([, w, h]) => w < 24 || h < 24)
"""


LONGEST = """
(() => {
  const note = studio.piece.notes.reduce((one, other) => (other.duration > one.duration ? other : one));
  studio.select();
  studio.roll.reveal(note.start, note.pitch);
  return note;
})()
"""


def test_a_phone_is_enough_upright_and_on_its_side(open_studio: Opener) -> None:
    tab = open_studio(song(4), width=390, height=780, **PHONE)
    assert tab.js(FITS)
    tab.js("studio.draft({ ...studio.piece, length: 500 * 1920 })")
    tab.js("studio.roll.fit()")
    assert 300 < tab.js("studio.roll.x(500 * 1920)") < 390
    tab.js("studio.drop()")
    tab.js("studio.roll.fit()")
    for width in (320, 360, 390):
        tab.page.set_viewport_size({"width": width, "height": 780})
        tab.until(f"innerWidth === {width} && studio.roll.width === {width}")
        tab.mark(2, 3)
        tab.rest()
        box = tab.page.locator("#region-bar").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert tab.js(FITS)
    tab.press("Escape")
    tab.page.locator("#go").get_by_role("button", name="Settings").tap()
    tab.fill("Bars", "2")
    tab.page.locator("#compose").tap()
    tab.until("studio.project.states.size > 2")
    tab.rest()
    assert tab.js(FITS)
    assert tab.js(SMALL) == []  # the least target of WCAG 2.2
    tab.page.locator("#play").tap()
    tab.until("studio.cursor > 100")
    tab.page.locator("#play").tap()
    tab.until("!studio.playing")  # it rests, or began once more and has ended
    tab.press("Control+z")  # what was composed may be silent
    tab.rest()
    for size in ({"width": 390, "height": 780}, {"width": 780, "height": 390}):
        tab.page.set_viewport_size(size)  # type: ignore[arg-type]
        tab.until(f"innerWidth === {size['width']} && studio.roll.before === studio.roll.scroller.clientHeight")
        assert tab.js(FITS)
        assert tab.js(SMALL) == []
        note = tab.js(LONGEST)
        tab.page.touchscreen.tap(*tab.place(note["start"] + note["duration"] / 2, note["pitch"]))
        tab.until("studio.selection.size === 1")
    tab.page.locator("#go").get_by_role("button", name="Settings").tap()
    panel = tab.page.locator("#panel")
    panel.get_by_label("Meter from this bar on").select_option("3/4")
    panel.get_by_label("Volume").fill("0.3")
    assert tab.document()["meters"] == [[0, 3, 4]]
    assert tab.js("studio.player.volume") == 0.3


CUT = """
['#compose', '#compose span', '#facts'].filter((name) => {
  const { scrollWidth, clientWidth, scrollHeight, clientHeight } = document.querySelector(name);
  return scrollWidth > clientWidth || scrollHeight > clientHeight;
})
"""


def test_traditional_chinese(open_studio: Opener) -> None:
    tab = open_studio(replace(song(12), key="Db major"), locale="zh-TW")
    assert tab.js("document.documentElement.lang") == "zh-TW"
    tab.press("Control+a", "ArrowUp")
    tab.mark(10, 12)
    tab.press("h")
    expect(tab.page.locator("#states")).to_contain_text("移動 120 個音符")
    texts = tab.js(
        "[...document.body.querySelectorAll('button, label, h2, summary, p, [aria-label]')]"
        ".filter((one) => one.checkVisibility())"
        ".map((one) => one.getAttribute('aria-label') ?? one.textContent.trim()).filter(Boolean)"
    )
    ours = {"English", "EN"}
    assert len(texts) > 40
    assert [
        text for text in texts if re.search("[a-z]{4}", text) and not re.search("[一-鿿]", text) and text not in ours
    ] == []
    missing = tab.js(
        "Promise.all(['en', 'zh-TW'].map((name) => import(`/static/studio/${name}.js`))).then(([en, zh]) => "
        "[Object.keys(en.default).filter((key) => !/^example/.test(key) && !(key in zh.default)),"
        " Object.keys(zh.default).filter((key) => !(key in en.default))])"
    )
    assert missing[0] == []
    assert all(re.match(r"(flag|choice)\.", key) for key in missing[1])  # which English takes from the command line
    refused_in_chinese(tab)
    tab.page.locator("#language").click()
    assert tab.js("document.documentElement.lang") == "en"
    expect(tab.button("Recompose bars 10-12")).to_be_visible()
    expect(tab.page.locator("#states")).to_contain_text("Move 120 notes")
    assert tab.js(CUT) == []


def refused_in_chinese(tab: StudioTab) -> None:
    """What the server refuses is told in the language of the page."""
    tab.page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n"})
    toast = tab.page.locator(".toast.error")
    expect(toast).to_have_text("a.png：不是 MIDI、MusicXML 或和弦文字檔")
    toast.get_by_role("button").click()
    tab.problems.clear()  # the browser tells of each answer that is an error
    client, project = tab.server.client, f"/api/projects/{tab.project}"
    flags: list[dict[str, Any]] = [
        *({"chords": text} for text in ("H", "|", "C D E F G | C")),
        *({"form": text} for text in ("A8 ?", "A0", " ")),
        *({"bars": 4, "form": "A8"}, {"bars": 0}, {"bars": 600}, {"tempo": 5000}, {"temperature": ["a"]}),
        *({"scale": "C foo"}, {"key": "H moll"}, {"density": 0.5}, {"pitch_range": "C9:C2"}, {"pitch_range": "x"}),
    ]
    wishes = [{"state": 1, "mode": "new", "flags": one} for one in flags]
    wishes += [
        {"state": 1, "mode": "new", "flags": {"bars": 500}, "num_samples": 4},
        {"state": 1, "mode": "region", "region": {"start": 90 * BAR, "end": 91 * BAR}},
        {"state": 1, "mode": "continue", "flags": {"bars": 1, "chords": "C | D"}},
        {"state": 99, "mode": "new"},
    ]
    answers = [client.post(f"{project}/compose", json=wish) for wish in wishes]
    files = {"a.mid": b"", "b.mid": b"MThd", "c.mid": b"C", "a.xml": b"<x>", "a.txt": b"|C" * 20_000}
    answers += [client.post(f"{project}/import", files={"file": file}) for file in files.items()]
    document = song(1).to_json()
    changes: dict[str, list[Any]] = {"chords": [[0, "zz"]], "sections": [[0, ""]], "notes": [[]] * 50_001}
    for name, rows in changes.items():
        answers.append(client.post(f"{project}/states", json={"parent": 1, "document": {**document, name: rows}}))
    answers += [client.get("/api/projects/no"), client.patch(project, json={"name": ""})]
    answers += [client.get(f"{project}/states/0/png"), client.post("/api/projects/open", files={"file": b""})]
    lines = [answer.json()["detail"] for answer in answers]
    shown = tab.js(f"import('/static/studio/i18n.js').then(({{ said }}) => {json.dumps(lines)}.map(said))")
    assert shown[0] == "和弦：第 1 個字元：'H' 不是和弦（例如 C、F#m7、Bb/D、Gsus4、N.C.）"
    assert [text for text in shown if not re.search("[一-鿿]", re.sub(r"^.*?：", "", text))] == []


def test_a_slow_machine_is_enough(open_studio: Opener) -> None:
    tab = open_studio(sound=True)
    tab.page.context.new_cdp_session(tab.page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
    tab.page.reload()
    tab.ready()
    tab.fill("Bars", "4")  # of two, nothing may be left to play when the page is ready
    tab.compose()
    tab.press("Space")
    tab.until("peak() > 0.002")
    tab.stop()
    tab.mark(2, 3)
    tab.compose("Recompose the region")
    tab.press("Control+z")
    assert tab.document()["length"] == 4 * BAR


HOSTILE = '<img src="data:," onerror="window.pwned = 1">"\'&'


def test_hostile_names_stay_text_and_no_other_script_runs(open_studio: Opener) -> None:
    hostile = Document(BAR, notes=song(1).notes, sections=((0, HOSTILE),))
    tab = open_studio(hostile)
    tab.page.get_by_label("Name of the project").fill(HOSTILE)
    tab.press("Enter", "Control+a", "ArrowUp")
    expect(tab.page).to_have_title(re.compile("<img src"))
    tab.rest()
    tab.server.post(f"projects/{tab.project}/states", parent=2, label=HOSTILE, document=hostile.to_json())
    tab.button("History").click()
    expect(tab.page.locator("#states")).to_contain_text("<img src")
    tab.button("Projects").click()
    expect(tab.page.locator("#project-list")).to_contain_text("<img src")
    assert tab.js("typeof window.pwned") == "undefined"
    assert tab.problems == []
    with tab.page.expect_console_message(lambda message: "script-src" in message.text):
        tab.js("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.pwned = 1\">')")
    assert tab.js("typeof window.pwned") == "undefined"
    tab.problems.clear()


def test_other_pages_see_what_changes(open_studio: Opener) -> None:
    one = open_studio(song(4))
    assert one.context.browser is not None
    other = StudioTab(one.context.browser, one.server, one.project)
    one.press("Control+a", "ArrowUp")
    other.until("studio.piece.notes.length && studio.project.states.size === 3")
    one.page.get_by_role("radio", name="Continue").click()
    one.button("Continue 4 bars").click()
    other.until("studio.live")
    one.rest()
    other.rest()
    assert other.js("studio.piece.length") == 8 * BAR
    assert places(other.document()) == places(one.document())
    other.button("Projects").click()
    one.page.get_by_label("Name of the project").fill("Renamed")
    one.press("Enter")
    expect(other.page.locator("#project-list")).to_contain_text("Renamed")
    other.press("Escape")
    expect(other.page).to_have_title(re.compile("Renamed"))
    other.server.client.delete(f"/api/projects/{one.project}")
    piece = one.js("studio.piece.notes.length")
    for tab in (one, other):
        expect(tab.page.get_by_role("alert")).to_contain_text("This project was deleted")
    one.press("Control+a", "ArrowUp")
    expect(one.page.locator("#saved")).to_have_text("Deleted")
    one.button("Keep it as a new project").click()
    one.until(f"studio.project.id !== '{one.project}'")
    one.project = one.js("studio.project.id")
    assert len(one.document()["notes"]) == piece
    expect(one.page.get_by_role("alert")).to_be_hidden()
    expect(one.page).to_have_title(re.compile("Renamed"))
    other.close()


def test_the_empty_studio_looks_as_it_did(open_studio: Opener) -> None:
    """In small, so that fonts of other machines make no difference."""
    tab = open_studio(reduced_motion="reduce")
    tab.page.mouse.move(640, 300)
    for theme in ("dark", "light"):
        tab.page.emulate_media(color_scheme=theme)
        tab.until(f"document.documentElement.dataset.theme === '{theme}'")
        tab.js(TWO_FRAMES)
        compare(tab, GOLDEN / f"{theme}.png")


def compare(tab: StudioTab, path: Path) -> None:
    """Compare the window with a picture that was looked at."""
    picture = Image.open(io.BytesIO(tab.page.screenshot())).convert("RGB").resize((320, 200), Image.Resampling.BOX)
    if not path.exists():
        GOLDEN.mkdir(exist_ok=True)
        picture.save(path, optimize=True)
        pytest.fail(f"{path} is made: look at it")
    difference = np.abs(np.asarray(picture, np.int16) - np.asarray(Image.open(path), np.int16)).mean(2)
    blocks = difference.reshape(20, 10, 32, 10).mean((1, 3))  # in which letters hardly count
    assert difference.mean() < 3.5  # monospace instead of sans-serif: 2.6
    assert blocks.max() < 80, np.argwhere(blocks >= 80).tolist()  # monospace: 62; no play button: 114


def test_the_lowest_and_the_highest_key_are_drawn_and_heard(open_studio: Opener) -> None:
    notes = tuple(Note(i, pitch, 0, BAR, 80, 0) for i, pitch in enumerate((0, 127)))
    tab = open_studio(Document(BAR, notes=notes))
    for pitch in (0, 127):
        tab.press("n")
        tab.until(f"studio.sounding.has({pitch})")
        tab.js(TWO_FRAMES)
    tab.press("ArrowUp", "ArrowDown")
    assert len(tab.document()["notes"]) == 2
