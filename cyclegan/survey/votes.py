"""What people answered: preference and deception rates with intervals, from the page's files and the survey's key."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from cyclegan.survey import FORMAT, SurveyError
from cyclegan.survey.kit import KEY

Vote = tuple[tuple[str, ...], Any]  # the pictures shown, and the answer: a picture, or True for "real"


@dataclass(frozen=True)
class Rate:
    """A share of answers with its Wilson interval."""

    count: int
    of: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.count / self.of


@dataclass(frozen=True)
class Results:
    """Rates by (method, other): how often it was better; by method (None: real pictures): how often called real."""

    survey: str
    participants: dict[str, int]  # and how many answers each gave
    preference: dict[tuple[str, str], Rate]
    called_real: dict[str | None, Rate]
    left: Rate | None  # of the pairs: far from a half, people did not look
    confidence: float
    warnings: list[str]

    def as_json(self) -> dict:
        """For a file."""
        return {
            "survey": self.survey,
            "confidence": self.confidence,
            "interval": "Wilson 1927, answers taken as independent",
            "participants": self.participants,
            "preference": [{"better": a, "than": b, **_told(rate)} for (a, b), rate in self.preference.items()],
            "called_real": [{"method": method, **_told(rate)} for method, rate in self.called_real.items()],
            "left_chosen": _told(self.left) if self.left else None,
            "warnings": self.warnings,
        }


def wilson(count: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927): stays in [0, 1], right for few answers."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (count + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * math.sqrt(count * (of - count) / of + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def read_results(survey: Path | str, files: Sequence[Path], confidence: float = 0.95) -> Results:
    """Count the answers in `files` (or folders of them) to the survey in a folder. Raises SurveyError."""
    key = _read_key(Path(survey) / KEY)
    paths = [found for path in files for found in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not paths:
        raise SurveyError(f"no files of answers (*.json) in {', '.join(map(str, files))}")
    kept: dict[str, tuple[Path, list[Vote]]] = {}
    warnings = []
    for path in paths:
        name, votes = _read_votes(path, key)
        if name in kept:
            before, earlier = kept[name]
            more, less = ((path, votes), before) if len(votes) > len(earlier) else (kept[name], path)
            warnings.append(f"{name} has two files: {more[0]} counts, with {len(more[1])} answers, {less} does not")
            kept[name] = more
        else:
            kept[name] = path, votes
    return _counted(key, {name: votes for name, (_, votes) in kept.items()}, confidence, warnings)


def _counted(key: dict, answers: dict[str, list[Vote]], confidence: float, warnings: list[str]) -> Results:
    owner = {code: method for code, (method, _) in key["pictures"].items()}
    better, real, asked, left = Counter(), Counter(), Counter(), []
    for shown, answer in itertools.chain(*answers.values()):
        if len(shown) == 2:
            better[owner[answer], owner[shown[1 - shown.index(answer)]]] += 1
            left.append(answer == shown[0])
        else:
            asked[owner[shown[0]]] += 1
            real[owner[shown[0]]] += answer

    def rate(count: int, of: int) -> Rate:
        return Rate(count, of, *wilson(count, of, confidence))

    pairs = {(a, b): (better[a, b], better[a, b] + better[b, a]) for a, b in itertools.combinations(key["methods"], 2)}
    return Results(
        key["survey"],
        {name: len(votes) for name, votes in answers.items()},
        {pair: rate(count, of) for pair, (count, of) in pairs.items() if of},
        {method: rate(real[method], asked[method]) for method in [*key["methods"], None] if asked[method]},
        rate(sum(left), len(left)) if left else None,
        confidence,
        warnings,
    )


def _read_key(path: Path) -> dict:
    if not path.is_file():
        raise SurveyError(f"no {path}: name the folder that `cyclegan survey make` wrote")
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
        if key["format"] == FORMAT and key["survey"] and key["methods"] and key["pictures"]:
            return key
    except (ValueError, KeyError, TypeError):
        pass
    raise SurveyError(f"{path} is no key of a survey, or damaged")


def _read_votes(path: Path, key: dict) -> tuple[str, list[Vote]]:
    """Participant and answers."""
    try:
        file = json.loads(path.read_text(encoding="utf-8-sig"))  # editors in which it is pasted may put a mark first
        if file["format"] != FORMAT:
            raise ValueError("of another version")
        if file["survey"] != key["survey"]:
            raise SurveyError(f"{path} answers another survey ({file['survey']}, not {key['survey']}): leave it out")
        votes = [_vote(vote, key["pictures"]) for vote in file["votes"]]
        if len({frozenset(shown) for shown, _ in votes}) < len(votes):
            raise ValueError("a question answered twice")
        return str(file["participant"]).strip(), votes
    except SurveyError:
        raise
    except KeyError as error:
        raise SurveyError(f"{path} is no file of answers, or damaged: no {error}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SurveyError(f"{path} is no file of answers, or damaged: {error}") from None


def _vote(vote: dict, pictures: dict[str, list]) -> Vote:
    shown, answer = tuple(vote["shown"]), vote["answer"]
    owners = [pictures.get(code) for code in shown]
    if None in owners:
        raise ValueError(f"a picture {shown[owners.index(None)]!r} that was not shown")
    if len(shown) == 1 and isinstance(answer, bool):
        return shown, answer
    if len(shown) == 2 and answer in shown and owners[0][0] != owners[1][0] and owners[0][1] == owners[1][1]:
        return shown, answer
    raise ValueError(f"an answer {answer!r} to {list(shown)} that cannot be")


def _told(rate: Rate) -> dict:
    return {"rate": rate.share, **asdict(rate)}
