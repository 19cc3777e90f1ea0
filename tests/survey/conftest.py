"""A survey of two methods on three inputs, and how somebody would answer it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cyclegan.survey.kit import HANDOUT, KEY, Survey, make_survey
from tests.conftest import write_pictures


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    for i, name in enumerate(("gatys", "adain", "photos", "paintings")):
        write_pictures(tmp_path / name, 3, side=32, seed=i)
    folders = {name: tmp_path / name for name in ("gatys", "adain")}
    return Survey(
        folders, inputs=tmp_path / "photos", styles=tmp_path / "paintings" / "00.png", real=tmp_path / "photos"
    )


@pytest.fixture
def study(survey: Survey, tmp_path: Path) -> Path:
    make_survey(survey, tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture
def answers(study: Path) -> Callable[..., Path]:
    """Write a participant's file: how often gatys was better, and how many of each owner's were called real."""
    key = json.loads((study / KEY).read_text())
    code = {(method, name): code for code, (method, name) in key["pictures"].items()}

    def write(
        file: str, participant: str, better: int = 0, pairs: int = 3, called: dict | None = None, **other
    ) -> Path:
        votes = []
        for i in range(pairs):
            shown = [code["gatys", f"{i:02d}"], code["adain", f"{i:02d}"]]
            votes.append({"shown": shown if i % 2 else shown[::-1], "answer": shown[i >= better], "seconds": 1.0})
        for owner, count in (called or {}).items():
            votes += [{"shown": [code[owner, f"{i:02d}"]], "answer": i < count, "seconds": 1.0} for i in range(3)]
        given = {"format": 1, "survey": key["survey"], "participant": participant, "votes": votes}
        (study.parent / file).write_text(json.dumps(given | other))
        return study.parent / file

    return write


def page_data(study: Path) -> dict:
    """What the page knows."""
    page = (study / HANDOUT / "index.html").read_text()
    return json.loads(page.split('id="data">')[1].split("</script>")[0])
