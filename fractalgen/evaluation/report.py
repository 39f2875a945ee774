"""The evaluation as one HTML page: likelihood, music statistics, copying and example rolls.

The page is self-contained (inline SVG, pictures as base64, no script, nothing is fetched) and follows the reader's
light or dark setting.
"""

from __future__ import annotations

import base64
import datetime
import io
import itertools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from tqdm import tqdm

from fractalgen import render
from fractalgen.config import RenderConfig
from fractalgen.evaluation.charts import (
    SERIES,
    TAIL,
    auc_table,
    bars,
    feature_table,
    fixed,
    histogram,
    is_known,
    label,
    number,
    strip,
    strip_key,
)
from fractalgen.evaluation.two_sample import EDGES, sides
from fractalgen.features.statistics import STATISTICS
from fractalgen.files import ASSETS, replacing
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import velocities
from fractalgen.trace import Trace
from fractalgen.trace.views import Frame

Json = Mapping[str, Any]

PAGE = ASSETS / "report.html"  # head and style sheet; the sections are made here
PICTURE_BUDGET = 2_700_000  # characters of base64: keeps the page under 3 MB whatever is drawn
GIF_FRAMES, GIF_FPS = 24, 4.0
LINGER = 6  # the finished roll stays for this many frames before the animation starts again

# What each group of statistics is, in the order from near to far.
GROUPS = {"real": "Other real music (floor)", "generated": "Generated", "shuffled": "Shuffled music (ceiling)"}
FACTS = {
    "bits_per_cell": "bits per cell",
    "nats_per_cell": "nats per cell",
    "nats_per_frame": "nats per frame",
    "nll_nats_per_crop": "nats per crop",
    "notes": "notes",
    "crops": "crops",
    "songs": "songs",
    "seconds": "seconds to score",
}
TELLING = 15  # features of the two-sample test
TOTALS = ("bits_per_note", "nats_per_crop")  # of a level; what else it has are its parts
KINDS = {
    "silence": "that a patch is silent",
    "sound": "that a patch sounds",
    "hold": "that a note goes on",
    "onset": "that a note begins",
    "velocity": "how loud it is struck",
}


def write_report(
    path: Path, result: Json, rolls: Sequence[PianoRoll], traces: Sequence[Trace], histograms: Mapping[str, Json]
) -> None:
    """Write the page, whole or not at all; whatever is missing leaves its section out.

    Args:
        path: the ``.html`` file.
        result: JSON data of the evaluation: ``model``, ``corpus``, ``split``, ``exact``, the likelihood in several
            units, its parts (``levels``, ``kinds``: bits per note), ``statistics``, ``two_sample``, ``copying``,
            ``sampling``, ``command``, and ``date`` (default: today).
        rolls: generated rolls to show; as many as fit into a page of 3 MB.
        traces: how they were composed, in the same order; may be fewer or none.
        histograms: by statistic: ``values`` (bin centres, ascending), ``real`` and ``generated`` (shares of the notes
            or time steps in each bin) and ``unit`` (of the values).

    Raises:
        UserError: the file cannot be written.
    """
    title = f"{result['model']} on {result['corpus']}"
    body = [
        _header(result),
        _likelihood(result),
        _statistics(result.get("statistics") or {}),
        _histograms(histograms),
        _two_sample(result.get("two_sample") or {}),
        _copying(result.get("copying") or {}),
        _examples(rolls, traces),
        _settings(result),
    ]
    page = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(title), body="\n".join(filter(None, body))
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _header(result: Json) -> str:
    """Title and headline numbers."""
    model, corpus, split = (escape(str(result[key])) for key in ("model", "corpus", "split"))
    date = escape(str(result.get("date") or datetime.date.today().isoformat()))
    facts = "".join(
        f"<div><dt>{text}</dt><dd>{number(result[key], 4)}</dd></div>"
        for key, text in FACTS.items()
        if result.get(key) is not None
    )
    return (
        f"<header><h1>{model}</h1><p>Evaluation on {corpus}, split <b>{split}</b>, {date}</p></header>"
        + _headline(result)
        + (f'<dl class="facts">{facts}</dl>' if facts else "")
    )


def _headline(result: Json) -> str:
    """Bits per note with its standard error, whose first digit decides how many are shown."""
    bits, error = (value if is_known(value) else None for value in map(result.get, ("bits_per_note", "stderr")))
    if bits is None:
        return ""
    decimals = max(2, -math.floor(math.log10(error))) if error else 2
    sign, kind = ("", "exact") if result.get("exact") else ("≤ ", "upper bound")
    meaning = f"<b>bits per note</b>, {kind}<br>negative log-likelihood"
    spread = ""
    if error is not None:
        spread = f" <small>± {error:.{decimals}f}</small>"
        meaning += " ± standard error" + (" over songs" if result.get("songs") else "")
    return f'<p class="headline"><span>{sign}{bits:.{decimals}f}{spread}</span><span>{meaning}</span></p>'


def _likelihood(result: Json) -> str:
    """Bars: what each level and each kind of decision costs, on one scale."""
    levels = {}
    for name, level in (result.get("levels") or {}).items():
        parts = {part: bits for part, bits in level.items() if part not in TOTALS and is_known(bits)}
        levels[name] = parts or {"": level["bits_per_note"]}
    kinds = {name: {KINDS.get(name, ""): bits} for name, bits in (result.get("kinds") or {}).items() if is_known(bits)}
    charts = {title: rows for title, rows in (("By level", levels), ("By decision", kinds)) if rows}
    if not charts:
        return ""
    scale = max(sum(parts.values()) for rows in charts.values() for parts in rows.values())
    figures = "".join(f"<figure>{bars(title, rows, scale)}</figure>" for title, rows in charts.items())
    lead = (
        "What it costs to predict real music: less is better. L0 decides which large patches of the roll sound, the "
        "levels below it which parts of those, the last level what a sounding cell is."
    )
    return _section("Where the bits go", lead, f'<div class="columns">{figures}</div>')


def _statistics(groups: Mapping[str, Mapping[str, Json]]) -> str:
    """The table of music statistics; a strip in each row places the generated music between floor and ceiling."""
    present = {key: text for key, text in GROUPS.items() if groups.get(key)}
    if not present:
        return ""
    names = list(dict.fromkeys(name for key in present for name in groups[key]))
    span = "".join(f'<th colspan="3" scope="colgroup" class="{key}">{text}</th>' for key, text in present.items())
    head = (
        f'<tr><th rowspan="2" scope="col">Statistic</th><th rowspan="2" scope="col">Distances</th>'
        f'<th scope="colgroup">Real</th>{span}</tr><tr><th scope="col">mean</th>'
        + '<th scope="col">mean</th><th scope="col">distance</th><th scope="col">overlap</th>' * len(present)
        + "</tr>"
    )
    rows = []
    for name in names:
        cells = {key: groups[key].get(name) or {} for key in present}
        mean = next((cell["reference_mean"] for cell in cells.values() if cell.get("reference_mean") is not None), None)
        values = "".join(
            f'<td class="{key}">{number(cell.get("sample_mean"))}</td>'
            f"<td>{number(cell.get('wasserstein'))}</td><td>{fixed(cell.get('overlap'))}</td>"
            for key, cell in cells.items()
        )
        unit = STATISTICS[name].unit if name in STATISTICS else ""
        rows.append(
            f'<tr><th scope="row">{label(name)}<br><small>{unit}</small></th>'
            f"<td>{strip({key: cell.get('wasserstein') for key, cell in cells.items()})}</td>"
            f"<td>{number(mean)}</td>{values}</tr>"
        )
    keys = " ".join(strip_key(key, text) for key, text in present.items())
    lead = (
        "Distance: Wasserstein-1 to a reference set of real music, in the unit of the row. Overlap: area shared by the "
        "two distributions, 0 to 1. What other real music reaches is the floor; real music with its cells shuffled "
        "is the ceiling. The strip shows the three distances, from 0, on the scale of its own row, "
        f"and the span from floor to ceiling where shuffling matters.<br>{keys}"
    )
    table = f'<table class="statistics"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return _section("Music statistics", lead, f'<div class="wide">{table}</div>')


def _histograms(histograms: Mapping[str, Json]) -> str:
    """Small multiples: real against generated."""
    panels = "".join(histogram(name, data) for name, data in histograms.items() if len(data.get("values", ())))
    if not panels:
        return ""
    legend = "".join(
        f'<span class="key"><svg viewBox="0 0 20 12" aria-hidden="true"><path class="{kind}" d="M1 11V2H19V11Z"/></svg>'
        f"{kind}</span> "
        for kind in SERIES
    )
    lead = (
        f"{legend}<br>Share of the notes, or of the time steps, in each bin; every panel has its own scale. At most "
        f"{TAIL:.2%} of either end is cut off."
    )
    return _section("Distributions", lead, f'<div class="panels">{panels}</div>')


def _two_sample(result: Json) -> str:
    """How well classifiers tell samples from songs, and the features that give the samples away."""
    if not result:
        return ""
    if "left_out" in result:
        return _section("Two-sample test", f"Left out: {escape(result['left_out'])}.", "")
    shown = result["features"][:TELLING]
    lead = (
        f"Can a classifier tell samples from songs? It gets {sides(result)}. {EDGES[result['edge']]} AUC: the "
        "probability that, of a sample and an excerpt of a song, neither of which it learned from, it points at the "
        "sample. 0.5: it cannot tell; 1: it always can. The floor is the same test between two halves of the songs. "
        "± standard error.<br>"
        + strip_key("generated", "samples and songs")
        + strip_key("real", "songs and other songs (floor)")
    )
    about = (
        f"What gives the samples away: the {len(shown)} most telling features of {len(result['features'])}, each "
        "alone. The most telling of all exceeds the grey band once in twenty times by chance."
    )
    tables = [f'<div class="wide">{table}</div>' for table in (auc_table(result), feature_table(result, shown))]
    return _section("Two-sample test", lead, f"<p>{about}</p>".join(tables))


def _copying(rows: Mapping[str, Json]) -> str:
    """How much of the music stands in the training songs."""
    present = {key: rows[key] for key in ("generated", "real") if rows.get(key)}
    if not present:
        return ""
    labels = {"generated": "Generated", "real": "Real, held out"}
    lines = "".join(
        f'<tr><th scope="row">{labels[key]}</th><td>{number(row.get("bars"))}</td>'
        f"<td>{fixed(row.get('exact'), '.1%')}</td><td>{fixed(row.get('transposed'), '.1%')}</td>"
        f"<td>{number(row.get('longest'))}</td></tr>"
        for key, row in present.items()
    )
    names = ("", "bars", "exact", "transposed", "longest run")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    lead = (
        "Share of the bars that occur in a training song as they are (exact) or in any key (transposed), and the most "
        "neighbouring bars that all do. Real songs that the model has not seen say how much of this is common stock."
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return _section("Copying", lead, f'<div class="wide">{table}</div>')


def _examples(rolls: Sequence[PianoRoll], traces: Sequence[Trace]) -> str:
    """Finished rolls, each beside the animation of how it was composed, while the budget lasts."""
    if not rolls:
        return ""
    figures: list[str] = []
    used = 0
    pairs = itertools.zip_longest(tqdm(rolls, desc="drawing", unit="sample", dynamic_ncols=True), traces[: len(rolls)])
    for index, (roll, trace) in enumerate(pairs, start=1):
        about = f"Sample {index}: {roll.width} steps, {len(roll.notes())} notes"
        images = _image("png", _png(roll), f"finished roll of sample {index}")
        if trace is not None:
            about += f", seed {trace.seed}" if trace.seed is not None else ""
            images += _image("gif", _gif(trace), f"how sample {index} was composed")
        used += len(images)
        if used > PICTURE_BUDGET:
            break
        figures.append(f'<figure class="example"><div>{images}</div><figcaption>{about}</figcaption></figure>')
    lead = "Time to the right, pitch upward; brighter is louder. Beside each finished roll: how it was composed."
    if len(figures) < len(rolls):
        lead += f" {len(figures)} of {len(rolls)} samples are shown, to keep this page small."
    return _section("Examples", lead, "".join(figures))


def _render_config(width: int) -> RenderConfig:
    """Pictures about twice as wide as they are shown, so that their labels stay legible."""
    scale = min(8, max(1, 1024 // max(width, 1)))
    return RenderConfig(gif_scale=scale, gif_fps=GIF_FPS, gif_font_size=max(28, width * scale // 36))


def _png(roll: PianoRoll) -> bytes:
    """The finished roll as a PNG file, as large and labelled as the animation beside it."""
    plane = velocities(roll.tokens, roll.velocity_bins)
    frame = Frame(level=0, iteration=0, level_name="Finished", output=plane, tokens=roll.tokens)
    file = io.BytesIO()
    render.image(frame, _render_config(roll.width)).save(file, format="PNG", optimize=True)
    return file.getvalue()


def _gif(trace: Trace) -> bytes:
    """The process as a GIF file."""
    frames = list(trace.frames(view="process", record_interval=1, max_frames=GIF_FRAMES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "process.gif"
        render.save_gif(frames + frames[-1:] * LINGER, path, _render_config(trace.width))
        return path.read_bytes()


def _image(kind: str, content: bytes, description: str) -> str:
    """A picture that needs no other file."""
    data = base64.b64encode(content).decode("ascii")
    return f'<img alt="{description}" src="data:image/{kind};base64,{data}">'


def _settings(result: Json) -> str:
    """What made this page."""
    settings, command = result.get("sampling") or {}, result.get("command")
    if not settings and not command:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(_plain(value))}</td></tr>'
        for name, value in settings.items()
    )
    table = f'<div class="wide"><table class="settings"><tbody>{rows}</tbody></table></div>' if rows else ""
    line = f"<pre><code>{escape(str(command))}</code></pre>" if command else ""
    return f"<details><summary>Settings and command</summary>{line}{table}</details>"


def _plain(value: object) -> str:
    """A setting as it would be typed."""
    if isinstance(value, str):
        return value
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else json.dumps(value, default=str)


def _section(title: str, lead: str, body: str) -> str:
    """A heading, how to read what follows, and that."""
    return f"<section><h2>{title}</h2><p>{lead}</p>{body}</section>"
