"""Every option of a run with its default and meaning, as the text of `train.py --help`."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable

from pydantic import BaseModel

from cyclegan.algorithms import GIVEN, algorithms
from cyclegan.config import Config, signature
from cyclegan.mistakes import is_section
from cyclegan.networks import DISCRIMINATORS, GENERATORS


def describe_options() -> str:
    """All sections of a run's YAML, then the options of each algorithm and network."""
    lines = _describe_section(Config, "")
    for section, choices in {
        "algorithm": algorithms(),
        "generator": GENERATORS,
        "discriminator": DISCRIMINATORS,
    }.items():
        for name, choice in choices.items():
            lines += ["", f"{section}: {{name: {name}}}   {_first_line(choice)}", *_describe_choice(choice)]
    return "\n".join(lines)


def _describe_section(model: type[BaseModel], prefix: str) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            lines += ["", f"{prefix}{name}:", *_describe_section(field.annotation, f"{prefix}{name}.")]
        else:
            default = "" if field.is_required() else f" (default {_shown(field.default)})"
            lines.append(f"  {prefix}{name}: {_type(field.annotation)}{default}\n      {field.description}")
    return lines


def _describe_choice(choice: Callable) -> list[str]:
    meanings = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", inspect.getdoc(choice), re.M))
    lines = []
    for parameter in signature(choice).parameters.values():
        if parameter.name in (*GIVEN, "config"):
            continue
        meaning = " ".join(meanings[parameter.name].split())
        lines.append(
            f"  {parameter.name}: {_type(parameter.annotation)} (default {_shown(parameter.default)})\n      {meaning}"
        )
    return lines


def _first_line(choice: Callable) -> str:
    return inspect.getdoc(choice).splitlines()[0]


def _shown(default: object) -> str:
    return (
        str(default)
        if not isinstance(default, bool | type(None))
        else {None: "null"}.get(default, str(default).lower())
    )


def _type(annotation: object) -> str:
    """A type as a reader of YAML thinks of it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " | ".join(_shown(argument) for argument in arguments)
    if arguments and origin not in (list, tuple, dict):
        return " | ".join(_type(argument) for argument in arguments if argument is not type(None))
    if origin in (list, tuple):
        return "[" + ", ".join(_type(argument) for argument in arguments) + "]"
    names = {bool: "true | false", int: "whole number", float: "number", str: "text", dict: "mapping"}
    return names.get(origin or annotation, "path" if annotation is not typing.Any else "value")
