"""Hostile input: files damaged at random, and what users do with them; on Linux.

A case is a seed: it chooses a good file, damages it (by bytes, or by structure: a valid container of wrong content),
and gives it to the code that a command would run.  A file may be accepted, or refused (``UserError``) with one line
that names it.  Everything else is a fault: another exception, another message, code out of the file, more than
``LIMIT_SECONDS`` or ``LIMIT_MEGABYTES``.
"""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import process_megabytes
from fractalgen.config import GenerateConfig, TrainConfig
from fractalgen.errors import UserError
from fractalgen.parallel import within
from tests.fuzz import midi, packed, settings
from tests.fuzz.damage import TOUCHED, damage_bytes

LIMIT_SECONDS = 5
LIMIT_MEGABYTES = 1000
LONGEST_LINE = 500  # characters, the path of the file apart
SETTINGS = (*TrainConfig.__dataclass_fields__, *GenerateConfig.__dataclass_fields__)


@dataclass(frozen=True)
class Kind:
    """A kind of file: its ending, good ones (made in a folder), damage by structure, and what is done with it."""

    ending: str
    good: Callable[[Path], list[bytes]]
    structure: Callable[[bytes, random.Random], bytes]
    use: Callable[[Path], None]


KINDS = {
    "midi": Kind(".mid", midi.midi_files, midi.midi_grammar, midi.use_midi),
    "trace": Kind(".npz", packed.traces, packed.trace_structure, packed.use_trace),
    "corpus": Kind(".safetensors", packed.corpora, packed.safetensors_structure, packed.use_corpus),
    "checkpoint": Kind(".safetensors", packed.checkpoints, packed.checkpoint_structure, packed.use_checkpoint),
    "yaml": Kind(".yaml", settings.yaml_files, settings.yaml_structure, settings.use_yaml),
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
    ending = ".ckpt" if kind.good is packed.checkpoints and content[:2] == b"PK" else kind.ending
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
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the most is counted anew
        before = process_megabytes("VmHWM")
        began, fault = time.process_time(), ""  # what else the machine does is not counted
        try:
            with memory_limit(2 * LIMIT_MEGABYTES), redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.filterwarnings("error", "(divide|invalid|overflow|underflow) ", RuntimeWarning)  # of NumPy
                within(4 * LIMIT_SECONDS, kind.use, path)
            tally.accepted += 1
        except UserError as error:
            tally.refused += 1
            fault = _wrong_message(error, path)
        except BaseException as error:  # pytest's and the alarm's too
            if isinstance(error, KeyboardInterrupt):
                raise
            fault = f"{type(error).__name__}: {str(error)[:200]}"
        seconds = time.process_time() - began
        megabytes = process_megabytes("VmHWM") - before
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


@contextmanager
def memory_limit(megabytes: int) -> Iterator[None]:
    """A ``MemoryError`` where so much more would be taken at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(process_megabytes("VmSize") + megabytes) << 20
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
