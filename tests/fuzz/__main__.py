"""Hostile input by hand: ``python -m tests.fuzz [--kind midi trace ...] [--count 10000] [--seed 0] [--out FOLDER]``.

Prints what became of the cases of each kind, and every fault with its seed and file; exit status 1 if there is one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from fractalgen.cli import Parser
from tests.fuzz import KINDS, run


def main() -> int:
    """Run the cases that the flags name."""
    top = Parser(prog="python -m tests.fuzz", description="damaged files, and what becomes of them")
    top.add_argument("--kind", nargs="+", default=list(KINDS), choices=list(KINDS), help="kinds of file [all]")
    top.add_argument("--count", type=int, default=10_000, help="cases of each kind [10000]")
    top.add_argument("--seed", type=int, default=0, help="seed of the first case [0]")
    top.add_argument("--out", default="outputs/fuzz", help="folder for faulty files [outputs/fuzz]")
    args = top.parse_args()
    torch.set_num_threads(1)
    faulty = False
    for name in args.kind:
        began = time.perf_counter()
        seeds = range(args.seed, args.seed + args.count)
        tally = run(name, tqdm(seeds, name, unit="case", dynamic_ncols=True), Path(args.out).resolve())
        print(
            f"{name}: {args.count} cases in {time.perf_counter() - began:.0f} s, {tally.accepted} accepted,"
            f" {tally.refused} refused, slowest {tally.slowest:.2f} s, at most {tally.megabytes:.0f} MB a case,"
            f" {len(tally.faults)} faults"
        )
        for seed, fault in tally.faults:
            print(f"  seed {seed}: {fault}")
        faulty = faulty or bool(tally.faults)
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
