"""Lead sheets: a melody and chord symbols, out of a MIDI file with markers or beside one in a text file."""

from __future__ import annotations

from pathlib import Path

from fractalgen.errors import UserError, shown
from fractalgen.music.chords import Chords, parse_chord, parse_harte
from fractalgen.music.midi_events import TickGrid, read_file
from fractalgen.music.midi_parser import decode
from fractalgen.music.voices import MELODY, named_voice

TEXTS = (0x06, 0x01, 0x05)  # markers, texts, lyrics: where programs write chord symbols


def read_chord(text: str) -> int | None:
    """The code of a chord symbol in either notation, or None where a text is none."""
    for parse in (parse_chord, parse_harte):
        try:
            return parse(text.strip())
        except UserError:
            continue
    return None


def chord_markers(path: Path, steps_per_quarter: int) -> Chords:
    """Changes of chord (step, code), see :func:`chord_names`."""
    return tuple((step, code) for step, code, _ in chord_names(path, steps_per_quarter))


def chord_names(path: Path, steps_per_quarter: int) -> tuple[tuple[int, int, str], ...]:
    """Changes of chord (step, code, text) by the markers of a MIDI file, or by its texts or lyrics.

    The texts count if no marker is a chord, and are as they stand in the file.

    Raises:
        UserError: no text in the file is a chord.
    """
    file = read_file(path)
    grid = TickGrid(file.ticks_per_quarter, steps_per_quarter)
    for kind in TEXTS:
        found = [(grid.step(tick), decode(content)) for tick, content in file.meta(kind)]
        changes = {step: (step, code, text) for step, text in found if (code := read_chord(text)) is not None}
        if len(changes) >= max(1, len(found) // 4):
            return tuple(sorted(changes.values()))
    raise UserError(f"--lead_sheet {path}: no chord in it (markers such as C, F#m7, Bb/D at the places of changes)")


def melody_track(path: Path) -> str:
    """What to keep as ``--voice`` says it: the track named as a melody, or ``melody`` where only one has notes.

    Raises:
        UserError: several tracks have notes and none is named as a melody.
    """
    file = read_file(path)
    numbers = sorted({int(track) for track in file.notes()[0][:, 0]})
    if not numbers:
        raise UserError(f"--lead_sheet {path}: no melody in it, it has no notes")
    if len(numbers) == 1:
        return "melody"
    named = [number for number in numbers if named_voice(file.name(number)) == MELODY]
    if named:
        return f"track:{file.name(named[0])}"
    names = ", ".join(shown(file.name(number), 40) or "(no name)" for number in numbers)
    raise UserError(
        f"--lead_sheet {path}: which track is the melody? None of {names} is named so; say --voice track:N, highest or"
        " right"
    )
