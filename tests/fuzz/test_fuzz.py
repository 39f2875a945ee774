from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fractalgen import cli
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import make_header
from fractalgen.compose.recipe import PREFIX
from fractalgen.config import GenerateConfig, ModelConfig, TrainConfig
from fractalgen.data.corpus import Corpus
from fractalgen.errors import UserError
from fractalgen.music.midi import END_MARKER
from fractalgen.music.midi_parser import END_OF_TRACK, Event
from fractalgen.music.midi_writer import midi_bytes, text_event
from fractalgen.music.pianoroll import PianoRoll
from fractalgen.trace import Trace
from tests import tiny
from tests.fuzz import KINDS, run
from tests.fuzz.settings import ALIASES, MERGED

COUNTS = {"midi": 200, "trace": 300, "corpus": 300, "checkpoint": 40, "yaml": 60}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    tally = run(name, range(COUNTS[name]), tmp_path)
    assert tally.faults == []
    assert tally.refused > COUNTS[name] / 10
    assert tally.accepted > 0


def midi(path: Path, kind: int, text: str) -> Path:
    """A file of one note and one text."""
    note = [Event(0, b"\x90\x3c\x40"), Event(1920, b"\x80\x3c\x40")]
    path.write_bytes(midi_bytes([[*note, Event(1920, text_event(kind, text)), Event(1920, END_OF_TRACK)]], 480))
    return path


def test_a_recipe_says_what_is_composed_and_not_where(tmp_path: Path) -> None:
    recipe = {"seed": 3, "output_dir": "/somewhere", "overwrite": True, "soundfont": "/dev/zero"}
    found = cli.resolve_config(GenerateConfig, {"like": str(midi(tmp_path / "a.mid", 1, PREFIX + json.dumps(recipe)))})
    assert found == GenerateConfig(seed=3, best_of=1, like=str(tmp_path / "a.mid"))


def test_a_recipe_that_is_nested_deeply(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.mid: no recipe in it"):
        cli.resolve_config(GenerateConfig, {"like": str(midi(tmp_path / "a.mid", 1, PREFIX + "[" * 100_000))})


def test_the_marker_of_a_stranger(tmp_path: Path) -> None:
    path = midi(tmp_path / "a.mid", 6, f"{END_MARKER} 60 {'9' * 5000} 128")
    assert PianoRoll.from_midi(path).tokens[60, :16].tolist() == [1] * 16


@pytest.mark.parametrize("text", [ALIASES, MERGED, "data: " + "[" * 20_000, "- " * 5000])
def test_short_settings_stay_short(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a.yaml: cannot be read \(lists nested too deeply\)"):
        cli.resolve_config(TrainConfig, {}, [str(path)])


@pytest.mark.parametrize("parent", ["nowhere", "../small", "[small]", "~"])
def test_settings_extend_shipped_ones_alone(tmp_path: Path, parent: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"extends: {parent}\n")
    with pytest.raises(UserError, match=r"a.yaml: extends .*: must be one of base, chorales, small,"):
        cli.resolve_config(TrainConfig, {}, [str(path)])


def test_settings_may_repeat_a_list(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("embed_dims: &dims [64, 64, 64, 64]\nmax_children: *dims\n")
    assert cli.resolve_config(TrainConfig, {}, [str(path)]).max_children == (64, 64, 64, 64)


@pytest.mark.parametrize("where", [lambda text: text, lambda text: json.dumps({"__metadata__": {"fractalgen": text}})])
def test_a_corpus_that_is_nested_deeply(tmp_path: Path, where: Callable[[str], str]) -> None:
    head = where("[" * 100_000 + "]" * 100_000).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(UserError, match=r"a.safetensors: not a packed corpus"):
        Corpus.open(path)


def checkpoint(path: Path, config: ModelConfig, number: float) -> Path:
    """The weights of a model, all of them one and the same number in the file."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in FractalGen(config).state_dict().items()}
    weights = {f"model.{name}": torch.full((1,), number).expand(shape) for name, shape in shapes.items()}
    small = sum(shape.numel() for shape in shapes.values()) < 1_000_000
    weights = {name: value.clone() if small else value for name, value in weights.items()}
    torch.save({"fractalgen": make_header(config), "state_dict": weights}, path)
    return path


def test_a_model_is_no_larger_than_its_file(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", tiny.model_config(embed_dims=(8192,) * 4, num_blocks=(30,) * 4), 0.0)
    with pytest.raises(UserError, match=r"a.ckpt: not a FractalGen checkpoint \(its weights are larger than the file"):
        load_pretrained(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_are_finite(tmp_path: Path, number: float) -> None:
    path = checkpoint(tmp_path / "a.ckpt", tiny.model_config(), number)
    with pytest.raises(UserError, match=r"a.ckpt: damaged checkpoint \(infinite or undefined numbers in"):
        load_pretrained(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "tokens",
            b"\x93NUMPY\1\0\x45\0{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }",
            "tokens: ",
        ),
        ("steps", np.zeros((3_000_000, 2), np.int16), "3,000,000 steps for 16 patches"),
        ("header", np.array(" " * 5_000_000), "header: <U5000000 "),
    ],
)
def test_a_trace_is_no_larger_than_its_piece(
    tmp_path: Path, name: str, content: bytes | np.ndarray, message: str
) -> None:
    path = tmp_path / "a.npz"
    tiny.intermediates(tiny.tokens(0)[None]).traces[0].save(path)
    with np.load(path) as file:
        arrays = {key: file[key] for key in file}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for key, array in (
            arrays | {"seconds": np.zeros(3_000_000, np.float32)} if name == "steps" else arrays
        ).items():
            packed = io.BytesIO()
            np.save(packed, array if key != name or isinstance(content, bytes) else content)
            archive.writestr(f"{key}.npy", content if key == name and isinstance(content, bytes) else packed.getvalue())
    with pytest.raises(UserError, match=rf"a.npz: not a FractalGen trace \(.*{message}"):
        Trace.load(path)
