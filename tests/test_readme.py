"""The commands and examples of the README and of most documents: each document has a copy of the checkout of its own.

A block that a test cannot run says so in a comment on the line above its fence::

    <!-- not tested: why -->        the block is left out
    <!-- tested as: command -->     this shorter form of the block is run instead

``my_midi/`` holds a few MIDI files of notes made up by the test; `python` and `fractalgen` are those of this test run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from fractalgen import PianoRoll
from tests.warm_python import warm_python

ROOT = Path(__file__).resolve().parent.parent
README, TRANSLATION, CONTRIBUTING = (ROOT / name for name in ("README.md", "README.zh-TW.md", "CONTRIBUTING.md"))
GALLERY, COOKBOOK = ROOT / "docs" / "watching.md", ROOT / "docs" / "cookbook.md"
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
TUTORIALS = [ROOT / "docs" / "tutorials" / f"{reader}.md" for reader in ("composer", "researcher", "contributor")]
EXECUTED = (README, GALLERY, COOKBOOK, *REFERENCE, *TUTORIALS)
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>not tested|tested as): (?P<text>.+?) -->\n)?^```(?P<language>bash|python)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    file: str
    line: int
    language: str
    body: str
    skipped: str = ""

    def __str__(self) -> str:
        return f"{self.file}-line{self.line}-{self.language}"


def blocks(path: Path, text: str | None = None) -> list[Block]:
    """All fenced bash and python blocks, with their marks applied."""
    text = path.read_text(encoding="utf-8") if text is None else text
    found = []
    for match in BLOCK.finditer(text):
        mark, note = match["mark"], match["text"]
        found.append(
            Block(
                file=path.stem,
                line=text.count("\n", 0, match.start("body")),
                language="bash" if mark == "tested as" else match["language"],
                body=note if mark == "tested as" else match["body"],
                skipped=note if mark == "not tested" else "",
            )
        )
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone holds, and some MIDI files."""
    folder = tmp_path_factory.mktemp("readme") / "fractalgen"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "outputs", "*.egg-info", "lightning_logs")
    shutil.copytree(ROOT, folder, ignore=ignored)
    rng = np.random.default_rng(0)
    (folder / "my_midi").mkdir(exist_ok=True)
    for song in range(10):
        tokens = np.zeros((128, 256), np.uint8)
        for step in range(0, 256, 4):
            for pitch in rng.choice(np.arange(36, 85), 3, replace=False):
                tokens[pitch, step] = rng.integers(2, 34)
                tokens[pitch, step + 1 : step + 4] = 1
        PianoRoll(tokens).to_midi(folder / "my_midi" / f"song_{song}.mid")
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where ``python`` and ``fractalgen`` are."""
    with warm_python(tmp_path_factory.mktemp("warm") / "bin") as folder:
        yield folder


def test_marks_are_understood():
    text = "a\n<!-- not tested: needs a GPU -->\n```bash\nx\n```\n\n"
    text += "<!-- tested as: y --z -->\n```bash\ny\n```\n```python\nw\n```\n"
    assert [(block.language, block.body, block.skipped) for block in blocks(Path("a.md"), text)] == [
        ("bash", "x\n", "needs a GPU"),
        ("bash", "y --z", ""),
        ("python", "w\n", ""),
    ]


def test_hooks_run_the_commands_of_the_test_script():
    script = (ROOT / "run_tests.sh").read_text(encoding="utf-8")
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    for hook in repository["hooks"]:
        if hook["id"] != "mypy":  # tests/test_static_checks.py runs it
            assert hook["entry"].replace(".venv/bin/python", '"$PYTHON"') in script


def outline(path: Path) -> tuple[list[tuple[str, str, str]], list[str], list[str]]:
    """What must not differ between languages: commands and code, pictures and links to files, numbers in tables."""
    text = path.read_text(encoding="utf-8")
    code = [(block.language, block.body, block.skipped) for block in blocks(path)]
    links = re.findall(r"\]\(((?!#)[^)]+)\)", text.split("\n\n", 2)[2])
    cells = [cell for line in text.splitlines() if line.startswith("|") for cell in re.findall(r"\d+(?:\.\d+)?", line)]
    return code, links, cells


def test_both_languages_hold_the_same_commands_links_and_figures():
    (code, links, cells), (translated, targets, numbers) = outline(README), outline(TRANSLATION)
    assert translated == code
    assert targets == links
    assert numbers == cells
    flags = re.compile(r"`(--\w+)")
    assert set(flags.findall(TRANSLATION.read_text("utf-8"))) == set(flags.findall(README.read_text("utf-8")))


@pytest.mark.parametrize(
    "path", [README, TRANSLATION, CONTRIBUTING, *(ROOT / "docs").rglob("*.md")], ids=lambda path: path.name
)
def test_links_lead_somewhere(path: Path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", text):
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkout", "block"),
    [pytest.param(path, block, id=str(block)) for path in EXECUTED for block in blocks(path)],
    indirect=["checkout"],
    scope="module",
)
def test_readme_block(block: Block, checkout: Path, programs: Path):
    if block.skipped:
        pytest.skip(block.skipped)
    command = ["bash", "-euo", "pipefail", "-c", block.body]
    if block.language == "python":
        command = ["python", "-c", block.body]
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    run = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PATH": path, "FRACTALGEN_PYTHON": str(programs / "python")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, f"{block.body}\n{run.stdout}\n{run.stderr}"
