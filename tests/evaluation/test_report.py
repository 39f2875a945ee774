"""The evaluation page: well-formed, self-contained, and it says what it was given."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fractalgen.evaluation import report
from fractalgen.music.pianoroll import PianoRoll
from tests import tiny

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """A parsed page: its texts, tables, attributes and elements; unbalanced tags fail."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # (element, text)
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += f" {data}" if self.rows[-1][-1] else data

    def of(self, element: str) -> list[str]:
        """The texts directly inside elements of this name."""
        return [text for inside, text in self.texts if inside == element]

    @property
    def text(self) -> str:
        """All that a reader sees."""
        return " ".join(" ".join(text for inside, text in self.texts if inside != "style").split())

    def pictures(self) -> list[bytes]:
        """The content of the images."""
        sources = [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]
        return [base64.b64decode(source.split(",")[1], validate=True) for source in sources]


def distance(mean: float, wasserstein: float | None, overlap: float | None) -> dict[str, float | None]:
    return {
        "reference_mean": 62.5,
        "sample_mean": mean,
        "wasserstein": wasserstein,
        "scaled": None,
        "overlap": overlap,
    }


def two_sample() -> dict[str, Any]:
    def telling(name: str, auc: float, real: float, generated: float) -> dict[str, Any]:
        means = {"real_mean": real, "real_std": 0.25, "generated_mean": generated, "generated_std": 0.125}
        return {"name": name, "auc": auc, **means}

    floor = {"floor": 0.512, "floor_stderr": 0.061}
    return {
        "excerpts": 34,
        "songs": 40,
        "bars": 16.0,
        "edge": "end",
        "floor_excerpts": 20,
        "forest": {"auc": 0.943, "stderr": 0.018, **floor},
        "linear": {"auc": 0.917, "stderr": 0.021, **floor},
        "chance": 0.65,
        "features": [telling("chord_fit", 0.8125, 1.5, 2.75), *[telling("velocity", 0.5, 20, 20)] * 19],
    }


def result() -> dict[str, Any]:
    return {
        "model": "pop909-ar",
        "corpus": "pop909",
        "split": "test",
        "date": "2031-02-03",
        "exact": True,
        "bits_per_note": 8.849,
        "stderr": 0.068,
        "bits_per_cell": 0.07958,
        "nats_per_cell": 0.05516,
        "nats_per_frame": 7.0603,
        "nll_nats_per_crop": 1807.4,
        "notes": 135012,
        "crops": 461,
        "songs": 88,
        "seconds": 312.44,
        "levels": {
            "L0": {"bits_per_note": 1.0, "nats_per_crop": 777.0, "gate": 1.0},
            "L3": {"bits_per_note": 4.0, "nats_per_crop": 888.0, "articulation": 1.5, "velocity": 2.5},
        },
        "kinds": {"silence": 2.0, "velocity": 3.0},
        "statistics": {
            "real": {"pitch": distance(62.25, 0.5, 0.964)},
            "generated": {"pitch": distance(66.0, 3.25, 0.751)},
            "shuffled": {"pitch": distance(63.0, 24.0, None)},
        },
        "two_sample": two_sample(),
        "copying": {
            "generated": {"bars": 1490, "exact": 0.0134, "transposed": 0.0521, "longest": 2},
            "real": {"bars": 7012, "exact": 0.0181, "transposed": 0.0632, "longest": 5},
        },
        "sampling": {"temperature": 0.9, "num_iter_list": [8, 4, 2, 1], "seed": None, "cfg_schedule": "constant"},
        "command": "fractalgen evaluate --split test",
    }


HISTOGRAMS = {
    "pitch": {"values": [60, 61, 62], "real": [0.2, 0.5, 0.3], "generated": [0.5, 0.5, 0], "unit": "MIDI pitch"}
}
TRACES = [dataclasses.replace(tiny.intermediates(tiny.tokens(seed)[None]).traces[0], seed=seed) for seed in range(2)]
ROLLS = [PianoRoll(trace.tokens) for trace in TRACES]
SECTIONS = ["Where the bits go", "Music statistics", "Distributions", "Two-sample test", "Copying", "Examples"]
SECTIONS += ["Settings and command"]


def write(folder: Path, facts: dict[str, Any], rolls: Any = (), traces: Any = (), histograms: Any = None) -> Page:
    report.write_report(folder / "report.html", facts, rolls, traces, histograms or {})
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def headings(page: Page) -> list[str]:
    return page.of("h2") + page.of("summary")


def test_the_page_is_complete_and_needs_nothing_else(tmp_path: Path) -> None:
    page = write(tmp_path, result(), ROLLS, TRACES, HISTOGRAMS)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert headings(page) == SECTIONS
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    for reference in ("://", "url(", "@import", "<script"):
        assert reference not in html
    values = [str(value) for _, attributes in page.tags for key, value in attributes.items() if key != "src"]
    assert not re.search(r"\b(nan|inf|None)\b", " ".join([page.text, *values]))
    links = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert len(links) == 1 + 2 * len(ROLLS)
    assert all(str(link).startswith("data:") for link in links)
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert str(policy).startswith("default-src 'none'")
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_the_numbers_are_those_given(tmp_path: Path) -> None:
    page = write(tmp_path, result(), ROLLS, TRACES, HISTOGRAMS)
    assert page.of("h1") == ["pop909-ar"]
    assert page.of("title") == ["pop909-ar on pop909"]
    assert "Evaluation on pop909, split test , 2031-02-03" in page.text
    assert "8.85 ± 0.07 bits per note , exact negative log-likelihood ± standard error over songs" in page.text
    assert dict(zip(page.of("dt"), page.of("dd"), strict=True)) == {
        "bits per cell": "0.07958",
        "nats per cell": "0.05516",
        "nats per frame": "7.060",
        "nats per crop": "1,807",
        "notes": "135,012",
        "crops": "461",
        "songs": "88",
        "seconds to score": "312.4",
    }
    for row in (
        ["L0", "gate", "1.00", "20%"],
        ["velocity", "how loud it is struck", "3.00", "60%"],
        ["pitch MIDI pitch", "", "62.5", "62.2", "0.500", "0.96", "66.0", "3.25", "0.75", "63.0", "24.0", "–"],
        ["Generated", "1,490", "1.3%", "5.2%", "2"],
        ["Real, held out", "7,012", "1.8%", "6.3%", "5"],
        ["temperature", "0.9"],
        ["num_iter_list", "8 4 2 1"],
        ["seed", "null"],
        ["cfg_schedule", "constant"],
    ):
        assert row in page.rows
    assert any(row[0] == "L3" and "articulation 1.50" in row[1] and "velocity 2.50" in row[1] for row in page.rows)
    assert not any("nats_per_crop" in cell for row in page.rows for cell in row)
    assert page.of("code") == ["fractalgen evaluate --split test"]
    assert "Sample 2: 32 steps" in page.text


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"exact": False}, "≤ 8.85 ± 0.07 bits per note , upper bound"),
        ({"stderr": 0.0042}, "8.849 ± 0.004"),
        ({"stderr": 1.26}, "8.85 ± 1.26"),
        ({"stderr": None}, "8.85 bits per note , exact negative log-likelihood bits per cell"),
        ({"stderr": math.nan}, "8.85 bits per note"),
        ({"stderr": 0.0}, "8.85 ± 0.00"),
    ],
)
def test_the_headline(changes: dict[str, Any], shown: str, tmp_path: Path) -> None:
    assert shown in write(tmp_path, {**result(), **changes}).text


@pytest.mark.parametrize("missing", ["levels+kinds", "statistics", "two_sample", "copying", "sampling+command"])
def test_what_is_missing_leaves_its_section_out(missing: str, tmp_path: Path) -> None:
    facts = {key: value for key, value in result().items() if key not in missing.split("+")}
    section = {"levels+kinds": 0, "statistics": 1, "two_sample": 3, "copying": 4, "sampling+command": 6}[missing]
    page = write(tmp_path, facts, ROLLS[:1], histograms=HISTOGRAMS)
    assert headings(page) == [title for index, title in enumerate(SECTIONS) if index != section]


def test_a_two_sample_test(tmp_path: Path) -> None:
    page = write(tmp_path, result())
    assert (
        "It gets the last 16 bars of 34 samples and of 34 songs out of 40. The excerpts begin on a bar line"
        in page.text
    )
    assert ["random forest", "", "0.94 ± 0.02", "0.51 ± 0.06"] in page.rows
    about = "chord fit sounding time that belongs to the estimated chord"
    assert [about, "", "0.81", "", "1.50 ± 0.25", "2.75 ± 0.12", "share"] in page.rows
    assert sum(row[0].startswith("velocity mean velocity") for row in page.rows) == report.TELLING - 1
    assert "the 15 most telling features of 20" in page.text
    spoken = [str(attributes["aria-label"]) for _, attributes in page.tags if "aria-label" in attributes]
    spoken = [text for text in spoken if "±" in text]
    assert spoken[0] == "real 0.512 ± 0.0610, generated 0.943 ± 0.0180"
    assert spoken[2] == "real 1.50 ± 0.250, generated 2.75 ± 0.125"

    few = copy.deepcopy(two_sample())
    few["forest"] |= {"floor": None, "floor_stderr": None}
    page = write(tmp_path, {**result(), "two_sample": few | {"edge": "any"}})
    assert ["random forest", "", "0.94 ± 0.02", "–"] in page.rows
    assert "the first 16 bars of 34 samples and 34 excerpts as long from anywhere in 40 songs" in page.text
    page = write(tmp_path, {**result(), "two_sample": {"left_out": "2 samples & <b>"}})
    assert headings(page) == SECTIONS[:2] + SECTIONS[3:5] + SECTIONS[6:]
    assert "Left out: 2 samples & <b>." in page.text


def test_the_smallest_page(tmp_path: Path) -> None:
    page = write(tmp_path, {"model": "m", "corpus": "c", "split": "valid"})
    assert headings(page) == []
    assert not page.rows
    assert not page.of("dt")
    assert not page.pictures()


def test_groups_that_were_not_compared_have_no_columns(tmp_path: Path) -> None:
    facts = result()
    facts["statistics"] = {"generated": {"pitch": distance(66.0, 3.25, 0.751), "odd_one": {}}, "shuffled": None}
    page = write(tmp_path, facts)
    assert ["pitch MIDI pitch", "", "62.5", "66.0", "3.25", "0.75"] in page.rows
    assert ["odd one", "", "–", "–", "–", "–"] in page.rows
    assert "ceiling)" not in page.text


def test_names_from_files_are_escaped(tmp_path: Path) -> None:
    bad = """<script src="x">1</script>&amp;'"$body$title"""
    facts = {
        **result(),
        **dict.fromkeys(("model", "corpus", "split", "date", "command"), bad),
        "levels": {bad: {bad: 1.0, "b": 2.0}},
        "kinds": {bad: 1.0},
        "statistics": {"generated": {bad: distance(1, 1, 1)}},
        "sampling": {bad: bad, "list": [bad]},
    }
    page = write(tmp_path, facts, histograms={bad: {**HISTOGRAMS["pitch"], "unit": bad}})
    assert not any(tag == "script" for tag, _ in page.tags)
    # title 2, heading 4, level, part, kind, statistic, panel, unit, command, setting, its value, in a list
    assert page.text.count(bad) == 16
    assert any(attributes.get("aria-label") == f"{bad}: real and generated" for _, attributes in page.tags)


def test_pictures(tmp_path: Path) -> None:
    page = write(tmp_path, result(), ROLLS, TRACES[:1])
    contents = page.pictures()
    assert [Image.open(io.BytesIO(content)).format for content in contents] == ["PNG", "GIF", "PNG"]
    with Image.open(io.BytesIO(contents[0])) as png, Image.open(io.BytesIO(contents[1])) as gif:
        assert png.size == gif.size
        assert gif.info["loop"] == 0
        assert gif.n_frames == 1 + len(TRACES[0].steps) + report.LINGER  # type: ignore[attr-defined]
        gif.seek(gif.n_frames - 1)  # type: ignore[attr-defined]
        last, finished = (np.asarray(picture.convert("RGB")) for picture in (gif, png))
    roll = 128 * 8  # the label strip above differs
    assert np.array_equal(last[-roll:], finished[-roll:])
    empty = finished[-1, -1]
    sounding = (finished[-roll:][4::8, 4::8] != empty).any(axis=-1)
    assert np.array_equal(sounding[::-1], ROLLS[0].tokens > 0)


def test_a_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = len(base64.b64encode(write(tmp_path, result(), ROLLS[:1]).pictures()[0]))
    monkeypatch.setattr(report, "PICTURE_BUDGET", 3 * one)
    page = write(tmp_path, result(), ROLLS[:1] * 5)
    assert len(page.pictures()) == 2
    assert "2 of 5 samples are shown" in page.text
    monkeypatch.setattr(report, "PICTURE_BUDGET", 10 * one)
    assert "are shown" not in write(tmp_path, result(), ROLLS[:1] * 5).text
