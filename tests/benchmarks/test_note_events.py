from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.note_event_scores import score
from benchmarks.note_events import NoteEventConfig, NoteEventTransformer, decode, encode, sample
from benchmarks.train_note_events import learning_rate, load, main
from fractalgen.data.corpus import Corpus
from fractalgen.data.crops import ValidCrops
from fractalgen.errors import UserError
from fractalgen.features.notes import crop_tokens
from fractalgen.music.measures import note_count
from fractalgen.music.tokens import orphan_holds
from tests import tiny
from tests.benchmarks import ErrorLine
from tests.model.properties.helpers import assert_drawn_from

TINY: dict[str, Any] = {"steps_per_bar": 2, "width": 16, "depth": 2, "heads": 2, "max_notes": 8}


def model_of(seed: int = 0, **sizes: int) -> NoteEventTransformer:
    """A random model whose distributions are far from uniform, in float64."""
    torch.manual_seed(seed)
    model = NoteEventTransformer(NoteEventConfig(**{**TINY, **sizes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def all_rolls(config: NoteEventConfig) -> torch.Tensor:
    """Every roll of a tiny size without orphan holds after column 0."""
    cells = itertools.product(range(2 + config.velocity_bins), repeat=config.pitches * config.steps)
    rolls = np.array(list(cells), np.uint8).reshape(-1, config.pitches, config.steps)
    return torch.from_numpy(rolls[[orphan_holds(roll) == 0 for roll in rolls]])


def test_the_notes_of_a_roll_written_by_hand() -> None:
    config = NoteEventConfig(pitches=4, steps=6, velocity_bins=3)
    roll = np.array([[0, 0, 4, 1, 2, 1], [1, 1, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 4]], np.uint8)
    held = config.held
    notes = [[0, 1, held, 2], [0, 3, 0, 1], [2, 0, 2, 2], [2, 1, 1, 1], [4, 0, 0, 2], [5, 3, 2, 1]]
    assert encode(roll, config).tolist() == notes
    assert np.array_equal(decode(np.array(notes), config), roll)


def test_roll_notes_roll_is_the_identity(tmp_path: Path) -> None:
    config = NoteEventConfig(steps=tiny.WIDTH)
    crops = ValidCrops(Corpus.open(tiny.corpus(tmp_path / "c.safetensors")), "valid", tiny.WIDTH)
    rolls = [crops[i]["tokens"].numpy() for i in range(len(crops))]
    shifted = [np.roll(roll, -1, axis=1) for roll in rolls]  # half of the notes of column 0 are cut by the edge
    shifted = [np.where(np.arange(tiny.WIDTH) < tiny.WIDTH - 1, roll, 0) for roll in shifted]
    assert any((roll[:, 0] == 1).any() for roll in shifted)
    for roll in [*rolls, *shifted, np.zeros((128, tiny.WIDTH), np.uint8)]:
        assert np.array_equal(decode(encode(roll, config), config), roll)


def test_what_has_no_notes_is_refused() -> None:
    config = NoteEventConfig(pitches=2, steps=3, velocity_bins=1)
    with pytest.raises(UserError, match="orphan"):
        encode(np.array([[0, 1, 0], [0, 0, 0]], np.uint8), config)
    with pytest.raises(UserError, match="shape"):
        encode(np.zeros((3, 2), np.uint8), config)
    with pytest.raises(UserError, match="velocity_bins"):
        encode(np.array([[3, 0, 0], [0, 0, 0]], np.uint8), config)


@pytest.mark.parametrize(
    ("pitches", "steps", "velocity_bins"), [(2, 3, 1), (2, 2, 3), (3, 2, 1), (1, 4, 2)], ids=lambda value: str(value)
)
def test_probabilities_of_all_rolls_sum_to_one(pitches: int, steps: int, velocity_bins: int) -> None:
    model = model_of(pitches=pitches, steps=steps, velocity_bins=velocity_bins)
    with torch.no_grad():
        terms = model.nll(all_rolls(model.config))
    total = torch.stack(list(terms.values())).sum(0)
    assert total.isfinite().all()
    assert float(torch.exp(-total).sum()) == pytest.approx(1, abs=1e-9)
    assert float(total.std()) > 0.5  # and the distribution is not the trivial one


def test_probabilities_of_all_rolls_that_are_known_to_be_shorter_sum_to_one() -> None:
    model = model_of(pitches=2, steps=4, velocity_bins=1)
    rolls = all_rolls(NoteEventConfig(pitches=2, steps=3, velocity_bins=1))
    rolls = torch.nn.functional.pad(rolls, (0, 1))  # silent behind the end
    with torch.no_grad():
        known = torch.stack(list(model.nll(rolls, torch.full((len(rolls),), 3)).values())).sum(0)
        unknown = torch.stack(list(model.nll(rolls).values())).sum(0)
    assert float(torch.exp(-known).sum()) == pytest.approx(1, abs=1e-9)
    assert float(torch.exp(-unknown).sum()) < 0.9


def test_frequencies_of_samples_are_the_probabilities() -> None:
    model = model_of(pitches=2, steps=2, velocity_bins=1)
    rolls = all_rolls(model.config)
    with torch.no_grad():
        probability = torch.exp(-torch.stack(list(model.nll(rolls).values())).sum(0))
    drawn = torch.from_numpy(sample(model, 1500, seed=1, batch_size=1500))
    assert_drawn_from(drawn, rolls, probability, slack=0.8, least=10)


def test_samples_are_rolls_and_depend_on_seed_and_temperature_only() -> None:
    model = model_of(pitches=12, steps=16, velocity_bins=4, max_notes=40)
    first = sample(model, 3, seed=3, batch_size=2)
    assert first.shape == (3, 12, 16)
    assert first.dtype == np.uint8
    assert orphan_holds(first) == 0
    assert np.array_equal(first, sample(model, 3, seed=3, batch_size=2))
    assert not np.array_equal(first, sample(model, 3, seed=4, batch_size=2))
    cold = sample(model, 5, seed=3, temperature=0.01, batch_size=5)
    assert (cold == cold[0]).all()


def test_likelihood_does_not_depend_on_the_rest_of_the_batch() -> None:
    model = model_of(pitches=12, steps=16, velocity_bins=4, max_notes=6)  # more notes than numbers: the last repeats
    rolls = torch.from_numpy(sample(model_of(1, pitches=12, steps=16, velocity_bins=4, max_notes=40), 4, seed=0))
    rolls = torch.cat([rolls, torch.zeros_like(rolls[:1])])
    with torch.no_grad():
        together = model.nll(rolls)
        alone = [model.nll(roll[None]) for roll in rolls]
    for kind, values in together.items():
        assert torch.allclose(values, torch.cat([terms[kind] for terms in alone]))
    assert [float(together[kind][-1]) for kind in ("pitch", "velocity", "duration")] == [0, 0, 0]  # an empty roll


def test_a_note_costs_only_what_was_written_before_it() -> None:
    """Changing the last note changes no earlier term: the terms of a prefix stay, to the last bit of its sum."""
    model = model_of(pitches=8, steps=8, velocity_bins=4)
    notes = np.array([[0, 2, 1, 3], [2, 5, 0, 2], [4, 1, 3, 2]])
    other = np.array([[0, 2, 1, 3], [2, 5, 0, 2], [4, 6, 2, 1]])
    inputs = []
    model.transformer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    hidden = []
    model.transformer.register_forward_hook(lambda module, args, output: hidden.append(output))
    with torch.no_grad():
        model.nll_of_notes([notes, other])
    same = [torch.equal(hidden[0][0, i], hidden[0][1, i]) for i in range(hidden[0].shape[1])]
    assert same == [True] * 10 + [False] * 3  # up to the position that predicts the third pitch
    assert torch.equal(inputs[0][0, :10], inputs[0][1, :10])


def test_one_roll_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = NoteEventTransformer(NoteEventConfig(steps=tiny.WIDTH, width=32, depth=1, heads=2))
    roll = torch.from_numpy(tiny.tokens(0))[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = torch.stack(list(model.nll(roll).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    bits = loss.item() / math.log(2) / int((roll >= 2).sum())
    assert bits < 0.5


def test_learning_rate() -> None:
    rates = [learning_rate(1.0, step, 2, step / 4) for step in range(5)]
    assert rates == pytest.approx([0.5, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2, 0])


class TestCommands:
    """The commands, on a corpus of six songs."""

    @pytest.fixture
    def arguments(self, tmp_path: Path) -> list[str]:
        data = tiny.corpus(tmp_path / "corpus.safetensors")
        sizes = f"--crop_length {tiny.WIDTH} --width 16 --depth 1 --heads 2 --batch_size 2 --val_crops 3"
        return ["train", "--data", str(data), *sizes.split()]

    def test_train_resume_and_evaluate(
        self, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, parts = str(tmp_path / "whole.pt"), str(tmp_path / "parts.pt")
        assert main([*arguments, "--out", whole, "--max_steps", "6"]) == 0
        assert "step 6" in capsys.readouterr().out

        from benchmarks import train_note_events

        calls = []

        def interrupted(*given: Any) -> Any:
            calls.append(given)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return train_step(*given)

        train_step = train_note_events.train_step
        with monkeypatch.context() as patch:
            patch.setattr(train_note_events, "train_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                main([*arguments, "--out", parts, "--max_steps", "6", "--save_minutes", "0"])
        assert load(parts)[1]["step"] == 4
        assert main([*arguments, "--out", parts, "--resume", parts, "--max_steps", "6"]) == 0
        for one, two in zip(load(whole)[0].parameters(), load(parts)[0].parameters(), strict=True):
            assert torch.equal(one, two)

        report = tmp_path / "report.json"
        data = arguments[2]
        capsys.readouterr()
        flags = f"--precision 32 --checkpoint {whole} --data {data} --split valid --json {report}"
        assert main(["evaluate", *flags.split()]) == 0
        result = json.loads(report.read_text())
        assert json.loads(capsys.readouterr().out) == result
        crops = ValidCrops(Corpus.open(data), "valid", tiny.WIDTH)
        assert result["crops"] == len(crops)
        assert result["songs"] == 2
        assert result["notes"] == round(note_count(crop_tokens(crops)).mean() * len(crops))
        assert result["bits_per_note"] == pytest.approx(sum(result["kinds"].values()))
        nats = result["bits_per_note"] * math.log(2) * result["notes"] / result["crops"]
        assert result["nll_nats_per_crop"] == pytest.approx(nats)
        assert result["bits_per_note"] == pytest.approx(
            score(load(whole)[0], crops, batch_size=1).summary()["bits_per_note"]
        )

    def test_minutes(self, tmp_path: Path, arguments: list[str]) -> None:
        out = str(tmp_path / "model.pt")
        assert main([*arguments, "--out", out, "--minutes", "0.005"]) == 0
        assert load(out)[1]["seconds"] >= 0.3

    @pytest.mark.parametrize(
        ("extra", "message"),
        [
            ([], "--minutes"),
            (["--minutes", "1", "--max_steps", "1"], "--max_steps"),
            (["--max_steps", "0"], "--max_steps 0"),
            (["--max_steps", "1", "--heads", "3"], "--heads 3"),
            (["--max_steps", "1", "--resume", "missing.pt"], "missing.pt"),
            (["--max_steps", "one"], "--max_steps"),
        ],
    )
    def test_mistakes(
        self, tmp_path: Path, arguments: list[str], extra: list[str], message: str, one_error_line: ErrorLine
    ) -> None:
        out = tmp_path / "out.pt"
        assert message in one_error_line(*arguments, "--out", out, *extra, main=main)
        assert not out.exists()

    def test_files_are_not_overwritten_nor_trusted(
        self, tmp_path: Path, arguments: list[str], one_error_line: ErrorLine
    ) -> None:
        out = tmp_path / "out.pt"
        out.write_bytes(b"precious")
        assert "--resume" in one_error_line(*arguments, "--out", out, "--max_steps", "1", main=main)
        assert out.read_bytes() == b"precious"
        line = one_error_line("evaluate", "--checkpoint", out, "--data", arguments[2], main=main)
        assert "out.pt: not a checkpoint" in line
