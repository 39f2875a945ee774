"""One function on many items, in their order: in processes of this machine, or on the workers of a Dask cluster.

Few batches are under way at a time, so that neither items nor results fill the memory, however many there are.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fractalgen.errors import UserError, missing, reason

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH = 16  # items that a worker takes at a time
FEW = 64  # fewer items than this are done in this process: starting workers would take longer
AHEAD = 3  # batches under way for each worker: one at work, the others wait
_SPAWN = get_context("spawn")  # forking a process that has threads (PyTorch's) may hang it


def ordered(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    killed: Callable[[Item], Result],
    *,
    num_workers: int = 0,
    scheduler: str | None = None,
    batch: int = BATCH,
    few: int = FEW,
    patience: float = 20,
) -> Iterator[Result]:
    """Results of ``function`` in the order of ``items``, which are taken as they are needed.

    An item that kills its worker has the result ``killed(item)``.  ``num_workers``: processes of this machine (0: one
    per core; 1: this process), which are started for at least ``few`` items.  ``scheduler``: address of a Dask
    scheduler, whose workers are used in their place; it has ``patience`` seconds to answer, and what a lost worker was
    at work on goes to another one.  Function, items and results must be picklable.

    Raises:
        UserError: the scheduler cannot be reached or is lost, its workers lack this program, or Dask is not installed.
    """
    items = iter(items)
    if scheduler is None:
        first = list(islice(items, few))
        workers = num_workers or os.cpu_count() or 1
        items = chain(first, items)
        if workers == 1 or len(first) < few:
            yield from map(function, items)
            return
    with _Cluster(scheduler, patience) if scheduler else _Machine(workers) as engine:
        yield from _ordered(engine, function, items, killed, batch)


def _ordered(
    engine: _Machine | _Cluster,
    function: Callable[[Item], Result],
    items: Iterator[Item],
    killed: Callable[[Item], Result],
    batch: int,
) -> Iterator[Result]:
    under_way: deque[tuple[list[Item], Future[list[Result]]]] = deque()

    def submit(some: list[Item]) -> tuple[list[Item], Future[list[Result]]]:
        return some, engine.executor.submit(_each, function, some)

    while True:
        while len(under_way) < engine.most and (some := list(islice(items, batch))):
            under_way.append(submit(some))
        if not under_way:
            return
        some, future = under_way.popleft()
        try:
            results = future.result()
        except (Exception, CancelledError) as error:
            if not engine.is_death(error):
                raise
            engine.restart()
            if engine.loses_work:
                under_way = deque(submit(waiting) for waiting, _ in under_way)
            results = []
            for item in some:
                try:
                    results.append(engine.run_alone(function, item))
                except Exception as again:
                    if not engine.is_death(again):
                        raise
                    results.append(killed(item))
        yield from results


def within(seconds: float, function: Callable[[Item], Result], item: Item) -> Result:
    """``function(item)``, which may take so many seconds.

    Longer calls end with a ``UserError``, where the function runs in the main thread of a process on Linux or macOS.
    Elsewhere the process ends, if it is a worker: then the item is one that kills its worker.  On Windows and in
    threads of other processes there is no limit.
    """
    if sys.platform != "win32" and hasattr(signal, "setitimer") and current_thread() is main_thread():

        def stop(*interrupted: Any) -> None:
            raise UserError(f"takes more than {seconds:g} seconds")

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # once more where a library has caught the error
        try:
            return function(item)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    if parent_process() is None:
        return function(item)
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        return function(item)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _each(function: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    return [function(item) for item in items]


class _Machine:
    """Processes of this machine."""

    loses_work = True  # after the death of a worker all that was under way is lost

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.executor = _Pool(workers)

    def __enter__(self) -> _Machine:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: Any) -> None:
        if error is not None:  # such as a signal: work under way is given up
            self.executor.end()
        self.executor.shutdown(cancel_futures=True)

    @property
    def most(self) -> int:
        """Batches that may be under way."""
        return AHEAD * self.workers

    def is_death(self, error: BaseException) -> bool:
        """Whether the error says that a worker died; a lost connection is raised as the user's error."""
        return isinstance(error, BrokenProcessPool)

    def restart(self) -> None:
        """Get ready for work after the death of a worker."""
        self.executor.shutdown(cancel_futures=True)
        self.executor = _Pool(self.workers)

    def run_alone(self, function: Callable[..., Any], item: Any) -> Any:
        """The result of one item, by which no other work is endangered."""
        with _Pool(1) as pool:
            return pool.submit(function, item).result()


class _Pool(ProcessPoolExecutor):
    """Processes that end with their parent, and silently with Ctrl-C."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, _SPAWN, _begin)

    def submit(self, *call: Any, **arguments: Any) -> Future[Any]:
        """Start a process if all are at work; until it is ready, Ctrl-C waits."""
        if sys.platform == "win32":
            return super().submit(*call, **arguments)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*call, **arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def end(self) -> None:
        """End the processes at once; Python 3.14 has ``terminate_workers`` for it."""
        processes = list(self._processes.values())
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        # else the thread that reads half a result of one of them waits for the rest for ever
        self._result_queue._writer.close()  # type: ignore[attr-defined]


def _begin() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def end_only_with_parent() -> None:
    """As :func:`end_with_parent`; signals to all processes, as Ctrl-C is one, are for the parent."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended: it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()


class _Cluster:
    """The workers of a Dask cluster, used as a :class:`_Machine` is; they may come and go."""

    loses_work = False  # the scheduler gives the work of a lost worker to others, and gives up only what kills several

    def __init__(self, address: str, patience: float) -> None:
        try:
            from distributed import Client
            from distributed.scheduler import KilledWorker
        except ImportError as error:
            raise missing(f"--scheduler {address}", "Dask", "cluster") from error
        self.address, self.killed = address, KilledWorker
        with self._told():
            parts = urlsplit(address if "://" in address else f"tcp://{address}")
            if parts.port is None and parts.scheme != "inproc":  # Dask would wait
                raise ValueError("not of the form tcp://HOST:8786")
            self.client = Client(address, timeout=patience, set_as_default=False)
        self.executor: Executor = self.client.get_executor(pure=False)
        self.counted, self.workers = 0.0, 0

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise UserError(f"--scheduler {self.address}: cannot be reached ({reason(error)})") from error

    def __enter__(self) -> _Cluster:
        return self

    def __exit__(self, *error: Any) -> None:
        self.executor.shutdown(wait=False)
        self.client.close()

    @property
    def most(self) -> int:
        if time.monotonic() > self.counted + 10:
            with self._told():
                self.workers = sum(self.client.nthreads().values())
            self.counted = time.monotonic()
        return AHEAD * max(self.workers, 4)  # some work waits for workers that are still on their way

    def is_death(self, error: BaseException) -> bool:
        if isinstance(error, CancelledError):
            raise UserError(f"--scheduler {self.address}: the connection is lost") from error
        if isinstance(error, ImportError):
            raise UserError(
                f"--scheduler {self.address}: a worker lacks this program or a part of it ({reason(error)})"
            ) from error
        return isinstance(error, self.killed)

    def restart(self) -> None:
        pass

    def run_alone(self, function: Callable[..., Any], item: Any) -> Any:
        return self.executor.submit(function, item).result()
