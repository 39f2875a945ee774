"""Archives of arrays (traces, corpora, checkpoints) with wrong content, and what users do with them."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import export, save_pretrained
from fractalgen.config import ExportConfig, RenderConfig, SamplingConfig
from fractalgen.data import corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.errors import UserError
from fractalgen.evaluation.health import find_faults
from fractalgen.features.statistics import music_statistics
from fractalgen.render.stills import image
from fractalgen.trace import Trace
from fractalgen.training.fine_tuning import start_from
from tests import tiny
from tests.fuzz.damage import NASTY, Payload, damage_arrays, damage_bytes, damage_data, damage_json


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
    shape = rng.choice(("(1099511627776,)", "(0, 9999999999)", "(-1,)", "(True,)", "(1, 2", "(4096,) * 9", "(1e9,)"))
    kind = rng.choice(("'|u1'", "'<U100000000'", "'|O'", "[('a', '|O')]", "'|V2000000000'", "'x'", "1", "'<m8[Y]'"))
    order = rng.choice(("True", "False", "__import__('os')", "(" * 300 + ")" * 300, "1"))
    shape, kind = rng.choice(((shape, "'|u1'"), ("(128, 32)", kind), (shape, kind)))
    text = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    body = content[10 + int.from_bytes(content[8:10], "little") :]
    return content[:6] + rng.choice((b"\1\0", b"\1\0", b"\x03\0")) + struct.pack("<H", len(text)) + text + body


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


def use_checkpoint(path: Path) -> None:
    """Loaded to compose with, to train from, and to be shared."""
    with suppress(UserError):  # asks for a file of another name, maybe
        export(ExportConfig(checkpoint=str(path), out=str(path.with_name("out.safetensors"))))
    model = load_pretrained(path)
    start_from(FractalGen(model.config), str(path))
    patch = model.config.levels[1].patch
    model.generate(width=patch, seed=0, sampling=SamplingConfig(num_iter_list=(1,) * len(model.config.levels)))
