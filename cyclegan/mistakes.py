"""What is wrong with options, in words: pydantic's errors as lines that name the key, what was expected and found."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError

KINDS = re.compile(r"[\[\(]|^(int|float|str|literal|constrained-.*)$")  # of a key's parts: names of types, not of keys
TYPES = re.compile(r"^Value error, |^Input should be |, unable to parse string .*")


def explained(error: ValidationError, model: type[BaseModel], origin: str, prefix: str = "") -> str:
    """A line, or one for each mistake below `origin`, where they come from; keys begin with `prefix`."""
    lines, several = [], {}
    for problem in error.errors():
        path, found = [str(part) for part in problem["loc"]], problem["input"]
        key = prefix + ".".join(part for part in path if not KINDS.search(part))
        if problem["type"] == "extra_forbidden":
            lines.append(f"{prefix}{'.'.join(path)}: {unknown(path[-1], _keys(model, path[:-1]))}")
        elif problem["type"] == "list_type" and isinstance(found, str | int | float):
            lines.append(f"{key}: a list expected, so [{found}], found {found!r}")
        elif problem["type"] == "string_type" and isinstance(found, int | float):
            lines.append(f"{key}: a word expected, found {found!r}; in quotes a number is one: '\"1e5\"'")
        else:  # of several types that a value may have, each has something to say of it
            several.setdefault((key, repr(found)), []).append(problem["msg"])
    for (key, found), messages in several.items():
        expected = "expected " if messages[0].startswith("Input should be") else ""
        lines.append(f"{key}: {expected}{' or '.join(TYPES.sub('', message) for message in messages)}, found {found}")
    unique = list(dict.fromkeys(lines))
    return unique[0] if len(unique) == 1 else f"{origin}:\n  " + "\n  ".join(unique)


def unknown(word: str, choices: Iterable[str]) -> str:
    """That it is none of these, with the one that may have been meant."""
    choices = list(choices)
    nearest = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown {word!r}; {hint}choices: {', '.join(choices)}"


def is_section(annotation: typing.Any) -> bool:
    """Whether an option of this type has options of its own."""  # for Python 3.10, dict[str, Any] is a type, too
    return typing.get_origin(annotation) is None and isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None:  # a name of the user's, as in optimizer.groups.discriminators
            continue
        inner = (field.annotation, *typing.get_args(field.annotation))
        model = next((annotation for annotation in inner if is_section(annotation)), model)
    return list(model.model_fields)
