"""What is handed out tells nothing about the methods; mistakes are one line."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cyclegan.__main__ import main
from cyclegan.data.images import ImageError
from cyclegan.survey import SurveyError
from cyclegan.survey.kit import HANDOUT, KEY, Survey, make_survey
from tests.conftest import write_pictures
from tests.survey.conftest import page_data


def test_nothing_that_is_handed_out_names_a_method_or_a_picture(survey: Survey, tmp_path: Path):
    told = PngInfo()
    told.add_text("origin", "gatys")
    for path in survey.methods["gatys"].iterdir():
        Image.open(path).save(path, pnginfo=told)
    make_survey(survey, tmp_path / "study")
    for path in (tmp_path / "study" / HANDOUT).rglob("*"):
        assert not re.search("gatys|adain|real|photos|paint|^0[0-2]$", path.stem)
        if path.is_file():
            assert not re.search(rb"gatys|adain|photos|paintings|origin", path.read_bytes())


def test_names_need_not_be_utf8(survey: Survey, tmp_path: Path):
    for folder in (*survey.methods.values(), survey.inputs):
        (folder / "00.png").rename(folder / os.fsdecode(b"b\xe4r.png"))
    made = make_survey(survey, tmp_path / "study")
    key = json.loads((tmp_path / "study" / KEY).read_text())
    assert made.preference == 3 and ["gatys", os.fsdecode(b"b\xe4r")] in key["pictures"].values()


def test_page_needs_nothing_from_outside(study: Path):
    page = (study / HANDOUT / "index.html").read_text()
    assert not re.search(r"https?:|@import|src=[\"'](?!data:)", page)
    assert "default-src 'none'" in page


def test_pairs_are_of_one_input_and_their_key_is_complete(study: Path):
    asked, key = page_data(study), json.loads((study / KEY).read_text())
    pairs = [question["pair"] for group in asked["preference"] for question in group]
    assert sorted(key["pictures"][code][1] for pair in pairs for code in pair) == sorted(["00", "01", "02"] * 2)
    for one, other in pairs:
        (method, name), (against, same) = key["pictures"][one], key["pictures"][other]
        assert {method, against} == {"gatys", "adain"} and name == same
    there = {path.stem for path in (study / HANDOUT / "pictures").iterdir()}
    beside = {question[role] for group in asked["preference"] for question in group for role in ("input", "style")}
    assert there == set(key["pictures"]) | beside and len(beside) == 3 + 1


def test_half_of_the_single_pictures_are_real(study: Path):
    asked, key = page_data(study), json.loads((study / KEY).read_text())["pictures"]
    assert asked["deception"]["each"] == 3  # there are only three real ones
    assert {key[code][0] for code in asked["deception"]["real"]} == {None}
    assert {frozenset(key[code][0] for code in group) for group in asked["deception"]["made"]} == {
        frozenset(["gatys"]),
        frozenset(["adain"]),
    }


def test_the_same_pictures_give_the_same_survey_and_another_seed_another(survey: Survey, study: Path, tmp_path: Path):
    make_survey(survey, tmp_path / "again")
    assert (tmp_path / "again" / KEY).read_text() == (study / KEY).read_text()
    make_survey(dataclasses.replace(survey, seed=1), tmp_path / "other")
    assert not set(json.loads((tmp_path / "other" / KEY).read_text())["pictures"]) & set(
        json.loads((study / KEY).read_text())["pictures"]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"questions": 4},
        {"pictures": 2},
        {"size": 16},
        {"seconds": 1.0},
        {"title": "Well?"},
        {"prefer": "Well?"},
        {"deceive": "Well?"},
        {"inputs": None},
        {"styles": None},
        {"real": None},
    ],
)
def test_surveys_that_differ_in_anything_have_ids_of_their_own(
    survey: Survey, study: Path, tmp_path: Path, changes: dict
):
    make_survey(dataclasses.replace(survey, **changes), tmp_path / "other")
    assert page_data(tmp_path / "other")["survey"] != page_data(study)["survey"]


def test_another_picture_beside_the_pairs_makes_another_survey(survey: Survey, tmp_path: Path):
    found = []
    for changed in (None, survey.styles, survey.inputs / "00.png"):
        if changed:
            Image.new("RGB", (32, 32)).save(changed)
        study = tmp_path / str(len(found))
        make_survey(dataclasses.replace(survey, real=None), study)
        found.append(page_data(study)["survey"])
    assert len(set(found)) == 3


def test_text_of_the_page_stays_text(survey: Survey, tmp_path: Path):
    hostile = "</script><script>alert(1)</script>$title"
    make_survey(dataclasses.replace(survey, title=hostile, prefer=hostile), tmp_path / "study")
    assert (tmp_path / "study" / HANDOUT / "index.html").read_text().count("<script") == 2
    assert page_data(tmp_path / "study")["prefer"] == hostile


def test_what_not_all_have_is_left_out_and_sizes_that_tell_are_named(survey: Survey, tmp_path: Path):
    (survey.methods["adain"] / "02.png").unlink()
    write_pictures(tmp_path / "large", 3, side=64)
    made = make_survey(dataclasses.replace(survey, real=tmp_path / "large"), tmp_path / "study")
    assert made.preference == 2
    assert made.warnings[0] == "left out, since not all methods have them: 1 (02)"
    assert "gatys 32, adain 32, real 64" in made.warnings[1]
    alike = make_survey(dataclasses.replace(survey, real=tmp_path / "large", size=32), tmp_path / "alike")
    assert len(alike.warnings) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": {"gatys": "gatys"}, "real": None}, "two methods"),
        ({"methods": {"gatys": "gatys", "adain": "nowhere"}}, "no folder"),
        ({"methods": {"gatys": "gatys", "adain": "other"}}, "no picture's name"),
        ({"inputs": "other"}, "other has no picture 00"),
        ({"real": None, "seconds": 1.0}, "--seconds is about single pictures, .* --real"),
        ({"real": None, "deceive": "Well?"}, "--deceive is about single pictures, .* --real"),
    ],
)
def test_pictures_that_make_no_survey(survey: Survey, tmp_path: Path, changes: dict, words: str):
    write_pictures(tmp_path / "other", 1)
    (tmp_path / "other" / "00.png").rename(tmp_path / "other" / "x.png")
    if "methods" in changes:
        changes = changes | {"methods": {name: tmp_path / path for name, path in changes["methods"].items()}}
    if "inputs" in changes:
        changes = changes | {"inputs": tmp_path / changes["inputs"]}
    with pytest.raises((SurveyError, FileNotFoundError), match=words):
        make_survey(dataclasses.replace(survey, **changes), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_damaged_picture_leaves_nothing_behind_and_the_next_try_succeeds(survey: Survey, tmp_path: Path):
    path = survey.methods["adain"] / "02.png"
    whole, before = path.read_bytes(), sorted(tmp_path.iterdir())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=r"02\.png"):
        make_survey(survey, tmp_path / "study")
    assert sorted(tmp_path.iterdir()) == before
    path.write_bytes(whole)
    (tmp_path / "study").mkdir()
    made = make_survey(survey, tmp_path / "study")
    assert made.preference == 3 and (made.handout / "index.html").is_file()
    assert sorted(part.name for part in (tmp_path / "study").iterdir()) == [HANDOUT, KEY]


def test_command_makes_counts_and_refuses_to_write_over(survey: Survey, tmp_path: Path, monkeypatch, capsys):
    folders = [f"{name}={folder}" for name, folder in survey.methods.items()]
    made = ["cyclegan", "survey", "make", *folders, "-o", str(tmp_path / "study")]
    monkeypatch.setattr("sys.argv", made)
    assert main() == 0
    assert "one person answers 3 questions" in capsys.readouterr().out
    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "is there already" in line


def test_a_damaged_picture_leaves_no_folders_behind(survey: Survey, tmp_path: Path):
    (survey.methods["adain"] / "01.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"adain/01\.png"):
        make_survey(survey, tmp_path / "new" / "deep" / "out")
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))
    write_pictures(survey.methods["adain"], 3, side=32)
    assert make_survey(survey, tmp_path / "new" / "deep" / "out").handout.is_dir()
