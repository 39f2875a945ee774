"""MIDI files of any shape, and random music for what is composed in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from fractalgen.music.midi_parser import DRUMS
from fractalgen.music.tasks import Task
from fractalgen.music.tokens import HOLD, ONSET
from tests.midi_files import delta, meta, midi

QUARTERS = 6  # length of the random files
Timed = list[tuple[int, bytes]]


def track(events: Timed) -> bytes:
    """A track from events at absolute ticks; those at one tick stay in their order."""
    events = sorted(events, key=lambda event: event[0])
    return b"".join(
        delta(tick - before) + data for before, (tick, data) in zip([0, *(t for t, _ in events)], events, strict=False)
    )


@st.composite
def sources(draw: st.DrawFn, overlapping: bool) -> bytes:
    """Files with several tracks, drums, tempo changes, controllers, texts, lone halves of notes, odd resolutions."""
    quarter = draw(st.sampled_from([1, 2, 3, 90, 480, 1001, 32_767]))
    tick = st.integers(0, QUARTERS * quarter)
    pitch = st.sampled_from([59, 60, 61, 100])
    velocity = st.integers(1, 127)
    conductor: Timed = [(0, meta(3, b"conductor")), (0, bytes([0xF0, 3, 1, 2, 0xF7])), (0, meta(0x59, b"\xfe\x01"))]
    tempi, meters = (st.lists(st.tuples(tick, st.integers(*range_))) for range_ in ((9000, 900_000), (2, 7)))
    conductor += [(at, meta(0x51, us.to_bytes(3, "big"))) for at, us in draw(tempi)]
    conductor += [(at, meta(0x58, bytes([beats, 2, 24, 8]))) for at, beats in draw(meters)]
    conductor += [(at, meta(6, b"verse")) for at in draw(st.lists(tick, max_size=2))]
    tracks = [conductor]
    for number in range(draw(st.integers(1, 3))):
        events: Timed = [(0, meta(3, f"part {number}".encode())), (0, bytes([0xC0 | number, 40 + number]))]
        busy: dict[tuple[int, int], list[tuple[int, int]]] = {}
        channels = st.sampled_from([number, number + 3, DRUMS])
        note = st.tuples(channels, pitch, tick, st.integers(0, 2 * quarter + 1), velocity)
        for channel, key, at, length, loud in draw(st.lists(note, max_size=12)):
            spans = busy.setdefault((channel, key), [])
            if overlapping or all(at + length < start or stop < at for start, stop in spans):
                spans.append((at, at + length))
                events += [(at, bytes([0x90 | channel, key, loud])), (at + length, bytes([0x80 | channel, key, 7]))]
        events += [(at, bytes([0xB0 | number, 64, v])) for at, v in draw(st.lists(st.tuples(tick, velocity)))]
        if overlapping:
            events += [(at, bytes([0x80, key, 0])) for at, key in draw(st.lists(st.tuples(tick, pitch), max_size=3))]
        tracks.append(events)
    tracks[1] += [(0, bytes([0x90, 62, 99])), (quarter, bytes([0x80, 62, 0]))]  # at least one note
    return midi(*map(track, tracks), division=quarter)


def composing(task: Task, seed: int, bins: int) -> np.ndarray[Any, Any]:
    """Fill the cells of a task with noise that has no orphans."""
    random = np.random.default_rng(seed)
    tokens = task.known[:, : task.width].copy()
    drawn = random.choice([0, HOLD, ONSET], tokens.shape, p=[0.55, 0.3, 0.15])
    drawn[drawn == ONSET] += random.integers(0, bins, (drawn == ONSET).sum())
    for step in range(task.width):
        silent = tokens[:, step - 1] == 0 if step else np.ones(128, np.bool_)
        new = np.where((drawn[:, step] == HOLD) & silent, 0, drawn[:, step])
        tokens[:, step] = np.where(tokens[:, step] < 0, new, tokens[:, step])
    return tokens.astype(np.uint8)
