"""The figures of :mod:`benchmarks.compare` as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fractalgen.features.statistics import STATISTICS

OURS, BASELINE = "FractalGen", "note events"
Rows = Sequence[Sequence[str]]


def tables(result: Mapping[str, Any]) -> str:
    """All tables of :func:`benchmarks.compare.run`, each under a line that says what it shows."""
    count = result["num_samples"]
    what = f"{result['corpus']}, {result['split']}: {result['crops']} excerpts of {result['songs']} songs"
    if not count:
        return f"{what}\n\n{markdown(summary_table(result))}"
    how = f"{count} rolls of each at temperature 1, seed {result['seed']}, {result['device']}"
    scale = "Mean, and in brackets the Wasserstein distance from the reference: every other song; real: those between"
    parts = [f"{what}; {how}", markdown(summary_table(result)), scale, markdown(statistics_table(result))]
    return "\n\n".join(parts)


def summary_table(result: Mapping[str, Any]) -> Rows:
    """One line for each fact, one column for each model."""
    models = {name: result["models"][name] for name in (OURS, BASELINE)}
    difference = result["difference"]
    better = difference["songs_better"]
    rows = [["", *models]]
    for key, label in (("parameters", "parameters"), ("steps", "training steps"), ("training_crops", "training crops")):
        rows.append([label, *(number(model[key]) for model in models.values())])
    rows += [
        ["training minutes", *(number(model["training_seconds"], 1 / 60) for model in models.values())],
        ["NLL, bits per note", *(bits(model["likelihood"]) for model in models.values())],
        ["difference on the same songs", bits(difference), ""],
        ["songs it finds more probable", str(better), str(result["songs"] - better)],
    ]
    if not result["num_samples"]:
        return rows
    rows.append(["seconds per roll", *(number(model["seconds_per_roll"]) for model in models.values())])
    faults = {"orphan_holds": "orphan holds per roll", "silent": "silent", "saturated": "denser than any real excerpt"}
    for key, label in faults.items():
        rows.append([label, *(f"{model['faults'][key]:g}" for model in models.values())])
    if copying := result["copying"]:
        for key, label in (("exact", "copied bars"), ("transposed", "copied bars, at any transposition")):
            rows.append(
                [f"{label} (real {percent(copying['real'][key])})", *(percent(copying[m][key]) for m in models)]
            )
    counts = result["nearer"]
    rows.append([f"statistics nearer to real ({counts['equal']} equal)", *(str(counts[name]) for name in models)])
    return rows


def statistics_table(result: Mapping[str, Any]) -> Rows:
    """One line for each statistic: the mean of the reference songs; mean and Wasserstein distance of each row."""
    compared = result["statistics"]
    rows = [["", "reference", *compared]]
    for name, statistic in STATISTICS.items():
        cells = [
            f"{number(row[name]['sample_mean'])} ({number(row[name]['wasserstein'])})" for row in compared.values()
        ]
        rows.append([f"{statistic.label}, {statistic.unit}", number(compared["real"][name]["reference_mean"]), *cells])
    return rows


def number(value: float | None, scale: float = 1) -> str:
    """Three digits at least, or a dash for what is not known."""
    return "-" if value is None else f"{value * scale:,.0f}" if abs(value * scale) >= 100 else f"{value * scale:.3g}"


def percent(value: float | None) -> str:
    """Per cent, or a dash."""
    return "-" if value is None else f"{100 * value:.2f} %"


def bits(figures: Mapping[str, Any]) -> str:
    """Bits per note with their standard error; a bound (of a MAR model) is marked."""
    error = "" if figures["stderr"] is None else f" ± {figures['stderr']:.3f}"
    return ("" if figures.get("exact", True) else "≤ ") + f"{figures['bits_per_note']:.3f}{error}"


def by_name(rows: Mapping[str, Mapping[str, str]]) -> str:
    """A Markdown table with a line for each name, and a column for whatever any of them has."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return markdown(
        [["", *columns], *([name, *(row.get(column, "") for column in columns)] for name, row in rows.items())]
    )


def by_row(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows that have the same columns; two decimals of every ``float``."""
    cells = [[f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return markdown([list(rows[0]), *cells])


def markdown(rows: Rows) -> str:
    """A Markdown table, padded so that it can be read as text too; the first row is its head."""
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    rule = ["-" * width if not i else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
