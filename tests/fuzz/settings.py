"""YAML files with settings that nobody would write, and what users do with them."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from fractalgen import cli
from fractalgen.compose.checks import check_mode
from fractalgen.config import GenerateConfig, TrainConfig
from fractalgen.config.yaml_files import CONFIGS
from fractalgen.errors import UserError
from tests.fuzz.damage import NASTY


@cache
def yaml_files(_: Path) -> list[bytes]:
    """The shipped configurations, and one to compose by."""
    composing = b"mode: unconditional\nquality: best\nbars: 4\nmask: [bars=1:2]\nkey: A minor\ntemperature: [1, 0.9]\n"
    return [*(path.read_bytes() for path in sorted(CONFIGS.glob("*.yaml"))), composing]


YAML_VALUES = (
    *("", "~", "null", "true", "-1", "0", "1", "3", "1e400", ".nan", ".inf", "0x7fffffffffffffff", "0b2", "1:59:59"),
    *("[]", "{}", "[1, 2]", "[1, [2]]", "{a: 1}", "!!set {a}", "!!int x", "!!float x", "!!timestamp x"),
    *("!!binary aGk=", "2026-01-01", "2026-13-45", "&a [*a]", "*b", "&h [1, 2]", "*h", "? a", "<<: 3", "- 1", "\t1"),
    *("é", "'", r'"\ud800"', "9" * 400, "9" * 5000, "x" * 5000, "[" * 200 + "]" * 200, "[" * 5000, "{" * 3000),
    *("- " * 3000, "[1" + ", 1" * 3000, "!!python/object/apply:os.system ['touch $FRACTALGEN_FUZZ_TOUCHED']"),
)
ALIASES = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))])
MERGED = ALIASES.replace("[x, x]", "{x: 1}").replace(" [*", " {<<: [*").replace("]", "]}")
"""Lists in lists, and mappings merged into mappings: each is nine times the one before."""
YAML_LINES = (
    "1: 2",
    "[1]: 2",
    "{a: b}: c",
    "null: 3",
    "? [a]\n: b",
    "--- \na: 1",
    "%YAML 9.9",
    "a: &x [*x]",
    "<<: [1]",
    ALIASES,
    MERGED,
    "scan_order: &a [&b [&c [&d [&e [x, x, x], *e, *e, *e, *e], *d, *d, *d, *d], *c, *c, *c, *c], *b, *b, *b, *b]",
    "\n".join(f"k{n}: 1" for n in range(5000)),
    "? " * 2000,
)


def yaml_structure(content: bytes, rng: random.Random) -> bytes:
    """Lines with other values, or lines that no configuration has."""
    lines = content.decode().splitlines()
    names = [line.split(":")[0] for line in lines if ":" in line and not line.startswith("#")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(lines) + 1)
        name = rng.choice([*names, *TrainConfig.__dataclass_fields__])
        value = rng.choice((*YAML_VALUES, *map(str, NASTY)))
        lines = [line for line in lines if not line.startswith(f"{name}:")] if rng.random() < 0.9 else lines
        lines.insert(place, f"{name}: {value}" if rng.random() < 0.8 else rng.choice(YAML_LINES))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def use_yaml(path: Path) -> None:
    """Settings of a training, whose model is laid out, and of a composition; refused if neither."""
    refused = []
    for config in (TrainConfig, GenerateConfig):
        try:
            found = cli.resolve_config(config, {}, [str(path)])
            if isinstance(found, TrainConfig):
                found.model_config()
            else:
                check_mode(found)
        except UserError as error:
            refused.append(error)
    if len(refused) == 2:
        raise refused[0 if "unknown key" not in str(refused[0]) else 1]
