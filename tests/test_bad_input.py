"""Files and folders that cannot be used: one clear line, exit status 2, and nothing half-written is left behind.

Mistakes in flags and configuration files are in ``test_cli.py``, those of ``generate`` in ``test_generate.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fractalgen import PianoRoll, cli

ErrorLine = Callable[..., str]


@pytest.fixture(scope="module")
def midi() -> bytes:
    """A good MIDI file with a few hundred notes."""
    tokens = np.zeros((128, 256), np.uint8)
    for step in range(0, 256, 2):
        tokens[40 + step % 37, step : step + 2] = (17, 1)
        tokens[41 + step % 41, step : step + 2] = (9, 1)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "good.mid")
        PianoRoll(tokens).to_midi(path)
        return path.read_bytes()


def damaged(midi: bytes) -> dict[str, bytes]:
    return {
        "empty.mid": b"",
        "text.mid": b"This is a text, not music.\n" * 20,
        "truncated.mid": midi[:24],
        "header.mid": midi[:14],
    }


def test_prepare_lists_bad_files_and_keeps_the_good(midi: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "songs"
    folder.mkdir()
    for name, content in {**damaged(midi), "good.mid": midi}.items():
        (folder / name).write_bytes(content)
    assert cli.main(["prepare", "--data", str(folder), "--out", str(tmp_path / "corpus.safetensors")]) == 0
    printed = capsys.readouterr().out
    assert all(f"skipped {name}: " in printed for name in damaged(midi))
    assert "4 files skipped" in printed
    assert "good.mid:" not in printed


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (None, "no such file or folder"),
        ([], "no MIDI file in it"),
        (["text.mid"], "no usable music (1 file skipped; first: text.mid: "),
        (["truncated.mid"], "no usable music (1 file skipped; first: truncated.mid: "),
        (["empty.mid", "header.mid"], "no usable music (2 files skipped; first: empty.mid: "),
    ],
)
def test_prepare_without_usable_music(
    files: list[str] | None, expected: str, midi: bytes, tmp_path: Path, one_error_line: ErrorLine
):
    folder = tmp_path / "songs"
    if files is not None:
        folder.mkdir()
        for name in files:
            (folder / name).write_bytes(damaged(midi)[name])
    before = sorted(tmp_path.rglob("*"))
    line = one_error_line("prepare", "--data", folder, "--out", tmp_path / "corpus.safetensors")
    assert f"--data {folder}: {expected}" in line
    assert sorted(tmp_path.rglob("*")) == before


def test_prepare_into_a_read_only_folder(midi: bytes, tmp_path: Path, read_only: Path, one_error_line: ErrorLine):
    (tmp_path / "good.mid").write_bytes(midi)
    for out in (read_only / "corpus.safetensors", read_only / "sub" / "corpus.safetensors"):
        assert str(read_only) in one_error_line("prepare", "--data", tmp_path / "good.mid", "--out", out)


@pytest.mark.slow
def test_train_mistakes(tmp_path: Path, read_only: Path, one_error_line: ErrorLine):
    text = tmp_path / "text.ckpt"
    text.write_text("no checkpoint")
    out = tmp_path / "run"
    for flags, expected in (
        (("--data", tmp_path / "absent.safetensors"), "absent.safetensors"),
        (("--data", text), "text.ckpt"),
        (("--crop_length", "100"), "--crop_length 100"),
        (("--generator_types", "ar", "ar"), "--generator_types: 2 values for the 4 levels"),
        (("--embed_dims", "30", "16", "16", "16", "--num_heads", "4", "4", "4", "4"), "embed_dims: 30"),
        (("--batch_size", "0"), "--batch_size 0"),
        (("--resume", text), f"--resume {text}: not a FractalGen checkpoint"),
        (("--resume", tmp_path / "absent.ckpt"), "no such file"),
    ):
        assert expected in one_error_line("train", "--output_dir", out, *flags)
        assert not out.exists(), flags
    for folder in (read_only, read_only / "sub", text / "sub"):
        assert f"--output_dir {folder}" in one_error_line("train", "--output_dir", folder)
