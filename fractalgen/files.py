"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fractalgen.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` to write to; it takes the place of ``path`` only when the block succeeds.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the ending, by which encoders know the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # usually gone already; and a folder that refused the file has none to clear away
            temporary.unlink()


def write_json(path: str | Path, data: Any) -> None:
    """Write plain data, indented.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
