from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.data import Dataset

from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import find_model, read_checkpoint
from fractalgen.config import TrainConfig
from fractalgen.config.yaml_files import read_config
from fractalgen.data.loaders import CropData, Endless, SeededCrops
from fractalgen.errors import UserError
from fractalgen.model.losses import NLL
from fractalgen.seeds import stream
from fractalgen.training import command as training
from fractalgen.training.metrics import Tally
from fractalgen.training.module import Training
from tests import tiny
from tests.training.checkpoints import checkpoint, same_state, scalars


@pytest.mark.slow
def test_the_run_folder_is_as_promised(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = run()
    assert version == tmp_path / "run" / "lightning_logs" / "version_0"
    files = sorted(str(path.relative_to(version)) for path in version.rglob("*") if path.is_file())
    names = [path.split("-val_loss_")[0] for path in files]
    assert names[0] == "checkpoints/last.ckpt"
    assert names[1:4] == [f"checkpoints/step_{step:08d}" for step in (2, 4, 5)]
    assert all(len(path.split("-val_loss_")[1]) == len("0.1234.ckpt") for path in files[1:4])
    assert files[4] == "config.yaml"
    assert files[5].startswith("events.out.tfevents")
    assert files[6:] == [f"generation_gifs/step_0000004_sample_{i}.gif" for i in (0, 1)]

    errors = capsys.readouterr().err
    assert "5/5" in errors
    assert "step/s" in errors
    assert "bits/note=" in errors

    resolved = yaml.safe_load((version / "config.yaml").read_text())
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert resolved.keys() == fields
    assert resolved["output_dir"] == str(tmp_path / "run")
    assert resolved["embed_dims"] == [16, 16, 16, 16]


@pytest.mark.slow
def test_validations_and_logs_count_optimiser_steps(run: Any) -> None:
    board = scalars(run(log_every_n_steps=2))
    values = {tag: board.Scalars(tag) for tag in board.Tags()["scalars"]}
    assert [event.step for event in values["val_loss"]] == [2, 4, 5]
    assert [event.step for event in values["train_loss"]] == [2, 4]
    assert [event.step for event in values["val_notes/density_generated"]] == [4]
    terms = ["L0/gate", "L1/gate", "L2/gate", "L3/articulation", "L3/velocity"]
    for kind in ("nats_per_cell", "bits_per_note"):
        for prefix in ("train", "val"):
            total = values[f"{prefix}/{kind}"][-1].value
            assert total == pytest.approx(sum(values[f"{prefix}/{kind}/{term}"][-1].value for term in terms), rel=1e-4)
    assert values["val/nats_per_cell"][-1].value == values["val_loss"][-1].value
    assert values["learning_rate"][0].value == pytest.approx(6e-4)
    assert values["train/gradient_norm"][0].value > 0


def losses(path: Path, corpus: Path, **settings: Any) -> tuple[float, float]:
    """The nats a cell of the validation crops, without labels and given them, by the model of a checkpoint."""
    crops = CropData(tiny.train_config(Path(), data=str(corpus), **settings), training.Corpus.open(corpus)).val_crops
    tokens, labels = (torch.stack([crops[i][name] for i in range(len(crops))]) for name in ("tokens", "labels"))
    model = load_pretrained(path)
    with torch.no_grad():
        free, given = (model.nll(tokens, told).total.sum() / tokens.numel() for told in (None, [*labels.unbind(1)]))
    return float(free), float(given)


def test_val_loss_is_the_mean_over_all_crops(run: Any, corpus: Path) -> None:
    path = checkpoint(run(max_steps=2, num_images_to_log=0), 2)
    expected, _ = losses(path, corpus)
    assert read_checkpoint(path)[0]["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert path.name.endswith(f"val_loss_{expected:.4f}.ckpt")


@pytest.mark.slow
def test_labels_are_learned_and_kept(run: Any, corpus: Path, tmp_path: Path) -> None:
    version = run(attributes=("register", "key"), max_steps=2, num_images_to_log=0)
    path = checkpoint(version, 2)
    vocabulary = {attribute.name: attribute for attribute in training.Corpus.open(corpus).vocabulary}
    assert load_pretrained(path).config.attributes == (vocabulary["key"], vocabulary["register"])
    free, given = losses(path, corpus, attributes=("register", "key"))
    board = scalars(version)
    # free of labels, so that it compares with the loss of other models; and, beside it, given them
    assert board.Scalars("val_loss")[-1].value == pytest.approx(free, rel=1e-5)
    assert board.Scalars("val_given_labels_loss")[-1].value == pytest.approx(given, rel=1e-5)
    assert free != pytest.approx(given, rel=1e-6)
    settings = {"attributes": ("register", "key"), "num_images_to_log": 0, "max_steps": 4}
    resumed = run(**settings, resume=str(path), output_dir=str(tmp_path / "resumed"))
    assert same_state(checkpoint(resumed, 4), checkpoint(run(**settings), 4))
    with pytest.raises(UserError, match="attributes there are key register, here none"):
        run(resume=str(path))


def test_last_checkpoint_follows_a_run_that_no_longer_improves(run: Any) -> None:
    version = run(keep_checkpoints=1, learning_rate=0.0, num_images_to_log=0, max_steps=4, accumulate_grad_batches=1)
    assert [path.name[:13] for path in (version / "checkpoints").glob("step_*")] == ["step_00000002"]
    assert read_checkpoint(version / "checkpoints/last.ckpt")[0]["step"] == 4


@pytest.mark.filterwarnings("ignore:--precision bf16 is slow")
def test_bfloat16_and_mar_train_and_name_their_bound(run: Any) -> None:
    version = run(precision="bf16", generator_types=("mar", "mar", "ar", "mar"), num_images_to_log=0, max_steps=2)
    tags = scalars(version).Tags()["scalars"]
    assert {"val_loss", "val/bits_per_note_upper_bound", "val/bits_per_note_upper_bound/L3/token"} <= set(tags)
    assert "val/bits_per_note" not in tags
    assert {value.dtype for value in load_pretrained(checkpoint(version, 2)).state_dict().values()} == {torch.float32}


@pytest.mark.slow
def test_the_seed_decides_everything(run: Any, tmp_path: Path) -> None:
    last = [
        run(seed=seed, output_dir=str(tmp_path / name), max_steps=2, num_workers=workers, num_images_to_log=0)
        / "checkpoints/last.ckpt"
        for name, seed, workers in (("a", 1, 0), ("b", 1, 1), ("c", 2, 0))
    ]
    assert same_state(last[0], last[1])
    assert not same_state(last[0], last[2])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ema_decay": 1.0}, "--ema_decay 1.0: must be from 0 to below 1"),
        ({"cooldown_steps": 9, "schedule": "constant"}, "--cooldown_steps 9: must be from 0 to --max_steps 5"),
        ({"seed": -1}, "--seed -1: must be at least 0"),
        ({"reveal_share": 1.5}, "--reveal_share 1.5: must be from 0 to 1"),
        ({"batch_size": 0}, "--batch_size 0: must be at least 1"),
        ({"val_check_interval_steps": 0}, "--val_check_interval_steps 0: must be at least 1"),
        ({"crop_length": 40}, "--crop_length 40"),
        ({"patch_sizes": (64, 16, 4, 1)}, "--patch_sizes 64 ...: the first must be 128"),
        ({"data": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"resume": "nowhere.ckpt"}, "--resume nowhere.ckpt: no such file"),
        ({"resume": __file__}, "not a .ckpt file"),
        ({"devices": "many"}, "--devices many"),
        ({"strategy": "clever"}, "--strategy clever: must be auto, ddp, fsdp, or another strategy that Lightning"),
    ],
)
def test_settings_that_cannot_work(run: Any, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        run(**changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_output_folder_that_cannot_be_made(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output_dir .*file/run"):
        run(output_dir=str(tmp_path / "file" / "run"))


def test_shipped_names_are_not_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("chorales", "pop909-ar", "small"):
        (tmp_path / name).mkdir()
    assert len(training.Corpus.open("chorales")) > 300
    assert find_model("pop909-ar").is_file()
    assert read_config("small")["embed_dims"] == [256, 192, 128, 64]


def test_a_loss_that_explodes_ends_the_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nll = FractalGen.nll

    def broken(self: FractalGen, *args: Any, **settings: Any) -> NLL:
        result = nll(self, *args, **settings)
        return NLL({name: term * math.nan for name, term in result.terms.items()}, {}, result.exact)

    monkeypatch.setattr(FractalGen, "nll", broken)
    with pytest.raises(UserError, match="training loss became nan before step 1: lower --learning_rate"):
        run()


class Drawn(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"tokens": torch.randint(1 << 30, (4,))}


def test_crops_are_a_function_of_seed_and_index() -> None:
    crops = SeededCrops(Drawn(), seed=0)
    state = torch.get_rng_state()
    first = crops[70]["tokens"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(crops[70]["tokens"], first)
    assert not torch.equal(crops[71]["tokens"], first)
    assert not torch.equal(SeededCrops(Drawn(), seed=1)[70]["tokens"], first)


@pytest.mark.slow
def test_devices_share_the_crops_and_have_their_own_masks(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (list(zip(range(4), Endless(10, rank, 2), strict=False)) for rank in (0, 1))
    assert [index for _, index in first] == [10, 12, 14, 16]
    assert [index for _, index in second] == [11, 13, 15, 17]
    assert stream(0, 1, 7, 0) != stream(0, 1, 7, 1)

    masks = []
    nll = FractalGen.nll

    def spy(self: FractalGen, *args: Any, **settings: Any) -> NLL:
        masks.append((self.training, torch.initial_seed()))
        return nll(self, *args, **settings)

    monkeypatch.setattr(FractalGen, "nll", spy)
    seeds = []
    for rank in (0, 1):
        monkeypatch.setattr(Training, "global_rank", rank)
        masks.clear()
        run(max_steps=4, num_images_to_log=0)
        seeds.append([seed for learning, seed in masks if learning][1:])  # without the pass before anything is written
        scored = [seed for learning, seed in masks if not learning]
        assert scored[1:3] == scored[3:5]  # two batches a validation, after one to see whether validation works
    assert len({seed for of_rank in seeds for seed in of_rank}) == 16


def test_learning_rate_and_weight_decay(tmp_path: Path) -> None:
    cfg = tiny.train_config(tmp_path, warmup_steps=10, max_steps=110, learning_rate=1.0, min_learning_rate=0.2)
    module = Training(cfg.model_config(), cfg)
    assert [module.learning_rate(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [module.learning_rate(step) for step in (10, 60, 110, 999)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    optimizer = module.configure_optimizers()
    module.on_before_optimizer_step(optimizer)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(module.parameters()))
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2 or "place.row" in name:
            assert decay[id(parameter)] == 0, name
    assert decay[id(module.model.root.gate.weight)] == cfg.weight_decay
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    assert {group["betas"] for group in optimizer.param_groups if "betas" in group} == {(0.9, 0.95)}
    inner = {id(p) for group in optimizer.param_groups if "momentum" in group for p in group["params"]}
    names = {name for name, parameter in module.named_parameters() if id(parameter) in inner}
    assert names == {n for n, p in module.named_parameters() if ".blocks." in n and p.ndim == 2}


def test_constant_schedule_with_cooldown(tmp_path: Path) -> None:
    settings = {"schedule": "constant", "warmup_steps": 10, "learning_rate": 1.0, "min_learning_rate": 0.2}
    cfg = tiny.train_config(tmp_path, **settings, max_steps=1000)
    module = Training(cfg.model_config(), cfg)
    assert [module.learning_rate(step) for step in (4, 9, 500, 999)] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    module.cfg = dataclasses.replace(cfg, cooldown_steps=100)
    assert [module.learning_rate(step) for step in (900, 925, 1000)] == pytest.approx([1.0, 0.6, 0.2])


@pytest.mark.slow
def test_the_moving_average_is_what_is_validated_and_saved(run: Any, corpus: Path, tmp_path: Path) -> None:
    settings = {"num_images_to_log": 0, "learning_rate": 0.01, "ema_decay": 0.5}
    version = run(**settings)
    contents = [torch.load(checkpoint(version, step), weights_only=True) for step in (2, 4, 5)]
    for content in contents:
        assert content["state_dict"].keys() == content["current_model_state"].keys()
    name = "model.null"
    third, last = contents[1], contents[2]
    expected = last["current_model_state"][name].lerp(third["state_dict"][name], (1 + 4) / (10 + 4))
    assert torch.allclose(last["state_dict"][name], expected, atol=1e-7)
    assert not torch.equal(last["state_dict"][name], last["current_model_state"][name])
    # the loss is that of the average
    path = checkpoint(version, 5)
    assert read_checkpoint(path)[0]["val_loss"] == pytest.approx(losses(path, corpus)[0], rel=1e-5)
    # and the trained weights are those of a run without an average, before and after resuming
    second, none = str(checkpoint(version, 2)), {**settings, "ema_decay": 0.0}
    plain = run(**none, output_dir=str(tmp_path / "plain"))
    resumed = run(**settings, resume=second, output_dir=str(tmp_path / "resumed"))
    dropped = run(**none, resume=second, output_dir=str(tmp_path / "dropped"))
    for key in ("state_dict", "current_model_state"):
        there, here = (torch.load(checkpoint(folder, 5), weights_only=True)[key] for folder in (version, resumed))
        assert all(torch.equal(there[name], here[name]) for name in there)
    for folder in (plain, dropped):
        weights = torch.load(checkpoint(folder, 5), weights_only=True)["state_dict"]
        assert all(torch.equal(weights[name], last["current_model_state"][name]) for name in weights)


@pytest.mark.slow
def test_pictures_show_the_moving_average(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = FractalGen.sample

    def sample(self: FractalGen, batch_size: int, **settings: Any) -> Any:
        drawn.append(self.null.detach().clone())
        return draw(self, batch_size, **settings)

    monkeypatch.setattr(FractalGen, "sample", sample)
    version = run(ema_decay=0.9, learning_rate=0.01)
    assert torch.equal(drawn[0], torch.load(checkpoint(version, 4), weights_only=True)["state_dict"]["model.null"])


def test_tally() -> None:
    tally = Tally()
    tokens = torch.zeros(2, 128, 16, dtype=torch.long)
    tokens[:, 60, :3] = torch.tensor([5, 1, 6])
    for first, second in (([1.0, 2.0], [3.0, 4.0]), ([5.0, 6.0], [7.0, 8.0])):
        tally.add(NLL({"L0/gate": torch.tensor(first), "L1/gate": torch.tensor(second)}, {}, True), tokens)
    metrics = tally.metrics("val")
    assert metrics["val_loss"] == metrics["val/nats_per_cell"] == 36 / (4 * 128 * 16)
    assert metrics["val/bits_per_note"] == pytest.approx(36 / math.log(2) / 8)
    assert metrics["val/bits_per_note/L0/gate"] == pytest.approx(14 / math.log(2) / 8)
    # known cells are left out
    tally, known = Tally(), (torch.arange(16) < 2).expand_as(tokens[:1])
    tally.add(NLL({"L0/gate": torch.tensor([7.0])}, {}, True), tokens[:1], known)
    assert tally.metrics("train")["train_loss"] == pytest.approx(7 / (128 * 14))
    assert tally.metrics("train")["train/bits_per_note"] == pytest.approx(7 / math.log(2))
