import copy
import json

import pytest

from cyclegan.commands import run
from cyclegan.commands.compare import main
from cyclegan.evaluation.card import load_card, save_card
from cyclegan.evaluation.evaluator import evaluate
from cyclegan.evaluation.extractors import from_callable


@pytest.fixture(scope="module")
def card(make_folder):
    extractor = from_callable(
        "colours", lambda x: x.float().mean((2, 3)), protocol="none", weights_sha256="abcdef012345"
    )
    return evaluate(make_folder(5), make_folder(6, seed=1), extractor).card


def changed(card, *keys, value):
    card = copy.deepcopy(card)
    inner = card
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return card


def compare(tmp_path, *cards):
    paths = [tmp_path / f"{index}.json" for index in range(len(cards))]
    for path, card in zip(paths, cards, strict=True):
        save_card(path, card)
    return run("cyclegan compare", main, [str(path) for path in paths])


def test_results_of_one_measurement_stand_in_one_table(tmp_path, card, capsys):
    better = changed(card, "numbers", "kid_colours", value=0.125)
    assert compare(tmp_path, card, changed(better, "checkpoint", value="other")) == 0
    table = capsys.readouterr().out.splitlines()
    assert "colours, protocol none" in table[0]
    assert "kid_colours" in table[1]
    assert "0.125" in table[-1] and "1.json" in table[-1]


def test_a_number_of_pictures_that_no_file_told_is_called_unknown(tmp_path, card, capsys):
    untold = changed(card, "fake", "n", value=None)
    assert compare(tmp_path, untold, untold) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 6      | unknown |")


@pytest.mark.parametrize(
    "keys, value",
    [
        (["protocol"], "clean"),
        (["weights_sha256"], "another"),
        (["layer"], "64"),
        (["real", "n"], 7),
        (["fake", "n"], 7),
        (["real", "fingerprint"], "another"),
        (["settings", "subset_size"], 50),
    ],
)
def test_results_of_two_measurements_are_refused(tmp_path, card, capsys, keys, value):
    assert compare(tmp_path, card, changed(card, *keys, value=value)) == 1
    message = capsys.readouterr().err
    assert "cannot be compared" in message and keys[0] in message and message.count("\n") == 1


def test_other_pictures_are_told_by_their_folders(tmp_path, card, capsys):
    other = changed(card, "real", "fingerprint", value="f" * 64)
    assert compare(tmp_path, card, changed(other, "real", "source", value="sets/testB")) == 1
    assert capsys.readouterr().err.endswith(
        f"real.source is {card['real']['source']} in the first and sets/testB in the second\n"
    )
    assert compare(tmp_path, card, other) == 1
    assert capsys.readouterr().err.endswith(
        f"the real pictures are from {card['real']['source']} in both, but they are not the same ones\n"
    )


def test_bootstrap_draws_do_not_make_another_measurement(tmp_path, card):
    assert compare(tmp_path, card, changed(card, "settings", "bootstrap", value=100)) == 0


def test_results_against_an_unknown_reference_are_refused(tmp_path, card, capsys):
    unknown = changed(card, "real", "fingerprint", value=None)
    assert compare(tmp_path, unknown, unknown) == 1
    assert "neither says what it was measured against" in capsys.readouterr().err


@pytest.mark.parametrize("text, message", [("{", "cannot read the card"), ("[]", "no protocol card"), ("{}", "lacks")])
def test_files_that_are_no_cards_are_named(tmp_path, capsys, text, message):
    (tmp_path / "x.json").write_text(text)
    assert run("cyclegan compare", main, [str(tmp_path / "x.json")]) == 1
    assert message in (error := capsys.readouterr().err) and "x.json" in error


def test_a_card_comes_back_from_its_file(tmp_path, card):
    save_card(tmp_path / "deep" / "card.json", card)
    assert load_card(tmp_path / "deep" / "card.json") == json.loads(json.dumps(card))
