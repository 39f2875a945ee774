"""Does a piece become what was asked for?  Requested against obtained attributes, by guidance scale.

For every attribute that a model knows, pieces are composed with that attribute alone set, to each of its labels in
turn, and measured as the training music was.  ``chance`` is how often pieces composed without labels meet the same
requests.

    python -m benchmarks.steering --model chorales [--attributes key density] [--num_samples N] [--json FILE]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks import measure, natural, parser
from benchmarks.compare_tables import markdown
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.config import SamplingConfig
from fractalgen.data.attributes import measure_attributes
from fractalgen.errors import UserError
from fractalgen.music.labels import Attribute
from fractalgen.progress import composing_bar
from fractalgen.rolls import compose_rolls

BATCH = 25
MEASURED = ("key", "density", "polyphony", "register", "velocity")  # what is heard in the tokens alone


def labels_of(model: FractalGen, attribute: Attribute, rolls: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The label of an attribute that each roll (n, 128, T) obtained; 0 where it cannot be told."""
    found = (measure_attributes(roll, model.config.steps_per_quarter, model.config.velocity_bins) for roll in rolls)
    return np.array([attribute.label(facts[attribute.name]) for facts in found])


def met(wanted: npt.NDArray[np.int64], obtained: npt.NDArray[np.int64], bins: bool) -> tuple[float, float]:
    """Share of requests met exactly, and nearly: the bin beside it too; of keys those with the same scale too."""
    exact = wanted == obtained
    if bins:
        near = (np.abs(wanted - obtained) <= 1) & (obtained > 0)
    else:  # keys are numbered by tonic, major before minor: the relative minor is three semitones lower
        (mode, tonic), (other, beside) = np.divmod(wanted - 1, 12), np.divmod(obtained - 1, 12)
        near = exact | ((mode != other) & ((tonic - beside) % 12 == np.where(mode == 0, 3, 9)) & (obtained > 0))
    return float(exact.mean()), float(near.mean())


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compose, measure, and print a table."""
    model = load_pretrained(args.model)
    known = {attribute.name: attribute for attribute in model.config.attributes if attribute.name in MEASURED}
    for name in args.attributes or ():
        if name not in known:
            raise UserError(f"--attributes {name}: {args.model} knows {', '.join(known) or 'no attribute'}")
    chosen = [known[name] for name in args.attributes or known]
    if not chosen:
        raise UserError(f"--model {args.model}: it was trained without attributes")
    jobs: list[tuple[Attribute | None, float]] = [(None, 1.0), *((one, cfg) for one in chosen for cfg in args.cfg)]
    rolls: dict[tuple[str, float], npt.NDArray[np.uint8]] = {}
    for attribute, cfg in tqdm(jobs, desc="composing", unit="set of pieces"):
        rolls[attribute.name if attribute else "", cfg] = compose(model, attribute, cfg, args)
    rows: list[dict[str, Any]] = []
    for attribute in chosen:
        wanted = requests(attribute, args.num_samples)
        bins = attribute.name != "key"
        for cfg in (None, *args.cfg):
            obtained = labels_of(model, attribute, rolls["" if cfg is None else attribute.name, cfg or 1.0])
            exact, near = met(wanted, obtained, bins)
            rows.append({"attribute": attribute.name, "cfg": cfg, "exact": exact, "near": near})
    print(f"{model.checkpoint_id}: {args.num_samples} pieces of {args.width} steps each, seed {args.seed}\n")
    table = [["attribute", "guidance", "exact", "or the next bin, the relative key"]]
    for row in rows:
        scale = "chance" if row["cfg"] is None else f"{row['cfg']:g}"
        table.append([row["attribute"], scale, f"{row['exact']:.2f}", f"{row['near']:.2f}"])
    print(markdown(table))
    return {"model": model.checkpoint_id, "num_samples": args.num_samples, "rows": rows}


def requests(attribute: Attribute, count: int) -> npt.NDArray[np.int64]:
    """Which label each piece is asked for: all of them in turn."""
    return 1 + np.arange(count) % (attribute.size - 1)


def compose(
    model: FractalGen, attribute: Attribute | None, cfg: float, args: argparse.Namespace
) -> npt.NDArray[np.uint8]:
    """Rolls (n, 128, T) with one attribute set to each request, or none."""
    labels = np.zeros((args.num_samples, len(model.config.attributes)), np.int64)
    if attribute is not None:
        labels[:, model.config.attributes.index(attribute)] = requests(attribute, args.num_samples)
    sampling = SamplingConfig(cfg=cfg, filter_threshold=args.filter_threshold, plan_temperature=args.plan_temperature)
    settings: dict[str, Any] = {"sampling": sampling, "width": args.width, "seed": args.seed, "batch_size": BATCH}
    with composing_bar() as progress:
        rolls, _ = compose_rolls(model, args.num_samples, labels=labels, progress=progress, **settings)
    return np.stack([roll.tokens for roll in rolls])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0, or 2 after a user's mistake, told in one line."""
    top = parser("benchmarks.steering", "requested against obtained attributes")
    top.add_argument("--model", default="chorales", help="a shipped model or a checkpoint that knows attributes")
    top.add_argument("--attributes", nargs="+", help="which (default: all that can be measured in the notes)")
    top.add_argument("--cfg", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="guidance scales")
    top.add_argument("--num_samples", type=int, default=100, help="pieces for each attribute and scale")
    top.add_argument("--width", type=int, default=256, help="time steps of a piece")
    top.add_argument("--filter_threshold", type=float, default=0.01, help="rule out choices less likely than this")
    top.add_argument("--plan_temperature", type=float, default=0.8, help="of models with plans")
    top.add_argument("--seed", type=natural, default=0, help="seed of the samples")
    return measure(top, run, arguments)


if __name__ == "__main__":
    sys.exit(main())
