"""Labels: attributes of music that a model was trained with, and how users name them.

A label is a small integer per attribute; 0 is "unset", the null condition.  The vocabulary is chosen when a corpus is
prepared, travels in the corpus and in every checkpoint as plain data, and turns text into labels.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from fractalgen.errors import UserError, shown

AttributeName = Literal["key", "density", "polyphony", "register", "velocity", "tempo", "style", "meter"]
NAMES: tuple[AttributeName, ...] = get_args(AttributeName)
UNITS = {
    "density": "notes a bar of four quarters",
    "polyphony": "notes at a time",
    "register": "mean MIDI pitch",
    "velocity": "mean MIDI velocity",
    "tempo": "quarters a minute",
}
DIGITS = 4  # decimals of edges and of what is compared with them
TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)
SPELLED = {"Db minor": "C# minor", "Gb minor": "F# minor", "Ab minor": "G# minor"}  # as musicians write these
_KEY = re.compile(r"([a-g])([#♯b♭]?)[\s:]*(major|maj|minor|min|m)", re.IGNORECASE)


@dataclass(frozen=True)
class Attribute:
    """One attribute and its labels: classes named by ``values``, or bins of a number.

    Of n bins ``edges`` are the n + 1 borders in ``unit``, from the least to the greatest value of the training music,
    and ``ranks`` the share of that music below each border.  Labels count from 1.
    """

    name: str
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    ranks: tuple[float, ...] = ()
    unit: str = ""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.edges) or len(self.edges) != len(self.ranks) or len(self.edges) == 1:
            raise UserError(f"attribute {self.name}: either values, or edges with as many ranks")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Attribute:
        """From plain data; tuples may have become lists on the way.

        Raises:
            UserError: data of another kind.
        """
        data = {name: tuple(value) if isinstance(value, list) else value for name, value in dict(data).items()}
        numbers = (*data.get("edges", ()), *data.get("ranks", ()))
        right = data.get("name") in NAMES and isinstance(data.get("unit", ""), str)
        right &= all(isinstance(value, str) for value in data.get("values", ()))
        right &= all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        if not right or not data.keys() <= {field.name for field in fields(cls)}:
            raise UserError(f"unknown attribute: {shown(data, 120)}")
        return cls(**data)

    @property
    def size(self) -> int:
        """Number of labels, 0 (unset) included."""
        return 1 + (len(self.values) or len(self.edges) - 1)

    def label(self, value: float | str | None) -> int:
        """Label of a value measured in music: 0 where it is unknown; a number beyond the edges is in the outer bin."""
        if isinstance(value, str):
            return self.values.index(value) + 1 if value in self.values else 0
        if value is None or math.isnan(value):
            return 0
        return bisect_right(self.edges[1:-1], round(value, DIGITS)) + 1

    def encode(self, text: str) -> int:
        """Label of what a user asks for.

        Classes by name, in any case; keys also as ``Am``, ``A:min`` or ``A# minor`` for ``Bb minor``.  A number from
        0 to 1 is a rank: 0.7 is more than in 70 % of the training music.  A number above 1 is in the attribute's unit.

        Raises:
            UserError: not in this vocabulary; the message lists what is.
        """
        if self.values:
            named = spell_key(text) if self.name == "key" else text
            folded = [value.casefold() for value in self.values]
            wanted = (named or text).strip()
            if wanted in self.values:
                return self.label(wanted)
            if wanted.casefold() in folded:
                return folded.index(wanted.casefold()) + 1
            raise UserError(f"--{self.name} {text}: not in this model's vocabulary ({', '.join(self.values)})")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if 0 <= number <= 1:
            return bisect_right(self.ranks[1:-1], number) + 1
        if number > 1 and self.edges[0] <= number <= self.edges[-1]:
            return self.label(number)
        raise UserError(
            f"--{self.name} {text}: a percentile of the training set from 0 to 1, or"
            f" {self.edges[0]:.4g} to {self.edges[-1]:.4g} {self.unit}"
        )

    def describe(self, label: int) -> str:
        """What a label means, for people: keys as they are usually spelled."""
        if not 0 <= label < self.size:
            raise ValueError(f"label {label} of {self.name}: 0 to {self.size - 1}")
        if label == 0:
            return "free"
        if self.values:
            return SPELLED.get(self.values[label - 1], self.values[label - 1])
        return f"{self.edges[label - 1]:.3g} to {self.edges[label]:.3g} {self.unit}"


def spell_key(text: str) -> str | None:
    """The name in :data:`KEYS` of a key written ``A minor``, ``a min``, ``Am``, ``A:min`` or ``A# minor``, or None."""
    found = _KEY.fullmatch(text.strip())
    if found is None:
        return None
    letter, sign, mode = found.groups()
    tonic = TONICS.index(letter.upper()) + {"": 0, "#": 1, "♯": 1, "b": -1, "B": -1, "♭": -1}[sign]
    return KEYS[tonic % 12 + (0 if mode.lower().startswith("maj") else 12)]


def encode_all(
    attributes: Sequence[Attribute], wanted: Mapping[str, str | None], tempo: float | None = None
) -> tuple[int, ...]:
    """One label per attribute of a model for what is ``wanted`` of it by name; what is None or absent is unset (0).

    ``tempo``, in quarters a minute, is no wish that a model could lack: the nearest label is set if it has any.

    Raises:
        UserError: an attribute that the model was not trained with, or a value that is not in its vocabulary.
    """
    asked = {name: text for name, text in wanted.items() if text is not None}
    known = [attribute.name for attribute in attributes]
    for name, text in asked.items():
        if name not in known:
            has = f"it was trained with {', '.join(known)}" if known else "it was trained without --attributes"
            raise UserError(f"--{name} {text}: this model knows no {name} ({has})")
    labels = []
    for attribute in attributes:
        if attribute.name in asked:
            labels.append(attribute.encode(asked[attribute.name]))
        else:
            labels.append(attribute.label(tempo) if attribute.name == "tempo" else 0)
    return tuple(labels)


def semitones(name: str) -> int:
    """Semitones of a note name such as ``F#``, ``Bb`` or ``cb`` above the C at or below its letter."""
    return TONICS.index(name[0].upper()) + name.count("#") - name[1:].count("b")


def signature_key(signature: tuple[int, bool]) -> str:
    """The name in :data:`KEYS` of a key signature: sharps, or flats below 0, and whether it is minor."""
    fifths, minor = signature
    return KEYS[(7 * fifths + (9 if minor else 0)) % 12 + (12 if minor else 0)]


def writes_flats(key: str) -> bool:
    """Whether the signature of a key of :data:`KEYS` has flats."""
    minor, tonic = divmod(KEYS.index(key), 12)
    return 7 * (tonic + 3 * minor) % 12 > 5  # steps up the circle of fifths from C, of the relative major
