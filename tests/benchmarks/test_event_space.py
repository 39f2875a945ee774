"""The event space of the published likelihood: its classes, and sums of probabilities by brute force."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.event_space import (
    DURATIONS,
    TERM,
    VELOCITIES,
    durations_inside_classes,
    main,
    nearest,
    scored_in_classes,
    velocity_classes,
)
from fractalgen import FractalGen
from fractalgen.data.corpus import Corpus, write_corpus
from fractalgen.data.song import Song
from fractalgen.evaluation.likelihood import score, sliding_windows
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.music.tokens import ONSET, velocity_bin
from tests import tiny
from tests.benchmarks import ErrorLine


@pytest.fixture(scope="module")
def model() -> FractalGen:
    torch.manual_seed(0)
    model = FractalGen(tiny.model_config(context_pitches=(0, 2, 1, 3), context_past=(0, 4, 1, 4))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)  # velocities are far from equally likely
    return model.double()


def test_the_published_classes() -> None:
    velocities = np.arange(1, 128)
    published = nearest(VELOCITIES, velocities)
    ours = velocity_classes(32)[velocity_bin(velocities)]
    assert velocities[ours != published].tolist() == [51, 71, 91, 111]
    durations = [DURATIONS[i] for i in nearest(DURATIONS, np.array([1, 7, 9, 11, 14, 30, 31, 100]))]
    assert durations == [1, 6, 8, 10, 12, 28, 32, 32]


def test_a_class_is_as_probable_as_its_bins_together(model: FractalGen) -> None:
    """One note in each of three rolls, with each velocity in turn."""
    classes = velocity_classes(32)
    notes = [(60, 3, 4), (43, 8, 15), (90, 30, 27)]  # pitch, step, bin
    total = []
    for pitch, step, mine in notes:
        rolls = torch.zeros(32, 128, tiny.WIDTH, dtype=torch.long)
        rolls[torch.arange(32), pitch, step] = ONSET + torch.arange(32)
        with torch.no_grad():
            probability = (-model.nll(rolls).terms["L3/velocity"]).exp().numpy()
        assert probability.sum() == pytest.approx(1, rel=1e-9)
        assert probability.max() > 2 / 32
        total.append(-np.log(probability[classes == classes[mine]].sum()))
    rolls = torch.zeros(3, 128, tiny.WIDTH, dtype=torch.long)
    for roll, (pitch, step, mine) in zip(rolls, notes, strict=True):
        roll[pitch, step] = ONSET + mine
    with torch.no_grad(), scored_in_classes(model, classes):
        found = model.nll(rolls).terms[TERM].numpy()
    assert found == pytest.approx(total, rel=1e-9)


def test_classes_of_one_bin_and_of_all_bins(model: FractalGen) -> None:
    rolls = torch.from_numpy(np.stack([tiny.tokens(seed, notes=6) for seed in range(3)]).astype(np.int64))
    with torch.no_grad():
        expected = model.nll(rolls)
        with scored_in_classes(model, np.arange(32)):
            single = model.nll(rolls).terms
        with scored_in_classes(model, np.zeros(32, np.int64)):
            one = model.nll(rolls).terms
        after = model.nll(rolls).terms
    assert torch.allclose(single[TERM], expected.terms["L3/velocity"])
    assert one[TERM].abs().max() < 1e-9
    for name, values in expected.terms.items():  # everything else is left as it was
        for terms in (single, one, after):
            assert torch.equal(terms[name], values)
    assert set(after) == set(expected.terms)


def test_durations_that_a_class_leaves_open(tmp_path: Path) -> None:
    """Six and seven sixteenths are one class.  Of each there are as many: a bit says which."""
    tokens = np.zeros((128, 64), np.uint8)
    for start, duration in ((0, 6), (16, 7), (32, 6), (48, 7)):
        tokens[60, start] = 10
        tokens[60, start + 1 : start + duration] = 1
    write_corpus([Song.from_roll("song", PianoRoll(tokens))], {"song": "train"}, tmp_path / "c.safetensors")
    assert durations_inside_classes(Corpus.open(tmp_path / "c.safetensors"), [0], [0]) == pytest.approx(1)
    alike = Corpus.open(tiny.corpus(tmp_path / "d.safetensors"))  # two sixteenths at most: classes of their own
    assert durations_inside_classes(alike, [0, 1], [2, 3]) == 0


@pytest.mark.slow
def test_the_command_beside_the_plain_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(tiny.model_config(), plan_width=8)
    path = tiny.save_model(tmp_path / "model.safetensors", config)
    data, out = tiny.corpus(tmp_path / "songs.safetensors"), tmp_path / "out.json"
    flags = f"--data {data} --model {path} --split valid --stride 16 --precision 32 --json {out}"
    assert main(flags.split()) == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    rows = result["rows"]
    assert list(rows) == [f"{bins} velocities{plan}" for plan in ("", ", with its plan") for bins in (32, 5)]
    for row in rows.values():
        assert row["total"] == pytest.approx(sum(row[key] for key in ("cells", "articulation", "velocity", "plan")))
        assert f"{row['total']:.3f} ± {row['stderr']:.3f}" in printed
    assert rows["5 velocities"]["velocity"] < rows["32 velocities"]["velocity"] - 1
    assert rows["5 velocities"]["cells"] == rows["32 velocities"]["cells"]
    assert rows["32 velocities, with its plan"]["plan"] > 0
    assert "published: REMI" in printed

    from fractalgen.api import load_pretrained
    from fractalgen.data.crops import Excerpts

    corpus, model = Corpus.open(data), load_pretrained(path)
    excerpts = Excerpts(corpus, tiny.WIDTH, patch=16, bar_columns=True)
    plain = score(model, corpus, sliding_windows(excerpts, [0, 1], 16), quiet=True).summary()
    assert rows["32 velocities"]["total"] == pytest.approx(plain["bits_per_note"], rel=1e-5)
    assert (result["notes"], result["songs"]) == (plain["notes"], 2)
    assert plain["notes"] == sum(len(corpus.notes(song)) for song in (0, 1))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--stride 24", "--stride 24: a multiple of 16"),
        ("--limit -1", "--limit: -1: must be at least 0"),
        ("--split test", "--split test"),
        ("--model absent", "absent"),
    ],
)
def test_mistakes(flags: str, message: str, tmp_path: Path, one_error_line: ErrorLine) -> None:
    data = tiny.corpus(tmp_path / "songs.safetensors")
    path = tiny.save_model(tmp_path / "model.safetensors", tiny.model_config())
    assert message in one_error_line("--data", data, "--model", path, *flags.split(), main=main)


def test_a_last_level_that_decides_all_at_once_is_refused(tmp_path: Path, one_error_line: ErrorLine) -> None:
    path = tiny.save_model(tmp_path / "mar.safetensors", tiny.model_config(generator_types=("mar",) * 4))
    data = tiny.corpus(tmp_path / "songs.safetensors")
    assert "last level" in one_error_line("--data", data, "--model", path, "--split", "valid", main=main)
