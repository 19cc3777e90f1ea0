from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid.inception import InceptionV3

from cyclegan.evaluation.inception import FID_WEIGHTS, random_state
from cyclegan.networks.pretrained import sha256_of


@pytest.fixture(scope="session")
def shared_state():
    """One random set of weights for our network and for the libraries'."""
    return random_state(seed=7)


@pytest.fixture(scope="session")
def shared_weights(shared_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "pt_inception.pth"
    torch.save(shared_state, path)
    return path


@pytest.fixture
def published_weights(shared_weights, monkeypatch):
    """Makes the shared weights pass for the published ones, which cannot be fetched here."""
    weights = replace(FID_WEIGHTS, sha256=sha256_of(shared_weights))
    monkeypatch.setattr("cyclegan.evaluation.extractors.FID_WEIGHTS", weights)
    monkeypatch.setenv("CYCLEGAN_INCEPTION_WEIGHTS", str(shared_weights))
    return shared_weights


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory):
    """Writes a folder of `count` smooth random PNGs of (width, height) pixels."""

    def make(count, size=(64, 48), seed=0, folder=None):
        folder = folder or tmp_path_factory.mktemp("pictures")
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(seed)
        for index in range(count):
            coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(folder / f"{index:03d}.png")
        return folder

    return make


@pytest.fixture
def pytorch_fid_network(shared_state, monkeypatch):
    """Builds pytorch-fid's network on the shared weights, for indices of its blocks."""
    monkeypatch.setattr("pytorch_fid.inception.load_state_dict_from_url", lambda *_, **__: shared_state)
    return lambda blocks, **options: InceptionV3(blocks, **options).eval()
