"""XML that may come from anywhere: it is unpacked and looked through before a library that trusts its files gets it.

A time signature of a million beats alone would take all memory in music21.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from xml.etree import ElementTree
from xml.parsers import expat

from fractalgen.errors import UserError, reason, shown

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


def unzipped(content: bytes) -> bytes:
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
                roots = [
                    entry.get("full-path") for entry in parse_score(member("META-INF/container.xml")).iter("rootfile")
                ]
                scores = [name for name in roots if name in names] or scores
            if not scores:
                raise UserError("no score in this archive")
            return member(scores[0])
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"damaged archive ({reason(error)})") from error


def parse_score(content: bytes) -> ElementTree.Element:
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
