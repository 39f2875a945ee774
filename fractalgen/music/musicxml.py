"""What reading and writing MusicXML have in common: the library, its names of chords, the ticks of a quarter note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fractalgen.errors import missing

SCORE_ENDINGS = (".musicxml", ".mxl", ".xml")
TICKS = 10_080  # a quarter note: whole numbers for tuplets of 3, 5, 7 and 9 down to 128th notes
KINDS = {
    "": "major",
    "m": "minor",
    "dim": "diminished",
    "aug": "augmented",
    "sus2": "suspended-second",
    "sus4": "suspended-fourth",
    "6": "major-sixth",
    "m6": "minor-sixth",
    "7": "dominant-seventh",
    "maj7": "major-seventh",
    "m7": "minor-seventh",
    "mM7": "minor-major-seventh",
    "m7b5": "half-diminished-seventh",
    "dim7": "diminished-seventh",
    "7sus4": "suspended-fourth-seventh",
}
"""The qualities of :data:`~.chords.QUALITIES` as music21 calls them."""


def load_library(asked: str | Path) -> Any:
    """music21, which takes a moment to import; ``asked``: the flag or file that needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    try:
        import music21
    except ImportError as error:
        raise missing(f"{asked}: MusicXML", "music21", "score") from error
    return music21
