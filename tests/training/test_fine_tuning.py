"""A model that starts from another one says at first what that one says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import save_pretrained
from fractalgen.config import ModelConfig
from fractalgen.errors import UserError
from fractalgen.music.labels import KEYS, Attribute
from fractalgen.training.command import train
from fractalgen.training.fine_tuning import SAYS_OF_PLANS, start_from
from tests import tiny
from tests.model.properties.helpers import random_model, random_rolls, tiny_config

KEY, STYLE = Attribute("key", KEYS), Attribute("style", ("calm", "wild"))


def pair(tmp_path: Path, generators: str, changes: dict[str, Any], **old: Any) -> tuple[FractalGen, FractalGen]:
    """A trained model, and a new one that starts from its file; ``changes`` of the new configuration."""
    attributes = old.pop("attributes", None)
    config = tiny_config(generators, patches=(8, 4, 2, 1), width=16, **old)
    config = config if attributes is None else replace(config, attributes=attributes)
    trained = random_model(config, seed=1)
    path = save_pretrained(trained, tmp_path / "trained.safetensors", dtype=torch.float32)
    fresh = random_model(changed(config, **changes), seed=2)
    start_from(fresh, str(path))
    return load_pretrained(path).double(), fresh


def changed(
    config: ModelConfig,
    context: tuple[int, int, int] | None = None,
    last: tuple[int, int, int] | None = None,
    depths: tuple[int, ...] | None = None,
    **changes: Any,
) -> ModelConfig:
    """Another configuration; ``context``: of all levels but the last, ``last``: of that one, ``depths``: of each."""
    levels = changes.pop("levels", config.levels)
    if depths is not None:
        levels = tuple(replace(level, depth=depth) for level, depth in zip(levels, depths, strict=True))
    if context is not None:
        levels = (*(replace(level, context=context) for level in levels[:-1]), levels[-1])
    if last is not None:
        levels = (*levels[:-1], replace(levels[-1], context=last))
    return replace(config, levels=levels, **changes)


@pytest.mark.parametrize(
    ("generators", "old", "changes"),
    [
        ("ar ar ar ar", {}, {"context": (2, 5, 3)}),
        ("ar ar ar ar", {"context": (0, 0, 0), "velocity_bins": 3}, {"context": (1, 1, 0), "last": (3, 4, 0)}),
        ("ar ar ar ar", {"context": (0, 0, 0), "echoes": ()}, {"future_context": True, "echoes": (2, -1)}),
        ("ar ar ar ar", {"echoes": (2, 1)}, {"future_context": True, "echoes": (1, 3, 2, -1, -2)}),
        ("mar ar ar ar", {}, {"future_context": True, "attributes": (KEY, STYLE)}),
        ("ar ar ar ar", {"label_sizes": (3, 2)}, {"attributes": (KEY,)}),
        ("ar ar ar ar", {"attributes": (KEY, STYLE)}, {"attributes": (STYLE,)}),
        ("ar ar ar ar", {"attributes": (KEY,)}, {"attributes": (KEY, STYLE), "bar_columns": True, "plan_width": 16}),
        ("mar ar ar ar", {}, {"bar_columns": True, "plan_width": 16}),
        ("mar ar ar ar", {}, {"depths": (3, 1, 2, 2)}),
    ],
)
@pytest.mark.slow
def test_what_is_new_says_nothing_at_first(
    tmp_path: Path, generators: str, old: dict[str, Any], changes: dict[str, Any]
) -> None:
    trained, fresh = pair(tmp_path, generators, changes, **old)
    rolls = random_rolls(3, 8, 16, trained.config.velocity_bins, seed=3)
    kept = trained.config.attributes  # the labels that were there before still mean what they meant
    labels = [torch.full((3,), 0 if attribute in kept else 1) for attribute in fresh.config.attributes]
    results = []
    for model, labelled in ((trained, None), (fresh, None), (fresh, labels)):
        torch.manual_seed(0)
        results.append(model.nll(rolls, labelled))
    for result in results[1:]:
        torch.testing.assert_close(result.total, results[0].total, rtol=1e-6, atol=1e-6)
    results[-1].total.sum().backward()
    there = dict(trained.named_parameters())
    of_plans = [name for name in dict(fresh.named_parameters()) if SAYS_OF_PLANS & set(name.split("."))]
    new = [p for name, p in fresh.named_parameters() if name not in there and name not in of_plans]
    assert all(p.grad is not None for p in new)  # and it learns
    degree = fresh.root.degree
    assert degree is None or (degree.grad is not None and bool(degree.grad.any()))


def test_the_same_labels_are_kept(tmp_path: Path) -> None:
    trained, fresh = pair(tmp_path, "ar ar ar ar", {"context": (2, 3, 1)}, label_sizes=(3,))
    rolls, labels = random_rolls(2, 8, 16, 1), [torch.tensor([1, 2])]
    with torch.no_grad():
        torch.testing.assert_close(
            fresh.nll(rolls, labels).total, trained.nll(rolls, labels).total, rtol=1e-6, atol=1e-6
        )
        assert not torch.equal(trained.nll(rolls, labels).total, trained.nll(rolls).total)


@pytest.mark.parametrize(("old", "new"), [("ar ar ar ar", "mar ar mar ar"), ("mar mar ar ar", "ar ar ar ar")])
def test_a_level_of_another_kind_keeps_the_transformer(tmp_path: Path, old: str, new: str) -> None:
    levels = tiny_config(new, patches=(8, 4, 2, 1), width=16).levels
    trained, fresh = pair(tmp_path, old, {"levels": levels, "future_context": True}, future_context=True)
    before, untouched = trained.state_dict(), random_model(fresh.config, seed=2).state_dict()
    for name, value in fresh.state_dict().items():
        torch.testing.assert_close(value, before[name].double() if name in before else untouched[name])
    assert {name.split(".")[-1] for name in set(untouched) - set(before)} == {"start" if "mar" in old else "mask"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": (0, 1, 0)}, r"L0 looks \(0, 1, 0\) around, its model to start from \(1, 2, 1\)"),
        ({"context": (0, 0, 0)}, r"L0 looks \(0, 0, 0\) around, its model to start from \(1, 2, 1\)"),
        ({"echoes": (3,)}, r"--echoes: \(3,\), the model to start from has \(1,\)"),
        ({"echoes": ()}, r"--echoes: \(\), the model to start from has \(1,\)"),
        (
            {"last": (2, 2, 1)},
            r"another architecture \(context of the last level \(1, 2, 1\) there, \(2, 2, 1\) here\)",
        ),
        (
            {"levels": tiny_config("ar ar ar mar", patches=(8, 4, 2, 1), width=16).levels},
            "of the last level ar there, mar",
        ),
        ({"velocity_bins": 2}, r"--init_from .*: another architecture \(velocity_bins 1 there, 2 here\)"),
        (
            {"levels": tiny_config("ar ar ar", patches=(8, 2, 1)).levels},
            r"patch \[8, 4, 2, 1\] there, \[8, 2, 1\] here",
        ),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pair(tmp_path, "ar ar ar ar", changes)


def test_a_shallower_model_is_refused(tmp_path: Path) -> None:
    deep = changed(tiny_config("ar ar ar ar", patches=(8, 4, 2, 1), width=16), depths=(1, 2, 1, 1))
    path = save_pretrained(random_model(deep), tmp_path / "deep.safetensors")
    with pytest.raises(UserError, match=r"--num_blocks 1 1 2 1: --init_from .* has 1 2 1 1, at least as many"):
        start_from(random_model(changed(deep, depths=(1, 1, 2, 1))), str(path))


@pytest.mark.slow
def test_training_starts_there(tmp_path: Path) -> None:
    tiny.corpus(tmp_path / "corpus.safetensors")
    plain = tiny.train_config(tmp_path, output_dir=str(tmp_path / "a"), max_steps=3, num_images_to_log=0)
    first = train(plain) / "checkpoints" / "last.ckpt"
    settings: dict[str, Any] = {"max_steps": 1, "learning_rate": 0.0, "attributes": ("key",), "reveal_share": 0.5}
    tuned = train(replace(plain, output_dir=str(tmp_path / "b"), init_from=str(first), **settings))
    before, after = load_pretrained(first), load_pretrained(tuned / "checkpoints" / "last.ckpt")
    assert after.config.future_context
    rolls = random_rolls(1, 128, after.config.crop_length, 32, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(after.nll(rolls).total, before.nll(rolls).total)
    with pytest.raises(UserError, match="--init_from nowhere: no such file"):
        train(replace(plain, init_from="nowhere", output_dir=str(tmp_path / "c")))
    with pytest.raises(UserError, match="--reveal_share must be more than 0"):
        train(replace(plain, init_from=str(tuned / "checkpoints" / "last.ckpt"), output_dir=str(tmp_path / "c")))
    with pytest.raises(UserError, match=r"--init_from .* and --resume .*: give only one of them"):
        train(replace(plain, init_from=str(first), resume=str(first), output_dir=str(tmp_path / "c")))
    assert not (tmp_path / "c").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    config = tiny_config("ar ar ar ar", patches=(8, 4, 2, 1), width=16)
    trained = random_model(config)
    del trained.root.gate
    path = save_pretrained(trained, tmp_path / "damaged.safetensors")
    with pytest.raises(UserError, match=r"--init_from .*: 2 weights are not those of .* \(root.gate.bias: nothing in"):
        start_from(random_model(config), str(path))
