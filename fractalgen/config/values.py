"""Values of settings: text or data from outside as the type of the field that they belong to."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Literal, Union

from fractalgen.errors import UserError, quoted

BOOLEANS = {"true": True, "false": False}


@functools.cache
def field_types(config: type) -> dict[str, Any]:
    """The resolved type of every field of a configuration."""
    hints = typing.get_type_hints(config)
    return {item.name: hints[item.name] for item in dataclasses.fields(config)}


def members(hint: Any) -> tuple[list[Any], bool]:
    """The types that ``hint`` allows besides None, and whether it allows None."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        arguments = typing.get_args(hint)
        return [argument for argument in arguments if argument is not type(None)], type(None) in arguments
    return [hint], False


def describe(hint: Any) -> str:
    """What a value of this type looks like, for help and error messages."""
    options, optional = members(hint)
    names = []
    for option in options:
        if typing.get_origin(option) is Literal:
            names.append("|".join(map(str, typing.get_args(option))))
        elif typing.get_origin(option) is tuple:
            names.append(f"a list of {describe(typing.get_args(option)[0])}")
        else:
            names.append({bool: "true|false", int: "integer", float: "number", str: "text"}.get(option, str(option)))
    return " or ".join(names + ["none"] * optional)


def as_typed(value: object) -> str:
    """A value as it is typed behind its flag: ``true``, ``none``, lists with spaces; numbers rounded to six digits."""
    if isinstance(value, list | tuple):
        return " ".join(map(as_typed, value)) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def convert(name: str, hint: Any, value: Any) -> Any:
    """``value`` (text from the command line, or data from YAML) as the type of field ``name``.

    Raises UserError naming the flag, what it takes and what it got.
    """
    options, optional = members(hint)
    if optional and value in (None, "none", "null", ["none"], ["null"]):
        return None
    for option in options:
        try:
            return _convert(name, option, value)
        except UserError:
            raise
        except (TypeError, ValueError, LookupError, OverflowError):
            continue
    raise UserError(f"--{name}: expected {describe(hint)}, not {quoted(value)}")


def _convert(name: str, hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(convert(name, item, part) for part in (value if isinstance(value, list | tuple) else [value]))
    if not isinstance(value, str | int | float):
        raise TypeError(value)
    if typing.get_origin(hint) is Literal:
        return {str(choice): choice for choice in typing.get_args(hint)}[str(value)]
    if isinstance(value, bool) != (hint is bool) and not isinstance(value, str):
        raise ValueError(value)
    if hint is bool:
        return value if isinstance(value, bool) else BOOLEANS[str(value).lower()]
    if hint is int and isinstance(value, float) and not value.is_integer():
        raise ValueError(value)
    return hint(value)
