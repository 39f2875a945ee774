"""Piano scores in MusicXML: two staves, chord symbols, sections, dynamics.  music21 writes the file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.music.chords import QUALITIES, Chord, parse_chord, split_chord
from fractalgen.music.keys import guess_key
from fractalgen.music.labels import SPELLED
from fractalgen.music.musicxml import KINDS, TICKS, load_library
from fractalgen.music.notation import (
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
from fractalgen.music.tokens import Notes, ends_of, grid_steps, midi_velocity, whole_bars
from fractalgen.music.voices import RIGHT
from fractalgen.music.voices import hands as hands_of

SLOWEST_CHANGE = 0.05  # of the tempo: smaller changes are kept for playing, but not shown


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
        name, written, bass = split_chord(text)
        quality = list(QUALITIES)[chord.quality]
        self.chords.append((step, name, QUALITIES[quality]))
        symbol = self.library.harmony.ChordSymbol(
            root=name.replace("b", "-"),
            bass=bass.replace("b", "-") if chord.bass else None,
            kind=KINDS[quality],
            kindStr=written,
        )
        symbol.quarterLength = 0
        self._sign(step, symbol)

    def _tempos(self) -> None:
        """Tempo marks; a change that is small, or that does not last a bar, is only played."""
        seen: float | None = None
        tempos = self.roll.tempos
        for (step, tempo), end in zip(tempos, ends_of(tempos, self.bars[-1][1]), strict=True):
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
        spans = [(self._quarters(start), self._quarters(stop)) for start, stop in self.bars]
        inside = [[note for note in notes if note.start < end and note.stop > begin] for begin, end in spans]
        in_treble, clef = clefs([[note.pitch for note in bar] for bar in inside], treble), None
        voices: dict[Placed, int] = {}
        for bar, ((start, _), (begin, end), mine) in enumerate(zip(self.bars, spans, inside, strict=True)):
            measure = library.stream.Measure(number=bar + (not pickup))
            if bar == 0 or meters.get(start, meter) != meter:
                meter = (pickup if bar == 0 else None) or meters[start]
                measure.insert(0, library.meter.TimeSignature(f"{meter[0]}/{meter[1]}"))
                if bar == 0 and pickup:
                    measure.paddingLeft = Fraction(4 * meter[0], meter[1]) - end
            if bar == 0:
                measure.insert(0, self._key())
            if in_treble[bar] != clef:
                clef = in_treble[bar]
                measure.insert(0, library.clef.TrebleClef() if clef else library.clef.BassClef())
            voices = two_voices(mine, voices)
            two = len(set(voices.values())) == 2
            for voice in range(1 + two):
                played = [note for note in mine if voices[note] == voice or not two]
                home = library.stream.Voice(id=str(voice + 1)) if two else measure
                for offset, element in self._voice(played, begin, end, periods(*meter), hidden=voice == 1):
                    if two and not element.isRest:
                        element.stemDirection = ("up", "down")[voice]
                    home.insert(offset, element)
                if two:
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
