"""Settings in YAML files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from fractalgen.errors import UserError, one_line, quoted, reason
from fractalgen.files import ASSETS

CONFIGS = ASSETS / "configs"
MOST_NESTED = 20  # lists in lists of a YAML file


class PlainYaml(yaml.SafeLoader):
    """Reads YAML of settings: keys are unique, lists are hardly nested, and aliases refer to no nested lists.

    (Nested aliases are how a short file becomes a large one.)
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A part of the file."""
        alias = self.check_event(yaml.AliasEvent)
        self.depth += 1
        node = super().compose_node(parent, index) if self.depth <= MOST_NESTED else None
        if self.depth > MOST_NESTED or (alias and isinstance(node, yaml.CollectionNode) and _nested(node)):
            raise yaml.YAMLError("lists nested too deeply")
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; PyYAML would keep the last of several values."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [key for key, count in keys.items() if count > 1]:
            raise yaml.YAMLError(f"the key {quoted(twice[0])} is listed twice")
        return super().construct_mapping(node, deep)


def _nested(node: yaml.CollectionNode) -> bool:
    """Whether there are lists or mappings in a list or mapping."""
    parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
    return any(isinstance(part, yaml.CollectionNode) for part in parts)


def shipped_configs() -> list[str]:
    """The names of the files in ``configs/``."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def read_config(path: str) -> dict[str, Any]:
    """The keys and values of a YAML file, or of a shipped one by name (``small``).

    A shipped one that the key ``extends`` names comes first; the file's own values override its.

    Raises:
        UserError: it is missing, is no YAML, holds something else or has a key twice.
    """
    file = CONFIGS / f"{path}.yaml" if path in shipped_configs() else Path(path)
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), PlainYaml)
    except FileNotFoundError:
        raise UserError(f"--config {path}: no such file (shipped: {', '.join(shipped_configs())})") from None
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({one_line(error)})") from None
    except Exception as error:  # noqa: BLE001 (yaml's constructors of dates, numbers and deep lists raise many kinds)
        raise UserError(f"--config {path}: cannot be read ({reason(error)})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"--config {path}: expected lines of the form 'name: value'")
    if "extends" not in data:
        return data
    parent = data.pop("extends")
    if not isinstance(parent, str) or parent not in shipped_configs():
        raise UserError(f"--config {path}: extends {quoted(parent)}: must be one of {', '.join(shipped_configs())}")
    return {**read_config(parent), **data}
