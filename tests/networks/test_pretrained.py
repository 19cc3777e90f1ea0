import hashlib
from dataclasses import replace

import pytest

from cyclegan.networks.pretrained import WeightsError, WeightsFile, find_weights

BYTES = b"tensors, if one believes it" * 1000


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("TEST_WEIGHTS", raising=False)
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def weights(tmp_path, cache):
    published = tmp_path / "published.pth"
    published.write_bytes(BYTES)
    return WeightsFile(("a.pth", "b.pth"), published.as_uri(), hashlib.sha256(BYTES).hexdigest(), "TEST_WEIGHTS")


def test_a_download_lands_in_the_cache_and_is_not_repeated(weights, cache, tmp_path):
    assert find_weights(weights) == cache / "a.pth"
    assert (cache / "a.pth").read_bytes() == BYTES
    (tmp_path / "published.pth").unlink()
    assert find_weights(weights) == cache / "a.pth"


def test_every_published_name_is_found_in_the_cache(weights, cache):
    cache.mkdir(parents=True)
    (cache / "b.pth").write_bytes(BYTES)
    assert find_weights(weights, download=False) == cache / "b.pth"


def test_a_path_goes_before_the_variable_and_the_variable_before_the_cache(weights, tmp_path, monkeypatch):
    find_weights(weights)
    for name in ("of-variable.pth", "of-path.pth"):
        (tmp_path / name).write_bytes(b"another network")
    monkeypatch.setenv("TEST_WEIGHTS", str(tmp_path / "of-variable.pth"))
    assert find_weights(weights) == tmp_path / "of-variable.pth"
    assert find_weights(weights, tmp_path / "of-path.pth") == tmp_path / "of-path.pth"


def test_a_named_file_that_is_missing_says_who_named_it(weights, monkeypatch):
    with pytest.raises(WeightsError, match=r"^no weights file gone\.pth: expected a\.pth"):
        find_weights(weights, "gone.pth")
    monkeypatch.setenv("TEST_WEIGHTS", "gone.pth")
    with pytest.raises(WeightsError, match=r"^no weights file gone\.pth \(from TEST_WEIGHTS\)"):
        find_weights(weights)


def test_a_truncated_file_in_the_cache_is_not_used(weights, cache):
    find_weights(weights)
    (cache / "a.pth").write_bytes(BYTES[:100])
    with pytest.raises(WeightsError, match=r"a\.pth is damaged: sha256 .* delete it"):
        find_weights(weights)


def test_the_first_digits_of_a_sha256_are_enough(weights, cache, tmp_path):
    short = replace(weights, sha256=weights.sha256[:8])
    find_weights(short)
    (cache / "a.pth").write_bytes(BYTES[:100])
    with pytest.raises(WeightsError, match=rf"damaged: sha256 \w{{64}} instead of {weights.sha256[:8]}…"):
        find_weights(short)


def test_a_damaged_download_leaves_nothing_behind(weights, cache, tmp_path):
    (tmp_path / "published.pth").write_bytes(BYTES[:-1])
    with pytest.raises(WeightsError, match="arrived damaged"):
        find_weights(weights)
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_what_to_fetch(weights, cache):
    cache.parent.mkdir(parents=True)
    cache.touch()  # a file where the folder should be
    with pytest.raises(WeightsError, match=r"a\.pth could not be downloaded .* put it into"):
        find_weights(weights)


@pytest.mark.parametrize("download", [False, True])
def test_without_a_network_one_line_says_what_to_put_where(weights, cache, tmp_path, download):
    (tmp_path / "published.pth").unlink()
    with pytest.raises(WeightsError) as failure:
        find_weights(weights, download=download)
    message = str(failure.value)
    assert "\n" not in message
    for part in ("a.pth", weights.url, weights.sha256, str(cache), "TEST_WEIGHTS"):
        assert part in message
