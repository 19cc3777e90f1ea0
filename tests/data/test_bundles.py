from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.config import Data
from cyclegan.data.bundles import MOST, PREFETCH, Bundles, batches_a_message, bundled, unbundled
from cyclegan.data.dataset import EpochBatches, UnpairedDataset, _most_bytes, new_loader
from cyclegan.data.folders import find_split
from cyclegan.data.paired import PairedDataset
from tests.conftest import write_pictures


def batches_of(data: Data, workers: int, batch_size: int = 1, epochs: int = 1, start: int = 0) -> list[dict]:
    kind = PairedDataset if data.pairing == "paired" else UnpairedDataset
    sampler, seen = EpochBatches(45, batch_size), []
    loader = new_loader(kind(find_split(data, "train"), data, seed=0), sampler, workers, pin_memory=False)
    for sampler.epoch in range(epochs):
        sampler.start = 0 if sampler.epoch else start
        seen += loader
    return seen


def same(one: list[dict], two: list[dict]) -> bool:
    """Each batch: its pictures, their type, and what is reported of it."""
    alike = [a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a) for a, b in zip(one, two, strict=True)]
    return all(alike)


def equal(a: object, b: object) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize(("batch_size", "crop_size", "workers"), [(1, 32, 1), (1, 32, 2), (2, 16, 2), (7, 32, 1)])
def test_batches_are_those_without_workers_also_from_the_middle_of_a_bundle(
    batch_size: int, crop_size: int, workers: int, pictures: Path
):
    data = Data(root=pictures, load_size=36, crop_size=crop_size)
    alone = batches_of(data, 0, batch_size, epochs=2)
    assert same(alone, batches_of(data, workers, batch_size, epochs=2))
    assert same(alone[5:], batches_of(data, workers, batch_size, epochs=2, start=5))


def test_a_message_is_one_tensor_a_domain_and_batches_are_views_of_it(pictures: Path):
    batches = batches_of(Data(root=pictures, load_size=36, crop_size=32), workers=1)
    storages = [batch["A"].untyped_storage().data_ptr() for batch in batches]
    assert [storages.count(storage) for storage in dict.fromkeys(storages)] == [1, 2, 4, 8, 11, 11, 8]


@pytest.mark.parametrize("resize", ["none", "scale_width"])
def test_where_sizes_vary_each_batch_is_sent_by_itself(resize: str, pictures: Path):
    write_pictures(pictures / "trainA" / "more", 3, side=52, seed=9)
    data = Data(root=pictures, load_size=36, crop_size=32, resize=resize)
    assert same(batches_of(data, 0), batches_of(data, 2))
    loader = new_loader(UnpairedDataset(find_split(data, "train"), data, 0), EpochBatches(9, 1), 1, pin_memory=False)
    assert loader.messages.batch_sampler.most == 1


def test_damaged_pictures_are_reported_with_their_batch(pictures: Path):
    (pictures / "trainA" / "02.png").write_bytes(b"no picture")
    data = Data(root=pictures, load_size=36, crop_size=32)
    alone, bundles = batches_of(data, 0), batches_of(data, 1)
    assert same(alone, bundles)
    assert sum(bool(batch["skipped"]) for batch in bundles) == 45 // 5


def test_a_problem_is_that_of_its_batch(pictures: Path):
    write_pictures(pictures / "trainB", 5, seed=2)
    write_pictures(pictures / "trainB", 1, side=44)  # 00.png
    data = Data(root=pictures, resize="crop", crop_size=32, pairing="paired")
    alone, bundles = batches_of(data, 0), batches_of(data, 1)
    assert same(alone, bundles)
    problems = [bool(batch["problem"]) for batch in bundles]
    assert sum(problems) == 45 // 5 and all(("A" in batch) != bad for batch, bad in zip(bundles, problems, strict=True))


def test_masks_and_deep_pictures_are_sent_as_they_are(pictures: Path, tmp_path: Path):
    deep = np.linspace(0, 65535, 40 * 40).reshape(40, 40).astype(np.uint16)
    Image.fromarray(deep).save(pictures / "trainB" / "x.png")
    write_pictures(tmp_path / "masks", 5, seed=7)
    data = Data(root=pictures, load_size=40, crop_size=32, A={"mask": tmp_path / "masks"})
    for batch_size in (1, 3):
        alone, bundles = batches_of(data, 0, batch_size), batches_of(data, 2, batch_size)
        assert same(alone, bundles)
        assert {batch["B"].dtype for batch in bundles} == {torch.uint8, torch.float32}
        assert all(batch["A_mask"].dtype == torch.float32 for batch in bundles)


def test_batches_of_different_sizes_come_out_as_they_went_in():
    batches = [
        ({"number": i}, {"A": [torch.full((3, side, 4), i, dtype=kind) for _ in range(2)]} if side else {})
        for i, (side, kind) in enumerate([(4, torch.uint8)] * 2 + [(8, torch.uint8), (0, None), (8, torch.float32)])
    ]
    message = bundled(batches)
    assert [len(reports) for reports, _ in message] == [2, 1, 1, 1]
    for (report, pictures), batch in zip(batches, unbundled([message]), strict=True):
        assert same([{**report, **{name: torch.stack(images) for name, images in pictures.items()}}], [batch])


def test_a_picture_by_itself_is_not_copied():
    picture = torch.zeros(3, 8, 4)
    ((_, pictures),) = bundled([({}, {"A": [picture]})])
    assert pictures["A"].shape == (1, 3, 8, 4) and pictures["A"].data_ptr() == picture.data_ptr()


def test_a_start_waits_for_one_batch_only():
    assert [len(bundle) for bundle in Bundles([[i] for i in range(20)], 6)] == [1, 2, 4, 6, 6, 1]
    assert list(Bundles([[1, 2], [3, 4], [5, 6]], 4)) == [[1, 2], [3, 4, 5, 6]]


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
@pytest.mark.parametrize("side", [16, 256, 512, 2048])
@pytest.mark.parametrize("batch_size", [1, 3, 16, 64])
def test_what_is_read_ahead_is_bounded(side: int, workers: int, batch_size: int):
    pair = 2 * 3 * side * side
    count = batches_a_message(batch_size, pair, 1000, workers, processes=2)
    assert count == 1 or count * batch_size <= MOST
    half_of_dockers = 64 * 2**20 // 2
    assert count == 1 or count * batch_size * pair * PREFETCH * workers * 2 <= half_of_dockers
    assert batches_a_message(1, 2 * 3 * 256 * 256, 1000, workers=1) == MOST


def test_all_workers_have_messages_to_read_in_a_short_epoch():
    assert batches_a_message(1, 1, epoch=100, workers=8) == 3
    assert batches_a_message(1, 1, epoch=10, workers=8) == 1


@pytest.mark.parametrize(("kind", "masks", "expected"), [("jpg", False, 6), ("one png", False, 15), ("jpg", True, 10)])
def test_the_bytes_of_a_pair_are_those_of_floats_where_they_may_be(
    kind: str, masks: bool, expected: int, pictures: Path, tmp_path: Path
):
    for path in pictures.glob("trainA/0[1-9].png" if kind == "one png" else "trainA/*.png"):
        path.rename(path.with_suffix(".jpg"))
    for path in pictures.glob("trainB/*.png"):
        path.rename(path.with_suffix(".jpg"))
    if masks:
        shutil.copytree(pictures / "trainA", tmp_path / "masks")
    domain = {"mask": tmp_path / "masks"} if masks else {}
    data = Data(root=pictures, load_size=40, crop_size=32, A=domain)
    dataset = UnpairedDataset(find_split(data, "train"), data, 0)
    assert _most_bytes(dataset, "A") + _most_bytes(dataset, "B") == expected * 32 * 32


def test_without_workers_a_batch_is_read_when_it_is_asked_for(pictures: Path):
    data = Data(root=pictures, load_size=36, crop_size=32)
    loader = new_loader(UnpairedDataset(find_split(data, "train"), data, 0), EpochBatches(9, 1), 0, pin_memory=False)
    assert loader.messages.batch_sampler.most == 1
