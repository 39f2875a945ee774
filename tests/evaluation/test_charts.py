"""The drawings of the evaluation page, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fractalgen.evaluation import charts
from fractalgen.features.statistics import STATISTICS
from tests.evaluation.test_report import Page


def test_bars_share_one_scale() -> None:
    page = Page(charts.bars("By level", {"L0": {"gate": 1.0}, "L3": {"a": 1.5, "b": 2.5}}, scale=5.0))
    widths = [attributes["style"] for _, attributes in page.tags if "style" in attributes]
    assert widths == ["width:20.00%", "width:30.00%", "width:50.00%"]
    assert "bits per note, 5.00 in all" in page.text


def test_the_strip_runs_from_zero_to_the_farthest() -> None:
    drawing = charts.strip({"real": 1.0, "generated": 2.0, "shuffled": 4.0})
    assert 'class="tick real" d="M37.0 2V16"' in drawing  # 4 + 132 / 4
    assert 'class="generated" cx="70.0"' in drawing
    assert 'class="tick shuffled" d="M136.0 2V16"' in drawing
    assert 'class="band" x="37.0" y="6" width="99.0"' in drawing
    assert "band" not in charts.strip({"real": 1.0, "generated": 2.0, "shuffled": 0.0})
    assert "shuffled" not in charts.strip({"real": 1.0, "generated": 2.0, "shuffled": math.nan})
    assert charts.strip({"generated": None, "real": 0.0}) == ""


def test_a_histogram_drawn_by_hand() -> None:
    data = {"values": [0, 1], "real": [0.25, 0.75], "generated": [0.75, None], "unit": "steps"}
    page = Page(charts.histogram("inter_onset", data))
    lines = {attributes["class"]: attributes["d"] for tag, attributes in page.tags if tag == "path"}
    assert lines["real"] == "M44.0 140.0V96.7H179.0V10.0H314.0V140.0"  # 140 - 130 / 3; the highest bin reaches y = 10
    assert lines["generated"] == "M44.0 140.0V10.0H179.0V140.0H314.0V140.0"
    assert page.of("text") == ["0%", "20%", "40%", "60%", "0", "1", "steps"]
    assert page.of("figcaption") == ["inter-onset interval"]


def test_thin_tails_are_cut_off() -> None:
    values = list(range(100))
    shares = [0.0] * 100
    shares[36:49] = [0.001, *[0.09] * 11, 0.009]
    page = Page(charts.histogram("pitch", {"values": values, "real": shares, "unit": ""}))
    assert [text for text in page.of("text") if "%" not in text and text] == ["48"]  # bins 37 to 48, octaves at C
    line = next(str(attributes["d"]) for _, attributes in page.tags if attributes.get("class") == "real")
    assert line.count("H") == 12
    silent = Page(charts.histogram("pitch", {"values": values, "real": [0.0] * 100, "unit": ""}))
    assert [text for text in silent.of("text") if "%" not in text] == ["0", "24", "48", "72", "96"]


@pytest.mark.parametrize("name", STATISTICS)
def test_ticks_stand_on_bins(name: str) -> None:
    values = np.arange(12.0)
    ticks = charts._bin_labels(name, STATISTICS[name].unit, values, 1.0)
    assert {tick for tick, _ in ticks} <= set(values)
    assert len({text for _, text in ticks}) == len(ticks) <= 7


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (math.nan, "–"), (0.0, "0.00"), (0.0879, "0.0879"), (127.0, "127"), (3, "3"), (1234567, "1,234,567")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert charts.number(value) == shown


def test_spans_are_drawn_on_one_scale() -> None:
    drawing = charts.spans({"real": (0.5, 0.25), "generated": (1.5, 0.75)}, 0.0, 2.0, 1.0)
    assert 'class="line" d="M120.0 0V26"' in drawing
    assert 'class="span real" d="M34.5 8H91.5"' in drawing  # 6 + 228 / 8
    assert 'class="tick real" d="M63.0 3V13"' in drawing
    assert 'class="span generated" d="M91.5 18H234.0"' in drawing  # what reaches beyond the scale is cut
    assert 'class="generated" cx="177.0" cy="18"' in drawing
    assert "nan" not in charts.spans({"real": (1.0, 0.0), "generated": (1.0, 0.0)}, 1.0, 1.0)
