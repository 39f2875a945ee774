"""The benchmark of iterations: its measures by hand and against the model, and the whole of it on a tiny model."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import iterations
from benchmarks.iterations import apart, drawn, halves, label, likelihoods, main, schedules
from fractalgen import FractalGen
from fractalgen.checkpoint import save_pretrained
from fractalgen.config import SamplingConfig
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.features.notes import crop_tokens
from fractalgen.features.statistics import music_statistics
from fractalgen.model.schedule import Schedule
from tests import tiny
from tests.benchmarks import ErrorLine


@pytest.fixture(scope="module")
def model() -> FractalGen:
    """MAR at the first level, whose 16 patches are all there are in 32 steps."""
    return tiny.random_model(tiny.model_config(generator_types=("mar", "ar", "ar", "ar")), gate_bias=-3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus.open(tiny.corpus(tmp_path_factory.mktemp("songs") / "songs.safetensors"))


def test_the_default_comes_first_and_levels_without_a_number_have_its() -> None:
    model = FractalGen(tiny.model_config())
    default = Schedule((8, 4, 2, 1), "random")
    powers = [Schedule((count, 4, 2, 1), "random") for count in (1, 2, 4, 16)]
    assert schedules(model, None, ["random"]) == [default, *powers]
    assert schedules(model, [[8], [3, 5]], ["random", "scan"]) == [
        default,
        Schedule((3, 5, 2, 1), "random"),
        Schedule((8, 4, 2, 1), "scan"),
        Schedule((3, 5, 2, 1), "scan"),
    ]
    assert label(default) == "8 4 2 1, random"


def test_likelihoods_are_the_models(model: FractalGen, corpus: Corpus) -> None:
    crops = ValidCrops(corpus, "valid", tiny.WIDTH, limit=4)
    todo = [Schedule((8, 4, 2, 1), "random"), Schedule((1, 1, 1, 1), "random"), Schedule((16, 1, 1, 1), "scan")]
    found = likelihoods(model, crops, todo, seed=3)
    rolls = torch.from_numpy(crop_tokens(crops).astype(np.int64))
    notes = int((rolls >= 2).sum())
    for one in todo:
        torch.manual_seed(3)
        with torch.no_grad():
            nats = float(model.nll(rolls, num_iter_list=one.iterations, mar_order=one.order).total.sum())
        assert found[label(one)]["bits_per_note"] == pytest.approx(nats / math.log(2) / notes, rel=1e-5)
    first, other = (found[label(one)] for one in todo[:2])
    assert first["difference"] == {"bits_per_note": 0, "stderr": 0}
    assert other["difference"]["bits_per_note"] == pytest.approx(other["bits_per_note"] - first["bits_per_note"])
    assert "difference" not in found["any order, a bound"]


def test_the_jackknife_of_a_mean_is_its_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iterations, "mean_distance", lambda found: found["notes_per_bar"]["sample_mean"])
    rolls = np.stack([tiny.tokens(seed, notes=notes) for seed, notes in enumerate((4, 9, 30, 12, 25))])
    base = music_statistics(rolls)
    each = base["notes_per_bar"]
    found = apart(base, rolls, 16)
    assert found["distance"] == pytest.approx(each.mean())
    assert found["stderr"] == pytest.approx(each.std(ddof=1) / math.sqrt(5))


def test_the_floor_is_between_different_songs(corpus: Corpus) -> None:
    args = argparse.Namespace(split="train", seed=0, num_samples=8, data="songs")
    known, other = halves(corpus, args, tiny.WIDTH)
    first, second, third, fourth = corpus.indices("train")
    here, there = (
        {corpus.tokens(song, start, start + tiny.WIDTH).tobytes() for song in songs for start in range(0, 192, 32)}
        for songs in ((first, third), (second, fourth))
    )
    assert len(known) == 12
    assert {roll.tobytes() for roll in known} <= here
    assert len(other) == 8
    assert {roll.tobytes() for roll in other} <= there


def test_samples_are_drawn_eight_at_a_time_and_timed_alone_too(model: FractalGen) -> None:
    args = argparse.Namespace(seed=5, num_samples=16, filter_threshold=0.01, checkpoint="tiny")
    todo = [Schedule((8, 4, 2, 1), "random"), Schedule((2, 4, 2, 1), "scan")]
    rolls, seconds = drawn(model, todo, args)
    sampling = SamplingConfig(filter_threshold=0.01, num_iter_list=(2, 4, 2, 1), mar_order="scan")
    expected = [
        roll.tokens for seed in (5, 6) for roll in model.generate(8, seed=seed, batch_size=8, sampling=sampling)
    ]
    assert np.array_equal(rolls[label(todo[1])], np.stack(expected))
    assert not np.array_equal(rolls[label(todo[0])], rolls[label(todo[1])])
    for name, by_batch in seconds.items():
        assert list(by_batch) == [1, 8], name
        for batch, times in by_batch.items():
            assert len(times["rounds"]) == 2
            assert times["value"] * batch == pytest.approx(times["seconds"])
    assert {times["times_faster"] for times in seconds[label(todo[0])].values()} == {1.0}


def test_the_whole_benchmark(
    model: FractalGen, corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = save_pretrained(model, tmp_path / "mar.safetensors")
    out = tmp_path / "out.json"
    flags = ["--checkpoint", str(checkpoint), "--data", str(corpus.path), "--num_samples", "8", "--limit", "4"]
    assert main([*flags, "--num_iter_list", "2", "--num_iter_list", "1", "1", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    names = ["8 4 2 1, random", "2 4 2 1, random", "1 1 2 1, random"]
    assert list(result["rows"]) == [*names, "any order, a bound", "real songs"]
    for name in names:
        assert set(result["rows"][name]) == {"num_iter_list", "mar_order", "likelihood", "music", "seconds"}
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| ")
    assert "bits per note" in lines[2]
    assert [line.split("|")[1].strip() for line in lines[4:]] == list(result["rows"])
    assert main([*flags, "--num_iter_list", "2", "--only", "likelihood"]) == 0
    assert "distance" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_samples 12", "--num_samples 12: must be a multiple of 8"),
        ("--num_samples 0", "--num_samples 0: must be a multiple of 8"),
        ("--limit -1", "--limit: -1: must be at least 0"),
        ("--num_iter_list 8 4 2 1 1", "--num_iter_list 8 4 2 1 1: 4 positive numbers are needed"),
        ("--num_iter_list 0", "--num_iter_list 0 4 2 1: 4 positive numbers are needed"),
        ("--checkpoint chorales", "--checkpoint chorales: all its levels are AR, there are no iterations to choose"),
    ],
)
def test_mistakes_are_told_in_one_line(
    model: FractalGen, corpus: Corpus, tmp_path: Path, one_error_line: ErrorLine, flags: str, message: str
) -> None:
    checkpoint = save_pretrained(model, tmp_path / "mar.safetensors")
    assert message in one_error_line("--checkpoint", checkpoint, "--data", corpus.path, *flags.split(), main=main)


def test_a_model_that_does_not_fit_the_corpus(corpus: Corpus, tmp_path: Path, one_error_line: ErrorLine) -> None:
    config = tiny.train_config(tmp_path, generator_types=("mar",) * 4).model_config(velocity_bins=8)
    path = tiny.save_model(tmp_path / "coarse.safetensors", config)
    line = one_error_line("--checkpoint", path, "--data", corpus.path, main=main)
    assert f"--data {corpus.path}: velocity_bins 32, coarse-" in line
