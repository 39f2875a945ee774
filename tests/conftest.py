"""Settings and fixtures shared by all tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from playwright.sync_api import Browser
from xdist.scheduler import LoadScopeScheduling

from tests.browser import chromium

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    torch.set_num_threads(1)  # tiny models: more threads only wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"  # and for those of the other processes
    # No deadlines: a busy machine is no fault.  In CI the same examples every time.
    hypothesis.settings.register_profile("fractalgen", deadline=None, derandomize="CI" in os.environ)
    hypothesis.settings.load_profile("fractalgen")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins, so that the processes end together."""
    first = {"test_static_checks.py", "test_readme.py"}
    items.sort(key=lambda item: item.path.name not in first and "e2e" not in item.path.parts)


class ByFileOrDocument(LoadScopeScheduling):
    """One process runs all tests of a file; of the documents in ``test_readme.py`` it runs one."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        block = re.match(r"test_readme_block\[(\w+)-", test)
        return block[1] if block else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFileOrDocument:
    return ByFileOrDocument(config, log)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with ``POP909/`` and ``jsb/`` beside the checkout (or $FRACTALGEN_DATA); absent: the test is skipped."""
    folder = Path(os.environ.get("FRACTALGEN_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no corpus folder at {folder} (set FRACTALGEN_DATA)")
    return folder


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    """A folder in which nothing can be made; root may write anywhere but in the kernel's own file system."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        if not Path("/proc/self").exists():
            pytest.skip("root may write to every folder here")
        return Path("/proc/self")
    folder = tmp_path / "read_only"
    folder.mkdir(mode=0o555)
    return folder


@pytest.fixture
def one_error_line(capsys: pytest.CaptureFixture[str]):
    """Runs a command line, by default of ``fractalgen``, and returns the single line that its mistake prints."""
    from fractalgen import cli

    def run(*arguments: object, main: Callable[[list[str]], int] = cli.main) -> str:
        capsys.readouterr()  # what was printed before
        assert main([str(argument) for argument in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert ": error: " in line
        assert main is not cli.main or line.startswith("fractalgen: error: ")
        return str(line)

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a file: while it is driven, an event loop runs in this thread."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(chromium())
        except FileNotFoundError as error:
            pytest.fail(str(error)) if os.environ.get("FRACTALGEN_CHROMIUM_REQUIRED") else pytest.skip(str(error))
        yield started
