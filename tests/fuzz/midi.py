"""MIDI files that are damaged, or whose events nobody would write; and what users do with MIDI files."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fractalgen import cli
from fractalgen.compose.assignment import assignment
from fractalgen.compose.recipe import PREFIX, write_recipe
from fractalgen.config import GenerateConfig
from fractalgen.errors import UserError
from fractalgen.evaluation.health import find_faults
from fractalgen.music.midi import END_MARKER
from fractalgen.music.pianoroll import PianoRoll
from tests import tiny
from tests.fuzz.damage import damage_json
from tests.midi_files import delta


@cache
def midi_files(_: Path) -> list[bytes]:
    """Small good (and some odd) files."""
    folder = Path(__file__).parents[1] / "cases"
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".mid", ".kar", ".rmi", ".gz")]


def midi_grammar(_: bytes, rng: random.Random) -> bytes:
    """A file whose chunks are well formed and whose events are not."""

    def event() -> bytes:
        status = rng.choice((*b"\x80\x90\x90\xa0\xb0\xc0\xd0\xe0\xf0\xf7\xff\xff", rng.randrange(256)))
        if status in (0xF0, 0xF7):
            body = rng.randbytes(rng.randrange(6))
            return bytes([status]) + delta(rng.choice((len(body), len(body), 0, 1, 2**21))) + body
        if status == 0xFF:
            kind = rng.choice((*b"\x00\x01\x03\x06\x2f\x51\x54\x58\x59\x7f", rng.randrange(256)))
            body = rng.choice((b"", rng.randbytes(rng.randrange(8)), bytes(5), b"\x07\xa1\x20"))
            match kind:
                case 0x51 if rng.random() < 0.5:
                    body = rng.choice((b"\0\0\0", b"\0\0\1", b"\xff\xff\xff", rng.randbytes(3)))
                case 0x58 if rng.random() < 0.8:
                    body = bytes([rng.randrange(256), rng.choice((2, 3, rng.randrange(256))), 24, 8])
                case 0x59 if rng.random() < 0.5:
                    body = rng.randbytes(2)
                case 0x01 if rng.random() < 0.3:
                    body = write_recipe(GenerateConfig(bars=2.0), 1, 0, "a").encode()
                    head = len(PREFIX)
                    body = body[:head] + damage_json(body[head:].decode(), rng).encode("utf-8", "replace")
                case 0x06 if rng.random() < 0.5:
                    held = " ".join(rng.choice(("0", "60", "127", "128", "9" * 9, "9" * 5000)) for _ in range(3))
                    body = f"{END_MARKER} {held}".encode()
            return bytes([status, kind]) + delta(rng.choice((len(body), len(body), 0, 300))) + body
        if status < 0x80:
            return bytes([status, rng.randrange(256)])  # running status
        pitch = rng.choice((0, 60, 60, 61, 127, 64, 123, 255))
        return bytes([status | rng.randrange(2), pitch]) + bytes([rng.randrange(128)]) * (status & 0xE0 != 0xC0)

    def track(most: int) -> bytes:
        waits = (0, 0, 1, 120, 480, 480, 2**14, 2**21, 2**28 - 1)
        weights = (8, 8, 4, 8, 8, 8, 1, 0.1, 0.05)
        body = b"".join(delta(rng.choices(waits, weights)[0]) + event() for _ in range(rng.choice((0, 1, 5, 40, most))))
        body += rng.choice((b"\x00\xff\x2f\x00", b"", b"\x87\xff\xff\x7f\xff\x2f\x00"))
        length = rng.choice((len(body), len(body), len(body), 0, len(body) + 9, 2**32 - 1))
        return rng.choice((b"MTrk", b"MTrk", b"MTrk", b"XFIH")) + struct.pack(">I", length) + body

    if rng.random() < 0.01:  # as many events of few kinds as a file may have
        return _many_events(rng)
    tracks = [track(200) for _ in range(rng.choice((0, 1, 1, 2, 5, 40)))]
    division = rng.choice((480, 480, 96, 1, 0, 32767, 0xE250, 0x8000))
    header = struct.pack(">HHH", rng.choice((0, 1, 1, 2, 9)), rng.choice((len(tracks), 0, 9)), division)
    return b"MThd" + struct.pack(">I", rng.choice((6, 6, 6, 0, 7, 2**31))) + header + b"".join(tracks)


def _many_events(rng: random.Random) -> bytes:
    kinds: list[Callable[[], bytes]] = [
        lambda: bytes([rng.choice((0x80, 0x90)), rng.randrange(128), rng.randrange(128)]),
        lambda: bytes([0x90, rng.choice((60, 60, 61)), rng.choice((0, 64, 64))]),
        lambda: bytes([0xB0, 64, rng.choice((0, 127))]),
        lambda: bytes([0xB0, rng.choice((120, 121, 123)), 0]),
        lambda: b"\xff\x51\x03" + rng.randbytes(3),
        lambda: b"\xff\x58\x04" + bytes([rng.randrange(1, 256), rng.randrange(7), 24, 8]),
        lambda: b"\xff\x06" + delta(len(END_MARKER)) + END_MARKER.encode(),
        lambda: b"\xff\x03\x04name",
        lambda: bytes([0x90 | rng.randrange(16), 60, 64]),
    ]
    used, waits = rng.sample(kinds, rng.choice((1, 2, 3))), rng.choice((b"\0", b"\0\0\0\1", b"\1\2", b"\x30"))
    count, tracks = rng.choice((2000, 20_000, 200_000)), rng.choice((1, 1, 1, 1000))
    made = []
    for _ in range(tracks):
        events = [bytes([rng.choice(waits)]) + rng.choice(used)() for _ in range(count // tracks)]
        body = b"".join([*events, b"\0\x90\x3c\x40\x60\x80\x3c\x40\0\xff\x2f\0"])
        made.append(b"MTrk" + struct.pack(">I", len(body)) + body)
    division = rng.choice((24, 480, 480, 32767))
    return b"MThd" + struct.pack(">IHHH", 6, 1, tracks, division) + b"".join(made)


def use_midi(path: Path) -> None:
    """As a recipe, and as music given: its health, and something composed around it written into a copy."""
    with suppress(UserError):
        cli.resolve_config(GenerateConfig, {"like": str(path)})
    find_faults(PianoRoll.from_midi(path))
    rng = random.Random(path.stat().st_size)
    modes: tuple[dict[str, Any], ...] = (
        {"mode": "conditional", "condition_midi": str(path), "bars": 2.0},
        {"mode": "inpainting", "input_midi": str(path), "mask_start": 0, "mask_end": 8},
        {"mode": "accompany", "input_midi": str(path), "voice": rng.choice(("highest", "track:0", "track:x"))},
        {"mode": "variation", "input_midi": str(path), "strength": 0.5, "pedal": rng.choice(("follow", "ignore"))},
    )
    task = assignment(GenerateConfig(**rng.choice(modes)), tiny.model_config(), seed=0)
    known, out = task.known(), path.with_name("out.mid")
    assert known is not None
    task.write(task.finish(PianoRoll(known.clip(0).astype(np.uint8))), out, "a note", ())
    PianoRoll.from_midi(out)
