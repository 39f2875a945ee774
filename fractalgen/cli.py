"""The command line: one flag per field of a command's dataclass in :mod:`fractalgen.config`.

Values come from the dataclass defaults, then from ``--config FILE.yaml``, then from the command line, wherever
``--config`` stands.  A mistake gives one line and exit status 2.  Heavy modules are imported by the command that
needs them, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import io
import os
import sys
import typing
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

from fractalgen import __version__
from fractalgen.config import (
    DiagnoseConfig,
    EvaluateConfig,
    ExportConfig,
    GenerateConfig,
    PrepareConfig,
    RenderCommandConfig,
    StudioConfig,
    TrainConfig,
    bounds,
)
from fractalgen.config.values import BOOLEANS, convert, describe, field_types, members
from fractalgen.config.yaml_files import read_config
from fractalgen.errors import Stopped, Terminated, UserError, one_line, quoted, shown, silent_interrupts, terminable


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand: its settings, and the function (``module:name``) that gets them; it may return an exit status.

    ``file``: the shipped ``--config`` where none is given.
    """

    config: type
    target: str
    help: str
    positional: str | None = None
    file: str | None = None


COMMANDS = {
    "train": Command(TrainConfig, "fractalgen.training.command:train", "train a model on a corpus", file="small"),
    "generate": Command(
        GenerateConfig, "fractalgen.compose.command:generate", "compose: MIDI file, picture, animation"
    ),
    "evaluate": Command(
        EvaluateConfig,
        "fractalgen.evaluation.command:evaluate",
        "likelihood of real music, statistics of samples",
    ),
    "prepare": Command(PrepareConfig, "fractalgen.data.prepare:prepare", "pack a folder of MIDI files into a corpus"),
    "export": Command(ExportConfig, "fractalgen.checkpoint:export", "export a checkpoint as a small file to share"),
    "render": Command(RenderCommandConfig, "fractalgen.render:run_render", "draw saved traces again", "traces"),
    "diagnose": Command(
        DiagnoseConfig, "fractalgen.evaluation.health:diagnose", "check traces and MIDI files for faults", "files"
    ),
    "studio": Command(StudioConfig, "fractalgen.studio.command:serve", "compose with the model in a browser"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def resolve_config(config: type, given: dict[str, Any], files: Sequence[str] = ()) -> Any:
    """The configuration from defaults, the recipe of ``--like``, files in order, and ``given``; later ones override."""
    hints = field_types(config)
    values: dict[str, Any] = {}
    if given.get("like") and "like" in hints:
        from fractalgen.compose.recipe import read_recipe

        recipe = read_recipe(given["like"])
        if "num_samples" in given:  # other pieces than that one
            recipe.pop("sample", None)
        values = {key: convert(key, hints[key], value) for key, value in recipe.items() if key in hints}
    for path in files:
        for key, value in read_config(path).items():
            if key not in hints:
                close = _suggestion(key, hints) if isinstance(key, str) else ""
                raise UserError(f"--config {path}: unknown key {quoted(key)}{close}")
            try:
                values[key] = convert(key, hints[key], value)
            except UserError as error:
                raise UserError(f"--config {path}: {error}") from None
    values |= {key: convert(key, hints[key], value) for key, value in given.items()}
    for item in dataclasses.fields(config):
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise UserError(f"--{item.name} is needed: {item.metadata.get('help', describe(hints[item.name]))}")
        other = item.metadata.get("instead_of")
        if other in values and values.get(item.name) is not None:
            if (item.name in given) == (other in given):
                raise UserError(f"{_flag(item.name, values)} and {_flag(other, values)}: give only one of them")
            del values[other if item.name in given else item.name]  # flags win over files
    return config(**values)


def _flag(name: str, values: dict[str, Any]) -> str:
    value = values[name]
    return f"--{name} {shown(' '.join(map(str, value)) if isinstance(value, tuple) else str(value))}"


def build_parser() -> Parser:
    """The parser of all commands; absent flags stay absent, so that only given ones override a file."""
    parser = Parser(prog="fractalgen", description="Fractal generative piano music.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fractalgen {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.help,
            description=command.help,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            usage=" ".join(["fractalgen", name, *[p.upper() for p in [command.positional] if p], "[--flag value ...]"]),
        )
        defaults = read_config(command.file) if command.file else {}
        of_file = "settings from a file, or a shipped one by name; flags win" + f" [{command.file}]" * bool(defaults)
        sub.add_argument("--config", action="append", metavar="FILE.yaml", help=of_file)
        hints = field_types(command.config)
        items = {item.name: item for item in dataclasses.fields(command.config)}
        groups = getattr(command.config, "groups", {"settings": tuple(items)})
        for title, names in groups.items():
            section = sub.add_argument_group(title)
            for item in (items[name] for name in names):
                hint = hints[item.name]
                is_list = any(typing.get_origin(option) is tuple for option in members(hint)[0])
                section.add_argument(
                    f"--{item.name}",
                    action="extend" if item.metadata.get("repeat") else "store",
                    nargs="+" if is_list else None,
                    metavar="" if hint is bool else describe(hint).removeprefix("a list of ").removesuffix(" or none"),
                    help=_help(item, hint, defaults.get(item.name, item.default)).replace("%", "%%"),
                )
                if item.name == command.positional:
                    many = "*" if is_list else "?"
                    same = f"the same as --{item.name}"
                    sub.add_argument(item.name, nargs=many, metavar=item.name.upper(), help=same)
    return parser


def _help(item: dataclasses.Field[Any], hint: Any, default: Any) -> str:
    """The help of a flag, with its default and its bounds."""
    facts = []
    if default not in (dataclasses.MISSING, None, "", ()) and hint is not bool:
        facts.append(" ".join(map(str, default)) if isinstance(default, tuple | list) else str(default))
    if limits := bounds(item.metadata):
        facts.append(limits)
    return item.metadata.get("help", "") + (f" [{'; '.join(facts)}]" if facts else "")


def parse(arguments: Sequence[str]) -> tuple[Command, Any]:
    """The command and its resolved configuration."""
    parser = build_parser()
    arguments = list(arguments)
    hints: dict[str, Any] = {}
    if arguments and arguments[0] in COMMANDS:
        hints = field_types(COMMANDS[arguments[0]].config)
    # A plain `--save_gif` means true, and does not swallow what follows it unless that is true or false.
    for index, argument in enumerate(arguments):
        following = arguments[index + 1].lower() if index + 1 < len(arguments) else ""
        if argument.startswith("--") and hints.get(argument[2:]) is bool and following not in BOOLEANS:
            arguments[index] = f"{argument}=true"
    found, unknown = parser.parse_known_args(arguments)
    if unknown:
        flag = unknown[0].split("=")[0]
        raise UserError(f"unknown argument {flag}{_suggestion(flag.lstrip('-'), hints, '--')}")
    given = vars(found)
    command = COMMANDS[given.pop("command")]
    return command, resolve_config(
        command.config, given, files=given.pop("config", [command.file] if command.file else [])
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0; 1: something went wrong and was reported; 2: the user's mistake; 130: Ctrl-C; 143: SIGTERM.
    """
    # Threads that wait sleep instead of spinning (read when torch is loaded): training on all cores beside other work
    # takes a quarter of the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.formatwarning = lambda message, *_, **__: f"fractalgen: warning: {message}\n"
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets its code
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command, config = parse(sys.argv[1:] if arguments is None else arguments)
        name, function = command.target.split(":")
        with silent_interrupts():
            module = import_module(name)
        with terminable():
            status = getattr(module, function)(config)
        return status if isinstance(status, int) else 0
    except UserError as error:
        return _fail(one_line(error))
    except Stopped as stopped:
        print(f"fractalgen: {one_line(stopped)}", file=sys.stderr)
        return stopped.status
    except OSError as error:
        # A full disk or a folder without permission; anything that names no file is a fault of ours.
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        print(f"fractalgen: {'terminated' if terminated else 'interrupted'}", file=sys.stderr)
        return 143 if terminated else 130


def _fail(message: str) -> int:
    print(f"fractalgen: error: {message}", file=sys.stderr)
    return 2


def _suggestion(name: str, known: typing.Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {prefix}{close[0]}?)" if close else ""
