"""How are command-line options generated from a Python function? From its signature and the Args: of its docstring.

A parameter without a default becomes a positional argument, all others become options: `max_side` is `--max-side`, a
bool that is True by default is `--no-NAME`. Its docstring should end with "False: " and the effect of that value. A
description that begins with "A FILE" makes FILE the placeholder in the help. Only the syntax of numbers is checked
here; the function checks the values.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from mx8shards.errors import SettingError

_ARGUMENT = re.compile(r"(\*{0,2}\w+): ?(.*)")
_PLACEHOLDER = re.compile(r"[Aa] ([A-Z]{3,})\b")


def add_parameters(
    parser: argparse.ArgumentParser, parameters: Iterable[inspect.Parameter], helps: Mapping[str, str]
) -> None:
    """Add these parameters of a function to a parser."""
    for parameter in parameters:
        name, text = parameter.name, helps.get(parameter.name, "").replace("%", "%%")
        kinds = _kinds(parameter.annotation)
        if parameter.default is parameter.empty:
            parser.add_argument(name, metavar=name.upper(), help=text, type=_value_parser(kinds))
        elif isinstance(parameter.default, bool):
            flag, action = ("no-", "store_false") if parameter.default else ("", "store_true")
            text = _off_text(text) if parameter.default else text
            parser.add_argument(f"--{flag}{_dashed(name)}", dest=name, action=action, help=text)
        else:
            values = [str(value) for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
            metavar = f"{{{','.join(values)}}}" if values else _placeholder(name, kinds, text)
            text += "" if parameter.default is None else f" (default: {parameter.default})"
            parser.add_argument(
                f"--{_dashed(name)}",
                dest=name,
                metavar=metavar,
                help=text,
                type=_value_parser(kinds),
                default=parameter.default,
            )


def _placeholder(name: str, kinds: tuple[Any, ...], text: str) -> str:
    """The word for an option's value in the help."""
    if int in kinds and str not in kinds:
        return "N"
    named = _PLACEHOLDER.match(text)
    return named[1] if named else "SECONDS" if name.endswith("_s") else name.upper()


def _off_text(text: str) -> str:
    """The help of an option that turns off a parameter with this description."""
    on, _, off = text.partition(" False: ")
    return f"{off[0].upper()}{off[1:]} Default: {on}" if off else f"turn off: {on}"


def option_of(error: SettingError, parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """The command-line name of the argument that an error is about, or None."""
    parameter = parameters.get(error.subject)
    if parameter is None:
        return None
    if parameter.default is parameter.empty:
        return parameter.name.upper()
    return f"--{'no-' if parameter.default is True else ''}{_dashed(parameter.name)}"


def documented(function: Callable[..., Any]) -> dict[str, str]:
    """The description of each argument in the Args: of a docstring, joined to one line."""
    lines = (inspect.getdoc(function) or "").partition("\nArgs:\n")[2].splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line and not line.startswith(" "):
            break  # the text after the Args:
        match = _ARGUMENT.fullmatch(line.strip()) if re.match(r" {4}\S", line) else None
        if match:
            name = match[1].lstrip("*")
            found[name] = match[2]
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _value_parser(kinds: tuple[Any, ...]) -> Callable[[str], Any]:
    """Parse a text as a number if the type has no str. Other text is passed on, for the function to refuse."""
    numbers = [kind for kind in (int, float) if kind in kinds and str not in kinds]

    def read(text: str) -> Any:
        for kind in numbers:
            try:
                return kind(text)
            except ValueError:
                continue
        return text

    return read
