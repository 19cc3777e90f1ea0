"""What many tests share: small folders of pictures and a run that takes a second."""

from __future__ import annotations

import errno
import gc
import importlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of programs that tests start: threads that wait for each other spin
HAS_GPU = torch.cuda.is_available()


def write_pictures(folder: Path, count: int, side: int = 40, seed: int = 0) -> None:
    """Smooth random pictures; the seed also stands for the domain."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    for i in range(count):
        coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data set: 5 and 4 training pictures, 3 and 3 test pictures, 40x40."""
    root = tmp_path / "pictures"
    for name, count, seed in (("trainA", 5, 1), ("trainB", 4, 2), ("testA", 3, 3), ("testB", 3, 4)):
        write_pictures(root / name, count, seed=seed)
    return root


@pytest.fixture
def options(pictures: Path, tmp_path: Path) -> dict:
    """A run of 16 images with tiny networks, as a dict for load_config."""
    return {
        "name": "tiny",
        "results": str(tmp_path / "results"),
        "data": {"root": str(pictures), "load_size": 36, "crop_size": 32, "workers": 0},
        "generator": {"name": "resnet", "width": 4, "blocks": 1},
        "discriminator": {"name": "patch", "width": 4, "layers": 2},
        "training": {"epochs": 2, "decay_epochs": 2, "batch_size": 1, "batches_per_epoch": 4},
        "logging": {"log_every": 2, "sample_every": 8, "samples": 2, "trackers": []},
    }


def merged(base: dict, **changes: dict) -> dict:
    """`base` with sections laid over, one level deep."""
    return {**base, **{k: {**base.get(k, {}), **v} if isinstance(v, dict) else v for k, v in changes.items()}}


def full_disk(*_: object) -> None:
    """In place of whatever writes."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def only_what_is_marked_sees_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """What other tests state, they state of a CPU: the same everywhere. TESTS_SEE_GPU=1 lets them try one."""
    if HAS_GPU and "gpu" not in request.keywords and not os.environ.get("TESTS_SEE_GPU"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for processes that they start
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def pytest_collection_finish() -> None:
    """Each run ends with a whole collection of garbage, a fifth of a tiny one: what is here by now stays out of it."""
    importlib.import_module("torch._dynamo")  # as the first optimizer does
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_GPU:
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
