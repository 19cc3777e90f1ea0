import os

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance, compute_statistics_of_path

from cyclegan.data.images import find_images
from cyclegan.evaluation.archive import (
    collect_cached,
    load_statistics,
    mismatch,
    save_statistics,
)
from cyclegan.evaluation.extractors import from_callable
from cyclegan.evaluation.features import Pictures, collect, fingerprint
from cyclegan.evaluation.frechet import frechet_distance
from cyclegan.evaluation.statistics import EvaluationError


class Counting:
    """Mean colours as features, and how many batches were asked for."""

    def __init__(self):
        self.calls = 0

    def __call__(self, pictures):
        self.calls += 1
        return torch.cat([pictures.float().mean((2, 3)), pictures.float().std((2, 3))], 1)


@pytest.fixture
def network():
    return Counting()


@pytest.fixture
def extractor(network):
    return from_callable("colours", network, weights_sha256="v1", protocol="none")


@pytest.fixture
def pictures(make_folder):
    folder = make_folder(9)
    return Pictures(find_images(folder), folder=folder)


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_pytorch_fid_reads_our_file(tmp_path, pictures, extractor, make_folder):
    ours = collect(pictures, extractor)
    other = make_folder(9, seed=5)
    save_statistics(tmp_path / "ours.npz", ours)
    mu, sigma = compute_statistics_of_path(str(tmp_path / "ours.npz"), None, 1, 6, "cpu")
    theirs = collect(Pictures(find_images(other)), extractor)
    distance = calculate_frechet_distance(mu, sigma, theirs.statistics.mu.numpy(), theirs.statistics.sigma.numpy())
    assert frechet_distance(ours.statistics, theirs.statistics).item() == pytest.approx(distance, rel=1e-5)


def test_our_file_says_what_it_was_made_of(tmp_path, pictures, extractor):
    save_statistics(tmp_path / "x.npz", collect(pictures, extractor))
    with np.load(tmp_path / "x.npz") as archive:
        assert {"mu", "sigma", "n", "protocol", "layer", "weights_sha256", "fingerprint"} <= set(archive.files)
        assert archive["mu"].dtype == archive["sigma"].dtype == np.float64
        assert archive["n"] == 9
        assert len(str(archive["fingerprint"])) == 64


@pytest.mark.parametrize("with_features", [False, True])
def test_our_file_comes_back_whole(tmp_path, pictures, extractor, with_features):
    ours = collect(pictures, extractor)
    save_statistics(tmp_path / "x.npz", ours, with_features)
    again = load_statistics(tmp_path / "x.npz")
    assert (again.n, again.identity, again.fingerprint) == (9, ours.identity, ours.fingerprint)
    assert torch.equal(again.statistics.sigma, ours.statistics.sigma)
    assert again.features is None or torch.equal(again.features, ours.features)
    assert (again.features is not None) == with_features


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_other_tools_are_read_with_a_warning(tmp_path, dtype):
    sigma = np.diag([1.0, 2.0]).astype(dtype)
    extra = {"mu_s": np.ones(3), "sigma_s": np.ones((3, 3)), "arr_0": np.zeros((1, 4, 4, 3), np.uint8)}  # as ADM's
    known = load_statistics(write(tmp_path / "adm.npz", mu=np.ones((1, 2), dtype), sigma=sigma, **extra))
    assert known.statistics.sigma.tolist() == [[1, 0], [0, 2]]
    assert known.statistics.mu.dtype == torch.float64
    assert "adm.npz does not say its protocol" in known.warnings[0]


def test_clean_fids_file_of_kid_features_is_read(tmp_path):
    feats = np.random.default_rng(0).random((5, 3), dtype=np.float32)
    known = load_statistics(write(tmp_path / "kid.npz", feats=feats))
    assert known.n == 5
    np.testing.assert_allclose(known.statistics.sigma, np.cov(feats, rowvar=False), rtol=1e-6)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": np.ones(2)}, "has no mu and sigma: expected statistics, found x"),
        ({"feats": np.array([[1.0, np.nan], [1, 2]])}, "some features are not finite"),
        ({"mu": np.ones(3), "sigma": np.eye(2)}, r"expected mu \(d,\) and sigma \(d, d\), found \(3,\)"),
        ({"mu": np.ones(2), "sigma": np.array([[1, np.nan], [np.nan, 1]])}, "not finite"),
        ({"mu": np.ones(2), "sigma": np.array([[1.0, 0.5], [0.1, 1]])}, "not symmetric"),
    ],
)
def test_files_that_are_no_statistics_are_named(tmp_path, arrays, message):
    with pytest.raises(EvaluationError, match=rf"x\.npz.*{message}"):
        load_statistics(write(tmp_path / "x.npz", **arrays))


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 not a zip after all")
    with pytest.raises(EvaluationError, match=r"x\.npz is not a readable"):
        load_statistics(tmp_path / "x.npz")


@pytest.mark.parametrize(("sign", "place"), [(b"PK\x03\x04", 80), (b"PK\x01\x02", 10)], ids=["numbers", "packing"])
def test_a_damaged_compressed_file_is_named(tmp_path, sign, place):
    np.savez_compressed(tmp_path / "x.npz", features=np.arange(400.0).reshape(50, 8))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    at = data.index(sign) + place
    data[at : at + 9] = b"\xff" * 9
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(EvaluationError, match=r"x\.npz is not a readable"):
        load_statistics(tmp_path / "x.npz")


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f2"])
def test_features_of_another_machine_are_read(tmp_path, dtype):
    feats = np.arange(10.0).reshape(5, 2) ** 2
    known = load_statistics(write(tmp_path / "kid.npz", feats=feats.astype(dtype)))
    np.testing.assert_array_equal(known.features, feats)
    np.testing.assert_allclose(known.statistics.sigma, np.cov(feats, rowvar=False))


def test_features_beside_half_the_moments_are_enough(tmp_path):
    feats = np.arange(10.0).reshape(5, 2)
    assert load_statistics(write(tmp_path / "x.npz", feats=feats, mu=feats.mean(0))).n == 5


def test_a_file_of_pickles_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"x\.npz is not a readable"):
        load_statistics(write(tmp_path / "x.npz", mu=np.array([{}]), sigma=np.eye(1)))


def test_another_protocol_is_noticed(tmp_path, pictures, extractor):
    save_statistics(tmp_path / "x.npz", collect(pictures, extractor))
    known = load_statistics(tmp_path / "x.npz")
    assert mismatch(extractor.identity(), known) is None
    reason = mismatch(extractor.identity() | {"protocol": "clean"}, known)
    assert reason.endswith("x.npz was made with protocol none, this run uses clean")


def test_the_cache_answers_for_the_same_bytes_only(tmp_path, pictures, extractor, network):
    first = collect_cached(pictures, extractor, tmp_path, batch_size=4)
    after_first = network.calls
    again = collect_cached(pictures, extractor, tmp_path)
    assert network.calls == after_first == 3
    assert torch.equal(first.features, again.features)
    pictures.files[3].write_bytes(pictures.files[4].read_bytes())
    assert not torch.equal(collect_cached(pictures, extractor, tmp_path).features, first.features)
    assert network.calls > after_first


def test_a_cache_that_cannot_be_written_costs_no_features(tmp_path, pictures, extractor):
    (tmp_path / "file").touch()
    found = collect_cached(pictures, extractor, tmp_path / "file")
    assert torch.equal(found.features, collect(pictures, extractor).features)
    assert "features could not be kept in" in found.warnings[-1]


def test_the_cache_tells_weights_protocols_and_layers_apart(tmp_path, pictures, network):
    for changed in ({"weights_sha256": "v2"}, {"protocol": "other"}, {}):
        collect_cached(pictures, from_callable("colours", network, **{"weights_sha256": "v1"} | changed), tmp_path)
    assert network.calls == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_the_cache_does_not_serve_moments_where_features_are_needed(tmp_path, pictures, extractor):
    assert collect_cached(pictures, extractor, tmp_path, keep=5).features is None
    assert collect_cached(pictures, extractor, tmp_path, keep=None).features is not None


def test_networks_without_a_hash_are_not_cached(tmp_path, pictures, network):
    collect_cached(pictures, from_callable("colours", network), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"features": np.ones(3)}, r"expected features \(n, d\)"),
        ({"feats": np.full((3, 2), "x")}, r"expected features \(n, d\)"),
        ({"mu": np.ones(2), "sigma": np.eye(2), "protocol": "clean"}, "not its extractor, layer, weights_sha256"),
    ],
)
def test_files_that_say_half_are_named(tmp_path, arrays, message):
    with pytest.raises(EvaluationError, match=rf"x\.npz.*{message}"):
        load_statistics(write(tmp_path / "x.npz", **arrays))


def test_a_single_array_by_the_name_of_an_archive_is_named(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(EvaluationError, match=r"x\.npz holds a single array"):
        load_statistics(tmp_path / "x.npz")


def test_what_prepare_does_must_have_a_name_to_be_cached(tmp_path, pictures, network):
    for scale in (1, 2):
        made = from_callable("colours", network, lambda x, by=scale: x.float() * by, weights_sha256="v1")
        cached = collect_cached(pictures, made, tmp_path).features
        assert torch.equal(cached, collect(pictures, made).features)
    named = from_callable("colours", network, lambda x: x.float(), "as floats", "v1")
    collect_cached(pictures, named, tmp_path)
    network.calls = 0
    collect_cached(pictures, named, tmp_path)
    assert network.calls == 0


def test_a_name_that_is_not_utf8_has_a_fingerprint_for_the_cache(tmp_path, pictures, extractor, network):
    before = fingerprint(pictures)
    pictures.files[0].rename(pictures.folder / os.fsdecode(b"b\xe4r.png"))
    renamed = Pictures(find_images(pictures.folder), folder=pictures.folder)
    made = collect_cached(renamed, extractor, tmp_path)
    assert made.fingerprint != before
    calls = network.calls
    assert collect_cached(renamed, extractor, tmp_path).fingerprint == made.fingerprint and network.calls == calls
