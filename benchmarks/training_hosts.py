"""Two hosts train as one, and go on after a process was killed: losses beside those of one process, and times.

    python -m benchmarks.training_hosts FOLDER --steps 40

The hosts are two network namespaces of this machine with a cable between them (Linux, as root, with iproute2).
``torchrun`` starts one process on each, and gloo joins them.  After the first checkpoint one of them is killed.  Then
one process trains alone with the same crops a step.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import measure, parser
from fractalgen.errors import UserError
from tests.two_hosts import Host, two_hosts

PORT = 29500
BATCH = 4  # crops of each process
EVERY = 10  # steps from one validation and checkpoint to the next
TRAIN = (
    *("-m", "fractalgen", "train", "--config", "tiny", "--data", "chorales", "--max_children", "0", "0", "0", "0"),
    *("--accelerator", "cpu", "--precision", "32", "--logger", "csv", "--log_every_n_steps", "1"),
    *("--num_images_to_log", "0", "--val_check_interval_steps", str(EVERY), "--val_crops", "15"),
)


def rows(run: Path) -> dict[int, dict[str, str]]:
    """Rows of the newest table of a run, by step."""
    tables = sorted(run.glob("lightning_logs/version_*/metrics.csv"))
    if not tables:
        return {}
    with tables[-1].open(newline="", encoding="utf-8") as file:
        return {int(row["step"]): row for row in csv.DictReader(file)}


def cable(host: Host) -> str:
    """The network device of a host."""
    shown = subprocess.run([*host.prefix, "ip", "-json", "addr"], capture_output=True, check=True).stdout
    return next(
        str(device["ifname"])
        for device in json.loads(shown)
        if any(address["local"] == host.address for address in device["addr_info"])
    )


def wait_for(what: Callable[[], bool], agents: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    """Wait until ``what`` is true.

    Raises:
        RuntimeError: it takes too long, or a host has ended.
    """
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end or any(agent.poll() for agent in agents):
            raise RuntimeError("the hosts did not train; see what they say above")
        time.sleep(0.05)


def train_on_hosts(hosts: Sequence[Host], run: Path, steps: int, patience: float) -> float:
    """Train on both hosts and kill one process on the way; seconds from then to the next step."""
    with ExitStack() as stack:
        agents = []
        for host in hosts:
            command = [*host.prefix, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
            command += ["--nproc_per_node", "1", "--max_restarts", "3", "--rdzv_backend", "c10d", "--rdzv_id", "here"]
            command += ["--rdzv_endpoint", f"{hosts[0].address}:{PORT}", "--local_addr", host.address]
            # hosts with names of their own find out by themselves which of them is meant
            command += ["--rdzv_conf", f"is_host={host is hosts[0]}".lower(), *TRAIN]
            command += ["--batch_size", str(BATCH), "--max_steps", str(steps), "--output_dir", str(run)]
            command += ["--devices", "1", "--num_nodes", "2", "--strategy", "ddp", "--resume", "auto"]
            environment = {**os.environ, "GLOO_SOCKET_IFNAME": cable(host)}
            agents.append(subprocess.Popen(command, env=environment))
            stack.callback(agents[-1].wait)
            stack.callback(agents[-1].terminate)
        wait_for(lambda: EVERY + 2 in rows(run), agents, patience)
        victim = Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text(encoding="utf-8").split()[0]
        os.kill(int(victim), signal.SIGKILL)
        killed = time.monotonic()
        before = len(rows(run))
        # the table loses what came after the checkpoint, then grows again
        wait_for(lambda: len(rows(run)) < before, agents, patience)
        wait_for(lambda: EVERY + 1 in rows(run), agents, patience)
        seconds = time.monotonic() - killed
        wait_for(lambda: all(agent.poll() is not None for agent in agents), agents, patience)
    return seconds


def run(args: argparse.Namespace) -> dict[str, float]:
    """Train both, and print how far their losses are apart."""
    try:
        with two_hosts() as hosts:
            seconds = train_on_hosts(hosts, args.folder / "two", args.steps, args.patience)
    except OSError as error:
        raise UserError(f"two hosts cannot be made here: {error}") from error
    one = [sys.executable, *TRAIN, "--batch_size", str(2 * BATCH), "--max_steps", str(args.steps)]
    subprocess.run([*one, "--devices", "1", "--output_dir", str(args.folder / "one")], check=True)
    two, alone = rows(args.folder / "two"), rows(args.folder / "one")
    if two.keys() != alone.keys():
        raise RuntimeError(f"steps {sorted(two.keys() ^ alone.keys())} are in one table only")
    found = {"seconds to the next step": seconds}
    for kind in ("train", "val"):
        losses = [[row[f"{kind}_loss"] for row in table.values() if row[f"{kind}_loss"]] for table in (two, alone)]
        pairs = list(zip(*(map(float, column) for column in losses), strict=True))
        found[kind] = apart = max(abs(first / second - 1) for first, second in pairs)
        print(f"{kind} loss of {len(pairs)} steps: two hosts and one process at most {apart:.1e} apart (relative)")
    print(f"a killed process: {seconds:.1f} s to the next step")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.training_hosts", "two hosts train as one, and go on after a process was killed")
    top.add_argument("folder", type=Path, help="for the two runs")
    top.add_argument("--steps", type=int, default=40, help="optimiser steps")
    top.add_argument("--patience", type=float, default=600, help="seconds that a stage may take")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
