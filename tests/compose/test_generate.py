"""``fractalgen generate`` from end to end on a tiny random model, and every mistake that it refuses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fractalgen import FractalGen, PianoRoll, Trace, cli, render
from fractalgen.checkpoint import save_pretrained
from fractalgen.cli import main
from fractalgen.compose.composition import QUALITY, iterations
from fractalgen.config import GenerateConfig
from fractalgen.errors import UserError
from fractalgen.sampling import sample_rolls
from tests import tiny

WIDTH = tiny.WIDTH
ErrorLine = Callable[..., str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.save_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", tiny.model_config(), gate_bias=-3)


def generate(checkpoint: str, folder: Path, *flags: str) -> int:
    return cli.main(["generate", "--checkpoint", checkpoint, "--output_dir", str(folder), "--seed", "1", *flags])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_of_the_contract(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ("--num_samples", "3", "--batch_size", "2", "--save_gif", "--save_frames", "--gif_max_frames", "2")
    assert generate(checkpoint, tmp_path, *flags) == 0
    stems = [f"unconditional_{index:03d}" for index in range(3)]
    expected = {f"{stem}{ending}" for stem in stems for ending in (".mid", ".png")}
    expected |= {"unconditional_000_process.gif", "frames/frame_0000.png", "frames/frame_0001.png"}
    assert names(tmp_path) == expected
    assert PianoRoll.from_midi(tmp_path / "unconditional_000.mid").tokens.shape == (128, WIDTH)
    printed = capsys.readouterr().out
    assert "seed 1" in printed
    assert all(stem in printed for stem in stems)


def test_the_flags_of_the_animation(checkpoint: str, tmp_path: Path):
    flags = ["--num_samples", "3", "--gif_samples", "2", "--save_gif", "--save_frames", "--save_trace"]
    flags += ["--gif_fps", "4", "--gif_max_frames", "3", "--gif_scale", "2", "--tempo", "90", "--target_width", "48"]
    assert generate(checkpoint, tmp_path, *flags) == 0
    written = names(tmp_path)
    assert {name for name in written if name.endswith(".gif")} == {f"unconditional_00{i}_process.gif" for i in (0, 1)}
    assert {name for name in written if name.endswith(".npz")} == {f"unconditional_00{i}.trace.npz" for i in range(3)}
    frames = {f"unconditional_00{i}/frames/frame_000{k}.png" for i in (0, 1) for k in range(3)}
    assert {name for name in written if "frames/" in name} == frames
    with Image.open(tmp_path / "unconditional_000_process.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 3
        assert gif.info["duration"] == 250
        assert gif.width == 2 * 48
    roll = PianoRoll.from_midi(tmp_path / "unconditional_000.mid")
    assert roll.tempos[0][1] == pytest.approx(90, abs=0.01)
    trace = Trace.load(tmp_path / "unconditional_000.trace.npz")
    assert (trace.tokens == roll.tokens).all()
    assert trace.seed == 1


@pytest.mark.slow
def test_quality_sets_the_iterations_of_mar_levels(tmp_path: Path):
    torch.manual_seed(0)
    model = FractalGen(tiny.model_config(generator_types=("mar", "ar", "ar", "ar")))
    path = str(save_pretrained(model, tmp_path / "mar.safetensors"))
    for name in (None, *QUALITY):
        flags = () if name is None else ("--quality", name)
        assert generate(path, tmp_path / str(name), "--save_trace", "--target_width", "16", *flags) == 0
    traces = {name: Trace.load(tmp_path / str(name) / "unconditional_000.trace.npz") for name in (None, *QUALITY)}
    for name, numbers in QUALITY.items():
        assert traces[name].num_iter_list == numbers
    assert (traces["balanced"].tokens == traces[None].tokens).all()
    assert traces["fast"].steps[:, 0].max() < traces["balanced"].steps[:, 0].max()


@pytest.mark.parametrize(
    ("types", "patches", "expected"),
    [
        (("mar", "mar", "ar"), (128, 16, 1), QUALITY["best"][:3]),
        (("ar", "ar", "mar", "ar", "ar", "ar"), (128, 32, 16, 4, 2, 1), (*QUALITY["best"], 1, 1)),
        (("ar", "ar", "mar"), (128, 16, 1), None),  # the last level is a single cell
    ],
)
def test_quality_fits_any_number_of_levels(types: Any, patches: Any, expected: tuple[int, ...] | None):
    count = len(patches)
    settings: dict[str, Any] = {"embed_dims": (4,) * count, "num_blocks": (1,) * count, "num_heads": (1,) * count}
    settings |= dict.fromkeys(("context_pitches", "context_past", "max_children"), (0,) * count)
    model = FractalGen(tiny.model_config(patch_sizes=patches, generator_types=types, **settings))
    cfg = GenerateConfig(quality="best")
    if expected is None:
        with pytest.raises(UserError, match="--quality best: untrained is autoregressive"):
            iterations(cfg, model)
    else:
        assert iterations(cfg, model) == expected == model.iterations(expected)


def test_sound_page_and_film(checkpoint: str, tmp_path: Path):
    flags = ("--save_wav", "--save_html", "--save_mp4", "--gif_scale", "1", "--gif_max_frames", "2")
    assert generate(checkpoint, tmp_path, *flags) == 0
    endings = (".mid", ".png", ".wav", ".html", "_process.mp4")
    assert names(tmp_path) == {f"unconditional_000{ending}" for ending in endings}


def test_a_trace_of_given_music_keeps_its_tempo_and_meter(checkpoint: str, tmp_path: Path):
    tokens = np.zeros((128, 36), np.uint8)
    tokens[60, ::4] = 20
    given = PianoRoll(tokens, tempos=((0, 80.0), (12, 96.0)), time_signatures=((0, 3, 4),))
    given.to_midi(tmp_path / "given.mid")
    flags = ("--mode", "inpainting", "--input_midi", str(tmp_path / "given.mid"), "--mask", "time=12:24")
    generate(checkpoint, tmp_path, *flags, "--save_trace", "--candidates", "1")
    trace = Trace.load(tmp_path / "inpainting_000.trace.npz")
    assert trace.steps_per_bar == 12
    assert trace.roll == PianoRoll.from_midi(tmp_path / "inpainting_000.mid")
    assert trace.roll.tempos == PianoRoll.from_midi(tmp_path / "given.mid").tempos


def test_without_a_seed_every_run_differs_and_the_same_seed_gives_the_same_bytes(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    flags = ("--save_gif", "--num_samples", "2", "--seed")
    seeds = []
    for folder in ("a", "b"):
        generate(checkpoint, tmp_path / folder, *flags, "none")
        seeds.append(capsys.readouterr().out.split("seed ")[1].split()[0])
    assert seeds[0] != seeds[1]
    generate(checkpoint, tmp_path / "c", *flags, seeds[0])
    assert names(tmp_path / "c") == names(tmp_path / "a")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name


def test_a_failing_picture_is_told_and_loses_no_music(checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(render, "save_gif", fail)
    with pytest.warns(RuntimeWarning, match="(?s)_process.gif could not be written.*the disk is full"):
        assert generate(checkpoint, tmp_path, "--save_gif") == 1
    assert names(tmp_path) == {"unconditional_000.mid", "unconditional_000.png"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--target_width 0", "--target_width 0"),
        ("--num_iter_list 8 4 2", "--num_iter_list 8 4 2: 4 positive numbers are needed, one per level"),
        ("--num_iter_list 8 4 2 0", "--num_iter_list 8 4 2 0: 4 positive numbers"),
        ("--quality fast", "is autoregressive, it draws patch by patch and has no iterations to choose"),
        ("--quality best --num_iter_list 8 4 2 1", "--quality best and --num_iter_list 8 4 2 1: give only one of them"),
        ("--quality good", "--quality: expected fast|balanced|best or none, not 'good'"),
        ("--num_samples 0", "--num_samples 0: must be at least 1"),
        ("--batch_size 0", "--batch_size 0"),
        ("--temperature nan", "--temperature nan"),
        ("--temperature 1 2", "--temperature 1 2: one number is needed, or 4, one per level"),
        ("--cfg 3", "--cfg 3.0: guidance needs a label"),
        ("--filter_threshold -1", "--filter_threshold -1.0"),
        ("--record_interval -1", "--record_interval -1"),
        ("--tempo 0", "--tempo 0.0"),
        ("--seed -1", "--seed -1"),
        ("--page_piano full", "--page_piano full: for --save_html, which is not asked for"),
        ("--soundfont a.sf2", "--soundfont a.sf2: for --save_wav and --save_mp4; neither is asked for"),
        ("--device quantum", "--device quantum"),
        ("--gif_cmap nosuchmap", "--gif_cmap nosuchmap"),
        ("--gif_samples some", "--gif_samples some: expected first, all or a number"),
        ("--checkpoint absent.ckpt", "--checkpoint absent.ckpt: no such file"),
        ("--checkpoint .", "--checkpoint .: is a folder"),
        ("--model pop908-ar", "--model pop908-ar and --checkpoint"),
        ("--mode backwards", "--mode: expected unconditional|conditional|inpainting|accompany|variation, not"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    checkpoint: str, tmp_path: Path, one_error_line: ErrorLine, flags: str, expected: str
):
    folder = tmp_path / "out"
    line = one_error_line("generate", "--checkpoint", checkpoint, "--output_dir", folder, *flags.split())
    assert expected in line
    assert not folder.exists()


def test_a_shipped_model_that_does_not_exist(one_error_line: ErrorLine):
    line = one_error_line("generate", "--model", "pop908-ar")
    assert "--model pop908-ar: no such model (shipped: " in line
    assert "pop909-ar" in line


def test_a_read_only_output_folder(checkpoint: str, tmp_path: Path, read_only: Path, one_error_line: ErrorLine):
    for folder in (read_only, read_only / "sub", Path(checkpoint), Path(checkpoint) / "sub"):
        line = one_error_line("generate", "--checkpoint", checkpoint, "--output_dir", folder)
        assert f"--output_dir {folder}: cannot be written to" in line


def test_pieces_are_never_overwritten_unless_asked(checkpoint: str, tmp_path: Path):
    generate(checkpoint, tmp_path, "--num_samples", "2", "--seed", "1")
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "unconditional_007.gif").write_bytes(b"a picture that somebody likes")
    generate(checkpoint, tmp_path, "--seed", "2", "--save_gif")
    assert all((tmp_path / name).read_bytes() == content for name, content in first.items())
    assert {path.name for path in tmp_path.iterdir()} - set(first) == {
        *("unconditional_007.gif", "unconditional_008.mid", "unconditional_008.png", "unconditional_008_process.gif")
    }
    (tmp_path / "unconditional_000_process.gif").write_bytes(b"of the piece before")
    (tmp_path / "unconditional_000.html").write_bytes(b"of the piece before")
    generate(checkpoint, tmp_path, "--seed", "3", "--overwrite")
    assert (tmp_path / "unconditional_000.mid").read_bytes() != first["unconditional_000.mid"]
    assert not (tmp_path / "unconditional_000_process.gif").exists()
    assert not (tmp_path / "unconditional_000.html").exists()
    assert (tmp_path / "unconditional_001.mid").read_bytes() == first["unconditional_001.mid"]


def test_a_piece_is_made_again_from_its_file(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def made(folder: str, *flags: object) -> list[Path]:
        """The MIDI files of a command."""
        assert main(["generate", *map(str, flags), "--output_dir", str(tmp_path / folder)]) == 0
        return sorted((tmp_path / folder).glob("*.mid"))

    first = made("a", "--checkpoint", checkpoint, "--seed", 1, "--num_samples", 5, "--batch_size", 2, "--tempo", 90)
    for index in (0, 3):
        (again,) = made(f"b{index}", "--like", first[index])
        assert "1 x 32 steps" in capsys.readouterr().out
        assert again.name == "unconditional_000.mid"
        assert again.read_bytes() == first[index].read_bytes()
    # flags that are given win
    other = made("c", "--like", first[3], "--seed", 9, "--num_samples", 2, "--tempo", 70)
    assert len(other) == 2
    assert PianoRoll.from_midi(other[0]).tempos[0][1] == pytest.approx(70, abs=0.01)
    # music that is gone on from keeps its events, and its own recipe
    flags = ("--mode", "conditional", "--condition_midi", first[3], "--bars", 1)
    (after,) = made("d", "--checkpoint", checkpoint, *flags)
    (again,) = made("e", "--like", after)
    assert again.read_bytes() == after.read_bytes()
    capsys.readouterr()
    PianoRoll.from_midi(after).to_midi(tmp_path / "plain.mid")
    assert main(["generate", "--like", str(tmp_path / "plain.mid")]) == 2
    assert "no recipe in it" in capsys.readouterr().err


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is ignored where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_every_batch_is_written_at_once_and_an_interruption_keeps_it(
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruptible: None,
    capsys: pytest.CaptureFixture[str],
    signum: signal.Signals,
    status: int,
):
    calls = []

    def interrupted(*args: Any, **settings: Any) -> Any:
        calls.append(sorted(path.name for path in tmp_path.glob("*.mid")))
        if len(calls) == 3:
            signal.raise_signal(signum)
        return sample_rolls(*args, **settings)

    monkeypatch.setattr("fractalgen.rolls.sample_rolls", interrupted)
    assert generate(checkpoint, tmp_path, "--num_samples", "5", "--batch_size", "2") == status
    names = [f"unconditional_{index:03d}" for index in range(5)]
    assert calls == [[], [f"{name}.mid" for name in names[:2]], [f"{name}.mid" for name in names[:4]]]
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"4 of 5 pieces composed, in {tmp_path}/; not composed: {names[4]}" in told


def test_an_interruption_while_pictures_are_drawn_ends_the_command_and_it_goes_on(
    checkpoint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interruptible: None,
    capsys: pytest.CaptureFixture[str],
):
    with monkeypatch.context() as patch:
        patch.setattr(render, "save_gif", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        assert generate(checkpoint, tmp_path, "--save_gif", "--save_html") == 130
    assert names(tmp_path) == {"unconditional_000.mid", "unconditional_000.html"}
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"1 of 1 piece composed, in {tmp_path}/; files are missing of: unconditional_000" in told
    assert generate(checkpoint, tmp_path, "--save_gif", "--save_html", "--resume") == 0
    assert "unconditional_000_process.gif" in names(tmp_path)


@pytest.mark.slow
def test_a_terminal_that_cannot_show_a_character(checkpoint: str, tmp_path: Path):
    folder = tmp_path / "für dich"
    command = [sys.executable, "-m", "fractalgen", "generate", "--checkpoint", checkpoint, "--output_dir", str(folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert b"f\\xfcr dich" in result.stdout


def test_bars_as_on_a_score(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    tokens = np.zeros((128, 12 * 6), np.uint8)
    tokens[60, ::4] = 20
    PianoRoll(tokens, time_signatures=((0, 3, 4),)).to_midi(tmp_path / "waltz.mid")
    base = ["generate", "--checkpoint", checkpoint, "--mode", "inpainting", "--input_midi", str(tmp_path / "waltz.mid")]
    base += ["--candidates", "1"]
    for name, flags in (("a", ["--compose_bars", "2-3", "5"]), ("b", ["--mask", "bars=1:3", "--mask", "bars=4:5"])):
        assert main([*base, *flags, "--seed", "1", "--output_dir", str(tmp_path / name)]) == 0
    one, two = (PianoRoll.from_midi(tmp_path / name / "inpainting_000.mid") for name in "ab")
    assert one == two
    kept = np.r_[0:12, 36:48, 60:72]
    assert np.array_equal(one.tokens[:, kept], tokens[:, kept])
    for wrong in ("0-2", "7", "3-2", "two"):
        assert main([*base, "--compose_bars", wrong]) == 2
        assert f"--compose_bars {wrong}: " in capsys.readouterr().err
