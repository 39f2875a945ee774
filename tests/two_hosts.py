"""Two network namespaces with a cable between them: two hosts on one machine (Linux, as root, with iproute2)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Host(NamedTuple):
    """Its address, and what a command begins with to run on it."""

    address: str
    prefix: tuple[str, ...]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that see each other and nothing else.

    Raises:
        OSError: this machine cannot have any.
    """
    names = [f"fractalgen-{os.getpid()}-{letter}" for letter in "ab"]
    cables = [f"fg{os.getpid() % 100_000}{letter}" for letter in "ab"]
    made = []

    def ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")

    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", cables[0], "netns", names[0], "type", "veth", "peer", "name", cables[1], "netns", names[1])
        hosts = []
        for number, (name, cable) in enumerate(zip(names, cables, strict=True), 1):
            address = f"10.77.0.{number}"
            ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            ip("-n", name, "link", "set", cable, "up")
            ip("-n", name, "link", "set", "lo", "up")
            hosts.append(Host(address, ("ip", "netns", "exec", name)))
        yield hosts[0], hosts[1]
    finally:
        for name in made:
            ip("netns", "delete", name)
