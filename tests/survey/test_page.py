"""The page in a real browser, by keys and mouse, from its folder to the table of results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cyclegan.survey.kit import HANDOUT, Survey, make_survey
from cyclegan.survey.votes import read_results
from tests.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Browser]:
    opened = Browser(tmp_path_factory.mktemp("profile"), downloads)
    yield opened
    opened.close()


def begin(browser: Browser, study: Path, participant: str) -> None:
    browser.open(f"{(study / HANDOUT / 'index.html').as_uri()}?participant={participant}")
    start(browser)
    browser.until("ready")


def start(browser: Browser) -> None:
    browser.until("!document.getElementById('begin').disabled")
    browser.click("#begin")


def answered(browser: Browser) -> int:
    return browser.value("answered()")


def choose(browser: Browser, key: str) -> None:
    browser.until("ready")
    place = browser.value("place")
    browser.press(key)
    browser.until(f"place !== {place} || !document.getElementById('end').hidden")


def test_a_sitting_from_the_first_key_to_the_table(browser: Browser, downloads: Path, study: Path):
    begin(browser, study, "anna")
    order = browser.value("questions.map(question => question.shown)")
    assert len(order) == 6 + 3
    choose(browser, "ArrowLeft")
    choose(browser, "ArrowRight")
    choose(browser, "Backspace")  # the second answer once more
    assert browser.value("document.querySelector('#words .chosen').textContent") == "Made"
    choose(browser, "ArrowLeft")
    assert answered(browser) == 2
    assert browser.value("document.getElementById('count').textContent") == "3 of 9"

    browser.open("about:blank#closed")  # as if the tab had been lost
    begin(browser, study, "anna")
    assert browser.value("place") == 2 and answered(browser) == 2
    assert browser.value("questions.map(question => question.shown)") == order
    for _ in range(4):
        choose(browser, "ArrowRight")
    browser.until("ready")
    browser.click("#choices button:last-child")
    choose(browser, "ArrowLeft")
    choose(browser, "ArrowLeft")
    browser.until("!document.getElementById('end').hidden")

    file = downloads / "votes-anna.json"
    for _ in range(200):
        if file.exists() and not list(file.parent.glob("*.crdownload")):
            break
        browser.value("new Promise(done => setTimeout(done, 10))")
    votes = json.loads(file.read_text())["votes"]
    assert [vote["shown"] for vote in votes] == order
    assert [vote["answer"] for vote in votes[:6]] == [True, True, False, False, False, False]
    assert [vote["shown"].index(vote["answer"]) for vote in votes[6:]] == [1, 0, 0]
    results = read_results(study, [file])
    assert results.left.count == 2 and results.preference["gatys", "adain"].of == 3
    assert sum(rate.count for rate in results.called_real.values()) == 2
    assert browser.problems == []


def test_answers_to_other_questions_are_dropped(browser: Browser, study: Path):
    begin(browser, study, "gil")
    for _ in range(3):
        choose(browser, "ArrowLeft")
    browser.value(
        "sitting.votes = [sitting.votes[0], {...sitting.votes[1], shown: ['another']}, , sitting.votes[2]]; remember()"
    )
    browser.open("about:blank#closed")
    begin(browser, study, "gil")
    assert answered(browser) == 1 and browser.value("place") == 1
    browser.value("keep(slot('gil'), '5')")
    begin(browser, study, "gil")
    assert answered(browser) == 0


def test_sides_and_orders_are_even_and_pairs_of_methods_come_by_turns(browser: Browser, study: Path):
    browser.open((study / HANDOUT / "index.html").as_uri())
    every = "Array.from({length: 300}, (_, i) => questionsOf('p' + i).filter(one => one.pair))"
    left = browser.value(f"{every}.flat().map(one => one.shown[0] === one.pair[0])")
    assert len(left) == 900 and 0.45 < sum(left) / 900 < 0.55  # 3.0 standard errors
    first = browser.value(f"{every}.map(pairs => pairs[0].input)")
    assert all(75 < first.count(code) < 125 for code in set(first)) and len(set(first)) == 3
    groups = [[{"pair": [f"{group}{i}", "x"]} for i in range(5)] for group in "abc"]
    browser.value(f"asked.preference = {json.dumps(groups)}; asked.questions = 6")
    drawn = browser.value(every + ".map(pairs => pairs.map(one => one.pair[0][0]).sort().join(''))")
    assert set(drawn) == {"aabbcc"}


def test_others_are_asked_in_another_order_and_a_lost_picture_is_said(browser: Browser, study: Path):
    orders = []
    for participant in ("ben", "carla", "dora", "emil"):
        begin(browser, study, participant)
        orders.append(json.dumps(browser.value("questions.map(question => question.shown)")))
        assert answered(browser) == 0
    assert len(set(orders)) == 4
    for path in (study / HANDOUT / "pictures").iterdir():
        path.unlink()
    browser.open(f"{(study / HANDOUT / 'index.html').as_uri()}?participant=fay")
    start(browser)
    browser.until("!document.getElementById('trouble').hidden")


def test_a_new_name_begins_and_pictures_that_vanished_stay_so(browser: Browser, survey: Survey, tmp_path: Path):
    make_survey(replace(survey, seconds=0.05), tmp_path / "short")
    begin(browser, tmp_path / "short", "hal")
    browser.until("document.getElementById('single').classList.contains('over')")
    browser.until("recall(slot('hal')).then(kept => kept.over.length === 1)")
    begin(browser, tmp_path / "short", "hal")
    assert browser.value("document.getElementById('begin').textContent") == "Go on"
    assert browser.value("document.getElementById('single').classList.contains('over')")
    browser.open(f"{(tmp_path / 'short' / HANDOUT / 'index.html').as_uri()}?participant=ida")
    browser.until("!document.getElementById('begin').disabled")
    assert browser.value("document.getElementById('begin').textContent") == "Begin"
