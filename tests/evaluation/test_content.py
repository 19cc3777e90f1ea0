import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, resize

from cyclegan.evaluation.content import change, cycle_error, edge_agreement, identity_error, luminance_correlation
from cyclegan.evaluation.extractors import inception
from cyclegan.evaluation.frechet import frechet_distance
from cyclegan.evaluation.pairs import pairs_by_name, score_content, score_sifid, score_truth
from cyclegan.evaluation.sifid import sifid
from cyclegan.evaluation.statistics import Statistics


@pytest.fixture
def pictures():
    coarse = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bicubic").clamp(-1, 1)


def test_a_copy_keeps_everything_and_changes_nothing(pictures):
    assert luminance_correlation(pictures, pictures).tolist() == pytest.approx([1, 1])
    assert edge_agreement(pictures, pictures).tolist() == pytest.approx([1, 1])
    assert change(pictures, pictures).tolist() == [0, 0]


def test_cycle_and_identity_errors_are_mean_absolute_differences(pictures):
    def lighter(x):
        return x + 0.5

    assert cycle_error(pictures, lighter, lambda x: x - 0.25).tolist() == pytest.approx([0.25, 0.25])
    assert identity_error(pictures, lighter).tolist() == pytest.approx([0.5, 0.5])


def test_a_negative_keeps_its_edges_and_turns_its_luminance(pictures):
    assert luminance_correlation(pictures, -pictures).tolist() == pytest.approx([-1, -1])
    assert edge_agreement(pictures, -pictures).tolist() == pytest.approx([1, 1])


def test_luminance_correlation_is_numpys_on_pillows_grey(pictures):
    other = pictures.roll(3, dims=3) * 0.5

    def grey(picture):
        weights = np.array([0.299, 0.587, 0.114])
        return np.tensordot(weights, picture.double().numpy(), axes=1).ravel()

    expected = [np.corrcoef(grey(x), grey(y))[0, 1] for x, y in zip(pictures, other, strict=True)]
    assert luminance_correlation(pictures, other).tolist() == pytest.approx(expected, rel=1e-6)


def test_edges_that_move_no_longer_agree():
    square = torch.full((1, 3, 32, 32), -1.0)
    square[..., 8:16, 8:16] = 1
    assert edge_agreement(square, square.roll(12, dims=3)).item() < 0.1


def test_flat_pictures_correlate_with_nothing(pictures):
    flat = torch.full_like(pictures, 0.2)
    assert luminance_correlation(pictures, flat).tolist() == [0, 0]
    assert edge_agreement(pictures, flat).tolist() == [0, 0]


def test_sifid_is_the_distance_of_the_places_of_two_maps():
    x, y = torch.randn(2, 2, 5, 4, 3, generator=torch.Generator().manual_seed(0))

    def by_hand(a, b):
        return frechet_distance(*(Statistics.of(z.reshape(5, 12).T) for z in (a, b))).item()

    assert sifid(x, y).tolist() == pytest.approx([by_hand(x[0], y[0]), by_hand(x[1], y[1])])
    assert sifid(x, x).tolist() == pytest.approx([0, 0], abs=1e-8)


def test_pairs_are_found_by_name_whatever_their_suffix(make_folder, tmp_path):
    outputs = make_folder(2)
    for name in ("000.jpg", "001.webp", "unused.png"):
        Image.new("RGB", (64, 48), "red").save(tmp_path / name)
    assert [partner.name for _, partner in pairs_by_name(outputs, tmp_path)] == ["000.jpg", "001.webp"]
    (tmp_path / "001.webp").unlink()
    with pytest.raises(ValueError, match=r"no picture for 1 of .*001\.png"):
        pairs_by_name(outputs, tmp_path)


def test_files_score_as_their_tensors(make_folder):
    folder = make_folder(3, size=(32, 32))
    pairs = pairs_by_name(folder, folder)
    assert score_content(pairs)["luminance_correlation"] == pytest.approx(1)
    assert score_truth(pairs)["ssim"] == pytest.approx(1)
    early = inception(layer=64, allow_random_weights=True)
    assert score_sifid(pairs[:1], early)["sifd_inception-random"] == pytest.approx(0, abs=1e-6)


def test_inputs_are_resized_to_their_outputs_and_truths_are_not(make_folder):
    small, large = make_folder(2, size=(32, 32)), make_folder(2, size=(64, 64))
    assert score_content(pairs_by_name(small, large))["luminance_correlation"] > 0.99
    with pytest.raises(ValueError, match=r"000\.png must be of one size to be compared, not 32x32 and 64x64"):
        score_truth(pairs_by_name(small, large))


def test_inputs_are_resized_as_torchvision_does(make_folder):
    outputs, inputs = make_folder(1, size=(32, 32)), make_folder(1, size=(75, 50), seed=1)
    small, large = (pil_to_tensor(Image.open(folder / "000.png"))[None] for folder in (outputs, inputs))
    expected = change(*(x / 127.5 - 1 for x in (small, resize(large, [32, 32]))))
    assert score_content(pairs_by_name(outputs, inputs))["change"] == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_pairs_stand_upright_as_their_translations_do(orientation: int, suffix: str, make_folder, tmp_path):
    upright = make_folder(1, size=(48, 32))
    (tmp_path / "camera").mkdir()
    with Image.open(upright / "000.png") as image:
        turned = image.rotate({3: 180, 6: 90}[orientation], expand=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned.save(tmp_path / "camera" / f"000.{suffix}", exif=exif)
    pairs = pairs_by_name(upright, tmp_path / "camera")
    assert score_truth(pairs)["mae"] == 0 and score_content(pairs)["change"] == 0


def test_pairs_of_more_bits_keep_their_range(make_folder, tmp_path):
    grey = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    (tmp_path / "deep").mkdir()
    (tmp_path / "shallow").mkdir()
    Image.fromarray(grey).save(tmp_path / "deep" / "0.png")
    Image.fromarray(np.rint(grey / 257).astype(np.uint8)).save(tmp_path / "shallow" / "0.png")
    assert score_truth(pairs_by_name(tmp_path / "shallow", tmp_path / "deep"))["mae"] == 0


def test_pictures_too_small_for_a_score_count_for_the_others(make_folder):
    tiny, small = make_folder(2, size=(2, 2)), make_folder(2, size=(8, 8))
    assert set(score_content(pairs_by_name(tiny, tiny))) == {"change", "luminance_correlation"}
    assert set(score_truth(pairs_by_name(small, small))) == {"mae", "psnr"}
