"""A trace as one HTML page that plays it: how the piece came to be, and its music, in any browser.

The page is self-contained and works from the file system: style sheet and script are written into it, the arrays of
the trace follow as deflated bytes in base64, and the MIDI file is the very one that :meth:`.PianoRoll.to_midi` writes.
The script is the modules of ``assets/player``, joined.  Of the sampled piano there is what the piece needs.  Nothing is
fetched: the page's own policy forbids it, and lets no script run but the player's, known by its hash.  Whatever comes
from files (names, settings) is data to the script, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fractalgen.config import RenderConfig, View
from fractalgen.config.values import as_typed
from fractalgen.errors import UserError
from fractalgen.files import ASSETS, replacing
from fractalgen.music.keys import key_between, key_changes
from fractalgen.music.labels import spell_key, writes_flats
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import grid_steps
from fractalgen.render.colours import LINE, RAMP, palette
from fractalgen.render.sound import PIANO
from fractalgen.trace import Trace

PLAYER = ASSETS / "player"
PAPERS = {"dark": (0x15, 0x18, 0x1C), "light": (0xFD, 0xFC, 0xFA)}  # behind the notes; --roll in player.css
MODULES = ("notes.js", "piano.js", "music.js", "trace.js", "roll.js", "player.js")  # each after those that it imports
SHADES = 64  # colours from the softest to the loudest note
LEGIBLE = 2.0  # contrast of the softest note with the paper, as WCAG 2.1 defines it (1: none, 21: black on white)


def save_html(
    trace: Trace,
    path: str | Path,
    cfg: RenderConfig,
    *,
    view: View = "process",
    roll: PianoRoll | None = None,
) -> None:
    """Write :func:`page`, titled by the file's name unless ``cfg.gif_title`` says otherwise.

    Raises:
        UserError: a setting that cannot be drawn, or the file cannot be written.
    """
    content = page(trace, cfg, title=cfg.gif_title or Path(path).stem, view=view, roll=roll)
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def page(
    trace: Trace,
    cfg: RenderConfig,
    *,
    title: str | None = None,
    view: View = "process",
    roll: PianoRoll | None = None,
) -> str:
    """The player, one self-contained HTML document.

    Args:
        trace: how the piece was composed.
        cfg: ``gif_cmap`` colours the notes (its colours near the paper are left out), ``gif_title`` stands above;
            ``gif_theme light`` opens the page light whatever the reader's system prefers; ``page_piano full`` takes
            the samples that :mod:`fractalgen.render.sound` takes, about 2 MB, in place of small ones, 0.3 MB.
        title: instead of ``cfg.gif_title``.
        view: the view that the page opens with; "levels", which has no page of its own, is "process".
        roll: the finished piece where it knows more than the trace does: its tempi, meters and length (at most the
            trace's).  Default: ``trace.roll``.

    Raises:
        UserError: a colour map that does not exist, or ``view`` "density" of a trace without chances.
        ValueError: ``roll`` is another piece.
    """
    if view == "density" and trace.chances is None:
        raise UserError("--view density: the trace has no chances")
    roll = roll or trace.roll
    title = title or cfg.gif_title or "FractalGen"
    title = title.encode("utf-8", "replace").decode("utf-8")  # the name of a file may hold bytes that are no text
    layout, packed = _pack(_arrays(trace, roll))
    piece = {
        "title": title,
        "view": "process" if view == "levels" else view,
        "theme": "light" if cfg.gif_theme == "light" else None,
        "shape": (len(trace.tokens), roll.width),
        "arrays": layout,
        **_about(trace, roll),
        **_colours(cfg),
        "midi": base64.b64encode(roll.midi_file()).decode("ascii"),
    }
    samples = _samples(PIANO if cfg.page_piano == "full" else PIANO / "small", roll)
    return _document(title, json.dumps(piece, separators=(",", ":"), default=str), packed, samples)


def _document(title: str, piece: str, arrays: str, samples: str) -> str:
    """The page around its data; the policy names the only style sheet and the only script that may be used."""
    style, script = (PLAYER / "player.css").read_text(encoding="utf-8"), _script()
    # The text between the tags is what the hashes are taken of: no spaces may be added around it.
    return Template((PLAYER / "player.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        policy=f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:",
        style=style,
        script=script,
        piece=piece.replace("<", "\\u003c"),
        arrays=arrays,
        samples=samples,
    )


def _arrays(trace: Trace, roll: PianoRoll) -> dict[str, NDArray[Any]]:
    """The arrays of a trace, as long as its piece; wide types first, as :func:`_pack` needs them."""
    tokens, known, decided = (
        trace.strip(plane)[..., : roll.width] for plane in (trace.tokens, trace.known, trace.decided)
    )
    if not np.array_equal(roll.tokens[: len(tokens)], tokens):
        raise ValueError("the roll is not the piece that the trace recorded")
    arrays = {"seconds": trace.seconds, "decided": decided, "steps": trace.steps, "tokens": tokens}
    arrays["known"] = known.astype(np.uint8)
    if trace.chances is not None:
        arrays["chances"] = trace.strip(trace.chances)[:, : roll.width]
    return arrays


def _about(trace: Trace, roll: PianoRoll) -> dict[str, Any]:
    """What the script needs to know of a piece and its making beside the arrays."""
    return {
        **{name: getattr(trace, name) for name in ("generators", "patch_sizes", "num_iter_list", "velocity_bins")},
        "patch_steps": [roll.width, *(steps for _, steps in trace.patches)],
        # The window may follow the process where that moves on in time, one patch after the other.
        "follow": trace.generators[0] == "ar" and trace.scan_order == "column_major",
        "facts": _facts(trace, roll),
        "flats": _flats(trace, roll),
        "columns": [start for start in trace.layout.starts.tolist() if start < roll.width],
        "lane": [span for span in trace.lane if span.start < roll.width],
        "tempos": roll.tempos,
        "steps_per_quarter": roll.steps_per_quarter,
        "bars": roll.downbeats().tolist(),
        "beats": grid_steps(roll.time_signatures, roll.width, roll.steps_per_quarter, "beat").tolist(),
    }


def _script() -> str:
    """The modules of the player as one: what they import and export has the same name everywhere."""
    text = "".join((PLAYER / name).read_text(encoding="utf-8") for name in MODULES)
    return re.sub(r"^import [^;]*;\n|^export ", "", text, flags=re.MULTILINE)


def _samples(folder: Path, roll: PianoRoll) -> str:
    """The table of a folder of samples with the files themselves, as ``piano.js`` takes it: those that a roll needs."""
    table = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    recorded = np.array([note["pitch"] for note in table["notes"]])
    needed = {int(np.abs(recorded - pitch).argmin()) for pitch in roll.notes()["pitch"].astype(int).tolist()}
    notes = [
        {
            "pitch": note["pitch"],
            "gain": note["gain"],
            "data": base64.b64encode((folder / note["file"]).read_bytes()).decode("ascii"),
        }
        for note in (table["notes"][index] for index in sorted(needed))
    ]
    return json.dumps({"notes": notes}, separators=(",", ":"))


def _pack(arrays: dict[str, NDArray[Any]]) -> tuple[list[tuple[str, str, int, int]], str]:
    """(name, type, first byte, number of items) of each array, and their little-endian bytes, deflated, in base64.

    Wide types must come first: the script reads the arrays in place, where they must be aligned.
    """
    layout, content = [], b""
    for name, array in arrays.items():
        layout.append((name, array.dtype.name, len(content), array.size))
        content += np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return layout, base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def _size(patch: tuple[int, int]) -> str:
    """How large a patch of so many pitches and steps is; one number where they are the same."""
    return str(patch[0]) if patch[0] == patch[1] else "×".join(map(str, patch))


def _facts(trace: Trace, roll: PianoRoll) -> list[tuple[str, str]]:
    """What made the piece, for the reader: (name, value)."""
    notes = roll.notes()
    minutes, seconds = divmod(round(roll.seconds), 60)
    facts: dict[str, object] = {
        "Model": trace.checkpoint or ("unknown" if len(trace.steps) else "none"),
        "Seed": "none" if trace.seed is None else trace.seed,
        "Length": f"{len(roll.downbeats())} bars, {roll.width} steps, {minutes}:{seconds:02}",
        "Notes": f"{len(notes)} on {len(set(notes['pitch'].tolist()))} pitches",
        "Generators": " ".join(kind.upper() for kind in trace.generators),
        "Patches": " → ".join([str(trace.patch_sizes[0]), *(_size(patch) for patch in trace.patches)]),
        "Scan order": trace.scan_order.replace("_", " "),
        "Iterations": trace.num_iter_list,
        "Sound": json.loads((PIANO / "samples.json").read_text(encoding="utf-8"))["credit"],
        "Composed in": f"{trace.seconds[-1]:.1f} s, {len(trace.steps)} steps" if len(trace.steps) else "nothing",
    }
    drawn = ("plan", "columns")  # the lane above the roll shows them
    facts |= {name: value for name, value in trace.settings.items() if value is not None and name not in drawn}
    return [(name, as_typed(value)) for name, value in facts.items()]


def _flats(trace: Trace, roll: PianoRoll) -> bool:
    """Whether notes are called by flats: in the key that was asked for, or else in the one that most of it is in."""
    key = spell_key(str(trace.settings.get("key"))) or key_between(
        key_changes(roll.tokens, roll.steps_per_quarter), 0, roll.width
    )
    return key is not None and writes_flats(key)


def _colours(cfg: RenderConfig) -> dict[str, Any]:
    """Colours of notes from soft to loud, and the tint of known ones, on dark and on light paper.

    Only what is legible on the paper is taken from the palette.
    """
    ramps, tints = {}, {}
    for theme, paper in PAPERS.items():
        light = theme == "light"
        ramp = palette(cfg.gif_cmap, light=light)[:RAMP]
        legible = ramp[_contrast(ramp, paper) >= LEGIBLE]
        shades = legible if len(legible) else ramp
        ramps[theme] = _hex(shades[np.linspace(0, len(shades) - 1, SHADES).round().astype(int)])
        (tints[theme],) = _hex(palette(cfg.gif_cmap, known=True, light=light)[LINE - 1 : LINE])
    return {"ramps": ramps, "tints": tints}


def _contrast(colours: NDArray[np.uint8], paper: tuple[int, int, int]) -> NDArray[np.float64]:
    """Contrast ratio of each colour (n, 3) with the paper, 1 to 21 (as WCAG 2.1 defines it)."""

    def luminance(rgb: NDArray[Any]) -> NDArray[np.float64]:
        share = rgb / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        return np.asarray(linear @ (0.2126, 0.7152, 0.0722) + 0.05)

    one, other = luminance(colours), luminance(np.array(paper))
    return np.maximum(one, other) / np.minimum(one, other)


def _hex(colours: NDArray[np.uint8]) -> list[str]:
    """Colours (n, 3) as style sheets write them."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colours.tolist()]


def _digest(text: str) -> str:
    """A script or style sheet as a content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
