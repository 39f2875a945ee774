"""What is distributed: the wheel in an environment of its own, and what other operating systems do not have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest
import yaml
from packaging.specifiers import SpecifierSet

import fractalgen
from fractalgen.music.pianoroll import PianoRoll
from tests import tiny

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MOST = 60_000_000  # bytes of the wheel; PyPI takes 100 MB
FOREIGN_CONSOLE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # as on Windows: no UTF-8


def run(*command: object, folder: Path, **environment: str) -> str:
    """What a command prints; it must succeed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, (
        f"{command}\n{done.stdout.decode(errors='replace')}{done.stderr.decode(errors='replace')}"
    )
    return done.stdout.decode(errors="replace")


def test_the_version_stands_in_one_place_and_the_others_follow() -> None:
    assert PROJECT["dynamic"] == ["version"]
    released = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == released[0]
    number, _, development = fractalgen.__version__.partition(".dev")
    here, latest = (tuple(map(int, text.split("."))) for text in (number, released[0]))
    assert here > latest if development else here == latest


def test_what_is_told_to_install_is_this_project_and_has_the_extra() -> None:
    told = re.compile(r"(?<![\w-])fractalgen(?P<name>-piano)?\[(?P<extras>[\w,]+)\]'")
    texts = [*(ROOT / "fractalgen").rglob("*.py"), *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in texts:
        for match in told.finditer(path.read_text("utf-8")):
            assert match["name"], f"{path}: {match[0]} is another project on PyPI"
            assert set(match["extras"].split(",")) <= PROJECT["optional-dependencies"].keys(), f"{path}: {match[0]}"


def test_the_oldest_python_can_install_the_exact_versions() -> None:
    """Debian 12 has 3.11.2: a package that asks for a later 3.11 breaks the set-up there."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    exact = {line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line}
    asked = {
        f"{package.name}=={package.version}": package.metadata.json.get("requires_python")
        for package in distributions()
    }
    refused = {name: asked[name] for name in exact & asked.keys() if oldest not in SpecifierSet(str(asked[name] or ""))}
    assert refused == {}


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT, folder=tmp_path)
    (wheel,) = tmp_path.glob("fractalgen_piano-*.whl")
    assert wheel.stat().st_size < MOST
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    # the wheel is made of the source archive: both have all of the package, and nothing else
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fractalgen").rglob("*") if path.is_file()}
    assert packed == {name for name in files if "__pycache__" not in name}

    place = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", place, folder=tmp_path)
    scripts = place / ("Scripts" if sys.platform == "win32" else "bin")
    packages = next(path for path in place.rglob("site-packages"))
    beside = Path(np.__file__).parents[
        1
    ]  # what it depends on; a .pth in it is not read, so that the checkout is not found
    (packages / "dependencies.pth").write_text(f"{beside}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", scripts / "python"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, folder=tmp_path)

    elsewhere = tmp_path / "Stücke"
    elsewhere.mkdir()
    where = run(scripts / "python", "-c", "import fractalgen; print(fractalgen.__file__)", folder=elsewhere)
    assert Path(where.strip()).is_relative_to(packages)
    command = scripts / "fractalgen"
    assert run(command, "--version", folder=elsewhere).strip() == f"fractalgen {fractalgen.__version__}"
    assert "--open_browser" in run(command, "studio", "--help", folder=elsewhere)
    flags = ["--target_width", "32", "--seed", "2", "--save_html"]
    printed = run(command, "generate", *flags, folder=elsewhere, **FOREIGN_CONSOLE)
    assert printed.startswith("pop909-ar-")
    made = elsewhere / "outputs" / "generated"
    assert PianoRoll.from_midi(made / "unconditional_000.mid").width
    assert {path.suffix for path in made.iterdir()} == {".mid", ".png", ".html"}


@pytest.mark.slow
def test_nothing_that_windows_lacks_is_used_unguarded(tmp_path: Path) -> None:
    """As mypy sees the standard library of Windows; without the packages of others this takes seconds."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--platform",
        "win32",
        "--no-site-packages",
        "--cache-dir",
        tmp_path / "cache",
    ]
    (tmp_path / "probe.py").write_text(
        "import fcntl, os, signal\nfcntl.flock\nos.fork\nsignal.alarm\n", encoding="utf-8"
    )
    done = subprocess.run(
        [
            *map(str, command),
            "--ignore-missing-imports",
            "--show-error-codes",
            "fractalgen",
            str(tmp_path / "probe.py"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if "Module has no attribute" in line]
    assert sum("probe.py" in line for line in found) == 3, done.stdout[:3000] + done.stderr
    assert [line for line in found if "probe.py" not in line] == []


PROGRAM = """
import os, signal, sys, warnings
import matplotlib.pyplot, soundfile, torch  # which may use what they like

LACKING = {
    os: "fork forkpty getuid geteuid getgid kill killpg setsid getpgid sched_getaffinity uname statvfs",
    signal: "alarm setitimer pthread_kill SIGALRM SIGHUP SIGUSR1 SIGKILL SIGCHLD sigwait",
}
for module, names in LACKING.items():
    for name in names.split():
        delattr(module, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "pty", "readline"):
    sys.modules[name] = None
warnings.filterwarnings("error", category=EncodingWarning, module="fractalgen")
from fractalgen import cli

for arguments in sys.argv[1].split(";"):
    assert cli.main(arguments.split()) == 0, arguments
"""


@pytest.mark.slow
def test_commands_run_without_what_only_posix_has(tmp_path: Path) -> None:
    """Nor do they need a locale in UTF-8; a text file that does not name its encoding is an error."""
    folder = tmp_path / "Noël ♪"
    (folder / "midi").mkdir(parents=True)
    for index in range(3):
        PianoRoll(tiny.tokens(index, 192, 120)).to_midi(folder / "midi" / f"Etüde {index}.mid")
    tiny.save_model(folder / "tiny.safetensors", tiny.model_config(), -2)
    flags = "--target_width 16 --seed 1 --save_html --save_trace"
    commands = [
        "prepare --data midi --out corpus.safetensors --report left_out.tsv",
        f"generate --checkpoint tiny.safetensors --output_dir out {flags}",
        "render out/unconditional_000.trace.npz --out again.gif",
    ]
    run(sys.executable, "-c", PROGRAM, ";".join(commands), folder=folder, PYTHONWARNDEFAULTENCODING="1",
        PYTHONPATH=str(ROOT), **FOREIGN_CONSOLE)  # fmt: skip
    assert (folder / "again.gif").stat().st_size
    assert (folder / "corpus.safetensors").stat().st_size
