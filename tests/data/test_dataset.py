from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from cyclegan.config import Data
from cyclegan.data.bundles import unbundled
from cyclegan.data.dataset import Draw, EpochBatches, UnpairedDataset, collate, epoch_length, new_loader
from cyclegan.data.folders import find_split


@pytest.fixture
def data(pictures: Path) -> Data:
    return Data(root=pictures, load_size=64, crop_size=32)


def dataset(data: Data, seed: int = 0) -> UnpairedDataset:
    return UnpairedDataset(find_split(data, "train"), data, seed)


def batches_of(data: Data, workers: int, world: int = 1, batch_size: int = 2, epochs: int = 2, start_method=None):
    """All batches of all processes, put together as one process would see them."""
    seen = []
    for epoch in range(epochs):
        parts = []
        for rank in range(world):
            sampler = EpochBatches(12, batch_size, rank, world)
            sampler.epoch = epoch
            loader = new_loader(dataset(data), sampler, workers, pin_memory=False)
            loader.messages.multiprocessing_context = start_method
            parts.append(list(loader))
        for ranks in zip(*parts, strict=True):
            seen.append({domain: torch.cat([batch[domain] for batch in ranks]) for domain in "AB"})
    return seen


def same(one: list, two: list) -> bool:
    return all(torch.equal(a[domain], b[domain]) for a, b in zip(one, two, strict=True) for domain in "AB")


def test_pictures_do_not_depend_on_the_number_of_workers(data: Data):
    alone = batches_of(data, workers=0)
    assert same(alone, batches_of(data, workers=1)) and same(alone, batches_of(data, workers=2))


def test_workers_can_be_spawned_as_on_windows(data: Data):
    assert same(batches_of(data, 0, epochs=1), batches_of(data, 1, epochs=1, start_method="spawn"))


def test_two_processes_see_what_one_with_twice_the_batch_sees(data: Data):
    assert same(batches_of(data, 0, world=1, batch_size=4), batches_of(data, 0, world=2, batch_size=2))


def test_epochs_differ_and_so_do_pictures_in_an_epoch(data: Data):
    images = [image.sum().item() for batch in batches_of(data, workers=2) for image in batch["A"]]
    assert len(set(images)) == len(images)  # 5 pictures, 24 draws: every crop another


def test_starting_in_mid_epoch_goes_on_with_the_next_batch(data: Data):
    sampler = EpochBatches(12, 2)
    whole = list(sampler)
    sampler.start = 4
    assert list(sampler) == whole[4:]


def test_each_a_comes_once_before_any_comes_again(data: Data):
    draws = dataset(data)
    order = [draws._shuffled(Draw(0, place), "A") for place in range(15)]
    assert all(sorted(order[i : i + 5]) == list(range(5)) for i in (0, 5, 10))
    assert order[:5] != order[5:10]


def test_b_is_drawn_at_random_for_each_a(data: Data, monkeypatch):
    def number(self, draw: Draw, domain: str, index: int, skipped: list[str]) -> dict:
        return {domain: index % len(self.files[domain])}

    monkeypatch.setattr(UnpairedDataset, "_read", number)
    draws = dataset(data)
    items = [draws[Draw(0, place)] for place in range(1000)]
    counts = Counter((item["A"], item["B"]) for item in items)
    assert len(counts) == 5 * 4 and 25 < min(counts.values()) <= max(counts.values()) < 75


def test_draws_for_one_place_have_nothing_to_do_with_those_for_another(data: Data):
    sources = [dataset(data, seed) for seed in (0, 1)]
    kinds = [(domain, what) for domain in "AB" for what in ("picture", "crop")]
    places = [Draw(epoch, place) for epoch in range(3) for place in range(300)]
    drawn = [[source._drawn(draw, *kind) for draw in places] for source in sources for kind in kinds]
    bits = np.array(drawn, np.uint64)[..., None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    assert len(np.unique(drawn)) == 8 * 900
    assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < 5 * 0.5 / 7200**0.5
    between = np.corrcoef(bits.reshape(8, -1))
    assert np.abs(between - np.eye(8)).max() < 5 / 57600**0.5


def test_ordered_pairing_takes_the_same_place_of_both_lists(data: Data):
    data.pairing, data.shuffle, data.flip, data.load_size = "ordered", False, 0, 32
    draws = dataset(data)
    files = draws.files
    for place in range(5):
        item = draws[Draw(0, place)]
        assert torch.equal(item["A"], draws.transforms["A"](files["A"][place], 0))
        assert torch.equal(item["B"], draws.transforms["B"](files["B"][place % 4], 0))
    draws.files = {"A": files["B"][:2], "B": files["A"]}  # the longer one is gone through, whichever it is
    for place in range(5):
        item = draws[Draw(0, place)]
        assert torch.equal(item["A"], draws.transforms["A"](files["B"][place % 2], 0))
        assert torch.equal(item["B"], draws.transforms["B"](files["A"][place], 0))


def test_the_seed_changes_everything(data: Data):
    one, two = dataset(data, 1)[Draw(0, 0)], dataset(data, 2)[Draw(0, 0)]
    assert not torch.equal(one["A"], two["A"])


@pytest.mark.parametrize(("epoch_size", "length"), [("max", 5), ("min", 4), ("sum", 9), (17, 17)])
def test_an_epoch_has_the_length_asked_for(epoch_size: str | int, length: int, data: Data):
    assert epoch_length(find_split(data, "train"), epoch_size) == length


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_processes_have_the_same_number_of_batches_and_share_none(world: int):
    parts = [list(EpochBatches(17, 2, rank, world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    places = [draw.place for part in parts for batch in part for draw in batch]
    assert sorted(places) == list(range(17 // (2 * world) * 2 * world))


def test_a_set_smaller_than_a_batch_still_makes_one():
    assert [[draw.place for draw in batch] for batch in EpochBatches(3, 8)] == [list(range(8))]


def test_a_limit_ends_the_epoch_early():
    assert len(EpochBatches(100, 2, limit=3)) == len(list(EpochBatches(100, 2, limit=3))) == 3
    assert len(EpochBatches(10, 2, limit=7)) == 5


def test_a_damaged_file_is_reported_and_the_next_one_taken(data: Data):
    draws = dataset(data)
    draws.files["A"][2].write_bytes(b"no picture")
    items = [draws[Draw(0, place)] for place in range(5)]
    (message,) = [message for item in items for message in item["skipped"]]
    assert "02.png" in message and all(item["A"].shape == (3, 32, 32) for item in items)


def test_pictures_of_different_sizes_in_a_batch_are_a_problem_with_a_name():
    items = [{"A": torch.zeros(3, s, 8), "B": torch.zeros(3, 8, 8), "problem": None, "skipped": []} for s in (8, 12)]
    (batch,) = unbundled([collate(items, 2)])
    assert "data.resize" in batch["problem"] and "(12, 8)" in batch["problem"]


@pytest.mark.parametrize("sound_ones", [0, 1])
def test_a_problem_of_any_pair_is_that_of_the_batch(sound_ones: int):
    sound = {"A": torch.zeros(3, 8, 8), "B": torch.zeros(3, 8, 8), "problem": None, "skipped": ["one"]}
    items = [sound] * sound_ones + [{"problem": "none is readable", "skipped": ["two"]}] + [sound]
    (batch,) = unbundled([collate(items, len(items))])
    assert batch == {"problem": "none is readable", "skipped": ["one"] * sound_ones + ["two", "one"]}


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("cache", [False, True])
def test_a_sample_has_memory_of_its_own_and_no_more(cache: bool, flip: int, data: Data):
    data.cache, data.flip = cache, flip
    draws = dataset(data)
    before = draws[Draw(0, 0)]["A"].clone()
    sample = draws[Draw(0, 0)]["A"]
    assert sample.untyped_storage().nbytes() == 3 * 32 * 32
    sample.zero_()
    assert torch.equal(draws[Draw(0, 0)]["A"], before)


def test_batches_are_channels_last(data: Data):
    (batch,) = new_loader(dataset(data), EpochBatches(4, 4), workers=0, pin_memory=False)
    assert batch["A"].shape == (4, 3, 32, 32) and batch["A"].is_contiguous(memory_format=torch.channels_last)
