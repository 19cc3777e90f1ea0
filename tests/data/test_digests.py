from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cyclegan.data import digests as module
from cyclegan.data.digests import digests_of, remembered


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 9)
    return {name: tmp_path / name for name in "abc"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "table.json"


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The names of files as they are read; all files are old enough to be trusted."""
    names, digest = [], module._digest
    monkeypatch.setattr(module, "_digest", lambda path: (names.append(path.name), digest(path))[1])
    monkeypatch.setattr(module, "JUST", -1)
    return names


def test_only_new_and_changed_files_are_read_again(files: dict, table: Path, read: list):
    first = digests_of(files, table, "x")
    assert sorted(read) == ["a", "b", "c"] and remembered(files, table) == first
    time.sleep(0.02)  # more than a tick of the file system's clock
    files["b"].write_bytes(b"changed")
    second = digests_of(files, table, "x")
    assert sorted(read) == ["a", "b", "b", "c"] and [n for n in files if first[n] != second[n]] == ["b"]
    files["d"] = files["a"].rename(files["a"].with_name("d"))
    del files["a"]
    assert digests_of(files, table, "x")["d"] == first["a"] and read[-1] == "d"


def test_a_changed_file_of_the_same_size_and_time_is_noticed(files: dict, table: Path, read: list):
    first, before = digests_of(files, table, "x"), files["a"].stat()
    time.sleep(0.02)
    files["a"].write_bytes(b"A" * 9)
    os.utime(files["a"], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = files["a"].stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert digests_of(files, table, "x")["a"] != first["a"]


def test_a_file_changed_just_now_is_read_again(files: dict, table: Path, monkeypatch):
    digests_of(files, table, "x")
    assert not remembered(files, table)
    now = time.time_ns()
    monkeypatch.setattr(module.time, "time_ns", lambda: now + 3 * 10**9)
    digests_of(files, table, "x")
    assert len(remembered(files, table)) == 3


@pytest.mark.parametrize("content", [b"", b'{"a": [[9, 1', b"[]", b'{"a": 5}', b"\xff\x00"])
def test_a_damaged_table_is_made_anew(content: bytes, files: dict, table: Path, read: list):
    first = digests_of(files, table, "x")
    table.write_bytes(content)
    assert not remembered(files, table)
    assert digests_of(files, table, "x") == first == remembered(files, table)


def test_runs_with_other_files_leave_each_others(files: dict, table: Path, read: list):
    digests_of({"a": files["a"]}, table, "x")
    digests_of({"b": files["b"]}, table, "x")
    assert set(remembered(files, table)) == {"a", "b"}


def test_a_file_that_cannot_be_read_has_none_and_is_tried_again(files: dict, table: Path, read: list, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "_digest", lambda path: None)
        assert digests_of(files, table, "x") == dict.fromkeys("abc") and not table.exists()
    assert all(digests_of(files, table, "x").values())


def test_a_table_that_cannot_be_written_is_done_without(files: dict, tmp_path: Path, read: list):
    digests = digests_of(files, tmp_path / "a" / "table.json", "x")
    assert len(set(digests.values())) == 3
