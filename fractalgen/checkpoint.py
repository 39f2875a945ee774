"""Checkpoints: self-describing files that rebuild the model they hold, and nothing but data is read from them.

Two containers carry the same header (format, version, model configuration and whatever was known when it was
written): Lightning's ``.ckpt`` (for going on with training) under the key ``fractalgen``, and ``.safetensors`` (for
sharing) as JSON in the file's metadata.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fractalgen.config import DEFAULT_MODEL, ExportConfig, ModelConfig, SavedPrecision
from fractalgen.errors import UserError, quoted, shown
from fractalgen.features.critic import Critic
from fractalgen.files import ASSETS, replacing
from fractalgen.hub import CARD_FILE, CRITIC_FILE, MODEL_FILE, SCHEME, download, is_address
from fractalgen.model.network import FractalNetwork

Network = TypeVar("Network", bound=FractalNetwork)

FORMAT = "fractalgen"
VERSION = 1
HEADER_KEY = "fractalgen"
WEIGHTS_PREFIX = "model."
SCALES = ".scale"  # the name of a matrix and this: what its rows of whole numbers are multiplied by
MATRIX = 4096  # smaller ones are not worth rounding to whole numbers
LAST = "last.ckpt"  # the newest checkpoint of a run, see fractalgen.training.callbacks.LastCheckpoint
RUN_FOLDERS = ("", "checkpoints/", "*/checkpoints/", "*/*/checkpoints/")  # where a run or a part of it has its last one
SHIPPED = ASSETS / "models"
DTYPES: dict[SavedPrecision, torch.dtype] = {"32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


def make_header(config: ModelConfig, **facts: Any) -> dict[str, Any]:
    """The record that makes a checkpoint self-describing; ``facts`` (step, val_loss, corpus ...) must be JSON data."""
    return {"format": FORMAT, "version": VERSION, "model": config.to_dict(), **facts}


def find_model(name_or_path: str | os.PathLike[str] | None, model: str | None = None, flag: str = "checkpoint") -> Path:
    """The file that is meant.

    ``name_or_path``: a file, a folder with ``model.safetensors``, the name of a shipped model, ``hf://owner/name`` on
    the Hugging Face Hub (downloaded if needed), or None (the default model).  ``model``: a name or an address, no
    path, and instead of the first.

    Raises:
        UserError: there is no such model, or both are given.
    """
    if model is not None and name_or_path is not None:
        raise UserError(f"--model {model} and --checkpoint {os.fspath(name_or_path)}: give only one of them")
    name = DEFAULT_MODEL if model is None else model
    if name_or_path is not None:
        name = os.fspath(name_or_path)
    if is_address(name):
        return download(name, flag if model is None else "model")
    path = Path(name)
    if name_or_path is not None:
        for file in (path, path / MODEL_FILE):
            if file.is_file():
                return file
    shipped = SHIPPED / f"{name}.safetensors"
    if path.name == name and shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.safetensors"))) or "none"
    if model is not None:
        raise UserError(
            f"--model {model}: no such model (shipped: {names}; {SCHEME}owner/name: on the Hugging Face Hub; files go"
            " with --checkpoint)"
        )
    if trained := [file for inner in RUN_FOLDERS for file in path.glob(f"{inner}{LAST}")]:
        newest = newest_checkpoint(trained, flag)[0] or trained[0]
        raise UserError(f"--{flag} {name}: is a folder without {MODEL_FILE}, but with a checkpoint: {newest}")
    what = f"is a folder without {MODEL_FILE}" if path.is_dir() else "no such file"
    raise UserError(f"--{flag} {name}: {what} (shipped models: {names})")


def newest_checkpoint(files: Iterable[Path], flag: str) -> tuple[Path | None, list[UserError]]:
    """The readable checkpoint that says it was written last, and what is wrong with those that cannot be read.

    Checkpoints of earlier versions do not say when.  They count as older, by their file times.  Where ``last.ckpt`` of
    a folder is readable, it is the newest there, and the others are not opened.
    """
    found: list[tuple[float, int, Path]] = []
    faults: list[UserError] = []
    settled: set[Path] = set()
    for file in sorted(files, key=lambda file: file.name != LAST):
        if file.parent in settled:
            continue
        try:
            written = read_checkpoint(file, flag)[0].get("written")
        except UserError as error:
            faults.append(error)
            continue
        found.append((written if isinstance(written, float) else 0.0, file.stat().st_mtime_ns, file))
        if file.name == LAST:
            settled.add(file.parent)
    return max(found)[-1] if found else None, faults


def model_name(path: Path) -> str:
    """What the model of a file is called: as the file, or as the folder or repository of a ``model.safetensors``."""
    if path.name != MODEL_FILE:
        return path.stem
    folder = path.absolute().parent
    cached = folder.parent.name == "snapshots"  # models--owner--name/snapshots/revision/ in the cache of the Hub
    return folder.parents[1].name.rpartition("--")[2] if cached else folder.name


def read_card(path: Path) -> str:
    """The model card that lies beside the file of a model; empty where there is none."""
    card = path.with_name(CARD_FILE) if path.name == MODEL_FILE else path.with_suffix(".md")
    return card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""


def critic_file(path: Path) -> Path:
    """Where the critic of the model in a file lies: beside it."""
    return path.with_name(CRITIC_FILE) if path.name == MODEL_FILE else path.with_suffix(f".{CRITIC_FILE}")


def read_critic(path: Path) -> Critic | None:
    """The critic that lies beside the file of a model, if there is one.

    Raises:
        UserError: it is damaged.
    """
    file = critic_file(path)
    return Critic.read(file) if file.is_file() else None


def read_checkpoint(path: Path, flag: str = "checkpoint") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and weights of a ``.ckpt`` or ``.safetensors`` file; pickled code in a file is never run.

    The weights of a ``.ckpt`` are memory-mapped, so that its optimiser state is not read.

    Raises:
        UserError: not a checkpoint of FractalGen, or one of a newer version.
    """
    refused = f"--{flag} {path}: not a FractalGen checkpoint"
    try:
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get(HEADER_KEY, "null"))
                # the header is judged before the weights are read
                _check_header(header, path, flag)
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            header = content.get(HEADER_KEY) if isinstance(content, dict) else None
            _check_header(header, path, flag)
            weights = {
                name.removeprefix(WEIGHTS_PREFIX): value
                for name, value in content["state_dict"].items()
                if name.startswith(WEIGHTS_PREFIX)
            }
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--{flag} {path}: {error.strerror or _first_line(error)}") from error
    except Exception as error:  # torch, pickle, zipfile and safetensors raise many kinds at damaged files
        raise UserError(f"{refused} ({_first_line(error)})") from error
    if odd := [name for name, value in weights.items() if not _is_weight(value, weights.get(f"{name}{SCALES}"))]:
        raise UserError(f"{refused} ({shown(odd[0])} is no array of numbers)")
    if sum(value.numel() * value.element_size() for value in weights.values()) > path.stat().st_size:
        raise UserError(f"{refused} (its weights are larger than the file)")
    scales = {f"{name}{SCALES}" for name, value in weights.items() if value.dtype == torch.int8}
    return header, {
        name: value * weights[f"{name}{SCALES}"] if value.dtype == torch.int8 else value
        for name, value in weights.items()
        if name not in scales
    }


def _is_weight(value: Any, scales: Any) -> bool:
    """Whether it is an array of numbers, or of bytes with a scale for each row."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    if value.dtype == torch.int8:
        scaled = _is_weight(scales, None) and scales.dtype == torch.float32
        return scaled and value.ndim == 2 and scales.shape == (len(value), 1)
    return value.is_floating_point()


def quantised(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with matrices as whole numbers from -127 to 127, and a scale for each of their rows."""
    found = {}
    for name, value in weights.items():
        if value.ndim == 2 and value.numel() >= MATRIX:
            scale = value.float().abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / 127
            found[f"{name}{SCALES}"] = scale
            found[name] = (value.float() / scale).round().to(torch.int8)
        else:
            found[name] = value.to(torch.bfloat16)
    return found


def _check_header(header: Any, path: Path, flag: str) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = quoted(header.get("format") if isinstance(header, dict) else None)
        raise UserError(f"--{flag} {path}: not a FractalGen checkpoint (format {found}, expected {FORMAT!r})")
    if header.get("version") != VERSION:
        raise UserError(
            f"--{flag} {path}: checkpoint version {shown(header.get('version'))}, this program reads version {VERSION}"
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shown(lines[0], 120) if lines else 'no message'}"


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Eight hexadecimal digits that identify the weights (names, types and bytes)."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:8]


def read_config(header: Mapping[str, Any], path: Path, flag: str = "checkpoint") -> ModelConfig:
    """The configuration in the header of a checkpoint.

    Raises:
        UserError: it is damaged.
    """
    try:
        return ModelConfig.from_dict(header["model"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"--{flag} {path}: damaged checkpoint ({_first_line(error)})") from error


def read_model(
    path: Path, kind: type[Network], flag: str = "checkpoint"
) -> tuple[dict[str, Any], Network, dict[str, Tensor]]:
    """What is known about a model, the model, and its weights in the types that they have in the file.

    Raises:
        UserError: as :func:`read_checkpoint`, or weights that are not those of this program's model.
    """
    header, weights = read_checkpoint(path, flag)
    config = read_config(header, path, flag)
    numbers, least = sum(value.numel() for value in weights.values()), config.least_parameters
    if numbers < least:  # such a header may ask for more memory than there is
        raise UserError(f"--{flag} {path}: damaged checkpoint ({numbers} weights for a model of more than {least})")
    try:
        model = kind(config)
    except (ValueError, OverflowError, RuntimeError) as error:
        raise UserError(f"--{flag} {path}: damaged checkpoint ({_first_line(error)})") from error
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    odd = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if odd:
        there, here = (tuple(shapes.get(odd[0], ())) or "nothing" for shapes in (found, wanted))
        raise UserError(
            f"--{flag} {path}: {len(odd)} weights are not those of this program's model, which has changed since or"
            f" is another ({shown(odd[0])}: {there} in the file, {here} expected)"
        )
    if wild := [name for name, value in weights.items() if not torch.isfinite(value.float()).all()]:
        raise UserError(f"--{flag} {path}: damaged checkpoint (infinite or undefined numbers in {wild[0]})")
    model.load_state_dict(weights)
    return {name: value for name, value in header.items() if name not in ("format", "version", "model")}, model, weights


def save_pretrained(
    model: FractalNetwork,
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Write the weights as ``dtype`` with their header to a ``.safetensors`` file, whole or not at all.

    With ``torch.int8``, matrices are :func:`quantised`, and everything else is bfloat16.  ``metadata`` (corpus,
    licence, val_loss ...: JSON data) is kept in the header.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise UserError(f"{path}: a shared checkpoint is named *.safetensors")
    header = make_header(model.config, **(metadata or {}))
    weights: dict[str, Tensor] = model.state_dict()
    weights = quantised(weights) if dtype == torch.int8 else {name: x.to(dtype) for name, x in weights.items()}
    # clones: safetensors refuses tensors that share memory
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, metadata={HEADER_KEY: json.dumps(header)}))
    return path


def export(cfg: ExportConfig) -> None:
    """Write the weights and settings of a training checkpoint, without the optimiser's state, to a file to share.

    Raises:
        UserError: not a training checkpoint, or a file that cannot be written.
    """
    if not cfg.checkpoint:
        raise UserError("--checkpoint: which training checkpoint (.ckpt)?")
    path = find_model(cfg.checkpoint)
    facts, model, _ = read_model(path, FractalNetwork)
    train = facts.get("train")
    if isinstance(train, dict) and isinstance(train.get("data"), str):  # where it lay on one machine is of no use
        facts["train"] = {**train, "data": Path(train["data"]).name}
    facts |= {"corpus": cfg.corpus, "licence": cfg.licence}
    critic = read_critic(path)
    written = save_pretrained(model, cfg.out, facts, DTYPES[cfg.precision])
    if critic is not None:
        critic.write(critic_file(written))
    step, loss = facts.get("step"), facts.get("val_loss")
    trained = f", step {step}" if isinstance(step, int) else ""
    trained += f", val_loss {loss:.4f}" if isinstance(loss, float) else ""
    print(f"{written}: {written.stat().st_size / 1e6:.1f} MB{trained}")
