"""Files that are brought in: MIDI, MusicXML, or a text of chords."""

from __future__ import annotations

import re
from pathlib import Path

from fractalgen.errors import UserError
from fractalgen.music.midi_parser import is_score
from fractalgen.studio.document import Document, with_chords
from fractalgen.studio.midi_file import read_document, short_names
from fractalgen.studio.projects import ENDING

MUSIC = (b"MThd", b"RIFF", b"\x1f\x8b")
NAME = 60  # characters of a file's name


def import_file(path: Path, document: Document) -> tuple[Document, list[str]]:
    """The piece in a file, or ``document`` with the chords of a text; and remarks, a line each.

    Raises:
        UserError: as the command line says it, with the name of the file only.
    """
    with short_names(path.parent):
        if path.suffix.lower() == ENDING:
            raise UserError(f"{path.name}: a project file; open it as a project")
        with path.open("rb") as file:
            head = file.read(4)
        if head.startswith(MUSIC) or is_score(path) or b"\0" in head or path.suffix.lower() in (".mid", ".midi"):
            return read_document(path)
        text = path.read_bytes().decode("utf-8-sig", "replace")
        if not all(sign.isprintable() or sign.isspace() for sign in text) or "\ufffd" in text:
            raise UserError(f"{path.name}: no MIDI or MusicXML file, and no text of chords")
        return with_chords(document, text, path.name), []


def safe_name(name: str, endings: bool = False) -> str:
    """A name as a file may have it on any system; ``endings``: what follows its last point stays."""
    plain = " ".join("".join(sign if sign.isalnum() or sign in " -_.()'#" else "_" for sign in name).split())
    stem, point, ending = plain.rpartition(".") if endings else (plain, "", "")
    stem, ending = (stem, ending) if point else (plain, "")
    stem = stem.strip(" .")[:NAME] or "piece"
    if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", stem):
        stem += "_"
    return f"{stem}.{ending[:12]}" if ending else stem
