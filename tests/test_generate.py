"""``fractalgen generate`` from end to end on a tiny random model, and every mistake that it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fractalgen import FractalGen, PianoRoll, Trace, cli, render
from fractalgen.checkpoint import save_pretrained
from fractalgen.config import GenerateConfig
from fractalgen.errors import UserError
from fractalgen.generate import QUALITY, iterations
from fractalgen.model.fractal import FractalLevel
from fractalgen.vocabulary import KEYS, Attribute
from tests import tiny

WIDTH = tiny.WIDTH
ErrorLine = Callable[..., str]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = FractalGen(tiny.model_config())
    for level in model.modules():
        if isinstance(level, FractalLevel):
            torch.nn.init.constant_(level.gate.bias, -3)  # as sparse as music: few cells to draw
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_pretrained(model, path, {})
    return str(path)


def generate(checkpoint: str, folder: Path, *flags: str) -> int:
    return cli.main(["generate", "--checkpoint", checkpoint, "--output_dir", str(folder), "--seed", "1", *flags])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_of_the_contract(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert generate(checkpoint, tmp_path, "--num_samples", "3", "--batch_size", "2", "--save_gif") == 0
    stems = [f"unconditional_{index:03d}" for index in range(3)]
    expected = {f"{stem}{ending}" for stem in stems for ending in (".mid", ".png")}
    assert names(tmp_path) == expected | {"unconditional_000_process.gif"}
    assert PianoRoll.from_midi(tmp_path / "unconditional_000.mid").tokens.shape == (128, WIDTH)
    printed = capsys.readouterr().out
    assert "seed 1" in printed
    assert all(stem in printed for stem in stems)


def test_same_seed_same_bytes(checkpoint: str, tmp_path: Path):
    for folder in ("a", "b"):
        assert generate(checkpoint, tmp_path / folder, "--save_gif", "--num_samples", "2") == 0
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert names(tmp_path / "a") == names(tmp_path / "b")


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


def test_frames_of_a_single_sample_lie_in_frames(checkpoint: str, tmp_path: Path):
    assert generate(checkpoint, tmp_path, "--save_frames", "--num_samples", "2") == 0
    assert "frames/frame_0000.png" in names(tmp_path)


def test_sound_page_and_film(checkpoint: str, tmp_path: Path):
    flags = ("--save_wav", "--save_html", "--save_mp4", "--gif_scale", "1", "--gif_max_frames", "2")
    assert generate(checkpoint, tmp_path, *flags) == 0
    endings = (".mid", ".png", ".wav", ".html", "_process.mp4")
    assert names(tmp_path) == {f"unconditional_000{ending}" for ending in endings}


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

    def sample(self: FractalGen, count: int, cond_list: Any, width: int, **settings: Any) -> Any:
        found.append(None if cond_list is None else torch.stack(cond_list, 1).tolist())
        rolls = np.stack([tiny.tokens(seed, width) for seed in range(count)])
        return torch.from_numpy(rolls.astype(np.int64)), tiny.intermediates(rolls)

    monkeypatch.setattr(FractalGen, "sample", sample)
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
    assert f"key: {KEYS[rows[0][0] - 1]}, " in capsys.readouterr().out


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


def test_any_tempo_is_written_and_the_nearest_asked_for(tmp_path: Path, asked: list[Any]):
    tempo = Attribute("tempo", (), (60.0, 90.0, 120.0), (0.0, 0.5, 1.0), "quarters a minute")
    model = FractalGen(dataclasses.replace(tiny.model_config(), attributes=(tempo,)))
    path = save_pretrained(model, tmp_path / "timed.safetensors")
    for number, label in ((40, 1), (100, 2), (210, 2)):
        generate(str(path), tmp_path / "out", "--tempo", str(number))
        assert asked.pop() == [[label]]
        written = PianoRoll.from_midi(tmp_path / "out" / "unconditional_000.mid")
        assert written.tempos[0][1] == pytest.approx(number, abs=0.01)


def test_a_trace_says_what_was_asked_for(keyed: str, tmp_path: Path, asked: list[Any]):
    generate(keyed, tmp_path, "--key", "G major", "--save_trace")
    assert Trace.load(tmp_path / "unconditional_000.trace.npz").settings["key"] == "G major"


def test_a_key_that_is_asked_for_or_left_open(keyed: str, tmp_path: Path, asked: list[Any]):
    generate(keyed, tmp_path, "--key", "a minor", "--num_samples", "2")
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


def test_without_a_seed_every_run_differs_and_can_be_repeated(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seeds = []
    for folder in ("a", "b"):
        generate(checkpoint, tmp_path / folder, "--seed", "none")
        seeds.append(capsys.readouterr().out.split("seed ")[1].split()[0])
    assert seeds[0] != seeds[1]
    generate(checkpoint, tmp_path / "c", "--seed", seeds[0])
    assert names(tmp_path / "c") == names(tmp_path / "a")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


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
        ("--target_width 100", "--target_width 100: the width must be a positive multiple of the patch size 16"),
        ("--target_width 0", "--target_width 0"),
        ("--target_width -16", "--target_width -16"),
        ("--num_iter_list 8 4 2", "--num_iter_list 8 4 2: 4 positive numbers are needed, one per level"),
        ("--num_iter_list 8 4 2 0", "--num_iter_list 8 4 2 0: 4 positive numbers"),
        ("--quality fast", "is autoregressive, it draws patch by patch and has no iterations to choose"),
        ("--quality best --num_iter_list 8 4 2 1", "--quality best and --num_iter_list 8 4 2 1: one of them, please"),
        ("--quality good", "--quality: expected fast|balanced|best or none, not 'good'"),
        ("--num_samples 0", "--num_samples 0: must be at least 1"),
        ("--batch_size 0", "--batch_size 0"),
        ("--batch_generate_size 0", "--batch_generate_size 0"),
        ("--temperature 0", "--temperature 0.0"),
        ("--temperature nan", "--temperature nan"),
        ("--cfg 3", "--cfg 3.0: guidance needs something to guide by"),
        ("--filter_threshold -1", "--filter_threshold -1.0"),
        ("--record_interval -1", "--record_interval -1"),
        ("--tempo 0", "--tempo 0.0"),
        ("--seed -1", "--seed -1"),
        ("--soundfont a.sf2", "--soundfont a.sf2: for --save_wav and --save_mp4; neither is asked for"),
        ("--device quantum", "--device quantum"),
        ("--device cuda:99", "--device cuda:99"),
        ("--gif_cmap nosuchmap", "--gif_cmap nosuchmap"),
        ("--gif_background nosuchcolour", "--gif_background nosuchcolour"),
        ("--gif_samples some", "--gif_samples some: expected first, all or a number"),
        ("--gif_fps 0", "--gif_fps 0.0"),
        ("--gif_scale 0", "--gif_scale 0"),
        ("--checkpoint absent.ckpt", "--checkpoint absent.ckpt: no such file"),
        ("--checkpoint .", "--checkpoint .: is a folder"),
        ("--model pop908-ar", "--model pop908-ar and --checkpoint"),
        (
            "--mode backwards",
            "--mode: expected unconditional|conditional|inpainting|accompany|variation, not 'backwards'",
        ),
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


@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors", "model.txt"])
@pytest.mark.parametrize(
    "content", [b"", b"hello, I am no checkpoint\n", bytes(range(256)) * 8], ids=["empty", "text", "bytes"]
)
def test_a_checkpoint_that_is_none(tmp_path: Path, one_error_line: ErrorLine, name: str, content: bytes):
    path = tmp_path / name
    path.write_bytes(content)
    line = one_error_line("generate", "--checkpoint", path, "--output_dir", tmp_path / "out")
    assert f"--checkpoint {path}: not a FractalGen checkpoint" in line
    assert names(tmp_path) == {name}


def test_a_truncated_checkpoint(checkpoint: str, tmp_path: Path, one_error_line: ErrorLine):
    path = tmp_path / "model.safetensors"
    whole = Path(checkpoint).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"--checkpoint {path}" in one_error_line("generate", "--checkpoint", path, "--output_dir", tmp_path / "out")
    assert names(tmp_path) == {"model.safetensors"}


def test_a_read_only_output_folder(checkpoint: str, tmp_path: Path, read_only: Path, one_error_line: ErrorLine):
    for folder in (read_only, read_only / "sub", Path(checkpoint), Path(checkpoint) / "sub"):
        line = one_error_line("generate", "--checkpoint", checkpoint, "--output_dir", folder)
        assert f"--output_dir {folder}: cannot be written to" in line
