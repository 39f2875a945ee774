"""Models that are saved to folders and shared on the Hugging Face Hub, of which a stand-in is served here."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants

from fractalgen import cli
from fractalgen.api import FractalGen, load_pretrained
from fractalgen.checkpoint import SHIPPED, find_model, read_checkpoint
from fractalgen.config import StudioConfig
from fractalgen.errors import UserError
from fractalgen.model.level import FractalLevel
from fractalgen.studio.worker import Models
from tests import hub_server, tiny

NAME = "someone/waltzes"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the library of the Hub, of its own


def lead_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with HF_ENDPOINT in the environment, which the library reads once."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[hub_server.Hub]]:
    """The Hub of a test, with an empty cache; nobody is logged in."""
    with hub_server.serve() as (address, state):
        lead_to(address, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files by LFS: Xet has a service of its own
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield state


@pytest.fixture
def model() -> FractalGen:
    torch.manual_seed(0)
    model = FractalGen(tiny.model_config(reveal_share=0.5)).eval()
    for level in model.levels[:-1]:
        assert isinstance(level, FractalLevel)
        torch.nn.init.constant_(level.gate.bias, -3)  # few cells are drawn
    model.facts = {"corpus": "waltzes | of mine", "licence": "CC BY 4.0", "step": 7}
    return model


def same(first: FractalGen, second: FractalGen) -> bool:
    theirs = second.state_dict()
    return first.config == second.config and all(
        torch.equal(value, theirs[name]) for name, value in first.state_dict().items()
    )


def test_a_folder_comes_back_bit_for_bit_with_a_card_that_the_hub_understands(
    model: FractalGen, tmp_path: Path
) -> None:
    folder = model.save_pretrained(tmp_path / "mine")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "model.safetensors"]
    back = FractalGen.from_pretrained(folder)
    assert same(back, model)
    assert back.checkpoint_id.startswith("mine-")
    assert back.facts == model.facts
    about = ModelCard.load(folder / "README.md").data
    assert (about.library_name, about.license, about.pipeline_tag) == ("fractalgen", "cc-by-4.0", "other")
    text = (folder / "README.md").read_text("utf-8")
    assert "| corpus | waltzes \\| of mine |" in text  # a line of the table stays a line
    (folder / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="precision 'int4': choose one of 32, bf16, int8"):
        model.save_pretrained(folder, precision="int4")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"folder .*README.md: is a file"):
        model.save_pretrained(folder / "README.md")
    small = model.save_pretrained(folder, precision="int8")
    assert (small / "README.md").read_text("utf-8") == "mine"
    assert read_checkpoint(find_model(folder))[0]["corpus"] == "waltzes | of mine"


def test_what_is_pushed_is_what_others_load(
    model: FractalGen, hub: type[hub_server.Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = model.push_to_hub(NAME, token=hub_server.TOKEN)
    assert address.startswith(f"{constants.ENDPOINT}/{NAME}/commit/")
    card = hub.repositories[NAME]["README.md"].decode()
    assert f'from_pretrained("{NAME}")' in card
    monkeypatch.chdir(tmp_path)
    back = FractalGen.from_pretrained(NAME)
    assert same(back, model)
    assert back.checkpoint_id.startswith("waltzes-")
    assert back.card == card
    with pytest.raises(UserError, match=rf"^checkpoint hf://{NAME}@old: no such revision on http://127"):
        FractalGen.from_pretrained(f"{NAME}@old")
    # a second push changes the weights, and the card only where one is given
    hub.repositories[NAME]["README.md"] = b"edited there"
    model.root.gate.bias.data += 1
    model.push_to_hub(NAME, token=hub_server.TOKEN, message="better")
    assert hub.repositories[NAME]["README.md"] == b"edited there"
    assert same(FractalGen.from_pretrained(f"hf://{NAME}"), model)
    model.push_to_hub(NAME, token=hub_server.TOKEN, card="---\nlicense: mit\n---\nnew")
    assert hub.repositories[NAME]["README.md"].endswith(b"new")
    # without the network, what is in the cache
    lead_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the library's attempts
    assert same(FractalGen.from_pretrained(NAME), model)
    with pytest.raises(
        UserError, match=r"^checkpoint hf://someone/else: http://127.0.0.1:9 cannot be reached, and the model"
    ):
        FractalGen.from_pretrained("someone/else")


def test_private_models_need_a_login(
    model: FractalGen, hub: type[hub_server.Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^someone/waltzes: http://127.* refuses.* \(log in with `hf auth login`\)$"):
        model.push_to_hub(NAME)
    model.push_to_hub(NAME, private=True, token=hub_server.TOKEN)
    with pytest.raises(UserError, match=r"^checkpoint hf://someone/waltzes: no such model on .*, or a private one"):
        FractalGen.from_pretrained(NAME)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    assert same(FractalGen.from_pretrained(NAME), model)


def test_a_shipped_model_takes_its_card_and_credits_with_it(tmp_path: Path) -> None:
    folder = FractalGen.from_pretrained("chorales").save_pretrained(tmp_path / "chorales", precision="int8")
    card = (SHIPPED / "chorales.md").read_text("utf-8")
    assert (folder / "README.md").read_text("utf-8") == card
    assert FractalGen.from_pretrained(folder).card == card


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.md")), ids=lambda path: path.stem)
def test_cards_of_shipped_models_have_valid_metadata(path: Path) -> None:
    about = ModelCard.load(path).data
    assert (about.library_name, about.model_name) == ("fractalgen", path.stem)
    assert about.license in ("mit", "cc-by-4.0")
    assert {"music", "midi", "piano"} <= set(about.tags)
    text = path.read_text("utf-8")
    for result in about.eval_results:
        assert result.metric_type == "bits_per_note"
        assert f"**{result.metric_value:.3f}**" in text or f"**{result.metric_value:.2f}**" in text


def test_the_command_line_composes_with_a_model_of_the_hub(
    model: FractalGen, hub: type[hub_server.Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.push_to_hub(NAME, token=hub_server.TOKEN)
    flags = ["--num_samples", "1", "--target_width", "16", "--seed", "1", "--output_dir", str(tmp_path / "out")]
    assert cli.main(["generate", "--model", f"hf://{NAME}", *flags]) == 0
    assert capsys.readouterr().out.startswith("waltzes-")
    (written,) = (tmp_path / "out").glob("*.mid")
    again = ["generate", "--like", str(written), "--output_dir", str(tmp_path / "again")]
    assert cli.main(again) == 0
    assert (tmp_path / "again" / written.name).read_bytes() == written.read_bytes()


def test_the_studio_opens_a_model_of_the_hub(model: FractalGen, hub: type[hub_server.Hub]) -> None:
    model.push_to_hub(NAME, token=hub_server.TOKEN)
    models = Models(StudioConfig(model=f"hf://{NAME}", device="cpu"))
    first, *shipped = models.facts()
    assert (first["name"], first["default"]) == ("waltzes", True)
    assert first["description"].startswith("A fractal generative model")
    assert {"chorales", "pop909-ar"} <= {facts["name"] for facts in shipped}
    assert all(facts["description"] and "license" not in facts["description"] for facts in shipped)
    assert models.settings("waltzes")["checkpoint"] == str(models.path(None))
    assert models.settings("chorales")["model"] == "chorales"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hf://waltzes", "--model hf://waltzes: not of the form hf://owner/name or hf://owner/name@revision"),
        ("hf://a/b/c", "not of the form"),
        ("hf://nobody/nothing", "--model hf://nobody/nothing: no such model on http://127"),
        ("hf://someone/texts", "there is no model.safetensors in it; it is no model of FractalGen"),
        ("nobody/nothing", "no such model (shipped: "),
    ],
)
def test_mistakes_give_one_line(given: str, message: str, hub: type[hub_server.Hub], one_error_line) -> None:
    hub.repositories["someone/texts"] = {"README.md": b"a text"}
    assert message in one_error_line("generate", "--model", given)


def test_a_missing_library_is_named_with_its_extra(
    one_error_line, model: FractalGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    line = one_error_line("generate", "--model", f"hf://{NAME}")
    assert line.endswith("the Hugging Face Hub needs huggingface_hub: pip install 'fractalgen-piano[hub]'")
    with pytest.raises(UserError, match=r"fractalgen-piano\[hub\]"):
        model.push_to_hub(NAME)


def test_paths_never_reach_for_the_network(
    hub: type[hub_server.Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("outputs/mine").mkdir(parents=True)
    for path in ("outputs/mine", "outputs/absent.ckpt", "outputs/absent.safetensors", Path("outputs/absent"), "absent"):
        with pytest.raises(UserError, match=r"no such file|is a folder without model\.safetensors"):
            FractalGen.from_pretrained(path)
    with pytest.raises(UserError, match="no such file"):  # nor on the command line
        load_pretrained("outputs/absent")
    assert hub.requests == []
