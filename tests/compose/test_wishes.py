"""Labels of pieces: asked for, taken from given music, or drawn by lot."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fractalgen import FractalGen, PianoRoll, Trace
from fractalgen.checkpoint import save_pretrained
from fractalgen.cli import main
from fractalgen.errors import UserError
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.music.midi import END_MARKER
from fractalgen.rolls import compose_rolls
from tests import tiny
from tests.compose.test_generate import generate
from tests.midi_files import delta, meta, midi, off, on


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that knows keys and densities."""
    torch.manual_seed(0)
    attributes = (Attribute("key", KEYS), Attribute("density", (), (1.0, 2.0, 3.0), (0.0, 0.5, 1.0), "notes"))
    model = FractalGen(dataclasses.replace(tiny.model_config(), attributes=attributes))
    path = tmp_path_factory.mktemp("keyed") / "keyed.safetensors"
    save_pretrained(model, path, {})
    return str(path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]] | None]:
    """The labels of every call of ``sample``, row by row; nothing is really drawn."""
    found: list[list[list[int]] | None] = []

    def sample(model: FractalGen, sampling: Any, count: int, cond_list: Any, width: int, **settings: Any) -> Any:
        found.append(None if cond_list is None else torch.stack(cond_list, 1).tolist())
        rolls = np.stack([tiny.tokens(seed, width) for seed in range(count)])
        return torch.from_numpy(rolls.astype(np.int64)), tiny.intermediates(rolls)

    monkeypatch.setattr("fractalgen.rolls.sample_rolls", sample)
    return found


def test_a_key_is_drawn_by_lot_for_each_piece(
    keyed: str, tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
):
    for folder in ("a", "b"):
        generate(keyed, tmp_path / folder, "--num_samples", "5", "--batch_size", "2", "--density", "2.5", "--cfg", "2")
    assert [len(rows) for rows in asked] == [2, 2, 1] * 2
    assert asked[:3] == asked[3:]
    rows = [row for rows in asked[:3] for row in rows]
    assert all(1 <= key <= 24 and density == 2 for key, density in rows)
    assert len({key for key, _ in rows}) > 1
    printed = capsys.readouterr().out
    key = Attribute("key", KEYS)
    for number, (label, _) in enumerate(rows):  # whose key it is
        assert f"unconditional_{number:03d} in {key.describe(label)} " in printed
    assert "density: 2 to 3 notes (asked for: 2.5)" in printed


def test_any_tempo_is_written_and_the_nearest_asked_for(tmp_path: Path, asked: list[Any]):
    tempo = Attribute("tempo", (), (60.0, 90.0, 120.0), (0.0, 0.5, 1.0), "quarters a minute")
    model = FractalGen(dataclasses.replace(tiny.model_config(), attributes=(tempo,)))
    path = save_pretrained(model, tmp_path / "timed.safetensors")
    for index, (number, label) in enumerate(((40, 1), (100, 2), (210, 2))):
        generate(str(path), tmp_path / "out", "--tempo", str(number))
        assert asked.pop() == [[label]]
        written = PianoRoll.from_midi(tmp_path / "out" / f"unconditional_{index:03d}.mid")
        assert written.tempos[0][1] == pytest.approx(number, abs=0.01)


def test_a_key_that_is_asked_for_or_left_open(keyed: str, tmp_path: Path, asked: list[Any]):
    generate(keyed, tmp_path, "--key", "a minor", "--num_samples", "2", "--save_trace")
    assert Trace.load(tmp_path / "unconditional_001.trace.npz").settings["key"] == "A minor"
    generate(keyed, tmp_path, "--key", "free")
    generate(keyed, tmp_path, "--scale", "D minor")
    generate(keyed, tmp_path, "--scale", "D dorian")
    wanted = [[[KEYS.index("A minor") + 1, 0]] * 2, None, [[KEYS.index("D minor") + 1, 0]], None]
    assert asked == wanted


def test_the_key_of_the_music_given_is_kept(keyed: str, tmp_path: Path, asked: list[Any]):
    tokens = np.zeros((128, 64), np.uint8)
    for step, pitch in enumerate((62, 66, 69, 74, 67, 71, 64, 61, 69, 73, 66, 62, 69, 66, 62, 62)):  # D major
        tokens[pitch, 4 * step] = 20
        tokens[pitch, 4 * step + 1 : 4 * step + 4] = 1
    PianoRoll(tokens).to_midi(tmp_path / "given.mid")
    flags = ("--mode", "conditional", "--condition_midi", str(tmp_path / "given.mid"), "--generation_length", "16")
    generate(keyed, tmp_path, *flags)
    assert asked == [[[KEYS.index("D major") + 1, 0]]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: must be at least 1"),
        ({"num_samples": 0}, "num_samples 0: must be at least 1"),
        ({"seed": 2**63}, "seed 9223372036854775808: must be from 0"),
        ({"seed": -1}, "seed -1: must be from 0"),
        ({"labels": [25, 0]}, r"labels \[25, 0\]: this model's are 0-24 0-2"),
        ({"labels": [1]}, r"labels \[1\]: this model's are"),
    ],
)
def test_wrong_settings_from_python(keyed: str, settings: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        compose_rolls(FractalGen.from_pretrained(keyed), width=16, **settings)


@pytest.mark.slow
def test_keys_of_music_given(keyed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def heard(pitches: list[int], signature: bytes = b"", *flags: str, end: bytes = b"") -> str:
        notes = b"".join(on(0, pitch) + off(480, pitch) for pitch in pitches)
        (tmp_path / "a.mid").write_bytes(midi(signature + notes + end))
        base = ["generate", "--checkpoint", keyed, "--mode", "conditional", "--condition_midi", str(tmp_path / "a.mid")]
        assert main([*base, "--bars", "1", "--output_dir", str(tmp_path / "out"), *flags]) == 0
        lines = capsys.readouterr().out.splitlines()
        return next((line for line in lines if line.startswith("key: ")), "")

    assert heard([62, 65, 69, 62, 61, 64, 69, 62]) in ("key: D minor (estimated from the given music)", "")
    assert heard([62, 64, 65, 67, 69, 71, 72, 74]) == ""  # seven white keys may be several keys
    signature = delta(0) + bytes([0xFF, 0x59, 2, 0xFF, 1])
    assert heard([60] * 8, signature) == "key: D minor (by the file's key signature)"
    c_major = delta(0) + bytes([0xFF, 0x59, 2, 0, 0])
    end = delta(0) + meta(0x06, END_MARKER.encode())  # as in the files of the studio
    for ending in (b"", end + delta(0) + meta(0x03, b"FractalGen")):  # many programs write it by default
        assert heard([62, 66, 69, 62] * 4, c_major, end=ending) == "key: D major (estimated from the given music)"
    assert heard([62, 66, 69, 62] * 4, c_major, end=end) == "key: C major (by the file's key signature)"
    g_major = [67, 71, 74, 67, 62, 66, 69, 67] * 4
    for flags in ((), ("--scale", "D dorian")):  # a scale that names no key leaves that of the music
        assert heard(g_major, b"", *flags) == "key: G major (estimated from the given music)"
    nothing = ["generate", "--checkpoint", keyed, "--target_width", "16", "--output_dir", str(tmp_path / "nothing")]
    assert main(nothing) == 0
    assert re.search(r"^key: \S+ (major|minor) \(random\)$", capsys.readouterr().out, re.MULTILINE)
    wrong = ["generate", "--checkpoint", keyed, "--scale", "D minor", "--key", "A major"]
    assert main(wrong) == 2
    assert "--scale D minor and --key A major" in capsys.readouterr().err
