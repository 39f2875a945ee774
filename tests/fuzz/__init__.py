"""Hostile input: files damaged at random, and what users do with them.

A case is a seed: it chooses a good file, damages it (by bytes, or by structure: a valid container of wrong content),
and gives it to the code that a command would run.  A file may be accepted, or refused (``UserError``) with one line
that names it.  Everything else is a fault: another exception, another message, code out of the file, more than
``LIMIT_SECONDS`` or ``LIMIT_MEGABYTES``.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from fractalgen import cli
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import export, save_pretrained
from fractalgen.compose.assignment import assignment
from fractalgen.compose.checks import check_mode
from fractalgen.compose.recipe import PREFIX, write_recipe
from fractalgen.config import ExportConfig, GenerateConfig, ModelConfig, RenderConfig, SamplingConfig, TrainConfig
from fractalgen.config.yaml_files import CONFIGS
from fractalgen.data import corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.errors import UserError
from fractalgen.evaluation.health import find_faults
from fractalgen.evaluation.statistics import music_statistics
from fractalgen.music.midi import END_MARKER
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.render.stills import image
from fractalgen.trace import Trace
from fractalgen.training.fine_tuning import start_from
from tests import tiny
from tests.midi_files import delta

LIMIT_SECONDS = 5
LIMIT_MEGABYTES = 1000
LONGEST_LINE = 500  # characters, the path of the file apart
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 256, 2**31 - 1, 2**31, 2**63, 10**30, -(10**30)),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "ar", "../../etc/passwd", "\x00", "é" * 50),
    *([], {}, [[]], [None], [0, 0], [-1, 2**40], {"": 0}, [[0, 4, 4]], [[0, 0, 0]], [[5, 3, 8], [1, 4, 4]]),
)
SETTINGS = (*TrainConfig.__dataclass_fields__, *GenerateConfig.__dataclass_fields__)
TOUCHED = "FRACTALGEN_FUZZ_TOUCHED"  # names a file that code in a hostile file would make


class Payload:
    """Makes a file if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch "${TOUCHED}"',)


# ---------------------------------------------------------------------------------------------------- damage


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """A few bytes flipped, deleted, inserted, doubled or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data) + 1) if rng.random() < 0.7 else rng.randrange(min(len(data), 200) + 1)
        size = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = rng.randbytes(size)
            case 3:
                data[place:place] = data[place : place + size]
            case 4:
                number = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1))
                packed = struct.pack(rng.choice("<>") + "I", number)[-min(size, 4) :]
                data[place : place + len(packed)] = packed
            case 5 if rng.random() < 0.3:
                del data[place:]
    return bytes(data)


def damage_data(data: Any, rng: random.Random) -> Any:
    """Plain data (as of JSON) with one to three parts replaced, left out, doubled or added."""
    root = [deepcopy(data)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder, key = rng.choice(list(_places(root)))
        match rng.randrange(4):
            case 0 if holder is not root:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.insert(key, deepcopy(holder[key]))
            case 1 if isinstance(holder, dict):
                holder[rng.choice(("x", "", "seed", "levels", "echoes"))] = deepcopy(rng.choice(NASTY))
            case 2 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = rng.choice((holder[key] + 1, -holder[key], holder[key] * 1000, holder[key] / 3))
            case _:
                holder[key] = deepcopy(rng.choice(NASTY))
    return root[0]


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    for key in range(len(holder)) if isinstance(holder, list) else list(holder):
        yield holder, key
        if isinstance(holder[key], list | dict):
            yield from _places(holder[key])


def damage_json(text: str, rng: random.Random) -> str:
    """JSON text with other content, or such that parsers stumble over: deep nesting, long or odd numbers, no JSON."""
    if rng.random() < 0.7:
        return json.dumps(damage_data(json.loads(text), rng))
    if rng.random() < 0.2:
        return damage_bytes(text.encode(), rng).decode("latin-1")
    deep = rng.choice((50, 900, 20_000))
    odd: tuple[str, ...] = (
        "[" * deep + "]" * deep,
        '{"a":' * deep + "1" + "}" * deep,
        "[" * deep,
        "9" * 5000,
        "1e999",
        "-Infinity",
    )
    odd += ("NaN", '"\\ud800"', '"\\u0000"', '"' + "x" * 5000 + '"', "0," * 5000, f"[{'0,' * 5000}0]", "tru", '"')
    begin = rng.choice([index for index, sign in enumerate(text) if sign in ":,["]) + 1
    value = rng.choice(odd)
    return rng.choice((text[:begin] + value + text[begin + rng.choice((0, 1)) :], value, f"[{text}]", text + text))


def damage_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """An array of another shape, type or range."""
    if array.dtype.kind in "US":
        return rng.choice((np.array(3), np.array([]), np.array(["a", "b"]), np.array(b"\xff")))
    match rng.randrange(7):
        case 0:
            return array[: rng.randrange(len(array) + 1)] if array.ndim else array.reshape(1)
        case 1:
            return array[None] if rng.random() < 0.5 else array.reshape(-1)
        case 2:
            return np.concatenate([array, array]) if array.ndim else array
        case 3:
            with np.errstate(all="ignore"):
                return array.astype(rng.choice((np.uint8, np.int8, np.int64, np.float32, np.float64, np.bool_, ">i4")))
        case 4:
            return np.swapaxes(array, 0, -1).copy() if array.ndim else array
        case 5:
            return np.zeros((0,) * rng.randrange(1, 4), array.dtype)
        case _:
            changed = array.astype(np.float64) if rng.random() < 0.1 else array.copy()
            lowest, highest = (0, 1) if changed.dtype.kind == "b" else (-128, 127)
            if np.issubdtype(changed.dtype, np.integer):
                bounds: Any = np.iinfo(changed.dtype)
                lowest, highest = bounds.min, bounds.max
            worth = rng.choice(
                (lowest, highest, 0, 1, -1 if lowest else 2, *([float("nan")] * (changed.dtype.kind == "f")))
            )
            flat = changed.reshape(-1)
            for _ in range(rng.choice((1, 4, flat.size))):
                if flat.size:
                    flat[rng.randrange(flat.size)] = worth
            return flat.reshape(changed.shape)


def damage_arrays(arrays: dict[str, np.ndarray], rng: random.Random) -> dict[str, np.ndarray]:
    """Arrays by name, one of them changed, missing, swapped for another or added."""
    arrays = dict(arrays)
    name = rng.choice(sorted(arrays))
    match rng.randrange(6):
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = arrays[rng.choice(sorted(arrays))]
        case 2:
            arrays["more"] = arrays[name]
        case _:
            arrays[name] = damage_array(arrays[name], rng)
    return arrays


# ------------------------------------------------------------------------------------------------------ MIDI


@cache
def midi_files(_: Path) -> list[bytes]:
    """Small good (and some odd) files."""
    folder = Path(__file__).parents[1] / "cases"
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".mid", ".kar", ".rmi", ".gz")]


def midi_grammar(_: bytes, rng: random.Random) -> bytes:
    """A file whose chunks are well formed and whose events are not."""

    def event() -> bytes:
        status = rng.choice(
            (0x80, 0x90, 0x90, 0xA0, 0xB0, 0xC0, 0xD0, 0xE0, 0xF0, 0xF7, 0xFF, 0xFF, rng.randrange(256))
        )
        if status in (0xF0, 0xF7):
            body = rng.randbytes(rng.randrange(6))
            return bytes([status]) + delta(rng.choice((len(body), len(body), 0, 1, 2**21))) + body
        if status == 0xFF:
            kind = rng.choice((0x00, 0x01, 0x03, 0x06, 0x2F, 0x51, 0x54, 0x58, 0x59, 0x7F, rng.randrange(256)))
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
    known = task.known()
    assert known is not None
    task.write(
        task.finish(PianoRoll(np.where(known < 0, 0, known).astype(np.uint8))), path.with_name("out.mid"), "a note", ()
    )
    PianoRoll.from_midi(path.with_name("out.mid"))


# ---------------------------------------------------------------------------------------------------- traces


@cache
def traces(folder: Path) -> list[bytes]:
    """The record of a small piece, with chances and without."""
    (plain,) = tiny.intermediates(tiny.tokens(0)[None]).traces
    settings = {"tempos": [[0, 90.0]], "meters": [[0, 3, 4]], "steps_per_bar": 12, "steps_per_quarter": 4}
    made = (plain, replace(plain, settings=settings, chances=plain.tokens))
    for index, trace in enumerate(made):
        trace.save(folder / f"{index}.npz")
    return [(folder / f"{index}.npz").read_bytes() for index in range(len(made))]


def trace_structure(content: bytes, rng: random.Random) -> bytes:
    """An archive of arrays, with wrong arrays, header, array headers or packing."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file}
    if rng.random() < 0.5:
        arrays["header"] = np.array(damage_json(str(arrays["header"]), rng))
    elif rng.random() < 0.02:
        return _bomb(arrays, rng)
    else:
        arrays = damage_arrays(arrays, rng)
    if rng.random() < 0.05:
        arrays[rng.choice(sorted(arrays))] = np.array([Payload()], object)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    if rng.random() < 0.6:
        return packed.getvalue()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    again = io.BytesIO()
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(again, "w", method) as target:
        for name in source.namelist():
            inside = source.read(name)
            if rng.random() < 0.2:
                inside = inside[:8] + damage_bytes(inside[8:128], rng) + inside[128:]
            elif rng.random() < 0.1:
                inside = _array_header(inside, rng)
            name = rng.choice((name[:-4], name.upper(), f"../{name}", "x")) if rng.random() < 0.05 else name
            target.writestr(name, inside)
            if rng.random() < 0.05:
                target.writestr(name, inside)
    return _zip_fields(again.getvalue(), rng) if rng.random() < 0.3 else again.getvalue()


def _array_header(content: bytes, rng: random.Random) -> bytes:
    """An array whose header says another type, order or shape (or no literal at all) than its bytes have."""
    shape = rng.choice(
        ("(1099511627776,)", "(0, 9999999999)", "(-1,)", "(True,)", "(1, 2", "[1]", "(4096,) * 9", "(1e9,)")
    )
    kind = rng.choice(("'|u1'", "'<U100000000'", "'|O'", "[('a', '|O')]", "'|V2000000000'", "'x'", "1", "'<m8[Y]'"))
    order = rng.choice(("True", "False", "__import__('os')", "(" * 300 + ")" * 300, "1"))
    shape, kind = rng.choice(((shape, "'|u1'"), ("(128, 32)", kind), (shape, kind)))
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    body = content[10 + int.from_bytes(content[8:10], "little") :]
    return content[:6] + rng.choice((b"\1\0", b"\1\0", b"\x03\0")) + struct.pack("<H", len(text)) + text + body


def _bomb(arrays: dict[str, np.ndarray], rng: random.Random) -> bytes:
    """A small archive of arrays that are large, or said to be."""
    count = rng.choice((10**6, 10**7, 2 * 10**7))
    match rng.randrange(4):
        case 0:
            arrays |= {"steps": np.zeros((count, 2), np.int16), "seconds": np.zeros(count, np.float32)}
        case 1:
            arrays["header"] = np.array(f"[{'0,' * count}0]")
        case 2:
            width = rng.choice((65_520, 65_536, 10**6))
            arrays |= {"tokens": np.zeros((128, width), np.uint8), "known": np.zeros((128, width), bool)}
            arrays["decided"] = np.full((4, 128, width), -1, np.int16)
        case _:
            arrays["more"] = np.zeros(20 * count, np.uint8)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
    return packed.getvalue()


def _zip_fields(content: bytes, rng: random.Random) -> bytes:
    """Another number in an entry of the archive's directory, or in the header of a member."""
    data = bytearray(content)
    mark, places = rng.choice(
        ((b"PK\1\2", (8, 10, 16, 20, 24, 28, 30, 32, 42)), (b"PK\3\4", (6, 8, 14, 18, 22, 26, 28)))
    )
    found = [place for place in range(len(data)) if data[place : place + 4] == mark]
    place = rng.choice(found) + rng.choice(places)
    number = rng.choice((0, 1, 8, 9, 12, 14, 93, 95, 99, 0x0800, 0xFFFF, 2**31 - 1, 2**32 - 1))
    size = 4 if number > 0xFFFF else 2
    data[place : place + size] = number.to_bytes(size, "little")
    return bytes(data)


def use_trace(path: Path) -> None:
    """Loaded, judged, every view of it looked at, and one picture drawn."""
    trace = Trace.load(path)
    find_faults(trace)
    trace.bars  # noqa: B018
    for view in ("process", "hierarchical", "levels", *(["density"] if trace.chances is not None else [])):
        frames = trace.frames(view, max_frames=3)  # type: ignore[arg-type]
        for index in range(len(frames)):
            frames[index]
    if trace.width <= 4 * tiny.WIDTH:
        image(trace.frames()[-1], RenderConfig(gif_scale=1, gif_grid=True, gif_stats=True))


# --------------------------------------------------------------------------------------------------- corpora


@cache
def corpora(folder: Path) -> list[bytes]:
    """A small corpus."""
    return [tiny.corpus(folder / "corpus.safetensors").read_bytes()]


def _table(content: bytes) -> dict[str, Any]:
    """What stands at the head of a .safetensors file."""
    table: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return table


def safetensors_structure(content: bytes, rng: random.Random) -> bytes:
    """Damage to the table of tensors, to their content, or to the JSON that describes them."""
    table = _table(content)
    arrays, about = safetensors.numpy.load(content), json.loads(table["__metadata__"]["fractalgen"])
    text = json.dumps(about)
    match rng.randrange(3):
        case 0:
            text = damage_json(text, rng)
        case 1:
            arrays = damage_arrays(arrays, rng)
        case _:
            body = content[8 + int.from_bytes(content[:8], "little") :]
            damaged = damage_json(json.dumps(table), rng).encode()
            length = len(damaged) if rng.random() < 0.95 else rng.choice((0, 2**40, 2**63, 2**64 - 1))
            return length.to_bytes(8, "little") + damaged + body
    arrays = {name: np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}
    return safetensors.numpy.save(arrays, metadata={"fractalgen": text})


def use_corpus(path: Path) -> None:
    """Opened, its crops drawn for training and validation, all that is told of a song asked for."""
    found = corpus.Corpus.open(path)
    attributes = found.vocabulary
    for split in ("train", "valid"):
        if found.indices(split):
            crops = ValidCrops(found, split, tiny.WIDTH, 3, attributes=attributes)
            for index in range(len(crops)):
                crops[index]
    drawn = CropDataset(found, "train", tiny.WIDTH, transpose=(-2, 2), attributes=attributes)
    for _ in range(3):
        drawn[0]
    for index in range(min(len(found), 3)):
        roll = found.roll(index)
        roll.downbeats()
        found.beats(index)
        found.keys(index)
        found.song(index)
        if roll.width <= 4096:
            music_statistics(roll.tokens[None], roll.steps_per_bar)


# ----------------------------------------------------------------------------------------------- checkpoints


@cache
def checkpoints(folder: Path) -> list[bytes]:
    """A small model to share."""
    path = folder / "model.safetensors"
    torch.manual_seed(0)
    save_pretrained(FractalGen(tiny.model_config(embed_dims=(8, 8, 8, 8))), path, dtype=torch.float32)
    return [path.read_bytes()]


def checkpoint_structure(content: bytes, rng: random.Random) -> bytes:
    """As :func:`safetensors_structure`, or a training checkpoint with wrong content, or with code in it."""
    if rng.random() < 0.6:
        return safetensors_structure(content, rng)
    header = json.loads(_table(content)["__metadata__"]["fractalgen"])
    state = {f"model.{name}": value for name, value in safetensors.torch.load(content).items()}
    whole: Any = {"fractalgen": header, "state_dict": state, "global_step": 3}
    match rng.randrange(4):
        case 0:
            whole["fractalgen"] = damage_data(header, rng)
            if rng.random() < 0.2:
                whole = _large_model(header, rng)
        case 1:
            name = rng.choice(sorted(state))
            odd: tuple[Any, ...] = (None, 3, "x", torch.zeros(0), torch.zeros(3, 3, 3), state[name].long(), [1])
            odd += (torch.zeros(1).expand(state[name].shape), state[name].to(torch.float8_e4m3fn), state[name] * 1e30)
            state[name] = rng.choice((*odd, state[name].to_sparse(), state[name] * float("nan")))
        case 2:
            whole[rng.choice(sorted(whole))] = rng.choice((*NASTY, Payload()))
        case 3:
            whole = rng.choice((*NASTY, Payload(), state))
    made = io.BytesIO()
    torch.save(whole, made)
    return made.getvalue() if rng.random() < 0.8 else damage_bytes(made.getvalue(), rng)


def _large_model(header: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """The weights of a model of many gigabytes, of which the file holds one number."""
    model = deepcopy(header["model"])
    for level in model["levels"]:
        level |= {"width": rng.choice((64, 8192, 16_384)), "depth": rng.choice((1, 32, 256))}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in FractalGen(ModelConfig.from_dict(model)).state_dict().items()}
    one = torch.zeros(1)
    weights = {f"model.{name}": one.expand(shape) for name, shape in shapes.items()}
    return {"fractalgen": {**header, "model": model}, "state_dict": weights, "global_step": 3}


def use_checkpoint(path: Path) -> None:
    """Loaded to compose with, to train from, and to be shared."""
    with suppress(UserError):  # asks for a file of another name, maybe
        export(ExportConfig(checkpoint=str(path), out=str(path.with_name("out.safetensors"))))
    model = load_pretrained(path)
    start_from(FractalGen(model.config), str(path))
    patch = model.config.levels[1].patch
    model.generate(width=patch, seed=0, sampling=SamplingConfig(num_iter_list=(1,) * len(model.config.levels)))


# ------------------------------------------------------------------------------------------------------ YAML


@cache
def yaml_files(_: Path) -> list[bytes]:
    """The shipped configurations, and one to compose by."""
    composing = b"mode: unconditional\nquality: best\nbars: 4\nmask: [bars=1:2]\nkey: A minor\ntemperature: [1, 0.9]\n"
    return [*(path.read_bytes() for path in sorted(CONFIGS.glob("*.yaml"))), composing]


YAML_VALUES = (
    *(
        "",
        "~",
        "null",
        "true",
        "-1",
        "0",
        "1",
        "3",
        "1e400",
        ".nan",
        ".inf",
        "0x7fffffffffffffff",
        "9" * 400,
        "9" * 5000,
    ),
    *("[]", "{}", "[1, 2]", "[1, [2]]", "{a: 1}", "!!python/object/apply:os.system ['touch $FRACTALGEN_FUZZ_TOUCHED']"),
    *(
        "!!binary aGk=",
        "2026-01-01",
        "2026-13-45",
        "!!set {a}",
        "&a [*a]",
        "*b",
        "'",
        '"\\ud800"',
        "[" * 200 + "]" * 200,
    ),
    *(
        "[" * 5000,
        "{" * 3000,
        "!!int x",
        "!!float x",
        "!!timestamp x",
        "? a",
        "<<: 3",
        "- 1",
        "\t1",
        "é",
        "1:59:59",
        "0b2",
        "[" + "1, " * 3000 + "1]",
        "x" * 5000,
        "- " * 3000,
        "&h [1, 2]",
        "*h",
    ),
)
ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])
MERGED = ALIASES.replace("[x, x]", "{x: 1}").replace(" [*", " {<<: [*").replace("]", "]}")
"""Lists in lists, and mappings merged into mappings: each is nine times the one before."""
YAML_LINES = (
    "1: 2",
    "[1]: 2",
    "{a: b}: c",
    "null: 3",
    "? [a]\n: b",
    "--- \na: 1",
    "%YAML 9.9",
    "a: &x [*x]",
    "<<: [1]",
    ALIASES,
    MERGED,
    "scan_order: &a [&b [&c [&d [&e [x, x, x], *e, *e, *e, *e], *d, *d, *d, *d], *c, *c, *c, *c], *b, *b, *b, *b]",
    "\n".join(f"k{n}: 1" for n in range(5000)),
    "? " * 2000,
)


def yaml_structure(content: bytes, rng: random.Random) -> bytes:
    """Lines with other values, or lines that no configuration has."""
    lines = content.decode().splitlines()
    names = [line.split(":")[0] for line in lines if ":" in line and not line.startswith("#")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines) + 1)
        name = rng.choice([*names, *TrainConfig.__dataclass_fields__])
        value = rng.choice((*YAML_VALUES, *map(str, NASTY)))
        lines = [line for line in lines if not line.startswith(f"{name}:")] if rng.random() < 0.9 else lines
        lines.insert(place, f"{name}: {value}" if rng.random() < 0.8 else rng.choice(YAML_LINES))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def use_yaml(path: Path) -> None:
    """Settings of a training, whose model is laid out, and of a composition; refused if neither."""
    refused = []
    for config in (TrainConfig, GenerateConfig):
        try:
            found = cli.resolve_config(config, {}, [str(path)])
            if isinstance(found, TrainConfig):
                found.model_config()
            else:
                check_mode(found)
        except UserError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0 if "unknown key" not in str(refused[0]) else 1]


# ------------------------------------------------------------------------------------------------- all kinds


@dataclass(frozen=True)
class Kind:
    """A kind of file: its ending, good ones (made in a folder), damage by structure, and what is done with it."""

    ending: str
    good: Callable[[Path], list[bytes]]
    structure: Callable[[bytes, random.Random], bytes]
    use: Callable[[Path], None]


KINDS = {
    "midi": Kind(".mid", midi_files, midi_grammar, use_midi),
    "trace": Kind(".npz", traces, trace_structure, use_trace),
    "corpus": Kind(".safetensors", corpora, safetensors_structure, use_corpus),
    "checkpoint": Kind(".safetensors", checkpoints, checkpoint_structure, use_checkpoint),
    "yaml": Kind(".yaml", yaml_files, yaml_structure, use_yaml),
}


@dataclass
class Tally:
    """What became of the cases of one kind; ``faults`` are (seed, what went wrong)."""

    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    megabytes: float = 0.0
    """The most memory that a case took besides what the process had."""
    faults: list[tuple[int, str]] = field(default_factory=list)


def make_case(kind: Kind, seed: int, folder: Path) -> Path:
    """The damaged file of a seed, in ``folder``."""
    rng = random.Random(seed)
    content = rng.choice(kind.good(folder / "good"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of names that stand there twice
        content = kind.structure(content, rng) if rng.random() < 0.6 else damage_bytes(content, rng)
    ending = ".ckpt" if kind.good is checkpoints and content[:2] == b"PK" else kind.ending
    path = folder / f"case{ending}"
    path.write_bytes(content)
    return path


def run(name: str, seeds: Iterable[int], folder: Path) -> Tally:
    """Damage and use a file for each seed; a faulty one is kept in ``folder`` under the name of its kind and seed."""
    kind, tally = KINDS[name], Tally()
    (folder / "good").mkdir(parents=True, exist_ok=True)
    touched = folder / "touched"
    os.environ[TOUCHED] = str(touched)
    for seed in seeds:
        path = make_case(kind, seed, folder)
        before = _fresh_memory()
        began, fault = time.process_time(), ""  # what else the machine does is not counted
        try:
            with (
                _at_most(4 * LIMIT_SECONDS, 2 * LIMIT_MEGABYTES),
                redirect_stdout(io.StringIO()),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", "(divide|invalid|overflow|underflow) ", RuntimeWarning)  # of NumPy
                kind.use(path)
            tally.accepted += 1
        except UserError as error:
            tally.refused += 1
            fault = _wrong_message(error, path)
        except BaseException as error:  # pytest's and the alarm's too
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = f"{type(error).__name__}: {str(error)[:200]}"
        seconds = time.process_time() - began
        megabytes = _memory("VmHWM") - before
        tally.slowest, tally.megabytes = max(tally.slowest, seconds), max(tally.megabytes, megabytes)
        if touched.exists():
            touched.unlink()
            fault = "code out of the file was run"
        if seconds > LIMIT_SECONDS:
            fault = fault or f"{seconds:.1f} seconds"
        if megabytes > LIMIT_MEGABYTES:
            fault = fault or f"{megabytes:.0f} MB"
        if fault:
            tally.faults.append((seed, fault))
            shutil.copy(path, folder / f"{name}_{seed}{path.suffix}")
    return tally


def _wrong_message(error: UserError, path: Path) -> str:
    """What is wrong with a refusal: it is to be one short line that names the file or a flag of it, and no guess."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "allocate" in str(cause):
            return f"asked for memory: {cause}"[:200]
        cause = cause.__cause__ or cause.__context__
    message = str(error)
    if len(message.replace(str(path), "")) > LONGEST_LINE:
        return f"a message of {len(message)} characters"
    if not message.isprintable():
        return f"a message that is no line: {message!a}"[:200]
    flags = path.suffix in (".yaml", ".mid")  # what is asked of a good file may not fit it
    named = str(path) in message or (flags and any(name in message for name in SETTINGS))
    return "" if named else f"a message that names no file: {message}"[:200]


def _memory(what: str) -> float:
    """Memory of this process in MB, VmRSS now or VmHWM at most since :func:`_fresh_memory`; 0 where nothing tells."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{what}:")), 0.0)


def _fresh_memory() -> float:
    """Memory in MB, from which on the most is counted anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _memory("VmHWM")


@contextmanager
def _at_most(seconds: int, megabytes: int) -> Iterator[None]:
    """A ``TimeoutError`` after so many seconds, a ``MemoryError`` where so much more would be taken at once."""

    def alarm(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, alarm)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if size := _memory("VmSize"):
        most = int(size + megabytes) << 20
        resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)
