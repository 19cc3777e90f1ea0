from pathlib import Path

import torch
from PIL import Image

from cyclegan.data.images import find_images
from cyclegan.evaluation.extractors import efficientnet_lite0
from cyclegan.evaluation.features import features_of_files
from cyclegan.evaluation.kernel import kid, kid_spread

EMOJI = Path(__file__).parents[2] / "datasets" / "flat2fluent3d"


def test_features_tell_two_styles_from_one():
    extractor = efficientnet_lite0()
    flat, shaded = (features_of_files(find_images(EMOJI / side)[:48], extractor) for side in ("testA", "testB"))
    assert flat.shape == (48, 1280)
    assert kid(flat, shaded) > 2 * kid_spread(flat, shaded)
    assert abs(kid(flat[::2], flat[1::2])) < 2 * kid_spread(flat[::2], flat[1::2])


def test_features_do_not_depend_on_the_batch_or_on_neighbours_of_other_sizes(tmp_path):
    for index, size in enumerate([(64, 64), (40, 80), (300, 260)]):
        Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50 + index).convert("RGB").save(tmp_path / f"{index}.png")
    extractor, files = efficientnet_lite0(), find_images(tmp_path)
    together, one_by_one = (features_of_files(files, extractor, batch_size=size) for size in (3, 1))
    assert torch.allclose(together, one_by_one, atol=1e-4)
