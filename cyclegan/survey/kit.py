"""A survey as two things: a folder to hand out (the page, pictures under neutral names), and the key that stays."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import median
from string import Template

import numpy as np
from PIL import Image

from cyclegan.data.folders import distinct_names
from cyclegan.data.images import find_images, read_image
from cyclegan.survey import FORMAT, SurveyError
from cyclegan.whole_files import write_whole

TEMPLATE = Path(__file__).with_name("page.html")
KEY, HANDOUT, PICTURES = "key.json", "handout", "pictures"


@dataclass(frozen=True)
class Survey:
    """What is asked.

    methods: a folder of pictures for each; those of one name belong together
    inputs, styles: shown beside the two that are compared; styles may be one picture for all
    real: real pictures, that the methods' are mixed with: which are which?
    title, prefer, deceive: texts of the page: its heading, the question of pairs and that of single pictures
    questions: most of each kind that one participant is asked
    pictures: most that are taken of each folder, evenly spaced
    size: longer sides are shrunk to it; None leaves them
    seconds: after which a single picture vanishes; None for never
    seed: of names and orders
    """

    methods: Mapping[str, Path]
    inputs: Path | None = None
    styles: Path | None = None
    real: Path | None = None
    title: str = "Which picture?"
    prefer: str = "Which of the two is better?"
    deceive: str = "Is this a real picture, or was it made by a computer?"
    questions: int = 40
    pictures: int = 50
    size: int | None = None
    seconds: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """The folder to hand out, how many questions of each kind it can ask, and what its maker should know."""

    handout: Path
    preference: int
    deception: int
    warnings: list[str]


@dataclass
class _Named:
    """Picture files by their names in the handout, which say nothing without the secret."""

    secret: str
    files: dict[str, Path] = field(default_factory=dict)

    def code(self, owner: str, name: str, path: Path) -> str:
        code = hashlib.sha256(os.fsencode(f"{self.secret}/{owner}/{name}")).hexdigest()[:16]
        self.files[code] = path
        return code


def make_survey(survey: Survey, output: Path | str) -> Made:
    """Write `output`/handout and `output`/key.json. Raises SurveyError, ImageError and FileNotFoundError."""
    output = Path(output)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise SurveyError(f"{output} is there already: name a new folder, since answers fit one survey only")
    if len(survey.methods) < 2 and survey.real is None:
        raise SurveyError("expected two methods to compare, or --real pictures to hide one method's among")
    for option in ("seconds", "deceive"):
        if survey.real is None and getattr(survey, option) != getattr(Survey, option):
            raise SurveyError(f"--{option} is about single pictures, which are only shown with --real")
    methods, warnings = _methods(survey)
    real = _few(_by_name(survey.real), survey.pictures) if survey.real else {}
    beside = _beside(survey, list(next(iter(methods.values()))))
    secret = _secret(survey, {**{f"method {name}": files for name, files in methods.items()}, "real": real, **beside})
    named, draw = _Named(secret), random.Random(secret)
    whose = {
        method: {name: named.code(f"method {method}", name, path) for name, path in pictures.items()}
        for method, pictures in methods.items()
    }
    truths = {name: named.code("real", name, path) for name, path in real.items()}
    preference = _preference(whose, _coded(beside, named, next(iter(methods.values()))), draw)
    deception = _deception(whose, truths, survey.questions, draw)
    identity = hashlib.sha256(secret.encode()).hexdigest()[:12]
    asked = {"survey": identity, "questions": survey.questions, "seconds": survey.seconds, "prefer": survey.prefer}
    asked |= {"deceive": survey.deceive, "preference": preference, "deception": deception}
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(survey.title), data=json.dumps(asked).replace("<", "\\u003c")
    )
    owners = {code: [method, name] for method, codes in whose.items() for name, code in codes.items()}
    owners |= {code: [None, name] for name, code in truths.items()}
    key = {"format": FORMAT, "survey": identity, "methods": list(methods), "pictures": owners}
    above = next(folder for folder in output.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".", dir=above) as unfinished:
        folder = Path(unfinished)
        sides = _write_pictures(named, folder / HANDOUT / PICTURES, survey.size)
        write_whole(folder / HANDOUT / "index.html", page)
        write_whole(folder / KEY, json.dumps(key, indent=1) + "\n")
        output.mkdir(parents=True, exist_ok=True)
        for part in (HANDOUT, KEY):
            (folder / part).rename(output / part)
    warnings += _unlike({**whose, "real": truths} if truths else whose, sides)
    return Made(output / HANDOUT, sum(map(len, preference)), 2 * deception["each"], warnings)


def _methods(survey: Survey) -> tuple[dict[str, dict[str, Path]], list[str]]:
    """The files by name that all methods have."""
    found = {method: _by_name(folder) for method, folder in survey.methods.items()}
    common = set.intersection(*(set(pictures) for pictures in found.values()))
    if not common:
        raise SurveyError(f"no picture's name is in all of {', '.join(map(str, survey.methods.values()))}")
    alone = sorted(set().union(*found.values()) - common)
    listed = ", ".join(alone[:3]) + ", ..." * (len(alone) > 3)
    warnings = [f"left out, since not all methods have them: {len(alone)} ({listed})"] if alone else []
    names = _few({name: None for name in sorted(common)}, survey.pictures)
    return {method: {name: pictures[name] for name in names} for method, pictures in found.items()}, warnings


def _by_name(folder: Path) -> dict[str, Path]:
    return {name: path for path, name in distinct_names(find_images(folder), folder).items()}


def _few(pictures: dict, most: int) -> dict:
    names = list(pictures)
    count = min(most, len(names))
    return {name: pictures[name] for name in (names[i * len(names) // count] for i in range(count))}


def _secret(survey: Survey, files: Mapping[str, Mapping[str, Path]]) -> str:
    """The same for the same survey of the same pictures, and not to be guessed from the page.

    `files`: by owner and name. Where they lie does not count.
    """
    folders = ("methods", "inputs", "styles", "real")
    choices = {name: value for name, value in vars(survey).items() if name not in folders}
    digest = hashlib.sha256(repr(choices).encode())
    for owner, pictures in files.items():
        for name, path in pictures.items():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(os.fsencode(f"{owner}\0{name}\0{content}\n"))
    return digest.hexdigest()


def _beside(survey: Survey, names: list[str]) -> dict[str, dict[str, Path]]:
    """By role and name: what is shown beside a pair."""
    beside = {}
    for role, place in (("input", survey.inputs), ("style", survey.styles)):
        if place is None:
            continue
        pictures = dict.fromkeys(names, place) if place.is_file() else _by_name(place)
        for name in names:
            if name not in pictures:
                raise SurveyError(f"{place} has no picture {name}, which the methods have")
        beside[role] = {name: pictures[name] for name in names}
    return beside


def _coded(beside: Mapping[str, Mapping[str, Path]], named: _Named, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """By name and role; one picture for all has one code."""
    shared = {role for role, pictures in beside.items() if len(set(pictures.values())) == 1}
    return {
        name: {
            role: named.code(role, "" if role in shared else name, pictures[name]) for role, pictures in beside.items()
        }
        for name in names
    }


def _preference(whose: Mapping, beside: Mapping, draw: random.Random) -> list[list[dict]]:
    """A list of questions for each two methods, in an order that tells nothing."""
    groups = []
    for one, other in itertools.combinations(whose.values(), 2):
        questions = [{"pair": draw.sample([one[name], other[name]], 2), **beside[name]} for name in beside]
        groups.append(draw.sample(questions, len(questions)))
    return draw.sample(groups, len(groups))


def _deception(whose: Mapping, truths: Mapping, questions: int, draw: random.Random) -> dict:
    """Made pictures by method, real ones, and how many of each one participant sees: as many of both."""
    made = [draw.sample(list(codes.values()), len(codes)) for codes in whose.values()]
    each = min(questions // 2, len(truths), sum(map(len, made)))
    if not each:
        return {"made": [], "real": [], "each": 0}
    return {"made": draw.sample(made, len(made)), "real": draw.sample(list(truths.values()), len(truths)), "each": each}


def _write_pictures(named: _Named, folder: Path, size: int | None) -> dict[str, int]:
    """All of them as PNG, without what else their files say; the longer side of each."""
    folder.mkdir(parents=True)
    sides = {}
    for code, path in sorted(named.files.items()):  # in an order that does not tell whose they are, not even by date
        pixels = read_image(path)
        picture = Image.fromarray(pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8))
        if size:
            picture.thumbnail((size, size), Image.Resampling.LANCZOS)
        picture.save(folder / f"{code}.png")
        sides[code] = max(picture.size)
    return sides


def _unlike(whose: Mapping[str, Mapping[str, str]], sides: Mapping[str, int]) -> list[str]:
    longest = {owner: round(median(sides[code] for code in codes.values())) for owner, codes in whose.items()}
    if max(longest.values()) <= 1.1 * min(longest.values()):
        return []
    told = ", ".join(f"{owner} {side}" for owner, side in longest.items())
    return [
        f"longer sides in pixels: {told}; sharpness alone tells them apart, --size {min(longest.values())} would not"
    ]
