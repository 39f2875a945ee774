"""Scores: MusicXML, written for two staves, and read as a MIDI file.

music21 writes and reads it.  It is made for files that one trusts: a time signature of a million beats alone takes
all memory.  So a file is looked through before it comes to it.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError, missing, reason, shown
from fractalgen.files import replacing
from fractalgen.music.chords import NO_CHORD, QUALITIES, Chord, nearest_quality, parse_chord, spelled
from fractalgen.music.keys import guess_key
from fractalgen.music.labels import SPELLED
from fractalgen.music.midi_events import key_event, meter_event, midi_bytes, tempo_event, text_event
from fractalgen.music.midi_parser import END_OF_TRACK, Event
from fractalgen.music.notation import (
    DYNAMICS,
    Placed,
    clefs,
    dynamics,
    periods,
    pieces,
    signature,
    slices,
    spelled_pitch,
    tidied,
    two_voices,
)
from fractalgen.music.pianoroll import Markers, PianoRoll
from fractalgen.music.tokens import Notes, grid_steps, midi_velocity, whole_bars
from fractalgen.music.voices import MELODY, RIGHT, named_voice
from fractalgen.music.voices import hands as hands_of

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
SLOWEST_CHANGE = 0.05  # of the tempo: smaller changes are kept for playing, but not shown
MOST_BYTES, MOST_UNPACKED, MOST_ELEMENTS, DEEPEST = 8 << 20, 16 << 20, 400_000, 32
HIGHEST = dict.fromkeys(("alter", "root-alter", "bass-alter", "degree-alter", "octave-change", "dots"), 12) | {
    "beats": 64,
    "beat-type": 128,
    "fifths": 14,
    "octave": 20,
    "staves": 16,
    "degree-value": 32,
    "clef-octave-change": 9,
    "chromatic": 99,
    "diatonic": 99,
    "actual-notes": 128,
    "normal-notes": 128,
}
"""Elements whose number music21 may count up to, one by one, and the highest one."""


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


def write_musicxml(
    roll: PianoRoll,
    path: str | Path,
    *,
    markers: Markers = (),
    key: str | None = None,
    title: str | None = None,
    hands: npt.NDArray[np.uint8] | None = None,
) -> None:
    """Write a roll as a piano score on two staves; the last bar is completed with rests.

    ``markers``: (step, text); chords become chord symbols and names in brackets, such as ``[A]``, rehearsal marks.
    ``key``: one of :data:`~.labels.KEYS` (default: the key that fits best).  ``hands``: RIGHT or LEFT for each note
    (default: by :func:`.voices.hands`).  Dynamics are written where they change.  Velocities are kept exactly, as
    attributes of the notes, and so are ends of notes that are rounded to be read more easily.

    Raises:
        UserError: music21 is not installed, or the file cannot be written.
    """
    library = load_library(path)
    content = _Engraver(library, roll, markers, key or guess_key(roll.tokens)[0], title, hands).content()
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(content)


class _Engraver:
    """Builds the score of a roll, staff by staff and bar by bar."""

    def __init__(
        self,
        library: Any,
        roll: PianoRoll,
        markers: Markers,
        key: str | None,
        title: str | None,
        hands: npt.NDArray[np.uint8] | None,
    ) -> None:
        self.library, self.roll, self.title, self.key = library, roll, title, key
        width = whole_bars(roll.time_signatures, roll.width, roll.steps_per_quarter)
        lines = grid_steps(roll.time_signatures, max(width, 1), roll.steps_per_quarter).tolist()
        self.bars = list(pairwise([*lines, max(width, 1)]))
        self.sharps, self.minor = signature(key)
        self.chords: list[tuple[int, str | None, tuple[int, ...]]] = [(0, None, ())]
        self.signs: list[list[tuple[Fraction, Any]]] = [[] for _ in self.bars]  # at the upper staff, bar by bar
        for step, text in markers:
            self._mark(step, text)
        self._tempos()
        notes = roll.notes()
        right = (hands_of(notes) if hands is None else hands) == RIGHT
        borders = [self._quarters(start) for start in (*lines, self.bars[-1][1])]
        self.staves = tuple(tidied(self._placed(notes[hand]), borders) for hand in (right, ~right))
        self._dynamics()

    def _quarters(self, step: int) -> Fraction:
        return Fraction(step, self.roll.steps_per_quarter)

    def _bar_of(self, step: int) -> int:
        return int(np.searchsorted([start for start, _ in self.bars], step, side="right")) - 1

    def _sign(self, step: int, sign: Any) -> None:
        bar = self._bar_of(step)
        sign.placement = "below" if isinstance(sign, self.library.dynamics.Dynamic) else "above"
        self.signs[bar].append((self._quarters(step - self.bars[bar][0]), sign))

    def _placed(self, notes: Notes) -> list[Placed]:
        loud = midi_velocity(notes["velocity"], self.roll.velocity_bins).tolist()
        return [
            Placed(self._quarters(start), self._quarters(start + length), pitch, velocity)
            for (pitch, start, length, _), velocity in zip(notes.tolist(), loud, strict=True)
        ]

    def _mark(self, step: int, text: str) -> None:
        """A chord symbol or a rehearsal mark."""
        if not 0 <= step < self.bars[-1][1]:
            return
        if text.startswith("[") and text.endswith("]"):
            self._sign(step, self.library.expressions.RehearsalMark(text[1:-1]))
            return
        try:
            chord = Chord.of(parse_chord(text))
        except UserError:
            self._sign(step, self.library.expressions.TextExpression(text))
            return
        if chord is None:
            self.chords.append((step, None, ()))
            self._sign(step, self.library.harmony.NoChord())
            return
        root, _, bass = text.partition("/")
        name = root[: 1 + (root[1:2] in ("#", "b"))]
        quality = list(QUALITIES)[chord.quality]
        self.chords.append((step, name, QUALITIES[quality]))
        symbol = self.library.harmony.ChordSymbol(
            root=name.replace("b", "-"), bass=bass.replace("b", "-") or None, kind=KINDS[quality], kindStr=quality
        )
        symbol.quarterLength = 0
        self._sign(step, symbol)

    def _tempos(self) -> None:
        """Tempo marks; a change that is small, or that does not last a bar, is only played."""
        tempos = self.roll.tempos
        seen: float | None = None
        ends = [*(step for step, _ in tempos[1:]), self.bars[-1][1]]
        for (step, tempo), end in zip(tempos, ends, strict=True):
            start, stop = self.bars[self._bar_of(step)]
            mark = self.library.tempo.MetronomeMark()
            mark.numberSounding = tempo
            if seen is None or (abs(tempo / seen - 1) >= SLOWEST_CHANGE and end - step >= stop - start):
                seen = tempo
                mark.number = round(tempo)
            self._sign(step, mark)

    def _dynamics(self) -> None:
        """Dynamics, by the middle velocity of each bar."""
        struck: dict[int, list[int]] = defaultdict(list)
        for note in (*self.staves[0], *self.staves[1]):
            struck[self._bar_of(int(note.start * self.roll.steps_per_quarter))].append(note.velocity)
        levels = [float(np.median(struck[bar])) if struck[bar] else None for bar in range(len(self.bars))]
        for (start, _), name in zip(self.bars, dynamics(levels), strict=True):
            if name:
                self._sign(start, self.library.dynamics.Dynamic(name))

    def content(self) -> bytes:
        """The score as a MusicXML file."""
        library = self.library
        score = library.stream.Score()
        score.metadata = library.metadata.Metadata(title=self.title or "", composer="FractalGen")
        staves = []
        for number, notes in enumerate(self.staves):
            staff = library.stream.PartStaff()
            for offset, measure in self._measures(notes, number == 0):
                staff.insert(offset, measure)
            piano = library.instrument.Piano()
            piano.partId, piano.instrumentId = "P1", "P1-I1"  # else random ones
            staff.insert(0, piano)
            library.stream.makeNotation.makeAccidentalsInMeasureStream(staff)
            if number == 0:  # not before, chord symbols would count as notes
                for measure, signs in zip(staff.getElementsByClass("Measure"), self.signs, strict=True):
                    for offset, sign in signs:
                        measure.insert(offset, sign)
            score.insert(0, staff)
            staves.append(staff)
        score.insert(0, library.layout.StaffGroup(staves, name="Piano", symbol="brace"))
        exporter = library.musicxml.m21ToXml.ScoreExporter(score, makeNotation=False)
        self._finish(exporter.parse())
        return bytes(exporter.asBytes())

    def _finish(self, root: ElementTree.Element) -> None:
        """What music21 cannot write.

        Velocities of single notes of a chord, and when notes end that are played shorter or longer than written, come
        as colours.  An upbeat is marked as one, voices count on from staff to staff, and places of signs are rounded.
        """
        for head in root.iter("note"):
            if head.findtext("staff") == "2" and (voice := head.find("voice")) is not None:
                voice.text = str(int(voice.text or 1) + 4)  # as notation programs number them
            if colour := head.attrib.pop("color", None):
                head.set("dynamics", f"{int(colour[1:3], 16) / 0.9:.2f}")
                if release := int(colour[3:], 16) - 0x8000:
                    head.set("release", str(release))
                head[:] = [element for element in head if element.tag != "notehead"]
        step = Fraction(TICKS, self.roll.steps_per_quarter)
        for offset in root.iter("offset"):
            offset.text = str(round(round(int(offset.text or 0) / step) * step))
        for measure in root.iter("measure"):
            if measure.get("number") == "0":
                measure.set("implicit", "yes")
        encoding = root.find("identification/encoding")
        if encoding is not None and (date := encoding.find("encoding-date")) is not None:
            encoding.remove(date)  # the same piece gives the same file

    def _measures(self, notes: list[Placed], treble: bool) -> Iterator[tuple[Fraction, Any]]:
        """The bars of a staff, each with where it begins."""
        library = self.library
        meters = {start: (beats, unit) for start, beats, unit in self.roll.time_signatures}
        meter = meters[0]
        pickup = self._pickup()
        inside: list[list[Placed]] = []
        for start, stop in self.bars:
            begin, end = self._quarters(start), self._quarters(stop)
            inside.append([note for note in notes if note.start < end and note.stop > begin])
        in_treble, clef = clefs([[note.pitch for note in bar] for bar in inside], treble), None
        voices: dict[Placed, int] = {}
        for bar, ((start, stop), mine) in enumerate(zip(self.bars, inside, strict=True)):
            begin, end = self._quarters(start), self._quarters(stop)
            measure = library.stream.Measure(number=bar + (not pickup))
            if bar == 0 or meters.get(start, meter) != meter:
                meter = (pickup if bar == 0 else None) or meters[start]
                measure.insert(0, library.meter.TimeSignature(f"{meter[0]}/{meter[1]}"))
                if bar == 0 and pickup:
                    measure.paddingLeft = Fraction(4 * meter[0], meter[1]) - self._quarters(stop)
            if bar == 0:
                measure.insert(0, self._key())
            if in_treble[bar] != clef:
                clef = in_treble[bar]
                measure.insert(0, library.clef.TrebleClef() if clef else library.clef.BassClef())
            before = {note: voices[note] for note in mine if note.start < begin}
            voices = two_voices([*mine], before)
            two = len(set(voices.values())) == 2
            for voice in range(1 + two):
                played = [note for note in mine if voices[note] == voice or not two]
                elements = self._voice(played, begin, end, periods(*meter), hidden=voice == 1)
                if not two:
                    for offset, element in elements:
                        measure.insert(offset, element)
                    continue
                home = library.stream.Voice(id=str(voice + 1))
                for offset, element in elements:
                    if not element.isRest:
                        element.stemDirection = ("up", "down")[voice]
                    home.insert(offset, element)
                measure.insert(0, home)
            measure.makeBeams(inPlace=True, setStemDirections=False)
            yield begin, measure

    def _pickup(self) -> tuple[int, int] | None:
        """The meter after an upbeat: a first bar, in a meter of its own, that is shorter than the second one."""
        if len(self.roll.time_signatures) < 2:
            return None
        start, beats, unit = self.roll.time_signatures[1]
        return (beats, unit) if start == self.bars[0][1] and self._quarters(start) < Fraction(4 * beats, unit) else None

    def _key(self) -> Any:
        if self.key is None:
            return self.library.key.KeySignature(0)
        tonic, mode = SPELLED.get(self.key, self.key).split()
        return self.library.key.Key(tonic.replace("b", "-"), mode)

    def _voice(
        self, notes: list[Placed], begin: Fraction, end: Fraction, division: tuple[Fraction, ...], hidden: bool
    ) -> Iterator[tuple[Fraction, Any]]:
        """Notes, chords and rests of a voice in a bar, each with its offset; rests may be ``hidden``."""
        library = self.library
        for part in slices(notes, begin, end):
            values = pieces(part.start - begin, part.stop - begin, division, rest=not part.notes)
            if not notes:
                values = [(Fraction(0), end - begin)]
            for start, stop in values:
                if not part.notes:
                    element = library.note.Rest(quarterLength=stop - start)
                    element.style.hideObjectOnPrint = hidden
                    element.fullMeasure = not notes
                else:
                    heads = [self._head(note, begin + start, begin + stop) for note in part.notes]
                    element = heads[0] if len(heads) == 1 else library.chord.Chord(heads)
                    element.quarterLength = stop - start
                yield start, element

    def _head(self, note: Placed, start: Fraction, stop: Fraction) -> Any:
        """A note head of a note, from ``start`` to ``stop``, tied to those before and behind."""
        _, root, tones = next(chord for chord in reversed(self.chords) if self._quarters(chord[0]) <= note.start)
        letter, alter, octave = spelled_pitch(note.pitch, self.sharps, self.minor, root, tones)
        head = self.library.note.Note(self.library.pitch.Pitch(step=letter, octave=octave))
        if alter:
            head.pitch.accidental = self.library.pitch.Accidental(alter)
        before, behind = note.start < start, note.stop > stop
        release = 0 if behind else int(note.release * TICKS)
        head.style.color = f"#{note.velocity:02X}{release + 0x8000:04X}"  # see _finish
        if before or behind:
            head.tie = self.library.tie.Tie("continue" if before and behind else "stop" if before else "start")
        return head


# Reading


def read_musicxml(path: Path) -> bytes:
    """A score, .musicxml or .mxl, as the bytes of a MIDI file with a track for each staff.

    Each bar comes once: repeats are not played, so that bars count as on the paper.  Grace notes and drums are left
    out.  Notes without a velocity of their own have that of the dynamic before.  Chord symbols become markers, and the
    top staff under them is named as a melody where no staff is.

    Raises:
        UserError: it cannot be read, is no score, or is larger than a piece of music; or music21 is not installed.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) > MOST_BYTES:
        raise UserError(f"{path}: more than {MOST_BYTES:,} bytes, too long for a piece of music")
    library = load_library(path)
    try:
        return _converted(library, content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


@lru_cache(maxsize=2)
def _converted(library: Any, content: bytes) -> bytes:
    """A command reads the music it is given several times: for notes, tracks and chords."""
    root = _tree(_unzipped(content))
    if root.tag != "score-partwise":
        raise UserError(f"no score of MusicXML's kind score-partwise, but <{shown(root.tag)}>")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _prepare(root)
            importer = library.musicxml.xmlToM21.MusicXMLImporter()
            importer.xmlRootToScore(root, importer.stream)
            tracks = _Tracks(library, importer.stream).tracks
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


def _unzipped(content: bytes) -> bytes:
    """The score in a .mxl archive, of which nothing is written to the disk; other bytes as they are."""
    if content[:2] != b"PK":
        return content
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:

            def member(name: str) -> bytes:
                if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise UserError("packed in a way that scores are not")  # and that may need much memory
                with archive.open(name) as file:
                    return file.read(MOST_UNPACKED + 1)

            names = archive.namelist()
            scores = [
                name for name in names if name.endswith((".xml", ".musicxml")) and not name.startswith("META-INF")
            ]
            if "META-INF/container.xml" in names:
                roots = [entry.get("full-path") for entry in _tree(member("META-INF/container.xml")).iter("rootfile")]
                scores = [name for name in roots if name in names] or scores
            if not scores:
                raise UserError("no score in this archive")
            return member(scores[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"damaged archive ({reason(error)})") from error


def _tree(content: bytes) -> ElementTree.Element:
    """The elements of an XML file without entities of its own, neither too many nor too deep, nor absurd numbers."""
    if len(content) > MOST_UNPACKED:
        raise UserError(f"more than {MOST_UNPACKED:,} bytes unpacked, too long for a piece of music")
    parser = expat.ParserCreate()
    count = depth = 0
    counted = ""  # the element whose text is collected
    words: list[str] = []

    def start(name: str, _: object) -> None:
        nonlocal count, depth, counted
        count, depth = count + 1, depth + 1
        if count > MOST_ELEMENTS or depth > DEEPEST:
            raise UserError(f"more than {MOST_ELEMENTS:,} elements or {DEEPEST} inside each other, no piece of music")
        counted = name if name in HIGHEST else ""
        words.clear()

    def end(name: str) -> None:
        nonlocal depth, counted
        depth -= 1
        if name == counted:
            written = "".join(words)
            numbers = re.findall(r"\d+", written)
            if any(len(number) > 4 or int(number) > HIGHEST[name] for number in numbers):
                raise UserError(f"<{name}> {shown(written)}: at most {HIGHEST[name]} is possible")
        counted = ""

    def text(part: str) -> None:
        if counted:
            words.append(part)

    def entity(name: str, *_: object) -> None:
        raise UserError(f"declares the entity {shown(name)}; scores have none")

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(content, True)
        return ElementTree.fromstring(content)
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"damaged XML ({reason(error)})") from error


class _Tracks:
    """The tracks of a MIDI file of a score of music21: tempi, meters and chords, and notes staff by staff."""

    def __init__(self, library: Any, score: Any) -> None:
        self.library = library
        score.toSoundingPitch(inPlace=True)
        parts = list(score.parts)
        everything = score.flatten()
        conductor: list[tuple[int, bytes]] = []
        for mark in everything.getElementsByClass("MetronomeMark"):
            tempo = mark.getQuarterBPM()
            if tempo and 0 < tempo < 6e7 and round(60e6 / tempo) < 1 << 24:
                conductor.append((_ticks(mark.offset), tempo_event(tempo)))
        conductor += self._meters(parts[0]) if parts else []
        keys = list(parts[0].flatten().getElementsByClass("KeySignature")) if parts else []
        if keys and abs(keys[0].sharps) <= 7:
            minor = getattr(keys[0], "mode", None) == "minor"
            conductor.append((0, key_event(keys[0].sharps, minor)))
        for mark in everything.getElementsByClass("RehearsalMark"):
            conductor.append((_ticks(mark.offset), text_event(0x06, f"[{shown(mark.content)}]")))
        chords = [(element, self._chord(element)) for element in everything.getElementsByClass("Harmony")]
        conductor += [(_ticks(element.offset), text_event(0x06, text)) for element, text in chords if text]

        loud = self._dynamics(everything)
        found = [
            (part, name, self._notes(part, self._dynamics(part.flatten()) or loud)) for part, name in self._named(parts)
        ]
        found = [entry for entry in found if entry[2]]
        if chords and len(found) > 1 and not any(named_voice(name) == MELODY for _, name, _ in found):
            under = next((part for part, _, _ in found if part.recurse().getElementsByClass("Harmony")), found[0][0])
            found = [(part, "Melody" if part is under else name, notes) for part, name, notes in found]
        tracks = [conductor] + [
            [(0, text_event(0x03, name)), *_struck(notes, channel % 15 + (channel % 15 > 8))]
            for channel, (_, name, notes) in enumerate(found)
        ]
        end = max(_ticks(score.highestTime), *(tick for track in tracks for tick, _ in track), 0)
        self.tracks = [
            [*(Event(*event) for event in sorted(track, key=lambda event: event[0])), Event(end, END_OF_TRACK)]
            for track in tracks
        ]

    def _named(self, parts: list[Any]) -> list[tuple[Any, str]]:
        """The parts and their names; of a part on two staves they are the hands."""
        found = []
        for part in parts:
            name = part.partName or ""
            group = next((group for group in part.getSpannerSites("StaffGroup") if len(group) == 2), None)
            if isinstance(part, self.library.stream.PartStaff) and group is not None:
                hand = "right hand" if group.isFirst(part) else "left hand"
                name = hand.capitalize() if len(parts) == 2 else f"{name} {hand}"
            found.append((part, shown(name)))
        return found

    def _meters(self, part: Any) -> list[tuple[int, bytes]]:
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

    def _chord(self, symbol: Any) -> str:
        """A chord symbol in the vocabulary of :mod:`.chords`; empty where it is none."""
        harmony = self.library.harmony
        if isinstance(symbol, harmony.NoChord):
            return spelled(NO_CHORD)
        if not isinstance(symbol, harmony.ChordSymbol) or symbol.root() is None:
            return ""
        root, bass = symbol.root(), symbol.bass()
        tones = {(pitch.pitchClass - root.pitchClass) % 12 for pitch in symbol.pitches}
        low = (bass.pitchClass - root.pitchClass) % 12
        inside = (
            harmony.ChordSymbol(root=root.name, kind=symbol.chordKind) if symbol.chordKind in KINDS.values() else None
        )
        if inside is not None and not any((p.pitchClass - root.pitchClass) % 12 == low for p in inside.pitches):
            tones.discard(low)
        return spelled(Chord(root.pitchClass, nearest_quality(frozenset(tones)), low).code, flats="#" not in root.name)

    def _dynamics(self, flat: Any) -> list[tuple[int, int]]:
        """Velocities (tick, velocity) by the dynamics of a part."""
        return [
            (_ticks(mark.offset), DYNAMICS.get(mark.value) or max(1, min(127, int(127 * mark.volumeScalar))))
            for mark in flat.getElementsByClass("Dynamic")
        ]

    def _notes(self, part: Any, loud: list[tuple[int, int]]) -> list[list[int]]:
        """Notes of a staff, tied ones joined: start and stop in ticks, pitch, velocity."""
        note = self.library.note
        found: list[list[int]] = []
        tied: dict[int, list[int]] = {}
        for element in part.flatten().notes:
            if isinstance(element, self.library.harmony.Harmony) or element.duration.isGrace:
                continue
            start = _ticks(element.offset)
            stop = _ticks(element.offset + element.quarterLength)
            for head in element.notes if isinstance(element, self.library.chord.ChordBase) else [element]:
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


def _struck(notes: list[list[int]], channel: int) -> list[tuple[int, bytes]]:
    """The events of notes; what ends comes before what begins."""
    on = [(start, bytes([0x90 | channel, pitch, velocity])) for start, _, pitch, velocity in notes]
    off = [(stop, bytes([0x80 | channel, pitch, 0])) for _, stop, pitch, _ in notes]
    return sorted(off + on)
