"""The comparison of both models: tiny untrained ones, on the embedded chorales."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import note_event_scores, train_note_events
from benchmarks.compare import BASELINE, OURS, main, nearer
from benchmarks.compare_tables import markdown, number
from benchmarks.note_events import NoteEventConfig, NoteEventTransformer, decode, encode, sample
from fractalgen.api import load_pretrained
from fractalgen.data.corpus import Corpus, write_corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.evaluation.copying import BarIndex
from fractalgen.evaluation.likelihood import crop_windows, score
from fractalgen.features.notes import crop_tokens, note_statistics
from fractalgen.features.statistics import STATISTICS
from fractalgen.music.measures import note_count
from tests import tiny
from tests.benchmarks import ErrorLine
from tests.data import test_plans

LIMIT, SAMPLES = 4, 2
BARS: dict[str, Any] = {"patch": 16, "bar_columns": True}  # of the tiny model


def save_baseline(path: Path, **sizes: int) -> Path:
    """An untrained note event transformer as its training would save it after three steps."""
    torch.manual_seed(0)
    config = NoteEventConfig(**{"steps": tiny.WIDTH, "width": 16, "depth": 1, "heads": 2, "max_notes": 60, **sizes})
    model = NoteEventTransformer(config)
    with torch.no_grad():
        for name in ("heads.0.bias", "heads.3.bias"):  # notes come soon after each other and are short
            model.get_parameter(name)[4:].fill_(-3.0)
    header = {"format": train_note_events.FORMAT, "version": train_note_events.VERSION, "config": asdict(config)}
    facts = {"step": 3, "seconds": 90.0, "train": {"batch_size": 4, "data": "somewhere.safetensors"}}
    torch.save({**header, **facts, "model": model.state_dict(), "optimizer": {}}, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")
    facts = {"step": 5, "train": {"batch_size": 2, "accumulate_grad_batches": 3}}
    ours = tiny.save_model(folder / "ours.safetensors", tiny.model_config(), facts=facts)
    return {"checkpoint": Path(ours), "baseline": save_baseline(folder / "notes.pt"), "folder": folder}


@pytest.fixture(scope="module")
def result(files: dict[str, Path]) -> dict[str, Any]:
    folder = files["folder"]
    sizes = ["--limit", str(LIMIT), "--num_samples", str(SAMPLES), "--seed", "7"]
    written = ["--json", str(folder / "r.json"), "--markdown", str(folder / "r.md")]
    assert main([*common(files), *sizes, *written]) == 0
    return json.loads((folder / "r.json").read_text(encoding="utf-8"))


def common(files: dict[str, Path]) -> list[str]:
    return ["--checkpoint", str(files["checkpoint"]), "--baseline", str(files["baseline"]), "--data", "chorales"]


def test_likelihoods_are_those_of_each_model_alone(files: dict[str, Path], result: dict[str, Any]) -> None:
    crops = ValidCrops(Corpus.open("chorales"), "test", tiny.WIDTH, limit=LIMIT, **BARS)
    one = score(load_pretrained(files["checkpoint"]), crops.corpus, crop_windows(crops), batch_size=1, quiet=True)
    two = note_event_scores.score(train_note_events.load(files["baseline"])[0], crops, batch_size=1, quiet=True)
    found = {name: model["likelihood"] for name, model in result["models"].items()}
    assert found[OURS]["bits_per_note"] == pytest.approx(one.summary()["bits_per_note"], rel=1e-5)
    assert found[OURS]["stderr"] == pytest.approx(one.summary()["stderr"], rel=1e-3)
    assert found[BASELINE]["bits_per_note"] == pytest.approx(two.summary()["bits_per_note"], rel=1e-5)
    assert found[BASELINE]["stderr"] == pytest.approx(two.summary()["stderr"], rel=1e-3)
    for figures in found.values():
        assert (figures["crops"], figures["notes"]) == (LIMIT, round(note_count(crop_tokens(crops)).mean() * LIMIT))

    assert len(set(one.songs)) == LIMIT == result["songs"]  # so crops are songs: the pairs can be written out
    difference = result["difference"]
    bits = (one.nats - two.nats) / np.log(2)
    total = bits.sum() / one.notes.sum()
    error = np.sqrt(LIMIT / (LIMIT - 1) * ((bits - total * one.notes) ** 2).sum()) / one.notes.sum()
    assert difference["bits_per_note"] == pytest.approx(total, rel=1e-4)
    assert difference["bits_per_note"] == pytest.approx(found[OURS]["bits_per_note"] - found[BASELINE]["bits_per_note"])
    assert difference["stderr"] == pytest.approx(error, rel=1e-3)
    assert difference["songs_better"] == (bits < 0).sum()


def test_both_models_see_the_same_notes(files: dict[str, Path], tmp_path: Path) -> None:
    """In bars of three quarters and one of two: 16 steps of a column are not 16 steps of the song."""
    meters = ((0, 3, 4), (72, 2, 4), (80, 3, 4))
    waltz = test_plans.song("waltz", 20, meters, bar=12)
    write_corpus([waltz, test_plans.song("other", 8)], {"waltz": "test", "other": "train"}, tmp_path / "c.safetensors")
    corpus = Corpus.open(tmp_path / "c.safetensors")
    crops = ValidCrops(corpus, "test", tiny.WIDTH, **BARS)
    rolls, steps = note_event_scores.real_steps([crops[i] for i in range(len(crops))])
    config = NoteEventConfig(steps=tiny.WIDTH)
    first = 0
    for i, (song, start) in enumerate(crops.crops):
        assert start == first
        first += int(steps[i])
        layout = crops.excerpts.window(song, start)
        ours = layout.strip(crops[i]["tokens"].numpy())
        theirs = decode(encode(rolls[i].numpy(), config), config)
        for tokens in (ours, theirs[:, : steps[i]]):
            assert np.array_equal(tokens, corpus.tokens(song, start, first))
        assert not theirs[:, steps[i] :].any()
    assert first == corpus.num_steps(crops.crops[0][0])
    assert set(steps.tolist()) == {24, 20, 12}

    out = tmp_path / "r.json"
    flags = [*common(files), "--data", str(corpus.path), "--num_samples", "0", "--json", str(out)]
    assert main(flags) == 0
    found = json.loads(out.read_text())["models"]
    for model in (OURS, BASELINE):
        assert found[model]["likelihood"]["notes"] == len(corpus.notes(0))
        assert found[model]["likelihood"]["crops"] == len(crops)


def test_samples_are_those_of_each_model_alone(files: dict[str, Path], result: dict[str, Any]) -> None:
    rolls = {
        OURS: np.stack([r.tokens for r in load_pretrained(files["checkpoint"]).generate(SAMPLES, seed=7)]),
        BASELINE: sample(train_note_events.load(files["baseline"])[0], SAMPLES, seed=7),
    }
    corpus = Corpus.open("chorales")
    real = crop_tokens(ValidCrops(corpus, "test", tiny.WIDTH, **BARS))
    index = BarIndex.from_corpus(corpus)
    assert result["copying"]["real"] == index.share(real)
    assert result["copying"]["real"]["bars"] > 0
    fullest = max(int((roll > 0).sum()) for roll in real)
    for name, tokens in rolls.items():
        assert result["copying"][name] == index.share(tokens)
        model, row = result["models"][name], result["statistics"][name]
        assert row["pitch"]["sample_mean"] == pytest.approx(np.mean(np.nonzero(tokens >= 2)[1]))
        assert model["faults"]["saturated"] == sum(int((roll > 0).sum()) > fullest for roll in tokens)
        assert model["faults"]["silent"] == sum(not roll.any() for roll in tokens)
        assert model["faults"]["orphan_holds"] == note_statistics(tokens)["orphan_holds"]
        assert model["seconds_per_roll"] > 0
    assert list(result["statistics"]) == ["real", OURS, BASELINE, "shuffled"]
    references = {row["pitch"]["reference_mean"] for row in result["statistics"].values()}
    assert len(references) == 1  # all rows are measured from the same songs
    assert sum(result["nearer"].values()) <= len(STATISTICS)


def test_facts_of_the_checkpoints(files: dict[str, Path], result: dict[str, Any]) -> None:
    ours, baseline = result["models"][OURS], result["models"][BASELINE]
    assert ours["parameters"] == sum(p.numel() for p in load_pretrained(files["checkpoint"]).parameters())
    assert ours["checkpoint"].startswith("ours-")
    assert (ours["steps"], ours["training_crops"], ours["training_seconds"]) == (5, 30, None)
    assert (baseline["steps"], baseline["training_crops"], baseline["training_seconds"]) == (3, 12, 90.0)


def test_tables_show_the_figures(files: dict[str, Path], result: dict[str, Any]) -> None:
    text = (files["folder"] / "r.md").read_text(encoding="utf-8")
    head, one, scale, two = (part.splitlines() for part in text.split("\n\n"))
    assert head == [f"chorales, test: {LIMIT} excerpts of {LIMIT} songs; 2 rolls of each at temperature 1, seed 7, cpu"]
    assert "Wasserstein" in scale[0]
    lines = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in one + two}
    assert lines["training minutes"] == ["-", "1.5"]
    assert lines["training crops"] == ["30", "12"]
    assert lines["NLL, bits per note"][0].startswith(f"{result['models'][OURS]['likelihood']['bits_per_note']:.3f} ± ")
    assert lines["difference on the same songs"][0].startswith(f"{result['difference']['bits_per_note']:.3f} ± ")
    assert len(two) == 2 + len(STATISTICS)
    velocity = result["statistics"][BASELINE]["velocity"]
    expected = f"{number(velocity['sample_mean'])} ({number(velocity['wasserstein'])})"
    assert lines["velocity, bin"][3] == expected
    assert len({len(line) for line in one}) == 1  # padded


def test_markdown_and_numbers() -> None:
    assert markdown([["", "a"], ["bb", "1234"]]).splitlines() == ["|     |    a |", "| --- | ---: |", "| bb  | 1234 |"]
    assert [number(value) for value in (None, 0, 0.123456, 99.94, 1234567)] == ["-", "0", "0.123", "99.9", "1,234,567"]


def test_nearer_counts_from_the_floor_on() -> None:
    def row(*distances: float | None) -> dict[str, dict[str, float | None]]:
        values = [*distances, *[None] * (len(STATISTICS) - len(distances))]
        return {name: {"wasserstein": value} for name, value in zip(STATISTICS, values, strict=True)}

    rows = {
        "real": row(1.0, 1.0, 1.0, 1.0, 1.0),
        OURS: row(2.0, 0.1, 4.0, 0.5, None),
        BASELINE: row(3.0, 0.9, 1.5, 1.2, 7.0),  # of the second, both are within chance of real music
    }
    assert nearer(rows) == {OURS: 2, BASELINE: 1, "equal": 1}


def test_likelihood_only(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*common(files), "--limit", "1", "--num_samples", "0"]) == 0
    printed = capsys.readouterr().out
    assert "1 excerpts of 1 songs" in printed
    assert "NLL, bits per note" in printed
    assert "±" not in printed  # one song has no standard error
    assert "seconds per roll" not in printed


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--baseline", "absent.pt"], "--baseline absent.pt: No such file"),
        (["--checkpoint", "absent"], "--checkpoint absent: no such file"),
        (["--data", "absent"], "absent: cannot be read"),
        (["--num_samples", "-1"], "--num_samples: -1: must be at least 0"),
        (["--limit", "few"], "--limit"),
        (["--split", "train"], "--split"),
        (["--json", "absent/r.json"], "--json absent/r.json"),
        (["--markdown", "."], "--markdown ."),
    ],
)
def test_mistakes(files: dict[str, Path], extra: list[str], message: str, one_error_line: ErrorLine) -> None:
    assert message in one_error_line(*common(files), *extra, main=main)


def test_models_that_do_not_fit(files: dict[str, Path], tmp_path: Path, one_error_line: ErrorLine) -> None:
    for name, sizes, parts in (
        ("long", {"steps": 64}, ("crop length 64", f"has {tiny.WIDTH}")),
        ("loud", {"velocity_bins": 8}, ("velocity_bins 8", "has 32")),
        ("waltz", {"steps_per_bar": 12}, ("steps per bar 12", "has 16")),
    ):
        path = save_baseline(tmp_path / f"{name}.pt", **sizes)
        message = one_error_line(*common(files), "--baseline", path, main=main)
        assert all(part in message for part in (f"--baseline {path}", *parts)), message
