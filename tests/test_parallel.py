"""One function on many items, in order: in this process, in others, and on a Dask cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from fractalgen import parallel
from fractalgen.config import PrepareConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.prepare import prepare
from fractalgen.errors import UserError
from tests.dask_cluster import dask_cluster
from tests.midi_files import midi, scale
from tests.two_hosts import Host, two_hosts


def squared(number: int) -> int:
    return number * number


def nothing(number: int) -> int:
    return -1


def half_a_result(_: int) -> bytes:
    """The process ends while its result is on its way."""

    def send(self: Connection, content: bytes, write: object = None) -> None:
        half = len(content) // 2 if len(content) > 1000 else len(content)
        os.write(self.fileno(), bytes(content[:half]))
        if half < len(content):
            os._exit(130)

    Connection._send = send  # type: ignore[attr-defined]
    return b"x" * 60_000


class Threads:
    """An engine without processes."""

    broken, most = True, 3

    def __enter__(self) -> Threads:
        self.executor: Executor = ThreadPoolExecutor(2)
        return self

    def __exit__(self, *error: Any) -> None:
        self.executor.shutdown()


def test_items_are_taken_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_Machine", lambda workers: Threads())
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    for done, result in enumerate(parallel.ordered(squared, items(), nothing, num_workers=2, batch=4, few=8)):
        assert result == done * done
        assert len(taken) <= done + 8 + 3 * 4
    assert len(taken) == 200
    assert list(parallel.ordered(squared, range(5), nothing, num_workers=2)) == [0, 1, 4, 9, 16]


def stubborn(seconds: float) -> str:
    """As a library that goes on after an error."""
    for _ in range(2):
        with suppress(UserError):
            time.sleep(seconds)
    return "done"


def in_a_thread(seconds: float) -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(parallel.within, 0.05, stubborn, seconds).result()


def ended(seconds: float) -> str:
    return "its worker ended"


def test_an_interruption_while_a_result_is_on_its_way() -> None:
    """The thread that reads the rest of it ends, too."""

    def interrupted() -> None:
        with suppress(KeyboardInterrupt), parallel._Machine(1) as machine:
            machine.executor.submit(half_a_result, 0)
            for process in list(machine.executor._processes.values()):
                process.join()
            raise KeyboardInterrupt

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_a_call_that_takes_too_long() -> None:
    with pytest.raises(UserError, match=r"takes more than 0.05 seconds"):
        parallel.within(0.05, time.sleep, 20)
    assert parallel.within(20, stubborn, 0) == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    begin = time.monotonic()
    assert parallel.within(0.05, stubborn, 20) == "done"
    assert time.monotonic() < begin + 10
    assert in_a_thread(0.1) == "done"  # this process is nobody's worker


@pytest.mark.slow
def test_a_thread_of_a_worker_that_takes_too_long() -> None:
    results = parallel.ordered(in_a_thread, (0, 20, 0), ended, num_workers=2, batch=1, few=1)
    assert list(results) == ["done", "its worker ended", "done"]


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"  # nobody listens
        with pytest.raises(UserError, match=f"--scheduler {address}: cannot be reached"):
            list(parallel.ordered(squared, range(3), nothing, scheduler=address, patience=1))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"--scheduler there needs Dask: pip install 'fractalgen-piano\[cluster\]'"):
        list(parallel.ordered(squared, range(3), nothing, scheduler="there"))


def test_a_cluster_makes_the_same_corpus(tmp_path: Path) -> None:
    for number in range(40):
        path = tmp_path / "music" / f"{number}.mid"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(midi(scale(4, 240, 40 + number)) if number % 9 else b"bad")
    settings = {"data": str(tmp_path / "music"), "shard_megabytes": 0.001}
    made = {}
    with dask_cluster(workers=2) as address:
        for name, scheduler in (("here", None), ("there", address)):
            prepare(PrepareConfig(out=str(tmp_path / name), scheduler=scheduler, **settings))  # type: ignore[arg-type]
            files = (tmp_path / name).iterdir()
            made[name] = {path.name: path.read_bytes() for path in files if path.suffix != ".sqlite"}
    assert made["here"] == made["there"]
    assert len(made["here"]) > 4


@pytest.mark.slow
def test_two_hosts_of_which_one_is_lost(tmp_path: Path) -> None:
    """A corpus is made by a worker on each of two hosts; one is killed.  Nothing is lost or there twice."""
    pytest.importorskip("distributed")
    for number in range(300):
        path = tmp_path / "music" / f"{number:03}.mid"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(midi(scale(20 + number % 60, 240, 20 + number // 60)))
    flags = ["--data", str(tmp_path / "music"), "--shard_megabytes", "0.05"]
    program = [sys.executable, "-m"]
    with ExitStack() as stack:
        try:
            a, b = stack.enter_context(two_hosts())
        except OSError as error:
            pytest.skip(str(error))

        def start(host: Host, *arguments: str) -> subprocess.Popen[bytes]:
            command = [*host.prefix, *program, *arguments, "--no-dashboard"]
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        scheduler = f"tcp://{a.address}:8786"
        start(a, "distributed.cli.dask_scheduler", "--host", a.address, "--port", "8786")
        workers = [
            start(
                host, "distributed.cli.dask_worker", scheduler, "--no-nanny", "--nthreads", "1", "--host", host.address
            )
            for host in (a, b)
        ]
        out = tmp_path / "there"
        command = [*a.prefix, *program, "fractalgen", "prepare", *flags, "--out", str(out), "--scheduler", scheduler]
        run = subprocess.Popen(command)
        stack.callback(run.kill)
        while run.poll() is None and not (out / "shard-00001.safetensors").exists():
            time.sleep(0.05)
        assert run.poll() is None
        workers[1].kill()
        assert run.wait(300) == 0
        assert workers[0].poll() is None
    prepare(PrepareConfig(data=flags[1], shard_megabytes=0.05, out=str(tmp_path / "here"), num_workers=1))
    made = [
        {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".sqlite"}
        for folder in (tmp_path / "here", out)
    ]
    assert made[0] == made[1]
    corpus = Corpus.open(out)
    assert len(corpus) == len(set(corpus.song_ids)) == 300
