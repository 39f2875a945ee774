"""Model cards: Markdown that begins with metadata in YAML, as the Hugging Face Hub reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from fractalgen.config import ModelConfig
from fractalgen.errors import shown

TAGS = ["music", "music-generation", "symbolic-music", "midi", "piano", "fractal-generative-model"]
LICENCES = ("mit", "apache-2.0", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0")
"""Names of the Hub for licences that a corpus may have; any other one is told in words."""

_LINE = "---\n"


def model_card(name: str, config: ModelConfig, facts: Mapping[str, Any], parameters: int, size: int) -> str:
    """A card of what is known about a model.

    ``name``: of its repository or folder.  ``facts``: of its file.  ``size``: of its file, in bytes.
    """
    about: dict[str, Any] = {"library_name": "fractalgen", "pipeline_tag": "other", "tags": TAGS}
    licence = shown(facts.get("licence") or "")
    if (known := licence.lower().replace(" ", "-")) in LICENCES:
        about["license"] = known
    elif licence:
        about |= {"license": "other", "license_name": known}
    kinds = ", ".join(f"L{index} {level.generator.upper()}" for index, level in enumerate(config.levels))
    labels = ", ".join(config.label_names) or "none"
    plans = "drawn, or given as chords and form" if config.plan_width else "none"
    rows = {
        "architecture": f"a generator that calls generators ({kinds}), {parameters / 1e6:.1f} M parameters",
        "file": f"`model.safetensors`, {size / 1e6:.1f} MB",
        "corpus": shown(facts.get("corpus") or "") or "not told",
        "licence of the corpus": licence or "not told",
        "length of a training excerpt": f"{config.crop_length} steps, {config.steps_per_quarter} to a quarter note",
        "labels": labels,
        "plans": plans,
    }
    if isinstance(step := facts.get("step"), int):
        rows["training"] = f"{step:,} steps"
    if isinstance(loss := facts.get("val_loss"), float):
        rows["validation loss"] = f"{loss:.4f} nats per cell"
    table = "".join(f"| {title} | {_cell(value)} |\n" for title, value in rows.items())
    title = name.rpartition("/")[2]
    use = name if "/" in name else f"path/to/{name}"
    command = f"--model hf://{name}" if "/" in name else f"--checkpoint path/to/{name}"
    return f"""{_LINE}{yaml.safe_dump(about, sort_keys=False, allow_unicode=True)}{_LINE}
# Model card: {title}

A fractal generative model that composes piano music, trained with FractalGen.

| | |
|---|---|
{table}
```python
from fractalgen import FractalGen

model = FractalGen.from_pretrained("{use}")
(piece,) = model.generate()
piece.to_midi("piece.mid")
```

On the command line: `fractalgen generate {command}`.
"""


def _cell(text: str) -> str:
    """A text as a cell of a table in Markdown."""
    return text.replace("|", "\\|")


def without_metadata(card: str) -> str:
    """The Markdown of a card."""
    parts = card.split(_LINE, 2)
    return parts[2].lstrip() if card.startswith(_LINE) and len(parts) == 3 else card
