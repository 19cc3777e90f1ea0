from pathlib import Path

import pytest

from cyclegan.evaluation.counterparts import CounterpartError, counterparts

A, B = Path("testA"), Path("testB")


def found(names_a, names_b, paired=None):
    truths, _ = counterparts([A / name for name in names_a], A, [B / name for name in names_b], B, paired)
    return {path.name: truth.name for path, truth in truths.items()}


@pytest.mark.parametrize("name", ["{:03d}.png", "{}.jpg", "IMG_{:04d}.JPG", "frame {}.png", "day/{}.png"])
def test_numbers_agree_by_chance(name):
    names = [name.format(i) for i in range(1, 6)]
    assert found(names, names) == {}
    assert found(names[:3], names) == {}
    assert len(found(names, names, paired=True)) == 5
    sentence = counterparts([A / n for n in names], A, [B / n for n in names], B)[1]
    assert "--paired yes" in sentence


@pytest.mark.parametrize(
    ("names_a", "names_b"),
    [
        (["1_A.jpg", "2_A.jpg"], ["1_B.jpg", "2_B.jpg"]),  # facades, maps
        (["ulm_0_0_leftImg8bit.png", "ulm_1_leftImg8bit.png"], ["ulm_0_0_gtFine_color.png", "ulm_1_gtFine_color.png"]),
        (["accordion.png", "balloon.png"], ["accordion.png", "balloon.png", "more.png"]),  # flat2fluent3d
        (["1f600.png", "1f468-200d.png"], ["1f600.webp", "1f468-200d.webp"]),  # emoji by code
        (["tree.png"], ["tree.png"]),
    ],
)  # fmt: skip
def test_marks_and_words_do_not(names_a, names_b):
    assert list(found(names_a, names_b).items()) == list(zip(names_a, names_b, strict=False))
    assert found(names_a, names_b, paired=False) == {}


def test_the_same_mark_on_both_sides_is_none():
    assert found(["1_A.png", "2_A.png"], ["1_A.png", "2_A.png"]) == {}


def test_one_picture_without_a_partner_leaves_all_without():
    assert found(["cat.png", "dog.png"], ["cat.png"]) == {}
    with pytest.raises(CounterpartError, match=r"testB has none for 1 of testA, such as dog\.png"):
        found(["cat.png", "dog.png"], ["cat.png"], paired=True)


@pytest.mark.parametrize(
    ("names_a", "names_b", "twins"),
    [
        (["dog.jpg", "dog.png"], ["dog.jpg", "dog.png"], "testA/dog.jpg and testA/dog.png"),
        (["cat.jpg"], ["cat.jpg", "cat_B.png"], "testB/cat.jpg and testB/cat_B.png"),
    ],
)
def test_a_name_that_two_pictures_of_a_domain_share_has_no_counterpart(names_a, names_b, twins):
    truths, sentence = counterparts([A / name for name in names_a], A, [B / name for name in names_b], B)
    assert truths == {} and twins in sentence
    with pytest.raises(CounterpartError, match=twins):
        found(names_a, names_b, paired=True)


def test_halves_of_one_picture_are_each_others_counterparts_whatever_lies_beside_it():
    files = [A / "dog.jpg", A / "dog.png"]
    assert counterparts(files, A, files, A, paired=True)[0] == {path: path for path in files}


def test_the_embedded_sets_test_pictures_are_pairs():
    root = Path(__file__).parents[2] / "datasets" / "flat2fluent3d"
    sides = [sorted((root / f"test{d}").glob("*.png")) for d in "AB"]
    truths, sentence = counterparts(sides[0], root / "testA", sides[1], root / "testB")
    assert len(truths) == 120 and "true counterpart" in sentence
