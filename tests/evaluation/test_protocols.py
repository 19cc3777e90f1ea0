import numpy as np
import pytest
import torch
import torch_fidelity
from cleanfid.fid import fid_from_feats, get_folder_features
from cleanfid.resize import build_resizer
from PIL import Image
from pytorch_fid.fid_score import calculate_fid_given_paths
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.image.fid import FrechetInceptionDistance

from cyclegan.data.images import find_images
from cyclegan.evaluation.evaluator import evaluate
from cyclegan.evaluation.extractors import inception
from cyclegan.evaluation.features import read_rgb
from cyclegan.evaluation.protocols import PROTOCOLS

SIZES = [(64, 48), (256, 256), (299, 299), (700, 410)]  # width, height


@pytest.fixture(scope="module")
def folders(make_folder):
    return make_folder(7, (256, 200), seed=0), make_folder(6, (340, 300), seed=1)


def fid(folders, protocol, weights):
    numbers = evaluate(*folders, inception(protocol, 64, weights), ["fid"]).numbers
    return numbers["fd_inception-unpublished"]


def noise(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, size[1], size[0]), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_torch_fidelity_resize_is_tensorflow_1s(size):
    expected = interpolate_bilinear_2d_like_tensorflow1x(noise(size).float(), size=(299, 299), align_corners=False)
    assert (PROTOCOLS["torch-fidelity"](noise(size)) * 128 + 128 - expected).abs().max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_clean_resize_is_pillows_on_floats(size):
    expected = [build_resizer("clean")(picture.permute(1, 2, 0).numpy()) for picture in noise(size)]
    ours = PROTOCOLS["clean"](noise(size)) * 128 + 128
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1), np.stack(expected), atol=1e-4)


def test_at_299_the_protocols_differ_by_their_scale_only():
    pictures = noise((299, 299))
    assert torch.equal(PROTOCOLS["clean"](pictures), PROTOCOLS["torch-fidelity"](pictures))
    assert torch.allclose(PROTOCOLS["pytorch-fid"](pictures), pictures / 127.5 - 1, atol=1e-6)


def test_folders_score_as_by_pytorch_fid(folders, shared_weights, pytorch_fid_network):
    expected = calculate_fid_given_paths([str(f) for f in folders], 4, "cpu", 64, num_workers=0)
    assert fid(folders, "pytorch-fid", shared_weights) == pytest.approx(expected, rel=1e-5)


def test_folders_score_as_by_torch_fidelity(folders, shared_weights):
    expected = torch_fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        fid=True,
        feature_layer_fid="64",
        feature_extractor_weights_path=str(shared_weights),
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=1,
    )["frechet_inception_distance"]
    assert fid(folders, "torch-fidelity", shared_weights) == pytest.approx(expected, rel=1e-5)


def test_folders_score_as_by_torchmetrics_without_antialiasing(folders, shared_weights):
    metric = FrechetInceptionDistance(64, feature_extractor_weights_path=str(shared_weights), antialias=False)
    for folder, real in zip(folders, (True, False), strict=True):
        metric.update(torch.stack([read_rgb(path) for path in find_images(folder)]), real=real)
    assert fid(folders, "torch-fidelity", shared_weights) == pytest.approx(metric.compute().item(), rel=1e-5)


@pytest.mark.parametrize("mode, protocol", [("clean", "clean"), ("legacy_pytorch", "pytorch-fid")])
def test_folders_score_as_by_clean_fid(folders, shared_weights, pytorch_fid_network, mode, protocol):
    network = pytorch_fid_network((0,), resize_input=False, normalize_input=False)

    def features(x):  # clean-fid feeds its networks 0..255, and this one wants [-1, 1]
        return network((x - 128) / 128 if mode == "clean" else x / 127.5 - 1)[0].mean((2, 3))

    cpu = torch.device("cpu")
    options = {"num_workers": 0, "batch_size": 3, "device": cpu, "mode": mode, "verbose": False}
    expected = fid_from_feats(*[get_folder_features(str(folder), features, **options) for folder in folders])
    assert fid(folders, protocol, shared_weights) == pytest.approx(expected, rel=1e-5)


def test_every_kind_of_picture_is_read_as_the_libraries_read_it(tmp_path):
    grey = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8))
    grey.save(tmp_path / "grey.png")
    grey.convert("P").save(tmp_path / "palette.png")
    Image.merge("LA", (grey, Image.new("L", (8, 8), 7))).save(tmp_path / "alpha.png")
    grey.convert("CMYK").save(tmp_path / "cmyk.tif")
    for path in find_images(tmp_path):
        assert read_rgb(path).permute(1, 2, 0).tolist() == np.asarray(grey.convert("RGB")).tolist(), path.name
