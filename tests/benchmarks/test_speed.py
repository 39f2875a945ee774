"""The dense reference says what the model says, and the benchmark measures what it says."""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import __main__ as command
from benchmarks import speed
from benchmarks.timing import Plan, Timing, row, take_turns
from fractalgen.errors import UserError
from fractalgen.model.regions import Regions
from fractalgen.model.velocity_head import VelocityHead
from fractalgen.music.pianoroll import PianoRoll
from tests import tiny
from tests.model.properties.helpers import random_model, random_rolls, tiny_config
from tests.reference import dense_nll, dense_sample

KINDS = ["ar ar ar ar", "mar mar mar mar", "ar mar ar mar", "mar ar mar ar"]
ITERATIONS = (3, 2, 3, 1)
NARROW = """
embed_dims: [16, 16, 16, 16]
num_blocks: [1, 1, 1, 1]
num_heads: [2, 2, 2, 2]
context_pitches: [0, 2, 1, 0]
context_past: [0, 4, 1, 0]
"""


@pytest.fixture
def narrow(tmp_path: Path) -> str:
    """A configuration that takes no time."""
    path = tmp_path / "narrow.yaml"
    path.write_text(NARROW)
    return str(path)


@pytest.mark.parametrize("generators", KINDS)
def test_the_dense_reference_has_the_same_likelihood_and_gradient(generators: str) -> None:
    """Term by term and kind by kind, MAR under one order; and so has every parameter."""
    future_context = generators == "mar ar mar ar"
    config = tiny_config(
        generators, patches=(8, 4, 2, 1), width=12, velocity_bins=3, label_sizes=(3,), future_context=future_context
    )
    model = random_model(config)
    rolls = random_rolls(3, 8, 12, 3)
    rolls[0] = 0  # nothing but silence,
    rolls[1, :, 3:] = 0  # a beginning, and much of it
    results = []
    for nll in (model.nll, partial(dense_nll, model)):
        model.zero_grad()
        result = nll(rolls, [torch.tensor([0, 1, 2])], ITERATIONS, mar_order="scan")
        result.total.sum().backward()
        results.append((result, {name: parameter.grad for name, parameter in model.named_parameters()}))
    (fast, gradients), (dense, expected) = results
    assert fast.exact
    assert dense.exact
    torch.testing.assert_close(dense.terms, fast.terms, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(dense.kinds, fast.kinds, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradients, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("generators", KINDS)
@pytest.mark.parametrize("scan_order", ["column_major", "row_major"])
def test_the_dense_reference_draws_the_very_same_music(generators: str, scan_order: str) -> None:
    config = tiny_config(generators, patches=(8, 4, 2, 1), width=12, velocity_bins=3, scan_order=scan_order)
    model = random_model(config, seed=5)
    for order in ("scan", "random") if "mar" in generators else ("scan",):
        settings: dict[str, Any] = {"num_iter_list": ITERATIONS, "mar_order": order}
        fast, _ = model.sample(6, generator=torch.Generator().manual_seed(1), **settings)
        dense = dense_sample(model, 6, generator=torch.Generator().manual_seed(1), **settings)
        assert torch.equal(fast, dense)
        assert 0 < (fast > 0).double().mean() < 0.7


@pytest.mark.parametrize("generators", ["ar ar ar ar", "mar mar mar mar"])
def test_the_dense_reference_visits_every_cell(generators: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all gates are shut the model draws no cell at all, the reference all 96 of both rolls."""
    model = random_model(tiny_config(generators, patches=(8, 4, 2, 1), width=12))
    torch.nn.init.zeros_(model.root.gate.weight)
    torch.nn.init.constant_(model.root.gate.bias, -1e9)
    visited: list[int] = []
    choice = VelocityHead.choice

    def counted(head: VelocityHead, y: Tensor, regions: Regions) -> Tensor:
        visited.append(len(regions.canvas))
        return choice(head, y, regions)

    monkeypatch.setattr(VelocityHead, "choice", counted)

    def cells(work: Any, *args: Any, **settings: Any) -> int:
        visited.clear()
        work(*args, **settings)
        return sum(visited)

    assert cells(model.sample, 2, num_iter_list=ITERATIONS) == 0
    assert cells(dense_sample, model, 2, num_iter_list=ITERATIONS) == 2 * 96
    silence = torch.zeros(2, 8, 12, dtype=torch.long)
    assert cells(model.nll, silence, num_iter_list=ITERATIONS) == 0
    assert cells(dense_nll, model, silence, num_iter_list=ITERATIONS) == 2 * 96
    if generators.startswith("ar"):  # six patches of 16 cells, of which two are measured
        assert cells(dense_sample, model, 2, only=[1, 4]) == 2 * 2 * 16


def test_gates_open_as_often_as_those_of_music() -> None:
    """Thousands of patches by their definition: 16 gates, the last of which opens where no other did."""
    random = np.random.default_rng(0)
    parent = 0.37
    assert speed.gate_chances()[0] == parent
    for size, chance in zip((4, 1), speed.gate_chances()[1:], strict=True):
        opened = random.random((40_000, 16)) < chance
        opened[:, -1] |= ~opened.any(1)
        assert parent * opened.mean() == pytest.approx(speed.SHARES[size], rel=0.02)
        parent = speed.SHARES[size]


def test_the_music_to_train_on_is_as_dense_as_music_and_has_no_orphans() -> None:
    tokens = speed.random_music(16, 256)
    assert tokens.shape == (16, 128, 256)
    for size, share in speed.shares(tokens).items():
        assert share == pytest.approx(speed.SHARES[size], rel=0.1)
    assert not ((tokens[..., 1:] == 1) & (tokens[..., :-1] == 0)).any()
    assert not (tokens[..., 0] == 1).any()
    assert tokens.max() == 33


def test_shares_are_counted_by_patch() -> None:
    tokens = torch.zeros(1, 128, 32, dtype=torch.long)
    tokens[0, 0, 0], tokens[0, 3, 3], tokens[0, 20, 31] = 5, 1, 2
    assert speed.shares(tokens) == pytest.approx({16: 2 / 16, 4: 2 / 256, 1: 3 / 4096})


def test_a_figure_is_the_median_of_rounds_and_of_their_ratios() -> None:
    fast = [Timing(1.0, 2.0), Timing(4.0, 2.0), Timing(2.0, 4.0)]
    slow = [Timing(5.0, 20.0), Timing(12.0, 20.0), Timing(20.0, 20.0)]
    rate = row(("part", "tiny", "what"), "crops/s", 8, fast, ("dense", slow))
    assert (rate.value, rate.seconds, rate.cpu_seconds) == (4.0, 2.0, 2.0)
    assert (rate.reference_seconds, rate.times_faster, rate.times_faster_cpu) == (12.0, 5.0, 10.0)
    cost = row(("part", "tiny", "what"), "s/sample", 8, fast, per=True)
    assert (cost.value, cost.times_faster) == (0.25, None)
    assert Timing(1.0, 2.0).times(3).plus(Timing(0.5, 1.0)) == (3.5, 7.0)


def test_works_take_turns() -> None:
    calls: list[tuple[str, int]] = []

    def work(name: str, number: int) -> None:
        calls.append((name, number))

    works = {name: partial(work, name) for name in ("a", "b")}
    times = take_turns(Plan(repeats=2, warm_up=True), works)
    assert calls == [("a", 0), ("b", 0)] * 2 + [("a", 1), ("b", 1)]  # the first round only warms up
    assert [len(rounds) for rounds in times.values()] == [2, 2]


@pytest.mark.slow
def test_the_clock_of_a_command_stops_when_its_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = f"import pathlib, time; pathlib.Path({str(path)!r}).touch(); time.sleep(1); print('done')"
    began = time.perf_counter()
    stopped, output = command.run_process([sys.executable, "-c", script], path.exists)
    assert output == "done\n"
    assert 0 < stopped.wall < time.perf_counter() - began - 0.5  # it went on for a second
    assert stopped.cpu > 0
    path.unlink()
    whole, _ = command.run_process([sys.executable, "-c", script], lambda: False)
    assert whole.wall > 1
    with pytest.raises(UserError, match="exit status 1: ValueError: no"):
        command.run_process([sys.executable, "-c", "raise ValueError('no')"])


@pytest.mark.slow
def test_the_command_measures_everything_and_writes_it(
    narrow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Processes of their own are left out but for one: starting PyTorch takes seconds."""
    jobs: list[str] = []

    def process(arguments: list[str], *_: Any) -> tuple[Timing, str]:
        output = "{}"
        if "--job" in arguments:
            jobs.append(arguments[-1])
            output = json.dumps(command.memory_job(**json.loads(arguments[-1])))
        return Timing(2.0, 1.0), output

    monkeypatch.setattr(command, "run_process", process)
    music = tmp_path / "music"
    music.mkdir()
    for seed in (1, 2):
        PianoRoll(tiny.tokens(seed)).to_midi(music / f"{seed}.mid")
    out = tmp_path / "speed.json"
    parts = [part for part in command.PARTS if part != "gif"]
    flags = ["--quick", "--configs", narrow, "--bars", "1", "3", "--midi", str(music)]
    assert command.main([*flags, "--json", str(out), "--only", *parts]) == 0
    result = json.loads(out.read_text())
    rows = {(row["part"], row["what"]): row for row in result["rows"]}
    assert {part for part, _ in rows} == set(parts)
    assert result["plan"]["configs"] == [narrow]
    assert rows["prepare", "2 files"]["value"] == 1.0
    assert rows["startup", "2 bars"]["seconds"] == 2.0
    for kind in ("ar", "mar"):
        for batch in (1, 2):
            training = rows["training", f"{kind}, batch {batch}"]
            assert training["value"] * training["seconds"] == pytest.approx(batch)
            assert training["times_faster"] == pytest.approx(training["reference_seconds"] / training["seconds"])
            passes = rows["training", f"{kind}, batch {batch}, without optimiser"]
            assert passes["seconds"] < training["seconds"]
        sampling = rows["sampling", f"{kind}, batch 1"]
        part = "16 x 1 of 16 patches" if kind == "ar" else "1 x all patches"
        assert sampling["note"].startswith(f"dense: {part} at batch 1; ")
        assert sampling["times_faster"] == pytest.approx(sampling["reference_seconds"] / sampling["seconds"])
        assert rows["sampling", f"{kind}, batch 1, recorded"]["reference"] == "not recorded"
        for bars in (1, 3):
            lengths = rows["lengths", f"{kind}, {bars} bars"]
            assert lengths["value"] * bars == pytest.approx(lengths["seconds"])
            assert lengths["reference"] == "2 bars"
        assert rows["memory", f"{kind}, training, dense, batch 1"]["value"] > 50
    assert len(jobs) == 2 * 5
    table = capsys.readouterr().out
    assert len([line for line in table.splitlines() if line.startswith(f"| {parts[0]}")]) == 8


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "prepare"], "--only prepare: name a folder of MIDI files with --midi"),
        (["--configs", "huge"], "--configs huge: no such file (there are base,"),
        (["--width", "40"], "--width 40: must be a positive multiple of 16"),
        (["--batches", "1", "0"], "--batches 0: must be at least 1"),
        (["--only", "prepare", "--midi", "{}"], "no MIDI file there"),
        (["--only", "training", "--data", "{}/none"], "none"),
    ],
)
def test_mistakes_are_told_in_one_line(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--quick", *(flag.format(tmp_path) for flag in flags)]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert "benchmarks: error: " in told
    assert message in told


def test_other_patches_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("patch_sizes: [128, 8, 2, 1]\n")
    with pytest.raises(UserError, match="patch_sizes must be 128 16 4 1, not 128 8 2 1"):
        speed.configuration(Plan(), str(path), "ar")


def test_quick_gives_way_to_flags() -> None:
    args = command.flags().parse_args(["--quick", "--batches", "3", "5"])
    assert isinstance(args, argparse.Namespace)
    plan = command.plan_of(args)
    assert (plan.batches, plan.configs, plan.repeats) == ((3, 5), ("tiny",), 1)
    assert command.plan_of(command.flags().parse_args([])) == Plan()
