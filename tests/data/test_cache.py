from __future__ import annotations

import errno
import io
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.config import ConfigError, Data
from cyclegan.data import cache as module
from cyclegan.data import digests
from cyclegan.data.dataset import Draw, EpochBatches, UnpairedDataset, new_loader
from cyclegan.data.folders import find_split
from cyclegan.data.images import ImageError, find_images
from cyclegan.data.transforms import Transform
from cyclegan.whole_files import open_replacing
from tests.conftest import write_pictures

RESIZES = ["resize_and_crop", "crop", "scale_width", "scale_width_and_crop", "zoom_and_crop", "none"]


def dataset(root: Path, cache: bool | Path = True, **options) -> UnpairedDataset:
    data = Data(root=root, cache=cache, **{"load_size": 36, "crop_size": 32, **options})
    return UnpairedDataset(find_split(data, "train"), data, seed=0)


def items(found: UnpairedDataset) -> list[dict]:
    return [found[Draw(epoch, place)] for epoch in range(2) for place in range(5)]


def same(one: list[dict], two: list[dict]) -> bool:
    return all(torch.equal(a[domain], b[domain]) for a, b in zip(one, two, strict=True) for domain in "AB")


def written(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (root / ".cache").glob("*.pixels")}


@pytest.mark.parametrize("resize", RESIZES)
def test_samples_are_the_same_with_and_without(resize: str, pictures: Path):
    Image.fromarray(np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)).save(
        pictures / "trainB" / "x.png"
    )
    augment = {"augment": [{"name": "GaussNoise", "p": 0.5}]}
    plain, cached = (items(dataset(pictures, cache, resize=resize, A=augment)) for cache in (False, True))
    assert same(plain, cached) and same(cached, items(dataset(pictures, resize=resize, A=augment)))


def test_pictures_are_decoded_once_and_a_second_run_takes_them_as_they_are(pictures: Path, monkeypatch):
    dataset(pictures)
    before = written(pictures)
    monkeypatch.setattr(module, "_write", None)
    assert len(items(dataset(pictures))) == 10 and written(pictures) == before and len(before) == 2


def test_a_second_run_reads_no_file_of_the_pictures_and_waits_for_nobody(pictures: Path, monkeypatch):
    monkeypatch.setattr(digests, "JUST", -1)  # all are old enough to be trusted
    dataset(pictures)
    for place, name in ((digests, "_digest"), (module, "_alone"), (module, "_write")):
        monkeypatch.setattr(place, name, None)
    assert same(items(dataset(pictures)), items(dataset(pictures, False)))


def test_workers_read_it_too(pictures: Path):
    found = dataset(pictures)
    loaders = [new_loader(found, EpochBatches(4, 2), workers, pin_memory=False) for workers in (0, 1)]
    assert same(*(list(loader) for loader in loaders))


@pytest.mark.parametrize("change", ["content", "name", "one more", "one less"])
def test_changed_pictures_are_read_anew(change: str, pictures: Path):
    dataset(pictures)
    before, file = written(pictures), pictures / "trainA" / "00.png"
    if change == "content":
        write_pictures(pictures / "trainA", 1, seed=9)
    elif change == "name":
        file.rename(file.with_name("zz.png"))
    elif change == "one more":
        write_pictures(pictures / "trainA" / "more", 1, seed=9)
    else:
        file.unlink()
    assert same(items(dataset(pictures)), items(dataset(pictures, False)))
    changed = [name for name, inode in written(pictures).items() if before.get(name) != inode]
    assert [name[0] for name in changed] == ["A"]


@pytest.mark.parametrize("change", ["touched", "copied", "copied with its cache"])
def test_pictures_of_the_same_names_and_bytes_are_not_decoded_again(
    change: str, pictures: Path, tmp_path: Path, monkeypatch
):
    kept = True if change == "copied with its cache" else tmp_path / "kept"
    dataset(pictures, kept)
    if change == "touched":
        (pictures / "trainA" / "00.png").touch()
    else:
        pictures = shutil.copytree(pictures, tmp_path / "other")
    monkeypatch.setattr(module, "_write", None)
    assert same(items(dataset(pictures, kept)), items(dataset(pictures, False)))


@pytest.mark.parametrize("change", ["limit", "one more", "one less"])
def test_a_reader_keeps_its_pictures_when_another_run_makes_a_cache_of_others(change: str, pictures: Path):
    early, expected = dataset(pictures), items(dataset(pictures, False))
    if change == "one more":
        write_pictures(pictures / "trainA" / "0", 1, side=50, seed=9)
    elif change == "one less":
        (pictures / "trainA" / "00.png").rename(pictures / "gone.png")
    dataset(pictures, limit=3 if change == "limit" else None)
    assert same(items(early), expected)


def test_other_sizes_have_a_cache_of_their_own(pictures: Path):
    dataset(pictures)
    assert same(items(dataset(pictures, load_size=48)), items(dataset(pictures, False, load_size=48)))
    assert len(written(pictures)) == 4


@pytest.mark.parametrize("left", [0, 10, 0.5, -4])
def test_half_a_file_is_made_anew(left: float, pictures: Path):
    dataset(pictures)
    for path in (pictures / ".cache").glob("*.pixels"):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(left * len(whole))] if isinstance(left, float) else whole[:left])
    assert same(items(dataset(pictures)), items(dataset(pictures, False)))


def _slowly(root: Path) -> None:
    load = module._load
    module._load = lambda *picture: (time.sleep(0.5), load(*picture))[1]
    dataset(root)


def test_a_process_killed_while_it_writes_leaves_nothing_in_the_way(pictures: Path):
    process = multiprocessing.get_context("fork").Process(target=_slowly, args=(pictures,))
    process.start()
    while not list((pictures / ".cache").glob(".*.part")) and process.is_alive():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not written(pictures)
    assert same(items(dataset(pictures)), items(dataset(pictures, False)))
    assert not list((pictures / ".cache").glob(".*.part"))


def test_what_others_write_in_its_folder_stays(pictures: Path, tmp_path: Path):
    (tmp_path / "kept").mkdir()
    with open_replacing(tmp_path / "kept" / "latest.pt") as file:
        file.write(b"half")
        dataset(pictures, tmp_path / "kept")
        file.write(b" and half")
    assert (tmp_path / "kept" / "latest.pt").read_bytes() == b"half and half"


def test_one_writes_while_others_wait(pictures: Path, monkeypatch):
    context, write = multiprocessing.get_context("fork"), module._write
    made = context.Value("i", 0)

    def counted(*args) -> dict:
        with made.get_lock():
            made.value += 1
        return write(*args)

    monkeypatch.setattr(module, "_write", counted)
    processes = [context.Process(target=_slowly, args=(pictures,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0] and made.value == 2  # A's and B's


def test_damaged_pictures_are_told_as_without_it(pictures: Path):
    (pictures / "trainA" / "02.png").write_bytes(b"no picture")
    plain, cached = items(dataset(pictures, False)), items(dataset(pictures))
    assert same(plain, cached) and [i["skipped"] for i in plain] == [i["skipped"] for i in cached]
    assert any(item["skipped"] for item in cached)


def test_a_picture_that_could_not_be_read_for_a_while_is_read_again(pictures: Path, monkeypatch):
    def refused(*_) -> None:
        raise ImageError("permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Transform, "_load", refused)
        dataset(pictures)
    cached = items(dataset(pictures))
    assert same(cached, items(dataset(pictures, False))) and not any(item["skipped"] for item in cached)


def test_pictures_that_change_while_they_are_decoded_are_not_taken_for_what_they_were(pictures: Path, monkeypatch):
    def changing(self, path: Path) -> np.ndarray:
        write_pictures(pictures / "trainA", 1, seed=9)
        return load(self, path)

    load = Transform._load
    with monkeypatch.context() as patch, pytest.raises(ImageError, match=r"trainA were changed while data\.cache"):
        patch.setattr(Transform, "_load", changing)
        dataset(pictures)
    assert not written(pictures)
    assert same(items(dataset(pictures)), items(dataset(pictures, False)))


def test_a_moved_data_set_keeps_its_pictures_apart(pictures: Path, tmp_path: Path):
    other = tmp_path / "other"
    write_pictures(other / "trainA", 5, seed=5)
    write_pictures(other / "trainB", 4, seed=6)
    for root in (pictures, other, pictures):
        assert same(items(dataset(root, tmp_path / "kept")), items(dataset(root, False)))
    assert len(find_images(pictures / "trainA")) == 5 and not (pictures / ".cache").exists()


def test_a_folder_that_cannot_be_written_to_is_named(pictures: Path):
    (pictures / "file").write_text("")
    with pytest.raises(ConfigError, match=r"data\.cache: .*file.*data\.cache=false"):
        dataset(pictures, pictures / "file" / "below")


def test_large_pictures_are_not_decoded_far_ahead_of_the_disk(pictures: Path, monkeypatch):
    write_pictures(pictures / "trainA" / "more", 20)
    append, load, decoded, ahead = module._append, Transform._load, [], []

    def slow_append(*picture) -> dict:
        time.sleep(0.005)
        ahead.append(len(decoded) - len(ahead))
        return append(*picture)

    monkeypatch.setattr(Transform, "_load", lambda self, path: (load(self, path), decoded.append(path))[0])
    monkeypatch.setattr(module, "_append", slow_append)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(module, "MEMORY", 1)
    dataset(pictures)
    assert len(decoded) == 29 and max(ahead) <= 3


def test_all_cores_decode_ahead_and_pictures_come_in_order(monkeypatch):
    monkeypatch.setattr(module.os, "cpu_count", lambda: 3)
    three = threading.Barrier(3, timeout=10)

    def load(path: Path) -> np.ndarray:
        three.wait()
        return np.full(1, int(path.name))

    files = [Path(str(number)) for number in range(9)]
    assert list(module._loaded(files, load)) == [(path, np.full(1, int(path.name))) for path in files]


def test_pictures_begin_where_floats_may():
    file = io.BytesIO()
    assert [module._append(file, np.zeros(count, np.uint8))["start"] for count in (3, 64, 65, 1)] == [0, 64, 128, 256]


def test_a_whole_cache_is_used_where_nothing_can_be_written(pictures: Path, monkeypatch):
    dataset(pictures)

    def refused(*_, **__) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for place, name in ((module, "_alone"), (module, "open_replacing"), (digests, "open_replacing"), (Path, "mkdir")):
        monkeypatch.setattr(place, name, refused)
    assert same(items(dataset(pictures)), items(dataset(pictures, False)))


def test_a_full_disk_is_told_before_it_is_full(pictures: Path, monkeypatch):
    monkeypatch.setattr(
        module.need_space.__globals__["shutil"], "disk_usage", lambda _: type("Free", (), {"free": 9})()
    )
    monkeypatch.setattr(module, "AT_ONCE", 2)
    with pytest.raises(ConfigError, match=r"data\.cache: .*not enough space"):
        dataset(pictures)
    assert not written(pictures)


def test_space_is_asked_for_as_much_as_is_left_to_write(pictures: Path, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "need_space", lambda folder, size: asked.append(size))
    monkeypatch.setattr(module, "AT_ONCE", 2)
    dataset(pictures)
    assert asked == [pytest.approx(left * 36 * 36 * 3, rel=0.01) for left in (5 - 2, 5 - 4, 4 - 2, 4 - 4)]


def test_masks_are_not_cached(pictures: Path):
    with pytest.raises(ConfigError, match=r"data\.cache: not with masks"):
        dataset(pictures, A={"mask": pictures / "trainA"})
