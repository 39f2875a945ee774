"""The parts of ``fractalgen generate``: composed and written here, or composed on a cluster and written here."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fractalgen.bulk import ALONE, Part, loaded_model
from fractalgen.compose.composition import Composition
from fractalgen.compose.output import write_pictures
from fractalgen.compose.recipe import PREFIX, read_recipe
from fractalgen.config import GenerateConfig
from fractalgen.errors import UserError
from fractalgen.features.notes import note_statistics
from fractalgen.files import replacing
from fractalgen.music.labels import SPELLED
from fractalgen.music.plan import Plan
from fractalgen.parallel import ordered

if TYPE_CHECKING:
    from fractalgen.music.pianoroll import PianoRoll


class Order(NamedTuple):
    """A part to compose: all settings with their seed, and the names of the pieces to write, by number."""

    cfg: GenerateConfig
    part: Part
    names: dict[int, str]


class Written(NamedTuple):
    """What became of a part: figures of its pieces, and the number of pictures that failed."""

    rows: dict[str, dict[str, float]]
    failures: int


def write_part(
    job: Composition,
    order: Order,
    folder: Path,
    written: Callable[[int], object],
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Compose a part and write its files; MIDI batch by batch, before any picture.

    ``written(index)`` is told of each MIDI file, ``progress`` as :func:`fractalgen.rolls.compose_rolls` does.
    """
    names, first = order.names, order.part.first
    last = max(names)

    def keep(start: int, batch: list[PianoRoll], plans: list[Plan | None]) -> bool:
        """Write the pieces of a batch and return whether all wanted ones are written."""
        for index, (roll, drawn) in enumerate(zip(batch, plans, strict=True), first + start):
            if index in names:
                job.write(index, job.work.finish(roll), drawn, folder / f"{names[index]}.mid")
                written(index)
        return first + start + len(batch) > last

    rolls, traces = job.part(order.part).compose(progress=progress, each_batch=keep)
    own = [index - first for index in names]
    before = 0 if job.cfg.sample is not None else first
    failures = write_pictures(
        job.cfg, folder, list(names.values()), [rolls[i] for i in own], [traces[i] for i in own], before
    )
    rows = {}
    for index, name in names.items():
        key = job.key(index)
        roll = rolls[index - first]
        rows[name if key is None else f"{name} in {SPELLED.get(key, key)}"] = note_statistics(
            roll.tokens, roll.steps_per_bar
        )
    return Written(rows, failures)


def has_all_files(name: str, folder: Path) -> bool:
    """Whether the first and the last file of a piece are there: its music and its picture."""
    return all((folder / f"{name}{ending}").is_file() for ending in (".mid", ".png"))


def is_complete(job: Composition, names: dict[int, str], folder: Path) -> bool:
    """Whether this command has written all files of a part before.

    Raises:
        UserError: another command has.
    """
    if not all(has_all_files(name, folder) for name in names.values()):
        return False
    index, name = max(names.items())
    path = folder / f"{name}.mid"
    if PREFIX + json.dumps(read_recipe(str(path)), sort_keys=True) != job.recipe(index):
        raise UserError(f"--resume: {path} is of another command; choose another --output_dir, or --overwrite")
    return True


@functools.lru_cache(maxsize=1)
def prepared(cfg: GenerateConfig) -> Composition:
    """The job of a command, kept from one of its parts to the next."""
    return Composition.prepare(cfg, loaded_model(cfg.checkpoint, cfg.model, cfg.device))


def compose_remotely(order: Order) -> tuple[dict[str, bytes], Written]:
    """Compose a part on a worker; the files that it gives, by name."""
    with ALONE, tempfile.TemporaryDirectory() as folder:
        found = write_part(prepared(order.cfg), order, Path(folder), lambda index: None)
        files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}, found


def from_cluster(
    address: str, orders: list[Order], folder: Path, written: Callable[[int], object]
) -> Iterator[Written]:
    """Compose parts on the workers of a Dask cluster and write their files here.

    Raises:
        UserError: a part that kills every worker, or the cluster is lost.
    """

    def killed(order: Order) -> tuple[dict[str, bytes], Written]:
        first, last = order.part.first, order.part.first + order.part.size - 1
        raise UserError(f"--scheduler {address}: workers died that composed the pieces {first} to {last}")

    results = ordered(compose_remotely, orders, killed, scheduler=address, batch=1)
    for order, (files, found) in zip(orders, results, strict=True):
        for name, content in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)
        for index in order.names:
            written(index)
        yield found
