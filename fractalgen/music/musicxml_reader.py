"""Scores in MusicXML are read as MIDI files with a track for each staff.  music21 reads them."""

from __future__ import annotations

import warnings
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fractalgen.errors import UserError, reason, shown
from fractalgen.music.chords import NO_CHORD, Chord, nearest_quality, spelled
from fractalgen.music.midi_parser import END_OF_TRACK, Event, unpacked
from fractalgen.music.midi_writer import key_event, meter_event, midi_bytes, note_events, tempo_event, text_event
from fractalgen.music.musicxml import KINDS, TICKS, load_library
from fractalgen.music.notation import DYNAMICS
from fractalgen.music.score_xml import MOST_BYTES, parse_score, unzipped
from fractalgen.music.voices import MELODY, named_voice


def read_musicxml(path: Path) -> bytes:
    """A score, .musicxml or .mxl, as the bytes of a MIDI file with a track for each staff.

    Each bar comes once: repeats are not played, so that bars count as on the paper.  Grace notes and drums are left
    out.  Notes without a velocity of their own have that of the dynamic before.  Chord symbols become markers, and the
    top staff under them is named as a melody where no staff is.

    Raises:
        UserError: it cannot be read, is no score, or is larger than a piece of music; or music21 is not installed.
    """
    content = unpacked(path, MOST_BYTES)
    library = load_library(path)
    try:
        return _converted(library, content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


@lru_cache(maxsize=2)
def _converted(library: Any, content: bytes) -> bytes:
    """A command reads the music it is given several times: for notes, tracks and chords."""
    root = parse_score(unzipped(content))
    if root.tag != "score-partwise":
        raise UserError(f"no score of MusicXML's kind score-partwise, but <{shown(root.tag)}>")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _prepare(root)
            importer = library.musicxml.xmlToM21.MusicXMLImporter()
            importer.xmlRootToScore(root, importer.stream)
            tracks = _tracks(library, importer.stream)
        except Exception as error:  # whatever a strange score provokes in a library that expects good ones
            raise UserError(f"damaged MusicXML ({reason(error)})") from error
    return midi_bytes(tracks, TICKS)


def _prepare(root: ElementTree.Element) -> None:
    """Change what music21 would misread.

    Of tempi it takes what is shown, here what is played counts.  Rests that fill a bar last a whole one for it, also in
    an upbeat.  It would lose when notes end that are played shorter or longer than written: this becomes a colour.
    """
    for direction in root.iter("direction"):
        sound = direction.find("sound[@tempo]")
        for kind in direction.findall("direction-type[metronome]") if sound is not None else ():
            direction.remove(kind)
    for rest in root.iter("rest"):
        rest.attrib.pop("measure", None)
    for part in root.iter("part"):
        divisions = 1.0
        for element in part.iter():
            if element.tag == "divisions":
                divisions = float(element.text or 1)
            elif element.tag == "note":
                element.attrib.pop("color", None)
                if (release := element.get("release")) is not None:
                    ticks = round(float(release) / divisions * TICKS)
                    element.set("color", f"#{max(0, min(0xFFFFFF, ticks + 0x800000)):06X}")


def _tracks(library: Any, score: Any) -> list[list[Event]]:
    """The tracks of a MIDI file of a score of music21: tempi, meters and chords, and notes staff by staff."""
    score.toSoundingPitch(inPlace=True)
    parts, everything = list(score.parts), score.flatten()
    loud = _dynamics(everything)
    found = [
        (part, name, notes)
        for part, name in _named(library, parts)
        if (notes := _notes(library, part, _dynamics(part.flatten()) or loud))
    ]
    chords = everything.getElementsByClass("Harmony")
    if chords and len(found) > 1 and not any(named_voice(name) == MELODY for _, name, _ in found):
        under = next((part for part, _, _ in found if part.recurse().getElementsByClass("Harmony")), found[0][0])
        found = [(part, "Melody" if part is under else name, notes) for part, name, notes in found]
    tracks = [_conductor(library, parts, everything)] + [
        [(0, text_event(0x03, name)), *note_events(notes, channel % 15 + (channel % 15 > 8))]
        for channel, (_, name, notes) in enumerate(found)
    ]
    end = max(_ticks(score.highestTime), *(tick for track in tracks for tick, _ in track), 0)
    return [
        [*(Event(*event) for event in sorted(track, key=lambda event: event[0])), Event(end, END_OF_TRACK)]
        for track in tracks
    ]


def _conductor(library: Any, parts: list[Any], everything: Any) -> list[tuple[int, bytes]]:
    """Tempi, meters, the key, sections and chords of a score: of its parts, or of all of them in one."""
    found: list[tuple[int, bytes]] = []
    for mark in everything.getElementsByClass("MetronomeMark"):
        tempo = mark.getQuarterBPM()
        if tempo and 0 < tempo < 6e7 and round(60e6 / tempo) < 1 << 24:
            found.append((_ticks(mark.offset), tempo_event(tempo)))
    if parts:
        found += _meters(parts[0])
        keys = list(parts[0].flatten().getElementsByClass("KeySignature"))
        if keys and abs(keys[0].sharps) <= 7:
            found.append((0, key_event(keys[0].sharps, getattr(keys[0], "mode", None) == "minor")))
    for mark in everything.getElementsByClass("RehearsalMark"):
        found.append((_ticks(mark.offset), text_event(0x06, f"[{shown(mark.content)}]")))
    for symbol in everything.getElementsByClass("Harmony"):
        if text := _chord(library, symbol):
            found.append((_ticks(symbol.offset), text_event(0x06, text)))
    return found


def _named(library: Any, parts: list[Any]) -> list[tuple[Any, str]]:
    """The parts and their names; of a part on two staves they are the hands."""
    found = []
    for part in parts:
        name = part.partName or ""
        group = next((group for group in part.getSpannerSites("StaffGroup") if len(group) == 2), None)
        if isinstance(part, library.stream.PartStaff) and group is not None:
            hand = "right hand" if group.isFirst(part) else "left hand"
            name = hand.capitalize() if len(parts) == 2 else f"{name} {hand}"
        found.append((part, shown(name)))
    return found


def _meters(part: Any) -> list[tuple[int, bytes]]:
    """Meters, also of bars that are shorter or longer than theirs, such as an upbeat; the last bar is completed."""
    found: list[tuple[int, bytes]] = []
    measures = list(part.getElementsByClass("Measure"))
    meter, written = (4, 4), None
    for measure, following in zip(measures, [*measures[1:], None], strict=True):
        sign = measure.timeSignature
        if sign is not None and hasattr(sign, "denominator"):
            meter = sign.numerator, sign.denominator
        length = Fraction(4 * meter[0], meter[1])
        if following is not None:
            length = Fraction(following.offset) - Fraction(measure.offset)
        if (counted := _counted(length, meter[1])) and counted != written:
            written = counted
            found.append((_ticks(measure.offset), meter_event(*counted)))
    return found


def _chord(library: Any, symbol: Any) -> str:
    """A chord symbol in the vocabulary of :mod:`.chords`; empty where it is none."""
    harmony = library.harmony
    if isinstance(symbol, harmony.NoChord):
        return spelled(NO_CHORD)
    if not isinstance(symbol, harmony.ChordSymbol) or symbol.root() is None:
        return ""
    root, bass = symbol.root(), symbol.bass()
    tones = {(pitch.pitchClass - root.pitchClass) % 12 for pitch in symbol.pitches}
    low = (bass.pitchClass - root.pitchClass) % 12
    inside = harmony.ChordSymbol(root=root.name, kind=symbol.chordKind) if symbol.chordKind in KINDS.values() else None
    if inside is not None and not any((p.pitchClass - root.pitchClass) % 12 == low for p in inside.pitches):
        tones.discard(low)
    return spelled(Chord(root.pitchClass, nearest_quality(frozenset(tones)), low).code, flats="#" not in root.name)


def _dynamics(flat: Any) -> list[tuple[int, int]]:
    """Velocities (tick, velocity) by the dynamics of a part."""
    return [
        (_ticks(mark.offset), DYNAMICS.get(mark.value) or max(1, min(127, int(127 * mark.volumeScalar))))
        for mark in flat.getElementsByClass("Dynamic")
    ]


def _notes(library: Any, part: Any, loud: list[tuple[int, int]]) -> list[list[int]]:
    """Notes of a staff, tied ones joined: start and stop in ticks, pitch, velocity."""
    note = library.note
    found: list[list[int]] = []
    tied: dict[int, list[int]] = {}
    for element in part.flatten().notes:
        if isinstance(element, library.harmony.Harmony) or element.duration.isGrace:
            continue
        start = _ticks(element.offset)
        stop = _ticks(element.offset + element.quarterLength)
        for head in element.notes if isinstance(element, library.chord.ChordBase) else [element]:
            if not isinstance(head, note.Note) or not 0 <= head.pitch.midi < 128 or stop <= start:
                continue
            pitch, tie = head.pitch.midi, head.tie.type if head.tie is not None else ""
            before = tied.pop(pitch, None)
            if tie in ("stop", "continue") and before is not None and before[1] == start:
                before[1] = stop
                row = before
            else:
                velocity = head.volume.velocity or next((loud for at, loud in reversed(loud) if at <= start), 80)
                row = [start, stop, pitch, max(1, min(127, int(velocity)))]
                found.append(row)
            if (colour := head.style.color) is not None:  # see _prepare
                row[1] = max(row[0] + 1, row[1] + int(colour[1:], 16) - 0x800000)
            if tie in ("start", "continue"):
                tied[pitch] = row
    return found


def _ticks(quarters: float | Fraction) -> int:
    return round(quarters * TICKS)


def _counted(length: Fraction, unit: int) -> tuple[int, int] | None:
    """The meter of a bar so long, in these units if they are whole; None if MIDI has none."""
    for one in (unit, 4, 8, 16, 32, 64):
        beats = length * one / 4
        if beats.denominator == 1 and 1 <= beats <= 255 and one <= 64:
            return int(beats), one
    return None
