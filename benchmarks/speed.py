"""What ``python -m benchmarks`` times of the model: training, sampling, long pieces.

The dense reference (:mod:`tests.reference`) is far too slow to be run as a whole: a part of it is measured and scaled,
one crop of a training batch, a few of the first level's patches (AR), one sample of a batch (MAR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import Kind, Plan, Row, row, take_turns
from fractalgen.api import FractalGen
from fractalgen.cli import resolve_config
from fractalgen.config import Generator, TrainConfig
from fractalgen.config.yaml_files import CONFIGS
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import CropDataset
from fractalgen.devices import autocast, choose_precision
from fractalgen.errors import UserError
from fractalgen.model.level import FractalLevel
from fractalgen.music.tokens import HOLD, ONSET, SILENCE
from fractalgen.training.module import LOSS_SCALE, Training
from tests.reference import dense_nll, dense_sample

BAR = 16  # time steps
VELOCITY_BINS = 32
KINDS: dict[Kind, tuple[Generator, ...]] = {
    "ar": ("ar", "ar", "ar", "ar"),
    "mar": ("mar", "mar", "mar", "mar"),
    "mixed": ("mar", "ar", "ar", "ar"),
}
SHIPPED: dict[tuple[str, Kind], str] = {("small", "ar"): "pop909-ar", ("small", "mixed"): "pop909-mar"}
SHARES = {16: 0.37, 4: 0.16, 1: 0.027}
"""Share of the patches of each size that sound in POP909 (training crops of 256 steps)."""


# ------------------------------------------------------------------------------------------------- what is measured


def configuration(plan: Plan, name: str, kind: Kind) -> TrainConfig:
    """The configuration ``configs/NAME.yaml`` (or a file), with these generators and this width."""
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
        raise UserError(f"--configs {name}: no such file (there are {names})")
    given: dict[str, Any] = {
        "generator_types": KINDS[kind],
        "crop_length": plan.width,
        "context_future": None,
        "reveal_share": 0.0,
    }
    if plan.activation_checkpointing:
        given["activation_checkpointing"] = True
    if plan.max_children is not None:
        given["max_children"] = plan.max_children
    found: TrainConfig = resolve_config(TrainConfig, given, [str(path)])
    if found.patch_sizes != (128, *SHARES):
        raise UserError(
            f"--configs {name}: patch_sizes must be 128 16 4 1, not {' '.join(map(str, found.patch_sizes))}"
        )
    return found


def gate_chances() -> list[float]:
    """How often the gates of each level must open so that :data:`SHARES` of the patches sound.

    Of ``n`` children that are not all silent the last one opens where no other did: the mean share is
    ``p + (1 - p)**n / n``.
    """
    chances, parent, count = [], 1.0, 0
    for share in SHARES.values():
        wanted = chance = share / parent
        for _ in range(50):
            chance = wanted - ((1 - chance) ** count / count if count else 0.0)
        chances.append(chance)
        parent, count = share, 16
    return chances


def build_model(plan: Plan, name: str, kind: Kind) -> FractalGen:
    """Random weights whose gates open as often as music's, or the shipped ones."""
    if plan.trained and (name, kind) in SHIPPED:
        return FractalGen.from_pretrained(SHIPPED[name, kind], plan.device)
    torch.manual_seed(0)
    model = FractalGen(configuration(plan, name, kind).model_config(velocity_bins=VELOCITY_BINS)).to(plan.device).eval()
    gated = [level for level in model.levels if isinstance(level, FractalLevel)]
    for level, chance in zip(gated, gate_chances(), strict=True):
        torch.nn.init.zeros_(level.gate.weight)
        torch.nn.init.constant_(level.gate.bias, float(torch.tensor(chance).logit()))
    return model


def random_music(batch: int, width: int) -> Tensor:
    """Tokens (batch, 128, width) without orphans, of which about :data:`SHARES` sound."""
    generator = torch.Generator().manual_seed(0)
    sounds = torch.ones(batch, 128, width, dtype=torch.bool)
    for size, chance in zip(SHARES, gate_chances(), strict=True):
        opened = torch.rand(batch, 128 // size, width // size, generator=generator) < chance
        sounds &= opened.repeat_interleave(size, 1).repeat_interleave(size, 2)
    velocity = torch.randint(VELOCITY_BINS, sounds.shape, generator=generator)
    held = sounds & sounds.roll(1, 2)
    held[..., 0] = False
    return torch.where(held, HOLD, torch.where(sounds, ONSET + velocity, SILENCE))


def seeded(plan: Plan, number: int) -> torch.Generator:
    """Random numbers of a round."""
    return torch.Generator(plan.device).manual_seed(number)


def training_crops(plan: Plan, batch: int) -> Tensor:
    """Tokens (batch, 128, width) to train on."""
    if plan.data is None:
        return random_music(batch, plan.width)
    corpus = Corpus.open(plan.data)
    if corpus.velocity_bins != VELOCITY_BINS:
        raise UserError(f"--data {plan.data}: {corpus.velocity_bins} velocity bins, {VELOCITY_BINS} are needed")
    torch.manual_seed(0)
    crops = CropDataset(corpus, "train", plan.width)
    return torch.stack([crops[index]["tokens"] for index in range(batch)])


def shares(tokens: Tensor) -> dict[int, float]:
    """Share of the patches of each size that sound in rolls (b, 128, T)."""
    cells = (tokens > SILENCE).float()
    return {size: float(F.max_pool2d(cells, size).mean()) for size in SHARES}


class Trainee:
    """A model under training, as the trainer runs it, and the same with the dense likelihood."""

    def __init__(self, plan: Plan, name: str, kind: Kind) -> None:
        # without steps of any size the weights stay what they are, and the work is the same
        self.cfg = replace(configuration(plan, name, kind), learning_rate=0.0)
        torch.manual_seed(0)
        model = self.cfg.model_config(velocity_bins=VELOCITY_BINS)
        self.module = Training(model, self.cfg).to(plan.device).train()
        self.optimizer: Any = self.module.configure_optimizers()
        self.device = torch.device(plan.device)

    def passes(self, tokens: Tensor, dense: bool, number: int) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad()
        with autocast(self.cfg.precision, self.device):
            if dense:
                loss = dense_nll(self.module.model, tokens).total.mean() * (LOSS_SCALE / tokens[0].numel())
            else:
                labels = torch.zeros(len(tokens), 0, dtype=torch.long, device=self.device)
                loss = self.module.training_step({"tokens": tokens, "labels": labels}, number)
        loss.backward()

    def update(self, number: int) -> None:
        """Clip, and step."""
        self.module.configure_gradient_clipping(self.optimizer, self.cfg.gradient_clip)
        self.optimizer.step()


# ------------------------------------------------------------------------------------------------------------ parts


def training(plan: Plan, name: str, kind: Kind) -> Iterator[Row]:
    """Crops a second: forward, backward, clipping and the optimiser's step, or the first two alone; no reading."""
    trainee = Trainee(plan, name, kind)
    precision = choose_precision(trainee.cfg.precision, trainee.device)
    crops = training_crops(plan, max(plan.train_batches)).to(plan.device)
    works: dict[str, Callable[[int], object]] = {
        f"{Path(name).stem} {kind}, training, batch {batch}": partial(trainee.passes, crops[:batch], False)
        for batch in plan.train_batches
    }
    fast = list(works)
    works[f"{Path(name).stem} {kind}, training, dense"] = partial(trainee.passes, crops[:1], True)
    works["optimiser"] = trainee.update
    times = take_turns(plan, works)
    *_, dense, update = times.values()
    for batch, label in zip(plan.train_batches, fast, strict=True):
        yield row(
            ("training", name, f"{kind}, batch {batch}"),
            "crops/s",
            batch,
            [mine.plus(other) for mine, other in zip(times[label], update, strict=True)],
            ("dense", [other.times(batch).plus(step) for other, step in zip(dense, update, strict=True)]),
            note=f"dense: {batch} x passes of 1 crop + the optimiser; {precision}",
        )
        yield row(
            ("training", name, f"{kind}, batch {batch}, without optimiser"),
            "crops/s",
            batch,
            times[label],
            ("dense", [other.times(batch) for other in dense]),
        )


def sampling(plan: Plan, name: str, kind: Kind) -> Iterator[Row]:
    """Seconds a sample, by batch; with and without recording."""
    model = build_model(plan, name, kind)
    patches = 128 // 16 * (plan.width // 16)
    count = min(plan.dense_patches, patches)
    only = None if kind != "ar" else [(2 * index + 1) * patches // (2 * count) for index in range(count)]
    drawn: dict[int, Tensor] = {}

    def fast(batch: int, record: bool, number: int) -> None:
        drawn[batch], _ = model.sample(
            batch,
            width=plan.width,
            generator=seeded(plan, number),
            return_intermediates=record,
            threads=torch.get_num_threads(),  # as many as the reference has
        )

    def dense(batch: int, number: int) -> None:
        dense_sample(model, batch, width=plan.width, generator=seeded(plan, number), only=only)

    for batch in plan.batches:
        together = batch if only else 1
        title = f"{Path(name).stem} {kind}, sampling, batch {batch}"
        plain, recorded, slow = take_turns(
            plan,
            {
                title: partial(fast, batch, False),
                f"{title}, recorded": partial(fast, batch, True),
                f"{title}, dense": partial(dense, together),
            },
        ).values()
        scale = batch / together * (patches / len(only) if only else 1)
        part = f"{len(only)} of {patches} patches" if only else "all patches"
        sounding = " / ".join(f"{100 * share:.1f}" for share in shares(drawn[batch]).values())
        yield row(
            ("sampling", name, f"{kind}, batch {batch}"),
            "s/sample",
            batch,
            plain,
            ("dense", [timing.times(scale) for timing in slow]),
            note=f"dense: {scale:g} x {part} at batch {together}; {sounding} % sound",
            per=True,
        )
        yield row(
            ("sampling", name, f"{kind}, batch {batch}, recorded"),
            "s/sample",
            batch,
            recorded,
            ("not recorded", plain),
            per=True,
        )


def lengths(plan: Plan, name: str, kind: Kind) -> Iterator[Row]:
    """Seconds a bar of pieces from short to long, beside those of the piece as long as a window."""
    model = build_model(plan, name, kind)

    def compose(bars: int, number: int) -> None:
        model.sample(1, width=BAR * bars, window=plan.width, generator=seeded(plan, number))

    works = {bars: partial(compose, bars) for bars in sorted({*plan.bars, plan.width // BAR})}
    found = take_turns(plan, {f"{Path(name).stem} {kind}, {bars} bars": work for bars, work in works.items()})
    times = dict(zip(works, found.values(), strict=True))
    window = plan.width // BAR
    for bars in plan.bars:
        share = bars / window
        scaled = [timing.times(share) for timing in times[window]]
        label = ("lengths", name, f"{kind}, {bars} bars")
        yield row(label, "s/bar", bars, times[bars], (f"{window} bars", scaled), per=True)
