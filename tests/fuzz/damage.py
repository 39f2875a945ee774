"""Good content made bad at random: bytes, plain data, JSON, arrays."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 256, 2**31 - 1, 2**31, 2**63, 10**30, -(10**30)),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "ar", "../../etc/passwd", "\x00", "é" * 50),
    *([], {}, [[]], [None], [0, 0], [-1, 2**40], {"": 0}, [[0, 4, 4]], [[0, 0, 0]], [[5, 3, 8], [1, 4, 4]]),
)
TOUCHED = "FRACTALGEN_FUZZ_TOUCHED"  # names a file that code in a hostile file would make


class Payload:
    """Makes a file if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch "${TOUCHED}"',)


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
    odd = ["1e999", "-Infinity", "NaN", r'"\ud800"', r'"\u0000"', "tru", '"', f'"{"x" * 5000}"', "9" * 5000]
    odd += ["0," * 5000, f"[{'0,' * 5000}0]", "[" * deep, "[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep]
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
            worths: list[Any] = [0, 1]
            if changed.dtype.kind == "f":
                worths += [-128, 127, float("nan")]
            elif changed.dtype.kind in "iu":
                bounds: Any = np.iinfo(changed.dtype)
                worths += [bounds.min, bounds.max, -1 if bounds.min else 2]
            places = [rng.randrange(changed.size) for _ in range(rng.choice((1, 4, changed.size))) if changed.size]
            changed.flat[places] = rng.choice(worths)
            return changed


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
