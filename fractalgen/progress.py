"""The progress bar of composing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def composing_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar; what it gives is the ``progress`` of :func:`fractalgen.rolls.compose_rolls`."""
    with tqdm(desc="composing", unit="patch", dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
