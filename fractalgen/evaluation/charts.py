"""Charts for the evaluation page, written as HTML and SVG.

By hand and not by matplotlib: so they take the page's fonts and its light or dark colours (CSS classes), stay sharp at
any size and are legible on a phone.  Texts that come from files are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from fractalgen.evaluation.two_sample import CLASSIFIERS
from fractalgen.features.statistics import STATISTICS
from fractalgen.features.table import FEATURES

TAIL = 0.0025  # share of a histogram that may be cut off at either end
SERIES = ("real", "generated")  # what a histogram compares; also the CSS classes

# Where ticks may stand: octaves, metrical steps, round numbers.
OCTAVES = [12.0, 24, 48]
METRICAL = [2.0**k for k in range(12)]
ROUND = [mantissa * 10.0**exponent for exponent in range(-5, 6) for mantissa in (1, 2, 5)]


def bars(title: str, rows: Mapping[str, Mapping[str, float]], scale: float) -> str:
    """A table of horizontal bars: rows by name, each the stacked parts (bits per note) by their description.

    ``scale`` is the value at which a bar fills its column; a row of several parts says which is which.
    """
    total = sum(sum(parts.values()) for parts in rows.values())
    lines = []
    for name, parts in rows.items():
        value = sum(parts.values())
        drawn, notes = "", []
        for index, (part, bits) in enumerate(parts.items()):
            drawn += f'<i class="part{index % 2}" style="width:{100 * max(bits, 0) / (scale or 1):.2f}%"></i>'
            key = f'<i class="key part{index % 2}"></i>' if len(parts) > 1 else ""
            amount = f" {bits:.2f}" if len(parts) > 1 else ""
            notes.append(f"<span>{key}{escape(part)}{amount}</span>")
        share = f"{value / total:.0%}" if total else ""
        lines.append(
            f'<tr><th scope="row">{escape(name)}</th><td class="track">{drawn}<small>{" ".join(notes)}</small></td>'
            f"<td>{value:.2f}</td><td>{share}</td></tr>"
        )
    caption = f"{title} <small>bits per note, {total:.2f} in all</small>"
    return f'<table class="bars"><caption>{caption}</caption><tbody>{"".join(lines)}</tbody></table>'


def strip(distances: Mapping[str, float | None]) -> str:
    """Floor, generated and ceiling on a line that begins at 0.

    The band reaches from floor to ceiling; where shuffling hardly matters (velocities, density) there is none.
    """
    known = {key: value for key, value in distances.items() if is_known(value)}
    far = max(known.values(), default=0.0)
    if far <= 0:
        return ""
    at = {key: 4 + 132 * value / far for key, value in known.items()}
    parts = ['<path class="line" d="M4 9H136"/>']
    left, right = at.get("real", 0.0), at.get("shuffled", 0.0)
    if 0 < left < right:
        parts.append(f'<rect class="band" x="{left:.1f}" y="6" width="{right - left:.1f}" height="6"/>')
    parts += [f'<path class="tick {key}" d="M{at[key]:.1f} 2V16"/>' for key in ("shuffled", "real") if key in at]
    if "generated" in at:
        parts.append(f'<circle class="generated" cx="{at["generated"]:.1f}" cy="9" r="4"/>')
    spoken = ", ".join(f"{key} {number(value)}" for key, value in known.items())
    return f'<svg class="strip" viewBox="0 0 140 18" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'


def spans(rows: Mapping[str, tuple[float, float]], low: float, high: float, middle: float | None = None) -> str:
    """Means with their errors or deviations, one line for each, on a scale from ``low`` to ``high``.

    ``rows``: (mean, error) by the kind of its mark, ``real`` or ``generated``.  ``middle``: where a line stands.
    """

    def x(value: float) -> float:
        return 6 + 228 * (min(max(value, low), high) - low) / ((high - low) or 1.0)

    parts = [] if middle is None else [f'<path class="line" d="M{x(middle):.1f} 0V26"/>']
    for y, (kind, (mean, error)) in zip((8, 18), rows.items(), strict=False):
        parts.append(f'<path class="span {kind}" d="M{x(mean - error):.1f} {y}H{x(mean + error):.1f}"/>')
        if kind == "generated":
            parts.append(f'<circle class="generated" cx="{x(mean):.1f}" cy="{y}" r="4"/>')
        else:
            parts.append(f'<path class="tick {kind}" d="M{x(mean):.1f} {y - 5}V{y + 5}"/>')
    spoken = ", ".join(f"{kind} {number(mean)} ± {number(error)}" for kind, (mean, error) in rows.items())
    return f'<svg class="spans" viewBox="0 0 240 26" role="img" aria-label="{spoken}">{"".join(parts)}</svg>'


def auc_table(result: Mapping[str, Any]) -> str:
    """The AUC of each classifier of a two-sample test between samples and songs, and between songs, on one scale."""
    low, high = 0.3, 1.0
    ticks = (0.5, 0.6, 0.7, 0.8, 0.9, 1)
    marks = [
        f'<text class="x" x="{6 + 228 * (tick - low) / (high - low):.1f}" y="12">{tick:g}</text>' for tick in ticks
    ]
    axis = f'<svg class="spans" viewBox="0 0 240 16" aria-hidden="true">{"".join(marks)}</svg>'
    lines = []
    for name, text in CLASSIFIERS.items():
        found = result[name]
        rows = {"real": (found["floor"], found["floor_stderr"]), "generated": (found["auc"], found["stderr"])}
        known = {kind: pair for kind, pair in rows.items() if pair[0] is not None}
        texts = [
            f"{fixed(mean)} ± {fixed(error)}" if mean is not None else fixed(mean) for mean, error in rows.values()
        ]
        told = "".join(f"<td>{text}</td>" for text in reversed(texts))
        lines.append(f'<tr><th scope="row">{text}</th><td>{spans(known, low, high, 0.5)}</td>{told}</tr>')
    head = f'<th scope="col">AUC</th><th>{axis}</th><th scope="col">samples</th><th scope="col">floor</th>'
    return f'<table class="statistics"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def feature_table(result: Mapping[str, Any], features: Sequence[Mapping[str, Any]]) -> str:
    """Some features of a two-sample test: the AUC of each alone, and what real and generated music have of it."""
    lines = []
    for found in features:
        feature = FEATURES[found["name"]]
        rows = {kind: (found[f"{kind}_mean"], found[f"{kind}_std"]) for kind in SERIES}
        ends = [mean + side * error for mean, error in rows.values() for side in (-1, 1)]
        told = "".join(f"<td>{number(mean)} ± {number(error, 2)}</td>" for mean, error in rows.values())
        band = f'<rect class="band" width="{160 * (result["chance"] - 0.5):.1f}" height="14"/>'
        bar = f'{band}<rect class="bar" y="3" width="{160 * (found["auc"] - 0.5):.1f}" height="8"/>'
        lines.append(
            f'<tr><th scope="row">{feature.label}<br><small>{feature.about}</small></th>'
            f'<td><svg class="auc" viewBox="0 0 80 14" aria-hidden="true">{bar}</svg></td>'
            f"<td>{fixed(found['auc'])}</td><td>{spans(rows, min(ends), max(ends))}</td>{told}"
            f"<td>{feature.unit}</td></tr>"
        )
    names = ("Feature", "AUC alone", "", "mean ± standard deviation", *SERIES, "unit")
    head = "".join(f'<th scope="col"{f" class={name}" * (name in SERIES)}>{name}</th>' for name in names)
    return f'<table class="statistics"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def strip_key(kind: str, label: str) -> str:
    """A mark of the strip and what it stands for, kept on one line."""
    mark = '<circle class="generated" cx="6" cy="9" r="4"/>'
    if kind != "generated":
        mark = f'<path class="tick {kind}" d="M6 2V16"/>'
    return f'<span class="key"><svg viewBox="0 0 12 18" aria-hidden="true">{mark}</svg>{label}</span>'


def histogram(name: str, data: Mapping[str, Any]) -> str:
    """One panel: the two distributions as step outlines over the same axes."""
    values = np.asarray(data["values"], float)
    series = {kind: np.nan_to_num(np.asarray(data[kind], float)) for kind in SERIES if data.get(kind) is not None}
    first, last = _extent(list(series.values()), len(values))
    values = values[first:last]
    series = {kind: shares[first:last] for kind, shares in series.items()}
    middle = (values[1:] + values[:-1]) / 2
    width = float(np.diff(values).min()) if len(values) > 1 else 1.0
    edges = np.r_[values[0] - width / 2, middle, values[-1] + width / 2]
    top = max((float(shares.max()) for shares in series.values()), default=0.0) or 1.0

    left, right, base, roof = 44.0, 314.0, 140.0, 10.0
    x = left + (right - left) * (edges - edges[0]) / (edges[-1] - edges[0])
    marks = []
    for tick in _ticks(0, top, ROUND, 4):
        y = base - (base - roof) * tick / top
        marks.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
        marks.append(f'<text class="y" x="{left - 6}" y="{y + 4:.1f}">{100 * tick:.4g}%</text>')
    for tick, text in _bin_labels(name, str(data.get("unit", "")), values, width):
        at = left + (right - left) * (tick - edges[0]) / (edges[-1] - edges[0])
        marks.append(f'<path class="line" d="M{at:.1f} {base}v4"/><text class="x" x="{at:.1f}" y="156">{text}</text>')
    lines = []
    for kind, shares in series.items():
        y = base - (base - roof) * shares / top
        steps = "".join(f"V{level:.1f}H{edge:.1f}" for level, edge in zip(y, x[1:], strict=True))
        lines.append(f'<path class="{kind}" d="M{x[0]:.1f} {base}{steps}V{base}"/>')
    unit = f'<text class="x" x="{(left + right) / 2}" y="173">{escape(str(data.get("unit", "")))}</text>'
    return (
        f'<figure><figcaption>{label(name)}</figcaption><svg viewBox="0 0 320 178" role="img" '
        f'aria-label="{label(name)}: real and generated">{"".join(marks)}{"".join(lines)}'
        f'<path class="line" d="M{left} {base}H{right}"/>{unit}</svg></figure>'
    )


def _extent(series: Sequence[NDArray[np.floating]], count: int) -> tuple[int, int]:
    """The range of bins outside of which no distribution has more than :data:`TAIL` at either end."""
    first, last = count, 0
    for shares in series:
        total = float(shares.sum())
        if total > 0:
            below = np.cumsum(shares) / total
            first = min(first, int(np.searchsorted(below, TAIL, side="right")))
            last = max(last, int(np.searchsorted(below, 1 - TAIL)) + 1)
    return (first, min(last, count)) if first < last else (0, count)


def _bin_labels(name: str, unit: str, values: NDArray[np.floating], width: float) -> list[tuple[float, str]]:
    """Where the horizontal axis has its ticks, and what they say."""
    low, high = float(values[0]), float(values[-1])
    if name == "pitch_class":
        names = {0: "C", 2: "D", 4: "E", 5: "F", 7: "G", 9: "A", 11: "B"}
        return [(float(key), text) for key, text in names.items() if low <= key <= high]
    sizes = OCTAVES if name == "pitch" else METRICAL if "step" in unit else ROUND
    return [(tick, f"{tick:.6g}") for tick in _ticks(low, high, [size for size in sizes if size >= width], 7)]


def _ticks(low: float, high: float, sizes: Sequence[float], most: int) -> list[float]:
    """Multiples, between ``low`` and ``high``, of the smallest size that gives at most ``most`` of them."""
    for size in sizes:
        first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
        if last - first < most:
            return [size * k for k in range(first, last + 1)]
    return []


def label(name: str) -> str:
    """The name of a statistic as text of the page."""
    return escape(STATISTICS[name].label if name in STATISTICS else name.replace("_", " "))


def is_known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number: JSON has None where a mean of nothing was taken."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """Three or more significant digits; counts in full with commas; a dash for what does not exist."""
    if not is_known(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def fixed(value: float | None, form: str = ".2f") -> str:
    """A fixed number of decimals; a dash for what does not exist."""
    return format(value, form) if is_known(value) else "–"
