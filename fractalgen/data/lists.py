"""What users list of the songs of a corpus: their splits, their styles, and whether their velocities mean anything."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fractalgen.data.corpus_file import SPLITS, Split
from fractalgen.errors import UserError


def read_splits(path: Path) -> dict[str, Split]:
    """The split of each song that a JSON file {split: [ids]} lists.

    Raises:
        UserError: it is no such file, or lists a song twice.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(set(content) - set(SPLITS))
        if unknown:
            raise UserError(f"--splits {path}: {unknown[0]!r} is none of {', '.join(SPLITS)}")
        pairs = [(str(name), split) for split in SPLITS for name in content.get(split, [])]
    except UserError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"--splits {path}: not a JSON file of id lists ({error})") from error
    _refuse_twice(f"--splits {path}", [name for name, _ in pairs])
    return dict(pairs)


def _refuse_twice(where: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UserError(f"{where}: {twice[0]!r} is listed twice")


class Listed(NamedTuple):
    """What a manifest says of a file: its style, and whether its velocities mean nothing."""

    style: str = ""
    flat: bool = False


def read_manifest(path: Path) -> dict[str, Listed]:
    """What a manifest says of each file.

    Raises:
        UserError: it cannot be read, a column is missing, or it lists a file twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
        rows = list(csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--manifest {path}: cannot be read ({error})") from error
    if not rows or not {"file", "style"} <= rows[0].keys():
        found = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise UserError(f"--manifest {path}: the columns `file` and `style` are needed (found: {found})")
    _refuse_twice(f"--manifest {path}", [row["file"] for row in rows if row["file"]])  # spreadsheets end in empty rows
    return {
        row["file"]: Listed((row["style"] or "").strip(), (row.get("velocities") or "").strip().lower() == "flat")
        for row in rows
    }
