"""Training and scoring of the note event baseline: the commands of ``python -m benchmarks.note_events``.

Data, crops, transpositions, optimiser, clipping and precision are those of FractalGen's training.  The loss is too:
the summed negative log-likelihood of a crop in nats per hundred cells, so that every note counts alike.
"""

from __future__ import annotations

import argparse
import json
import math
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import Help, measure, parser
from benchmarks.note_event_scores import score
from benchmarks.note_events import NoteEventConfig, NoteEventTransformer
from fractalgen.config import Precision
from fractalgen.data.corpus import SPLITS, Corpus
from fractalgen.data.crops import CropDataset, ValidCrops
from fractalgen.data.loaders import SeededCrops
from fractalgen.devices import autocast, choose_precision
from fractalgen.errors import UserError
from fractalgen.files import replacing
from fractalgen.music.tokens import ONSET
from fractalgen.training.module import LOSS_SCALE
from fractalgen.training.optimisers import make_optimizer

FORMAT, VERSION = "note-event-transformer", 1


def learning_rate(peak: float, step: int, warmup_steps: int, progress: float) -> float:
    """Linear warm-up over steps, under a cosine from ``progress`` 0 down to zero at 1."""
    return peak * min(1.0, (step + 1) / max(1, warmup_steps)) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def train_step(
    model: NoteEventTransformer, rolls: Sequence[Tensor], optimizer: torch.optim.Optimizer, args: argparse.Namespace
) -> tuple[float, float]:
    """One optimiser step on rolls (pitches, steps); their summed loss in nats, and the gradient's norm.

    The rolls are taken ``micro_batch`` at a time, those of similar length together: less padding, same gradient.
    """
    scale = LOSS_SCALE / rolls[0].numel() / len(rolls)
    rolls = sorted(rolls, key=lambda roll: int((roll >= ONSET).sum()))
    total = 0.0
    for first in range(0, len(rolls), args.micro_batch):
        with autocast(args.precision, model.start.device):
            terms = model.nll(torch.stack(rolls[first : first + args.micro_batch]))
        loss = torch.stack(list(terms.values())).sum()
        (loss * scale).backward()
        total += float(loss.detach())
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), args.gradient_clip or math.inf))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm


class Run:
    """A training within a budget of minutes or steps: its model, its optimiser, and how far it has come."""

    def __init__(self, args: argparse.Namespace, config: NoteEventConfig) -> None:
        """Raises UserError: a checkpoint to go on from of another model, or at the end of the budget."""
        self.args, self.step, self.spent = args, 0, 0.0
        content: dict[str, Any] = {}
        if args.resume:
            self.model, content = load(args.resume, flag="resume")
            if self.model.config != config:
                raise UserError(f"--resume {args.resume}: made with {self.model.config}, here {config}")
            self.step, self.spent = content["step"], content["seconds"]
            self.model.to(args.device).train()
        else:
            self.model = NoteEventTransformer(config).to(args.device)
        self.optimizer = make_optimizer(self.model, args.optimizer, args.learning_rate)
        if content:
            self.optimizer.load_state_dict(content["optimizer"])
        for group in self.optimizer.param_groups:  # flags count, also when they changed
            group["weight_decay"] = args.weight_decay if group["decays"] else 0.0
        self.began = time.monotonic()
        if self.progress() >= 1:
            raise UserError(
                f"--resume {args.resume}: step {self.step} after {self.spent / 60:.1f} min, nothing of the budget is"
                " left"
            )

    def seconds(self) -> float:
        """Seconds of training, resumed parts included."""
        return self.spent + time.monotonic() - self.began

    def progress(self) -> float:
        """The share of the budget that is spent."""
        if self.args.max_steps:
            return self.step / self.args.max_steps
        return self.seconds() / (60 * self.args.minutes)

    def save(self) -> None:
        """Write the checkpoint."""
        facts = {"step": self.step, "seconds": self.seconds(), "train": {**vars(self.args), "run": None}}
        content = {"format": FORMAT, "version": VERSION, "config": asdict(self.model.config), **facts}
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        with replacing(self.args.out) as temporary:
            torch.save({**content, **state}, temporary)

    def validate(self, crops: ValidCrops) -> dict[str, Any]:
        """How probable the validation crops are, also printed."""
        found = score(self.model, crops, self.args.batch_size, self.args.precision, quiet=True).summary()
        parts = ", ".join(f"{kind} {bits:.3f}" for kind, bits in found["kinds"].items())
        now = f"step {self.step}, {self.seconds() / 60:.1f} min"
        tqdm.write(f"{now}: val {found['bits_per_note']:.4f} bits per note ({parts})")
        return found

    def advance(self, rolls: Sequence[Tensor], share: float) -> tuple[float, float]:
        """One optimiser step; the summed loss in nats, and the gradient's norm.

        Raises:
            UserError: the loss is no number any more.
        """
        args = self.args
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(args.learning_rate, self.step, args.warmup_steps, share)
        loss, norm = train_step(self.model, rolls, self.optimizer, args)
        self.step += 1
        if not math.isfinite(loss):
            raise UserError(f"the loss became {loss} at step {self.step}: lower --learning_rate {args.learning_rate}")
        return loss, norm


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Train until the budget of minutes or steps is spent, and score the validation crops."""
    check(args)
    torch.manual_seed(args.seed)
    corpus = Corpus.open(args.data)
    config = NoteEventConfig(
        steps=args.crop_length,
        velocity_bins=corpus.velocity_bins,
        steps_per_bar=4 * corpus.steps_per_quarter,
        width=args.width,
        depth=args.depth,
        heads=args.heads,
    )
    crops = SeededCrops(CropDataset(corpus, "train", config.steps, transpose=(-6, 6)), args.seed)
    valid = ValidCrops(corpus, "valid", config.steps, limit=args.val_crops)
    run = Run(args, config)
    print(f"{sum(p.numel() for p in run.model.parameters()) / 1e6:.2f} M parameters", flush=True)
    saved = validated = time.monotonic()
    nats: list[float] = []
    notes: list[int] = []
    layout = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=1.0, initial=run.progress(), desc="training", bar_format=layout, mininterval=2) as bar:
        while (share := run.progress()) < 1:
            bar.update(share - bar.n)
            rolls = [crops[run.step * args.batch_size + i]["tokens"] for i in range(args.batch_size)]
            loss, norm = run.advance(rolls, share)
            nats.append(loss)
            notes.append(sum(int((roll >= ONSET).sum()) for roll in rolls))
            recent = sum(nats[-50:]) / math.log(2) / max(1, sum(notes[-50:]))
            bar.set_postfix_str(f"step {run.step}, {recent:.3f} bits/note, norm {norm:.2f}", refresh=False)
            now = time.monotonic()
            if now - validated > 60 * args.val_minutes:
                run.validate(valid)
                validated = time.monotonic()
            if now - saved > 60 * args.save_minutes:
                run.save()
                saved = time.monotonic()
        bar.update(1.0 - bar.n)
    run.save()
    print(args.out)
    return run.validate(valid)


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Score all crops of a split, and print the figures."""
    model, content = load(args.checkpoint)
    corpus = Corpus.open(args.data)
    if corpus.velocity_bins != model.config.velocity_bins:
        raise UserError(
            f"--data {args.data}: {corpus.velocity_bins} velocity bins; {args.checkpoint}: {model.config.velocity_bins}"
        )
    crops = ValidCrops(corpus, args.split, model.config.steps, limit=args.limit)
    began = time.monotonic()
    scores = score(model.to(args.device), crops, args.batch_size, args.precision)
    result = {
        "model": Path(args.checkpoint).stem,
        "corpus": Path(args.data).stem,
        "split": args.split,
        **scores.summary(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": content["step"],
        "training_seconds": content["seconds"],
        "precision": choose_precision(args.precision, model.start.device),
        "seconds": time.monotonic() - began,
    }
    print(json.dumps(result, indent=2))
    return result


def load(path: str | Path, flag: str = "checkpoint") -> tuple[NoteEventTransformer, dict[str, Any]]:
    """The model of a checkpoint, in evaluation mode on the CPU, and all that stands beside it.

    Raises:
        UserError: missing file, or not a checkpoint of this model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = (content.get("format"), content.get("version")) if isinstance(content, dict) else None
        if found != (FORMAT, VERSION):
            raise UserError(f"--{flag} {path}: format and version {found}, expected {(FORMAT, VERSION)}")
        model = NoteEventTransformer(NoteEventConfig(**content["config"]))
        model.load_state_dict(content["model"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        lines = str(error).splitlines() or ["damaged"]
        raise UserError(f"--{flag} {path}: not a checkpoint of the note event transformer ({lines[0]})") from error
    except OSError as error:
        raise UserError(f"--{flag} {path}: {error.strerror or error}") from error
    return model.eval(), content


def check(args: argparse.Namespace) -> None:
    """Refuse settings that cannot work before anything is read."""
    if (args.minutes is None) == (args.max_steps is None):
        raise UserError(f"one of --minutes and --max_steps, not {args.minutes} and {args.max_steps}")
    for name in ("minutes", "max_steps", "batch_size", "micro_batch", "crop_length", "width", "depth", "heads"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value}: must be above 0")
    if args.width % args.heads:
        raise UserError(f"--width {args.width} is not divisible by --heads {args.heads}")
    if Path(args.out).exists() and (args.resume is None or Path(args.resume).resolve() != Path(args.out).resolve()):
        raise UserError(f"--out {args.out} exists: go on from it with --resume {args.out}, or name another file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 2 after a user's mistake, told in one line.

    Defaults are those of FractalGen's ``small`` configuration where both have the flag.
    """
    top = parser("benchmarks.note_events", "a transformer over note events, as a baseline")
    commands = top.add_subparsers(required=True, metavar="train|evaluate")

    one = commands.add_parser("train", help="train on the crops that FractalGen trains on", formatter_class=Help)
    one.set_defaults(run=train)
    one.add_argument("--out", required=True, help="checkpoint to write (.pt)")
    one.add_argument("--minutes", type=float, help="budget in wall clock minutes, resumed parts included")
    one.add_argument("--max_steps", type=int, help="budget in optimiser steps, instead of minutes")
    one.add_argument("--resume", help="checkpoint to go on from")
    one.add_argument("--width", type=int, default=256, help="width of the transformer")
    one.add_argument("--depth", type=int, default=9, help="blocks")
    one.add_argument("--heads", type=int, default=4, help="attention heads")
    one.add_argument("--crop_length", type=int, default=256, help="steps of a crop")
    one.add_argument("--micro_batch", type=int, default=1, help="crops that are padded and computed together")
    one.add_argument("--optimizer", choices=("muon", "adamw"), default="muon", help="as in FractalGen's training")
    one.add_argument("--learning_rate", type=float, default=8e-4, help="peak learning rate")
    one.add_argument("--warmup_steps", type=int, default=100, help="steps of linear warm-up")
    one.add_argument("--weight_decay", type=float, default=0.05, help="on matrices only")
    one.add_argument("--gradient_clip", type=float, default=1.0, help="largest norm of the gradient (0: no clipping)")
    one.add_argument("--seed", type=int, default=0, help="seed of initialisation and data")
    one.add_argument("--val_crops", type=int, default=64, help="validation crops, evenly spread (0: all)")
    one.add_argument("--val_minutes", type=float, default=10.0, help="minutes between validations")
    one.add_argument("--save_minutes", type=float, default=5.0, help="minutes between checkpoints")

    two = commands.add_parser("evaluate", help="exact likelihood of a split's crops", formatter_class=Help)
    two.set_defaults(run=evaluate)
    two.add_argument("--checkpoint", required=True, help="checkpoint to score")
    two.add_argument("--split", default="test", choices=SPLITS, help="split of the corpus")
    two.add_argument("--limit", type=int, default=0, help="score so many crops, evenly spread (0: all)")
    precisions = get_args(Precision)
    for command in (one, two):
        command.add_argument("--data", default="chorales", help="packed corpus, or an embedded one by name")
        command.add_argument("--batch_size", type=int, default=4, help="crops a step")
        command.add_argument("--precision", default="auto", choices=precisions, help="arithmetic (auto: the faster)")
        command.add_argument("--device", default="cpu", help="cpu, cuda ...")
        command.add_argument("--json", help="file for all figures")
    return measure(top, lambda args: args.run(args), arguments)


if __name__ == "__main__":
    sys.exit(main())
