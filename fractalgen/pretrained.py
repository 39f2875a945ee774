"""Models that are loaded, saved and shared: files, folders, and the Hugging Face Hub."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch

from fractalgen.cards import model_card
from fractalgen.checkpoint import (
    DTYPES,
    find_model,
    model_name,
    read_card,
    read_critic,
    read_model,
    save_pretrained,
    weights_hash,
)
from fractalgen.config import SavedPrecision
from fractalgen.errors import UserError, python_terms, quoted
from fractalgen.features.critic import Critic
from fractalgen.files import replacing
from fractalgen.hub import CARD_FILE, CRITIC_FILE, MODEL_FILE, address_of, upload
from fractalgen.model.network import FractalNetwork


class PretrainedModel(FractalNetwork):
    """A network that is loaded, saved and shared, with what is known of its weights.

    ``facts``: what the file says about them (step, corpus, licence ...).  ``card``: their model card, if there is one.
    ``critic``: which of several candidates sounds most like songs, if somebody taught it.
    """

    facts: Mapping[str, Any] = {}
    card: str = ""
    critic: Critic | None = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str] | None = None, device: str = "cpu") -> Self:
        """Load a model, in float32 and in evaluation mode.

        ``name_or_path``: None (the default model), the name of a shipped model, a checkpoint file (.safetensors or
        .ckpt), a folder that :meth:`save_pretrained` has written, or ``"owner/name"`` or ``"owner/name@revision"`` on
        the Hugging Face Hub.

        Raises:
            UserError: no such model, or one of another format or a newer version; no network, or the library of the
                Hub is missing (extra ``hub``).
        """
        with python_terms():
            return cls.load(address_of(name_or_path), device)

    @classmethod
    def load(cls, name_or_path: str | os.PathLike[str] | None, device: str | torch.device) -> Self:
        """As :meth:`from_pretrained`, but what is on the Hub is named ``hf://owner/name``.

        ``checkpoint_id`` becomes the model's name and a hash of its weights.

        Raises:
            UserError: as there, in terms of the command line.
        """
        path = find_model(name_or_path)
        facts, model, weights = read_model(path, cls)
        model.checkpoint_id = f"{model_name(path)}-{weights_hash(weights)}"
        model.facts, model.card, model.critic = facts, read_card(path), read_critic(path)
        return model.float().eval().to(device)

    def save_pretrained(self, folder: str | os.PathLike[str], precision: SavedPrecision = "32", card: str = "") -> Path:
        """Write ``model.safetensors``, its critic, and a model card, ``README.md``, to a folder; a card there stays.

        ``precision``: the numbers in the file: ``"32"`` (float32, loaded again bit for bit), ``"bf16"`` at half the
        size, or ``"int8"`` (matrices of bytes) at a quarter.  ``card``: Markdown that begins with YAML metadata
        (default: the card that was loaded, else one of what is known).

        Raises:
            UserError: another precision, or the folder cannot be written to.
        """
        return self._save(Path(folder), precision, card, Path(folder).resolve().name)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool = False,
        precision: SavedPrecision = "32",
        card: str = "",
        message: str = "Upload a FractalGen model",
        token: str | None = None,
    ) -> str:
        """Upload the model to ``"owner/name"`` on the Hugging Face Hub and return the address of the change.

        The repository is made if it does not exist.  A card that it has stays, unless ``card`` is given; ``precision``
        and ``card`` are those of :meth:`save_pretrained`.  ``token``: instead of that of ``hf auth login``.

        Raises:
            UserError: no such name, no permission, no network, or the library of the Hub is missing (extra ``hub``).
        """
        with tempfile.TemporaryDirectory() as folder:
            self._save(Path(folder), precision, card, repository)
            return upload(Path(folder), repository, private=private, message=message, token=token, keep_card=not card)

    def _save(self, folder: Path, precision: SavedPrecision, card: str, name: str) -> Path:
        if precision not in DTYPES:
            raise UserError(f"precision {quoted(precision)}: choose one of {', '.join(DTYPES)}")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"folder {folder}: is a file")
        path = save_pretrained(self, folder / MODEL_FILE, self.facts, DTYPES[precision])
        if self.critic is not None:
            self.critic.write(folder / CRITIC_FILE)
        if card or not (folder / CARD_FILE).exists():
            with replacing(folder / CARD_FILE) as temporary:
                count = sum(parameter.numel() for parameter in self.parameters())
                text = card or self.card or model_card(name, self.config, self.facts, count, path.stat().st_size)
                temporary.write_text(text, encoding="utf-8")
        return folder
