from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fractalgen import checkpoint
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import make_header, read_checkpoint, save_pretrained
from fractalgen.config import ExportConfig
from fractalgen.errors import UserError
from tests import tiny


@pytest.fixture
def model() -> FractalGen:
    torch.manual_seed(0)
    return FractalGen(tiny.model_config()).eval()


def score(model: FractalGen) -> torch.Tensor:
    with torch.no_grad():
        return model.nll(torch.from_numpy(tiny.tokens(0))[None].long()).total


def lightning_file(path: Path, trained: FractalGen, **changes: Any) -> Path:
    weights = {f"model.{name}": value for name, value in trained.state_dict().items()}
    header = {**make_header(trained.config, step=7), **changes}
    torch.save({"fractalgen": header, "state_dict": weights, "optimizer_states": [], "loops": {}}, path)
    return path


def test_float32_round_trip_is_exact(model: FractalGen, tmp_path: Path) -> None:
    path = save_pretrained(model, tmp_path / "new" / "mine.safetensors", {"licence": "MIT"}, torch.float32)
    back = load_pretrained(path)
    assert not back.training
    assert back.config == model.config
    assert torch.equal(score(back), score(model))
    assert read_checkpoint(path)[0]["licence"] == "MIT"
    assert [file.name for file in path.parent.iterdir()] == ["mine.safetensors"]


def test_bfloat16_is_half_the_size_and_close(model: FractalGen, tmp_path: Path) -> None:
    path = save_pretrained(model, tmp_path / "half.SAFETENSORS")  # as some file systems write it
    back = load_pretrained(str(path))
    for name, value in back.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].bfloat16().float())
    assert torch.allclose(score(back), score(model), rtol=1e-2)


def test_matrices_of_bytes_are_smaller_still_and_close(model: FractalGen, tmp_path: Path) -> None:
    half, quarter = (
        save_pretrained(model, tmp_path / f"{dtype}.safetensors", dtype=dtype) for dtype in (torch.bfloat16, torch.int8)
    )
    assert quarter.stat().st_size < 0.8 * half.stat().st_size  # a tiny model has few large matrices
    back = load_pretrained(str(quarter))
    for name, value in back.state_dict().items():
        assert value.dtype == torch.float32
        true = model.state_dict()[name]
        most = true.abs().amax(-1, keepdim=True) / 254 if true.ndim == 2 else 0.0
        assert bool(((value - true).abs() <= most + true.abs() / 256 + 1e-9).all())
    assert torch.allclose(score(back), score(model), rtol=1e-2)
    again = save_pretrained(back, tmp_path / "again.safetensors", dtype=torch.int8)
    assert torch.allclose(score(load_pretrained(again)), score(back), rtol=1e-4)


@pytest.mark.parametrize("damage", ["no scales", "one scale", "bytes in a vector"])
def test_bytes_without_their_scales_are_refused(model: FractalGen, tmp_path: Path, damage: str) -> None:
    path = save_pretrained(model, tmp_path / "bytes.safetensors", dtype=torch.int8)
    with safe_open(path, framework="pt") as file:
        metadata, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    scale = next(name for name in sorted(weights) if name.endswith(checkpoint.SCALES))
    if damage == "no scales":
        del weights[scale]
    elif damage == "one scale":
        weights[scale] = weights[scale][:1]
    else:
        weights["null"] = weights["null"].to(torch.int8)
    save_file(weights, path, metadata)
    refused(path, "is no array of numbers")


def test_export_keeps_weights_and_facts_but_no_local_path(
    model: FractalGen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = lightning_file(tmp_path / "a.ckpt", model, train={"data": "/home/me/songs.safetensors"}, val_loss=0.5)
    out = tmp_path / "shared.safetensors"
    checkpoint.export(ExportConfig(checkpoint=str(trained), out=str(out), precision="32", licence="MIT"))
    assert "step 7, val_loss 0.5" in capsys.readouterr().out
    assert torch.equal(score(load_pretrained(out)), score(model))
    header, _ = read_checkpoint(out)
    assert (header["step"], header["licence"], header["train"]["data"]) == (7, "MIT", "songs.safetensors")
    with pytest.raises(UserError, match="--checkpoint: which"):
        checkpoint.export(ExportConfig())


def test_lightning_checkpoint_and_identity(model: FractalGen, tmp_path: Path) -> None:
    first = load_pretrained(lightning_file(tmp_path / "a.ckpt", model))
    second = load_pretrained(save_pretrained(model, tmp_path / "b.safetensors", dtype=torch.float32))
    assert torch.equal(score(first), score(model))
    assert first.checkpoint_id.startswith("a-")
    assert first.checkpoint_id[2:] == second.checkpoint_id[2:]
    model.root.gate.bias.data += 1
    other = load_pretrained(lightning_file(tmp_path / "a.ckpt", model))
    assert other.checkpoint_id != first.checkpoint_id


def test_shipped_models_go_by_name(model: FractalGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path)
    with pytest.raises(UserError, match="shipped models: none"):
        load_pretrained()
    save_pretrained(model, tmp_path / f"{checkpoint.DEFAULT_MODEL}.safetensors")
    save_pretrained(model, tmp_path / "other.safetensors")
    assert load_pretrained().checkpoint_id.startswith(checkpoint.DEFAULT_MODEL)
    assert load_pretrained("other").checkpoint_id.startswith("other-")
    with pytest.raises(UserError, match=f"nothing: no such file .shipped models: other, {checkpoint.DEFAULT_MODEL}"):
        load_pretrained("nothing")
    with pytest.raises(UserError, match="is a folder"):
        load_pretrained(tmp_path)
    trained = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    trained.parent.mkdir(parents=True)
    trained.touch()
    for folder in (tmp_path, *trained.parents[:3]):
        with pytest.raises(UserError, match=f"--checkpoint {folder}: is a folder .* with a checkpoint: {trained}"):
            load_pretrained(folder)


def test_a_run_folder_names_the_checkpoint_that_was_written_last(model: FractalGen, tmp_path: Path) -> None:
    """By the time that the checkpoints tell: files of a copied run have other times.  A damaged one is no choice."""
    files = [tmp_path / f"version_{number}" / "checkpoints" / "last.ckpt" for number in range(4)]
    for number, (file, written) in enumerate(zip(files, ({}, {"written": 9.0}, {"written": 8.0}, None), strict=True)):
        file.parent.mkdir(parents=True)
        file.touch() if written is None else lightning_file(file, model, **written)
        os.utime(file, (number, number))
    with pytest.raises(UserError, match=f"with a checkpoint: {files[1]}$"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04junk", b"PK\x03\x04" + bytes(60), bytes(400)])
def test_files_that_are_no_checkpoint(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"no{suffix}"
    path.write_bytes(content)
    refused(path, "not a FractalGen checkpoint")


def refused(path: Path, reason: str) -> None:
    with pytest.raises(UserError) as error:
        load_pretrained(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"--checkpoint {path}: ")
    assert reason in str(error.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_files(model: FractalGen, tmp_path: Path, share: float) -> None:
    for path in (lightning_file(tmp_path / "a.ckpt", model), save_pretrained(model, tmp_path / "a.safetensors")):
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        refused(path, "not a FractalGen checkpoint")


def test_foreign_files(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "format None, expected 'fractalgen'")
    torch.save([1, 2], tmp_path / "b.ckpt")
    refused(tmp_path / "b.ckpt", "not a FractalGen checkpoint")
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors", metadata={"format": "pt"})
    refused(tmp_path / "c.safetensors", "format None")


def test_other_versions_and_formats(model: FractalGen, tmp_path: Path) -> None:
    refused(lightning_file(tmp_path / "a.ckpt", model, version=2), "checkpoint version 2, this program reads version 1")
    refused(lightning_file(tmp_path / "b.ckpt", model, format="other"), "format 'other'")
    header = json.dumps({**make_header(model.config), "version": 3})
    save_file({"x": torch.zeros(1)}, tmp_path / "c.safetensors", metadata={"fractalgen": header})
    refused(tmp_path / "c.safetensors", "checkpoint version 3")


def test_damaged_contents(model: FractalGen, tmp_path: Path) -> None:
    refused(lightning_file(tmp_path / "a.ckpt", model, model={"levels": 3}), "damaged checkpoint")
    other = model.config.to_dict() | {"velocity_bins": 16}
    refused(lightning_file(tmp_path / "b.ckpt", model, model=other), "2 weights are not those of this program's model")


@pytest.mark.parametrize("change", [{"width": 16_384}, {"depth": 256}, {"context": [4_096, 4_096, 4_096]}])
def test_a_header_that_asks_for_more_memory_than_there_is(
    model: FractalGen, tmp_path: Path, change: dict[str, Any]
) -> None:
    for level in range(len(model.config.levels)):
        header = json.loads(json.dumps(model.config.to_dict()))
        header["levels"][level] |= change
        if level < len(model.config.levels) - 1 or "context" in change:
            refused(lightning_file(tmp_path / "a.ckpt", model, model=header), "weights for a model of more than")


def test_a_model_is_loaded_without_the_compiler() -> None:
    """Which PyTorch imports for arithmetic on its "meta" device; it takes longer than all the rest."""
    code = "import sys, fractalgen; fractalgen.FractalGen.from_pretrained(); print('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trap was sprung"),))


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"fractalgen": Trap()}, tmp_path / "a.ckpt")
    refused(tmp_path / "a.ckpt", "not a FractalGen checkpoint")
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_failed_write_leaves_the_old_file(model: FractalGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_pretrained(model, tmp_path / "a.safetensors")
    before = path.read_bytes()

    def disk_full(file: Path, content: bytes) -> None:
        with file.open("wb") as half:
            half.write(content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(UserError, match="cannot be written: disk full"):
        save_pretrained(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == before
