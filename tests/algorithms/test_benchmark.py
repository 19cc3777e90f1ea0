"""The benchmark that compares algorithms: its table and which pictures it takes for the same."""

from __future__ import annotations

from argparse import Namespace
from types import ModuleType

import pytest
from PIL import Image

from tests.benchmarks import load_benchmark


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_benchmark("algorithms")


def test_the_table_has_the_scores_that_all_methods_share(benchmark):
    def found(scores: dict[str, float]) -> dict:
        values = {name: {"untouched": 0.5, "translated": value} for name, value in scores.items()}
        return {"images_per_second": 2.0, "images": 10, "megabytes": 99.0, "scores": values}

    methods = {"cyclegan": found({"MAE": 0.1, "cycle_error": 0.3}), "cut": found({"KID": 4, "MAE": 0.2})}
    lines = benchmark._score_table({"machine": "m", "minutes": 1, "seed": 0, "methods": methods})
    assert lines[2:] == [
        "|  | MAE | images/s | images | peak MB |",
        "|---|---|---|---|---|",
        "| untouched | 0.5 | | | |",
        "| cyclegan | 0.1 | 2.0 | 10 | 99 |",
        "| cut | 0.2 | 2.0 | 10 | 99 |",
    ]


@pytest.mark.parametrize(
    ("source", "truth", "output"), [("1_A.jpg", "1_B.jpg", "1_A.png"), ("x.png", "x.jpg", "x.png")]
)
def test_pairs_and_outputs_are_found_by_what_their_names_share(benchmark, tmp_path, source, truth, output):
    folders = {"data/testA": source, "data/testB": truth, "cut/test/AtoB": output}
    for grey, (folder, name) in enumerate(folders.items()):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (16, 16), (100 * grey,) * 3).save(tmp_path / folder / name)
    found = benchmark._lpips(lambda x, y: (x - y).mean(), tmp_path / "data", tmp_path / "cut")
    assert found == pytest.approx({"untouched": -200 / 255, "translated": 200 / 255}, abs=0.02)  # JPEG rounds
    sheet = benchmark._sheet(Namespace(out=tmp_path, methods=["cut"]), tmp_path / "data")
    assert {0, 100, 200} <= {round(colour[0] / 100) * 100 for _, colour in sheet.convert("RGB").getcolors(10**6)}
