"""Candidates for each piece, and the critic that chooses among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fractalgen import FractalGen, PianoRoll, cli
from fractalgen.checkpoint import critic_file
from fractalgen.config import ConfigError
from fractalgen.features.critic import Critic
from fractalgen.features.table import FEATURES
from fractalgen.rolls import compose_rolls
from tests import tiny

MANY = Critic({name: float(name == "notes") for name in FEATURES}, {"likes": "many notes"})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a critic beside it."""
    path = Path(tiny.save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", tiny.model_config(), -1.5))
    MANY.write(critic_file(path))
    return path


def made(folder: Path, *flags: object) -> list[bytes]:
    """The MIDI files of a command."""
    assert cli.main(["generate", *map(str, flags), "--output_dir", str(folder)]) == 0
    return [path.read_bytes() for path in sorted(folder.glob("*.mid"))]


def test_of_the_candidates_of_each_piece_the_critic_keeps_the_best(model: Path) -> None:
    network = FractalGen.from_pretrained(model)
    all_six, traces = compose_rolls(network, 6, seed=1, batch_size=6, return_trace=True)
    batches = []
    kept, of_kept = compose_rolls(
        network, 2, seed=1, batch_size=6, best_of=3, critic=MANY, return_trace=True,
        each_batch=lambda first, rolls, plans: batches.append((first, len(rolls), len(plans))),
    )  # fmt: skip
    notes = [int((roll.tokens > 1).sum()) for roll in all_six]
    best = [int(np.argmax(notes[:3])), 3 + int(np.argmax(notes[3:]))]
    assert len(set(notes[:3])) == len(set(notes[3:])) == 3
    assert kept == [all_six[index] for index in best]
    assert [trace.tokens.tolist() for trace in of_kept] == [traces[index].tokens.tolist() for index in best]
    assert batches == [(0, 2, 2)]


def test_a_batch_holds_the_candidates_of_one_piece_at_least_and_all_are_counted(model: Path) -> None:
    batches, counted = [], []
    compose_rolls(
        FractalGen.from_pretrained(model), 3, seed=1, batch_size=2, best_of=4, critic=MANY,
        each_batch=lambda first, rolls, plans: batches.append((first, len(rolls))),
        progress=lambda done, total: counted.append((done, total)),
    )  # fmt: skip
    assert batches == [(0, 1), (1, 1), (2, 1)]
    assert counted[-1] == (3 * 4 * 16, 3 * 4 * 16)
    assert counted == sorted(counted)


def test_a_model_with_a_critic_composes_four_candidates(model: Path, tmp_path: Path) -> None:
    flags = ("--checkpoint", model, "--seed", 3)
    (best,) = made(tmp_path / "a", *flags)
    assert made(tmp_path / "b", *flags, "--best_of", 4) == [best]
    (first,) = made(tmp_path / "c", *flags, "--best_of", 1)
    counts = [int((PianoRoll.from_midi(tmp_path / where / "unconditional_000.mid").tokens > 1).sum()) for where in "ac"]
    assert counts[0] > counts[1]
    # and the file knows it
    assert made(tmp_path / "d", "--like", tmp_path / "a" / "unconditional_000.mid") == [best]
    assert made(tmp_path / "e", "--like", tmp_path / "c" / "unconditional_000.mid") == [first]


def test_files_from_before_there_were_critics_are_composed_as_before(model: Path, tmp_path: Path) -> None:
    (first,) = made(tmp_path / "a", "--checkpoint", model, "--seed", 3, "--best_of", 1)
    told = b'"best_of": 1, '
    assert told in first
    (tmp_path / "old.mid").write_bytes(first.replace(told, b" " * len(told)))
    assert made(tmp_path / "b", "--like", tmp_path / "old.mid") == [first]


def test_python_keeps_the_first_candidate_unless_it_is_asked(model: Path) -> None:
    network = FractalGen.from_pretrained(model)
    (first,), (best,) = network.generate(seed=3), network.generate(seed=3, best_of=4)
    assert (best.tokens > 1).sum() > (first.tokens > 1).sum()


def test_without_a_critic_there_is_no_choice(model: Path, tmp_path: Path, one_error_line: Callable[..., str]) -> None:
    plain = tiny.save_model(tmp_path / "plain.safetensors", tiny.model_config(), -1.5)
    line = one_error_line("generate", "--checkpoint", plain, "--best_of", 4, "--output_dir", tmp_path / "out")
    assert "--best_of 4: plain-" in line
    assert "has no critic" in line
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match=r"^best_of 4: "):
        FractalGen.from_pretrained(plain).generate(best_of=4)


def test_a_critic_goes_where_its_model_goes(model: Path, tmp_path: Path) -> None:
    FractalGen.from_pretrained(model).save_pretrained(tmp_path / "saved")
    assert FractalGen.from_pretrained(tmp_path / "saved").critic == MANY
    flags = ("--checkpoint", model, "--out", tmp_path / "exported.safetensors")
    assert cli.main(["export", *map(str, flags)]) == 0
    assert FractalGen.from_pretrained(tmp_path / "exported.safetensors").critic == MANY
