"""Rates of answers that are known, intervals against scipy's, and files that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from scipy.stats import binomtest

from cyclegan.commands.survey import main
from cyclegan.survey import SurveyError
from cyclegan.survey.votes import read_results, wilson


@pytest.mark.parametrize(("count", "of", "confidence"), [(0, 5, 0.95), (5, 5, 0.95), (37, 90, 0.9), (1, 1, 0.99)])
def test_interval_is_that_of_wilson(count: int, of: int, confidence: float):
    expected = binomtest(count, of).proportion_ci(confidence, method="wilson")
    assert wilson(count, of, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_rates_are_shares_of_the_answers(study: Path, answers: Callable):
    files = [
        answers("a.json", "anna", better=2, called={"gatys": 1, None: 3}),
        answers("b.json", "ben", better=3, called={"gatys": 0, "adain": 2}),
    ]
    results = read_results(study, files)
    assert results.participants == {"anna": 9, "ben": 9}
    better = results.preference["gatys", "adain"]
    assert (better.count, better.of) == (5, 6)
    assert (better.low, better.high) == wilson(5, 6)
    assert {method: (rate.count, rate.of) for method, rate in results.called_real.items()} == {
        "gatys": (1, 6),
        "adain": (2, 3),
        None: (3, 3),
    }
    # shown with gatys on the right, left, right: anna chose right, left, left; ben right, left, right
    assert (results.left.count, results.left.of) == (3, 6)
    assert results.warnings == []


def test_a_participant_counts_once_with_the_fuller_file(study: Path, answers: Callable):
    early, late = answers("1.json", "anna", better=0, pairs=1), answers("2.json", "anna ", better=3)
    for files in ([early, late], [late, early], [late, late, early]):
        results = read_results(study, files)
        assert results.participants == {"anna": 3}
        assert results.preference["gatys", "adain"].count == 3
        assert f"{late} counts, with 3 answers" in results.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"survey": "abc"}, "answers another survey"),
        ({"format": 2}, "another version"),
        ({"votes": None}, "no file of answers"),
        ({"votes": [{"shown": ["abc"], "answer": True}]}, "'abc' that was not shown"),
        ({"votes": [{"shown": [], "answer": True}]}, "that cannot be"),
        ({"votes": [{"answer": True}]}, "no 'shown'"),
        ({"votes": ["x"]}, "no file of answers"),
    ],
)
def test_files_that_do_not_belong_are_refused_by_name(study: Path, answers: Callable, change: dict, words: str):
    with pytest.raises(SurveyError, match=words) as caught:
        read_results(study, [answers("a.json", "anna", **change)])
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_cut_file_and_an_answer_given_twice_are_refused(study: Path, answers: Callable):
    path = answers("a.json", "anna")
    text = path.read_text()
    path.write_text(text[:60])
    with pytest.raises(SurveyError, match=r"a\.json is no file of answers"):
        read_results(study, [path])
    given = json.loads(text)
    path.write_text(json.dumps(given | {"votes": given["votes"] * 2}))
    with pytest.raises(SurveyError, match="answered twice"):
        read_results(study, [path])
    mixed = [{"shown": [given["votes"][0]["shown"][0], given["votes"][1]["shown"][0]], "answer": True}]
    path.write_text(json.dumps(given | {"votes": mixed}))
    with pytest.raises(SurveyError, match="cannot be"):
        read_results(study, [path])


def test_a_folder_without_a_key_or_answers_says_so(study: Path, tmp_path: Path):
    with pytest.raises(SurveyError, match="survey make"):
        read_results(tmp_path, [tmp_path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SurveyError, match="no files of answers"):
        read_results(study, [tmp_path / "empty"])


def test_command_prints_the_table_and_writes_the_file(study: Path, answers: Callable, tmp_path: Path, capsys):
    (tmp_path / "votes").mkdir()
    answers("votes/a.json", "anna", better=2, called={None: 2})
    assert main(["results", str(study), str(tmp_path / "votes"), "--json", str(tmp_path / "out.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("participants 1, answers 6")
    told = "gatys better than adain 66.7% (0.95 interval 20.8% to 93.9%) 2 of 3"
    assert " ".join(lines[1].split()) == told
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["preference"][0]["rate"] == pytest.approx(2 / 3)
    (called,) = written["called_real"]
    assert (called["method"], called["count"], called["of"]) == (None, 2, 3)


def test_a_file_with_a_byte_order_mark_counts(study: Path, answers: Callable):
    file = answers("a.json", "anna", better=2)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_results(study, [file]).participants == {"anna": 3}
