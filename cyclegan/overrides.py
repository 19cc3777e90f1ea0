"""Options as people write them: YAML files, "section.key=value", and how the one is laid over the other."""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Any

import yaml

from cyclegan.errors import UserError

# Sections whose options depend on their `name`, and the name that is meant where none is given.
NAMED = {"algorithm": "cyclegan", "generator": "resnet", "discriminator": "patch"}


class ConfigError(UserError, ValueError):
    """A setting that cannot be; the message names the key, what was expected and the nearest right word."""


FLOAT = ("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789."))


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 1e-4 is text, `no` is false and 2024-05-01 no text; here 1e-4 is a number, and
    the others are words."""

    yaml_implicit_resolvers: typing.ClassVar = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """PyYAML would take the last of equal keys and say nothing. Here, before others are merged in by `<<`."""
        node, seen = super().compose_mapping_node(anchor), set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(*FLOAT)


class _Dumper(yaml.SafeDumper):
    """Quotes words that `_Loader`, or another reader of YAML, would take for something else."""


_Dumper.add_implicit_resolver(*FLOAT)


def to_yaml(values: dict[str, Any]) -> str:
    """What `read_yaml` reads as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The options of a file. Raises ConfigError."""
    try:
        return _parsed(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None


def _parsed(text: str, origin: str) -> dict[str, Any]:
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:  # of what a tag like !!int does not fit
        raise ConfigError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: expected `section: {{key: value}}`, found {type(values).__name__}")
    return values


def parse_override(override: str) -> dict[str, Any]:
    """The tree of one "section.key=value", whose value is YAML. Raises ConfigError."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: expected section.key=value, for example training.epochs=20")
    if value.startswith("#") or (" #" in value and value[0] not in "\"'[{"):  # a colour, a folder: no comment here
        value = json.dumps(value, ensure_ascii=False)
    tree: Any = _parsed(f"value: {value}" if value else "value:", override)["value"]
    if isinstance(tree, str):  # in a word
        key = {"speed": "speed.choice", **{section: f"{section}.name" for section in NAMED}}.get(key, key)
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return tree


def joined(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Both, level by level; where they disagree, what `change` says."""
    both = {key: (base[key], change[key]) for key in base.keys() & change.keys()}
    inner = {key: joined(*pair) for key, pair in both.items() if all(isinstance(value, dict) for value in pair)}
    return {**base, **change, **inner}


def laid_over(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options of a file and those given beside it. Another algorithm or network, or speed in a word, starts from
    its own defaults, not from what the file says of the one before."""
    if isinstance(values.get("speed"), str):
        values = {**values, "speed": {"choice": values["speed"]}}
    for key in NAMED:
        if isinstance(values.get(key), str):
            values = {**values, key: {"name": values[key]}}
    kept = {key: value for key, value in values.items() if not _starts_anew(key, value, given.get(key))}
    if isinstance(kept.get("data"), dict) and isinstance(given.get("data"), dict):
        data = _without_folders(kept["data"]) if given["data"].get("root") else kept["data"]
        kept["data"] = {key: _without_test(value, given["data"].get(key)) for key, value in data.items()}
    return joined(kept, given)


def _without_folders(data: dict[str, Any]) -> dict[str, Any]:
    """The file's data section for who names another root: of folders that it names for both domains nothing is left."""
    named = {key: value for key, value in data.items() if key in ("A", "B") and isinstance(value, dict)}
    if not all("train" in named.get(key, {}) for key in ("A", "B")[: 1 if data.get("side_by_side") else 2]):
        return data
    folders = ("train", "test", "mask", "test_mask")
    bare = {key: {k: v for k, v in value.items() if k not in folders} for key, value in named.items()}
    return {**data, **bare}


def _without_test(domain: Any, given: Any) -> Any:
    """A domain's section of the file: who trains on other pictures does not want its test pictures either."""
    if not (isinstance(domain, dict) and isinstance(given, dict)):
        return domain
    train = domain.get("train")
    if given.get("train", train) != train:
        return {key: value for key, value in domain.items() if key not in ("test", "test_mask")}
    return domain


def _starts_anew(key: str, value: Any, given: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(given, dict)):
        return False
    name = value.get("name", NAMED.get(key))
    return "choice" in given if key == "speed" else key in NAMED and given.get("name", name) != name
