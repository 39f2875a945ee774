"""Scoring a corpus: windows, units, standard errors, and the command that prints and writes them."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fractalgen.api import FractalGen
from fractalgen.bulk import Part
from fractalgen.checkpoint import save_pretrained
from fractalgen.cli import main
from fractalgen.config import EvaluateConfig
from fractalgen.data.corpus import Corpus, write_corpus
from fractalgen.data.crops import Excerpts, ValidCrops
from fractalgen.evaluation import two_sample
from fractalgen.evaluation.command import draw
from fractalgen.evaluation.likelihood import Scores, Window, crop_windows, score, sliding_windows
from fractalgen.features.critic import Critic
from fractalgen.features.statistics import ratio_error
from fractalgen.model.plans import Plans
from fractalgen.music.labels import Attribute
from fractalgen.music.plan import MOST_LEFT
from tests import tiny
from tests.data import test_plans


@pytest.fixture(scope="module")
def chorales() -> Corpus:
    return Corpus.open("chorales")


@pytest.fixture(scope="module")
def model() -> FractalGen:
    torch.manual_seed(0)
    return FractalGen(tiny.model_config(crop_length=64)).eval()


def test_sliding_windows_score_every_step_of_a_song_once(chorales: Corpus) -> None:
    songs = chorales.indices("test")[:6]
    excerpts = Excerpts(chorales, 64, patch=16, bar_columns=False)
    windows = sliding_windows(excerpts, songs, stride=32)
    for song in songs:
        mine = [window for window in windows if window.song == song]
        first, stop = int(chorales.downbeats(song)[0]), chorales.num_steps(song)
        steps = np.concatenate([window.start + np.arange(window.begin, window.end) for window in mine])
        assert np.array_equal(steps, np.arange(first, stop))
        assert mine[0].begin == 0
        for window in mine[1:]:
            assert 0 < window.end - window.begin <= 32
            assert window.end <= 64
            assert window.begin % 16 == 0
            assert (window.start - first) % 16 == 0
            assert window.begin >= 64 - 32 - 16  # as much past as fits


def test_scores_are_the_likelihood_of_the_crops(chorales: Corpus, model: FractalGen) -> None:
    crops = ValidCrops(chorales, "valid", 64, limit=5)
    scores = score(model, chorales, crop_windows(crops), batch_size=2, quiet=True)
    rolls = torch.stack([crops[i]["tokens"] for i in range(5)])
    with torch.no_grad():
        expected = model.nll(rolls).total
    np.testing.assert_allclose(scores.nats, expected.numpy(), rtol=1e-5)
    summary = scores.summary()
    nats, notes = float(expected.sum()), int((rolls >= 2).sum())
    assert summary["notes"] == notes
    assert summary["exact"] is True
    assert summary["bits_per_note"] == pytest.approx(nats / math.log(2) / notes, rel=1e-5)
    assert summary["bits_per_cell"] == pytest.approx(nats / math.log(2) / rolls.numel(), rel=1e-5)
    assert summary["nats_per_frame"] == pytest.approx(nats / (5 * 64), rel=1e-5)
    assert summary["nll_nats_per_crop"] == pytest.approx(nats / 5, rel=1e-5)
    for parts in (summary["kinds"].values(), [level["bits_per_note"] for level in summary["levels"].values()]):
        assert sum(parts) == pytest.approx(summary["bits_per_note"], rel=1e-5)


def test_steps_that_are_not_scored_are_known(chorales: Corpus, model: FractalGen) -> None:
    """The second half of a window, given the first: what the model's own conditional likelihood says."""
    song = chorales.indices("valid")[0]
    scores = score(model, chorales, [Window(song, 0, 32, 64)], quiet=True)
    roll = torch.from_numpy(chorales.tokens(song, 0, 64).astype(np.int64))[None]
    known = (torch.arange(64) < 32).expand_as(roll)
    with torch.no_grad():
        assert scores.nats[0] == pytest.approx(model.nll(roll, known=known).total.item(), rel=1e-5)
    assert scores.notes[0] == (roll[..., 32:] >= 2).sum()
    assert scores.cells[0] == 32 * 128


@pytest.fixture
def planned(tmp_path: Path) -> tuple[FractalGen, Corpus]:
    """A random model of four columns that knows plans, and a song whose bars come back after four."""
    write_corpus([test_plans.song("song", 12)], {"song": "test"}, tmp_path / "song.safetensors")
    torch.manual_seed(0)
    model = FractalGen(replace(tiny.model_config(crop_length=64), plan_width=8)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # what a plan tells weighs nothing at first
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        for name, parameter in model.named_parameters():
            if name.endswith("gate.bias"):
                parameter.fill_(-3.0)  # as sparse as music
    return model, Corpus.open(tmp_path / "song.safetensors")


def test_the_plan_of_known_columns_costs_nothing(planned: tuple[FractalGen, Corpus]) -> None:
    """Two columns, given two: what all four cost less what the first two cost."""
    model, corpus = planned
    scores = score(model, corpus, [Window(0, 128, 32, 64)], quiet=True, given_plan=True)
    plans = excerpt(model, corpus, 128)[1]
    first_two = plans.each(lambda x: x if x.ndim == 1 else x[..., : x.shape[-1] // 2])
    with torch.no_grad():
        whole, first = model.plan_nll(plans), model.plan_nll(first_two)
    for name, values in scores.plans.items():
        assert values[0] == pytest.approx(whole[name].item() - first[name].item(), rel=1e-4)
        assert values[0] > 0.1


def test_bars_of_a_window_come_back_from_before_it_where_that_is_known(planned: tuple[FractalGen, Corpus]) -> None:
    model, corpus = planned
    for begin, alone in ((32, False), (0, True)):
        tokens, plans = excerpt(model, corpus, 128, alone)
        assert plans.back.tolist() == [[0 if alone else 4] * 4]
        assert bool(plans.bank.any()) is not alone
        known = (torch.arange(64) < begin).expand_as(tokens)
        with torch.no_grad():
            expected = model.nll(tokens, known=known, plans=plans).total.item()
        scores = score(model, corpus, [Window(0, 128, begin, 64)], quiet=True, given_plan=True)
        assert scores.nats[0] == pytest.approx(expected, rel=1e-5)


def excerpt(model: FractalGen, corpus: Corpus, start: int, alone: bool = False) -> tuple[torch.Tensor, Plans]:
    """Tokens and plan of the excerpt of the first song that begins at a step."""
    item = Excerpts(corpus, 64, patch=model.config.patch, bar_columns=True, plans=True)(0, start, alone=alone)
    items = {name: tensor[None] for name, tensor in item.items()}
    plans = Plans.of(items)
    assert plans is not None
    return items["tokens"], plans


def test_music_without_a_note_has_no_bits_per_note() -> None:
    nats = np.array([2.0, 4.0])
    summary = Scores({"L0/gate": nats}, {"silence": nats}, np.zeros(2), np.full(2, 256.0), np.arange(2), True).summary()
    assert summary["nats_per_frame"] == 1.5
    assert summary["bits_per_note"] is None
    assert summary["stderr"] is None


def test_the_standard_error_counts_songs_not_crops() -> None:
    """Two songs of two crops each, 8 and 6 bits on 2 and 2 notes: ratio 3.5, residuals +1 and -1, over 4 notes."""
    values, counts, songs = [4.0, 4.0, 3.0, 3.0], [1, 1, 1, 1], [7, 7, 9, 9]
    assert ratio_error(values, counts, songs) == pytest.approx(math.sqrt(2 / 1 * (1 + 1)) / 4)
    assert math.isnan(ratio_error([1.0], [1], [3]))
    nats = np.array([4.0, 4.0, 3.0, 3.0]) * math.log(2)
    scores = Scores({"L0/gate": nats}, {}, np.ones(4), np.ones(4), np.array(songs), exact=True)
    assert scores.per_note(nats) == {"bits_per_note": pytest.approx(3.5), "stderr": pytest.approx(0.5)}


@pytest.mark.slow
def test_whole_songs_are_scored_with_their_plans(
    tmp_path: Path, planned: tuple[FractalGen, Corpus], capsys: pytest.CaptureFixture
) -> None:
    model, corpus = planned
    checkpoint, out = save_pretrained(model, tmp_path / "planned.safetensors", dtype=torch.float32), tmp_path / "f.json"
    flags = f"--checkpoint {checkpoint} --data {corpus.path} --stride 32 --precision 32 --json {out}"
    assert main(["evaluate", *flags.split()]) == 0
    written = json.loads(out.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    figures = written["given_plan"]
    parts = figures["bits_per_note"] + figures["plan/returns"] + figures["plan/chords"]
    assert figures["with_plan"] == pytest.approx(parts)
    assert f"together {parts:.3f}" in capsys.readouterr().out
    excerpts = Excerpts(corpus, 64, patch=16, bar_columns=True)
    windows = sliding_windows(excerpts, [0], 32)
    assert [(window.begin, window.end) for window in windows] == [(0, 64)] + [(32, 64)] * 4
    nats = [score(model, corpus, [window], quiet=True, given_plan=True) for window in windows]
    total = sum(float(one.nats[0] + one.plans["plan/returns"][0] + one.plans["plan/chords"][0]) for one in nats)
    assert parts == pytest.approx(total / math.log(2) / len(corpus.notes(0)), rel=1e-4)


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path: Path, model: FractalGen, capsys: pytest.CaptureFixture) -> None:
    checkpoint = save_pretrained(model, tmp_path / "tiny.safetensors")
    out, page = tmp_path / "figures.json", tmp_path / "page.html"
    flags = f"--checkpoint {checkpoint} --data chorales --limit 4 --num_samples 2 --json {out} --report {page}"
    assert main(["evaluate", *flags.split()]) == 0
    figures = json.loads(out.read_text())
    assert f"{figures['bits_per_note']:.3f}" in capsys.readouterr().out
    assert figures.keys() >= {
        "bits_per_note",
        "bits_per_cell",
        "nll_nats_per_crop",
        "stderr",
        "exact",
        "notes",
        "crops",
    }
    assert set(figures["levels"]) == {"L0", "L1", "L2", "L3"}
    assert set(figures["statistics"]) == {"real", "generated", "shuffled"}
    assert set(figures["copying"]) == {"real", "generated"}
    assert figures["faults"]["orphan_holds"] == 0
    assert "histograms" not in figures
    assert set(figures["command"].split()) == {"fractalgen", "evaluate", *flags.split()}
    assert page.read_text().count("data:image/gif") == 2


@pytest.mark.slow
def test_a_critic_learns_from_samples_and_then_chooses_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tiny.save_model(tmp_path / "tiny.safetensors", tiny.model_config(), -2)
    flags = f"--checkpoint {checkpoint} --data chorales --split valid --limit 2 --num_samples 10 --batch_size 20"
    critic = tmp_path / "tiny.critic.json"
    monkeypatch.setattr(two_sample, "TREES", 5)
    monkeypatch.setattr(two_sample, "REPEATS", 2)
    assert main(["evaluate", *flags.split(), "--critic", str(critic)]) == 0
    found = Critic.read(critic)
    assert found.about["samples"].startswith("10, seed 0")
    cfg, model = EvaluateConfig(data="", num_samples=10, batch_size=20), FractalGen.from_pretrained(checkpoint)
    first, best = (draw(model, replace(cfg, best_of=count), Part(0, 10, 0), False).tokens for count in (1, 2))
    assert found.scores(best).mean() > found.scores(first).mean()


@pytest.mark.parametrize("ends", [False, True])
def test_samples_are_in_random_keys_and_end_only_as_songs_do(ends: bool) -> None:
    key = Attribute("key", ("C major", "A minor", "G major"))
    config = replace(tiny.model_config(), plan_width=8, bar_columns=True, attributes=(key,))
    model = tiny.random_model(config)
    drawn = draw(model, EvaluateConfig(data="", num_samples=6, batch_size=6), Part(0, 6, 5), ends)
    assert drawn.tokens.shape == (6, 128, config.crop_length)
    left = [trace.settings["plan"]["left"] for trace in drawn.traces]
    assert set(map(tuple, left)) == {tuple(range(config.columns, 0, -1)) if ends else (MOST_LEFT,) * config.columns}
    assert len({trace.settings["key"] for trace in drawn.traces}) > 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--split test", "--split test: .* has no such songs, only train"),
        ("--stride 24", "--stride 24: must be a multiple of the patch size 16, 64 at most"),
        ("--stride 80", "--stride 80: must be"),
        ("--stride 16 --limit 3", "--limit 3 chooses crops, --stride 16 whole songs"),
        ("--num_samples -1", "--num_samples -1: must be at least 0"),
        ("--num_iter_list 3 --num_samples 1", "--num_iter_list 3: 4 positive numbers are needed"),
        ("--cfg 2", "--cfg 2.0: says how samples are drawn, and --num_samples 0 draws none"),
        ("--num_iter_list 8 4 2 1 --mar_order scan", "--mar_order scan: says how samples are drawn"),
        ("--json nowhere/a.json", "--json nowhere/a.json: there is no folder nowhere"),
        ("--report .", "--report .: is a folder"),
        ("--best_of 2", "--best_of 2: says how samples are drawn, and --num_samples 0 draws none"),
        ("--best_of 2 --num_samples 1", "--best_of 2: tiny-[0-9a-f]+ has no critic"),
        ("--critic a.json --num_samples 9", "--critic a.json: needs at least --num_samples 10, not 9"),
        ("--critic a.json --num_samples 10", "--critic a.json: .* has 4 songs for training, it needs 10"),
        ("--critic a.json --num_samples 10 --best_of 2", "--critic a.json: learns from all that is drawn"),
        ("--critic nowhere/a.json --num_samples 10", "--critic nowhere/a.json: there is no folder nowhere"),
    ],
)
def test_mistakes_get_one_line(
    flags: str, message: str, tmp_path: Path, model: FractalGen, capsys: pytest.CaptureFixture
) -> None:
    checkpoint = save_pretrained(model, tmp_path / "tiny.safetensors")
    corpus = tiny.corpus(tmp_path / "songs.safetensors")
    assert main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(corpus), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
