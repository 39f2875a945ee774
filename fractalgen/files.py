"""Files that are written completely or not at all, even if the process or the power fails."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fractalgen.errors import UserError, reason

if TYPE_CHECKING:
    import numpy.typing as npt

ASSETS = Path(__file__).parent / "assets"


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
        _flush(temporary)
        os.replace(temporary, path)
        if os.name == "posix":  # the new name is on the disk, too
            _flush(path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # usually gone already; and a folder that refused the file has none to clear away
            temporary.unlink()


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, data: Any) -> None:
    """Write plain data, indented.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def write_tensors(path: str | Path, tensors: Mapping[str, npt.NDArray[Any]], metadata: Any) -> None:
    """Write arrays and plain data to a ``.safetensors`` file, with the permissions of any other new file.

    Raises:
        UserError: the folder cannot be made or written to, or the disk is full.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as temporary:
        temporary.touch()
        permissions = temporary.stat().st_mode  # the library puts a private file in its place
        try:
            save_file(dict(tensors), temporary, {"fractalgen": json.dumps(metadata)})
        except SafetensorError as error:
            raise OSError(reason(error)) from error
        temporary.chmod(permissions)


def writable_folder(path: str | Path) -> Path:
    """The folder of ``--output_dir`` or one in it, made if needed; UserError when files cannot be made in it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--output_dir {path}: cannot be written to ({error.strerror})") from None
    return folder


def read_text(path: Path, flag: str) -> str:
    """The text of a small file that a user names.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{flag} {path}: cannot be read ({getattr(error, 'strerror', None) or 'not a text'})"
        ) from error
