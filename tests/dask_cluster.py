"""A Dask cluster within this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def dask_cluster(workers: int, threads: int = 1) -> Iterator[str]:
    """Start a scheduler and workers with so many threads each; gives the address of the scheduler.

    All ports are free ones.  Without ``dashboard_address`` the scheduler takes port 8787 for its page of figures, and
    warns if another process has it.
    """
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster.scheduler_address
