from __future__ import annotations

from pathlib import Path

import pytest

from cyclegan.config import Data
from cyclegan.data.folders import distinct_names, find_split
from tests.conftest import write_pictures


@pytest.mark.parametrize("layout", ["{split}{domain}", "{split}/{domain}", "{domain}/{split}"])
def test_every_layout_is_found(layout: str, tmp_path: Path):
    for split, domain, count in (("train", "A", 3), ("train", "B", 2), ("test", "A", 1)):
        write_pictures(tmp_path / layout.format(split=split, domain=domain), count)
    data = Data(root=tmp_path)
    assert {domain: len(paths) for domain, paths in find_split(data, "train").items()} == {"A": 3, "B": 2}
    assert {domain: len(paths) for domain, paths in find_split(data, "test").items()} == {"A": 1}


def test_any_two_folders_can_be_named(tmp_path: Path):
    write_pictures(tmp_path / "horses" / "deep", 2)
    write_pictures(tmp_path / "zebras", 3)
    data = Data(A={"train": tmp_path / "horses"}, B={"train": tmp_path / "zebras"}, limit=2)
    assert [len(paths) for paths in find_split(data, "train").values()] == [2, 2]
    assert find_split(data, "test") == {}


def test_what_is_missing_is_said_with_what_there_is(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"data\.A\.train"):
        find_split(Data(), "train")
    with pytest.raises(FileNotFoundError, match="cyclegan data fetch horse2zebra"):
        find_split(Data(root=tmp_path / "horse2zebra"), "train")
    write_pictures(tmp_path / "trainA", 1)
    (tmp_path / "Train_B").mkdir()
    with pytest.raises(FileNotFoundError, match=r"domain B.*found Train_B, trainA.*data\.B\.train"):
        find_split(Data(root=tmp_path), "train")


def test_a_folder_that_is_not_there_is_told_with_its_key(tmp_path: Path):
    data = Data(A={"train": tmp_path / "a", "test": tmp_path / "t"}, B={"train": tmp_path / "b"})
    write_pictures(tmp_path / "a", 1)
    with pytest.raises(FileNotFoundError, match=r"data\.A\.test: no folder"):
        find_split(data, "test")
    with pytest.raises(FileNotFoundError, match=r"data\.B\.train: no folder"):
        find_split(data, "train")


def test_only_sets_that_can_be_fetched_are_offered(tmp_path: Path):
    for name, offered in (("horse2zebra", True), ("nowhere", False), ("flat2fluent3d", False)):
        with pytest.raises(FileNotFoundError, match=r"data\.root: no folder") as error:
            find_split(Data(root=tmp_path / name), "train")
        assert ("data fetch" in str(error.value)) == offered


def test_no_two_pictures_have_one_name(tmp_path: Path):
    files = [tmp_path / name for name in ("a.jpg", "a.png", "a.jpg.bmp", "deep/a.png", "b.png")]
    assert list(distinct_names(files, tmp_path).values()) == ["a.jpg", "a.png", "a.jpg.bmp", "deep/a", "b"]
