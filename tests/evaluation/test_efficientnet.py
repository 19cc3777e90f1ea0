from pathlib import Path

import torch
from PIL import Image

from cyclegan.data.images import find_images
from cyclegan.evaluation.extractors import efficientnet_lite0
from cyclegan.evaluation.features import Pictures, collect, features_of_files, read_rgb
from cyclegan.evaluation.kernel import kid, kid_draws

EMOJI = Path(__file__).parents[2] / "datasets" / "flat2fluent3d"


def test_features_see_noise_that_no_distribution_of_emoji_explains():
    extractor = efficientnet_lite0()
    files = find_images(EMOJI / "testB")[:32]

    def noisy(path):
        picture = read_rgb(path)
        noise = torch.randint(-40, 41, picture.shape, generator=torch.Generator().manual_seed(0))
        return (picture + noise).clamp(0, 255).to(torch.uint8)

    one_half = features_of_files(files[::2], extractor)
    other_half = features_of_files(files[1::2], extractor)
    damaged = collect(Pictures(files[1::2], read=noisy), extractor).features
    assert one_half.shape == (16, 1280)
    assert kid(one_half, damaged) - kid(one_half, other_half) > 3 * kid_draws(one_half, other_half).std()


def test_features_do_not_depend_on_the_batch_or_on_neighbours_of_other_sizes(tmp_path):
    for index, size in enumerate([(64, 64), (40, 80), (300, 260)]):
        Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50 + index).convert("RGB").save(tmp_path / f"{index}.png")
    extractor, files = efficientnet_lite0(), find_images(tmp_path)
    together, one_by_one = (features_of_files(files, extractor, batch_size=size) for size in (3, 1))
    assert torch.allclose(together, one_by_one, atol=1e-4)
