"""The documentation as a site: ``python scripts/build_docs.py [FOLDER]`` writes FOLDER/site (default: outputs/docs).

The pages are the Markdown files of the repository.  They are laid out in a folder as they are here, so that their links
to each other hold in both places; of a link to anything else, such as source code, its text remains.  Zensical builds
the site by ``mkdocs.yml`` and ends with an error when a link between pages leads nowhere.  ``pip install
'fractalgen-piano[docs]'``
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/**/*", "fractalgen/assets/models/*.md", "fractalgen/assets/piano/*.md", "LICENSE")
LOGO = "fractalgen/assets/studio/icon.svg"
_LINK = re.compile(r"(?<!!)\[((?:`[^`]*`|[^\[\]])+)\]\((?!https?:|mailto:)([^)#\s]+)(#[^)]*)?\)")


def lay_out(target: Path) -> None:
    """Copy pages, pictures and music; links to what is not copied become text."""
    shutil.rmtree(target, ignore_errors=True)
    files = [path for pattern in (*PAGES, LOGO) for path in ROOT.glob(pattern) if path.is_file()]
    copied = set(files)
    for file in files:
        place = target / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".md":
            shutil.copyfile(file, place)
            continue

        def kept(link: re.Match[str], folder: Path = file.parent) -> str:
            return link[0] if Path(os.path.normpath(folder / link[2])) in copied else link[1]

        place.write_text(_LINK.sub(kept, file.read_text(encoding="utf-8")), encoding="utf-8")


def build(folder: Path) -> int:
    """Lay out and build; the exit status of Zensical."""
    lay_out(folder / "pages")
    settings: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    settings["docs_dir"] = "pages"
    python = settings["plugins"][1]["mkdocstrings"]["handlers"]["python"]
    python["paths"] = [str(ROOT)]
    python["options"]["extensions"] = [str(ROOT / name) for name in python["options"]["extensions"]]
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=ROOT / "outputs" / "docs", help="the site is in FOLDER/site"
    )
    sys.exit(build(parser.parse_args().folder.absolute()))
