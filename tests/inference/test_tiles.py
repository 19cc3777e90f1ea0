from collections import Counter
from itertools import pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyclegan.data.images import ImageError, to_tensor
from cyclegan.inference.tiling import blended_tiles, scratch, stages
from cyclegan.inference.tiling.exact_tiles import exact
from cyclegan.inference.tiling.shared_norms import Moments, fixed_norm, with_statistics_of
from cyclegan.inference.tiling.tiles import Tiling, TilingError, to_pixels, translate_tiled
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks import build_generator, winograd
from cyclegan.networks.initialize import initialize
from cyclegan.networks.layers import ChannelMeans
from cyclegan.networks.winograd import use_winograd, winograd_conv2d

SMALL = {"name": "resnet", "width": 4, "blocks": 2}
NETWORKS = [
    SMALL,
    {**SMALL, "norm": "batch"},
    {**SMALL, "norm": "group", "width": 8},
    {**SMALL, "norm": "none", "padding": "replicate"},
    {**SMALL, "padding": "zero", "blocks": 0},
    {**SMALL, "downsample": "antialias", "upsample": "antialias"},
    {**SMALL, "upsample": "resize", "skip": True},
    {**SMALL, "downs": 3, "dropout": 0.5},
    {"name": "unet", "width": 2, "downs": 5},
    {"name": "unet", "width": 2, "downs": 5, "norm": "batch", "dropout": 0.5},
]


def generator_of(architecture):
    gain = 0.1 if architecture.get("norm") == "none" else 0.3  # nothing keeps activations small there
    generator = initialize(build_generator(architecture), gain=gain).eval().requires_grad_(False)
    for name, value in generator.named_buffers():
        if "running" in name:
            value.uniform_(0.5, 1.5)
    for parameter in generator.parameters():
        if parameter.ndim == 1:
            parameter.uniform_(-0.5, 1)
    return generator


def picture(height, width, channels=3):
    """Smooth, with a bright corner, so that tiles differ much from each other."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 0.5 + 0.4 * np.sin(x / 7) * np.cos(y / 5)
    planes = [waves, x / width * y / height, (x > width * 0.7) & (y < height * 0.3)]
    return np.stack(planes[:channels], axis=2).astype(np.float32)


def exactly(generator, pixels, tiling):
    """Without the rounding to 16 bits."""
    return translate_tiled(generator, pixels, tiling, out=np.empty(pixels.shape, np.float32))


def whole(generator, pixels):
    return (translate_tensor(generator, to_tensor(pixels)[None])[0].permute(1, 2, 0).numpy() + 1) / 2


@pytest.mark.parametrize("architecture", NETWORKS, ids=str)
def test_exact_tiles_equal_the_whole_picture(architecture):
    generator, pixels = generator_of(architecture), picture(70, 53)
    tiled = exactly(generator, pixels, Tiling(side=16))
    assert np.abs(tiled - whole(generator, pixels)).max() < 1e-5
    assert tiled.std() > 0.01


@pytest.mark.parametrize(("changes", "layers"), [({}, 2), ({"width": 64, "upsample": "resize", "padding": "zero"}, 3)])
def test_exact_tiles_multiply_less_where_the_whole_does(changes: dict, layers: int, monkeypatch):
    """With padding of their own, too."""
    generator, pixels, calls = generator_of({**SMALL, "width": 32, "blocks": 1, **changes}), picture(70, 53), []
    expected = whole(generator, pixels)
    assert use_winograd(generator, least_places=1) == layers
    monkeypatch.setattr(winograd, "winograd_conv2d", lambda *given: (calls.append(1), winograd_conv2d(*given))[1])
    assert np.abs(exactly(generator, pixels, Tiling(side=32)) - expected).max() < 1e-4
    assert len(calls) > layers * 4  # windows of each


@pytest.mark.parametrize("size", [(2, 3), (3, 90), (64, 64), (33, 8)])
@pytest.mark.parametrize("side", [4, 24, 1000])
def test_exact_tiles_of_any_side_fit_pictures_of_any_size(size, side):
    generator, pixels = generator_of(SMALL), picture(*size)
    tiled = exactly(generator, pixels, Tiling(side=side))
    assert np.abs(tiled - whole(generator, pixels)).max() < 1e-5


@pytest.mark.parametrize("side, tile", [(27, 24), (3, 4)])
def test_exact_tiles_have_the_side_asked_for_as_the_generator_takes_it(side, tile):
    whole = stages.Padded.picture(picture(48, 48), (48, 48), torch.device("cpu"))
    with torch.no_grad():
        boxes = [box for box, _ in exact(generator_of(SMALL), whole, side, None)]
    starts = range(0, 48, tile)
    assert boxes == [(top, top + tile, left, left + tile) for top in starts for left in starts]


def test_tiles_with_statistics_of_their_own_would_be_far_off():
    generator, pixels = generator_of(SMALL), picture(64, 64)
    alone = np.concatenate([whole(generator, part) for part in np.split(pixels, 2, axis=1)], axis=1)
    assert np.abs(alone - whole(generator, pixels)).mean() > 0.01


def test_eight_bits_in_give_eight_bits_out_into_the_array_that_was_given(tmp_path):
    generator, pixels = generator_of(SMALL), (picture(40, 60) * 255).astype(np.uint8)
    out = np.memmap(tmp_path / "out", np.uint8, "w+", shape=pixels.shape)
    assert translate_tiled(generator, pixels, Tiling(side=16), out=out) is out
    expected = np.rint(whole(generator, pixels) * 255)
    assert np.abs(out.astype(float) - expected).max() <= 1


def test_more_than_eight_bits_come_out_as_sixteen():
    generator, pixels = generator_of(SMALL), picture(40, 60)
    tiled = translate_tiled(generator, pixels, Tiling(side=16))
    assert tiled.dtype == np.uint16
    assert np.abs(tiled / 65535 - whole(generator, pixels)).max() < 2e-5


def test_fixed_statistics_of_the_same_picture_change_nothing():
    generator, images = generator_of(SMALL), to_tensor(picture(64, 64))[None]
    fixed = with_statistics_of(generator, images)
    assert torch.allclose(fixed(images), generator(images), atol=1e-5)
    corner = images[:, :, :32, :32]
    assert (fixed(corner) - generator(corner)).abs().mean() > 0.01


@pytest.mark.parametrize(
    "norm", [torch.nn.GroupNorm(2, 6), torch.nn.InstanceNorm2d(6), torch.nn.GroupNorm(3, 6)], ids=str
)
def test_statistics_of_all_tiles_are_those_of_the_whole(norm):
    x, moments = torch.randn(1, 6, 5, 8) * torch.arange(1.0, 7).view(6, 1, 1), Moments()
    if norm.affine:
        torch.nn.init.uniform_(norm.weight), torch.nn.init.uniform_(norm.bias)
    for part in (x[..., :3], x[..., 3:]):
        moments.add(part)
    assert torch.allclose(fixed_norm(norm, moments)(x), norm(x), atol=1e-5)


def test_what_looks_at_the_whole_keeps_what_it_saw_there():
    network, images = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), ChannelMeans()), to_tensor(picture(16, 16))[None]
    fixed, corner = with_statistics_of(network, images), images[:, :, :4, :4]
    assert torch.equal(fixed(corner), network(images)) and not torch.allclose(network(corner), network(images))


def test_thumbnail_tiles_have_no_seams():
    generator = generator_of({**SMALL, "blocks": 1})
    pixels = picture(192, 224)
    tiled = exactly(generator, pixels, Tiling("thumbnail", side=128, overlap=96, thumbnail=1024))
    difference = np.abs(tiled - whole(generator, pixels))  # the thumbnail is the picture: only cutting remains
    assert difference.max() < 1e-4


def test_a_small_thumbnail_stays_close():
    generator, pixels = generator_of({**SMALL, "blocks": 1}), picture(192, 224)
    tiled = exactly(generator, pixels, Tiling("thumbnail", side=96, overlap=64, thumbnail=112))
    alone = exactly(generator, pixels, Tiling("thumbnail", side=96, overlap=64, thumbnail=8))
    expected = whole(generator, pixels)
    assert np.abs(tiled - expected).mean() < np.abs(alone - expected).mean() / 2


@pytest.mark.parametrize(
    "side, overlap, bands",
    [(35, 11, [0, 24, 48, 80]), (32, 1000, [*range(0, 49, 4), 80]), (3, 0, [*range(0, 80, 8), 80]), (80, 8, [0, 80])],
)
def test_bands_are_as_high_as_a_tile_without_what_it_shares(side, overlap, bands):
    whole = stages.Padded.picture(picture(80, 40), (80, 40), torch.device("cpu"))
    with torch.no_grad():
        found = list(blended_tiles.blended(generator_of(SMALL), whole, side, overlap, 100))
    assert [box for box, _ in found] == [(top, bottom, 0, 40) for top, bottom in pairwise(bands)]
    assert all(values.shape == (1, 3, box.bottom - box.top, 40) for box, values in found)


@pytest.mark.parametrize("axis", [2, 3])
def test_tiles_fade_into_each_other_over_the_middle_half_of_what_they_share(axis):
    pieces = [((0, 8), torch.zeros(1, 1, 8, 8)), ((4, 12), torch.ones(1, 1, 8, 8))]
    spans, faded = zip(*blended_tiles._faded(pieces, axis), strict=True)
    line = torch.cat(faded, axis).select(5 - axis, 3).flatten()
    assert spans == ((0, 4), (4, 12))
    assert line.tolist() == [0, 0, 0, 0, 0, 0.25, 0.75, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "height, width, longest, factor, sides",
    [(40, 700, 100, 7, (8, 100)), (700, 41, 99, 8, (88, 8)), (8, 2100, 3, 700, (8, 8))],
)
def test_a_thumbnail_is_the_picture_averaged_in_squares_of_pixels(height, width, longest, factor, sides, monkeypatch):
    def noted(self, box, plain=stages.Pixels.window):
        read.append(max(box.bottom - box.top, box.right - box.left))
        return plain(self, box)

    read = []
    monkeypatch.setattr(stages.Pixels, "window", noted)
    pixels = picture(height, width)
    whole = stages.Padded.picture(pixels, pixels.shape[:2], torch.device("cpu"))
    found = blended_tiles._thumbnail(generator_of(SMALL), whole, longest)
    small = F.avg_pool2d(to_tensor(pixels)[None], factor, ceil_mode=True)
    rows, columns = (torch.arange(side).clamp(max=end - 1) for side, end in zip(sides, small.shape[2:], strict=True))
    assert torch.allclose(found, small[:, :, rows][..., columns], atol=1e-6)  # sides that the generator takes
    assert max(read) <= max(512, factor)


def test_scratch_files_are_gone_afterwards(tmp_path):
    translate_tiled(generator_of(SMALL), picture(40, 40), Tiling(side=16, scratch=tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_scratch_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(TilingError, match="nowhere"):
        translate_tiled(generator_of(SMALL), picture(40, 40), Tiling(side=16, scratch=tmp_path / "nowhere"))


def test_a_layer_that_exact_tiles_do_not_know_is_named():
    generator = generator_of(SMALL)
    generator.model[3] = torch.nn.PixelShuffle(1)
    with pytest.raises(TilingError, match="PixelShuffle"):
        translate_tiled(generator, picture(40, 40), Tiling(side=16))


def test_too_little_space_for_scratch_is_said_before_it_is_used_up(monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(TilingError, match=r"more are needed and 0\.0 MB are free"):
        translate_tiled(generator_of(SMALL), picture(40, 40), Tiling(side=16))


LAYERS = {
    "zero": (lambda x: stages.Padded(x, (1, 1), (0, 1), "zero"), lambda x: F.pad(x, (0, 1, 1, 1))),
    "reflect": (
        lambda x: stages.Padded(x, (2, 1), (1, 3), "reflect"),
        lambda x: F.pad(x, (1, 3, 2, 1), mode="reflect"),
    ),
    "replicate": (
        lambda x: stages.Padded(x, (2, 1), (1, 3), "replicate"),
        lambda x: F.pad(x, (1, 3, 2, 1), mode="replicate"),
    ),
    "stride": (
        lambda x: stages.Convolved(x, lambda values: F.conv2d(values, KERNELS, BIAS, 2), *KERNELS.shape[::2], 2),
        lambda x: F.conv2d(x, KERNELS, BIAS, 2),
    ),
    "groups": (
        lambda x: stages.Convolved(
            x, lambda values: F.conv2d(values, KERNELS[:, :1], groups=3), *KERNELS.shape[::2], 1
        ),
        lambda x: F.conv2d(x, KERNELS[:, :1], groups=3),
    ),
    "transposed": (
        lambda x: stages.Transposed(x, KERNELS, BIAS, 1, (8, 10)),
        lambda x: F.conv_transpose2d(x, KERNELS, BIAS, 2, 1, output_padding=1),
    ),
    "doubled": (stages.Doubled, lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    "stored": (lambda x: stages.Stored(x, None), lambda x: x),
}
KERNELS, BIAS = torch.linspace(-1, 2, 81).sin().view(3, 3, 3, 3), torch.tensor([0.1, -0.2, 0.3])


@pytest.mark.parametrize("layer", LAYERS)
def test_any_window_of_a_layer_is_cut_from_its_whole_result(layer):
    made, plainly = LAYERS[layer]
    pixels = picture(4, 5)
    stage, whole = made(stages.Pixels(pixels, 2, torch.device("cpu"))), plainly(to_tensor(pixels)[None])
    assert (1, stage.channels, stage.height, stage.width) == whole.shape
    for top, left in product(range(stage.height), range(stage.width)):
        for bottom, right in product(range(top + 1, stage.height + 1), range(left + 1, stage.width + 1)):
            window = stage.window(stages.Box(top, bottom, left, right))
            assert torch.allclose(window, whole[:, :, top:bottom, left:right], atol=1e-5)


def test_as_much_scratch_space_is_asked_for_as_is_written(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(stages, "check_space", lambda folder, size: asked.append((folder, size)))
    stored = stages.Stored(stages.Pixels(picture(9, 14), 4, torch.device("cpu")), tmp_path)
    assert asked == [(tmp_path, stored.file.seek(0, 2))] == [(tmp_path, 9 * 14 * 3 * 4)]


def test_no_window_grows_with_the_picture(monkeypatch):
    largest = []
    for stage in (stages.Pixels, stages.Convolved, stages.Transposed, stages.Stored):

        def watched(self, box, plain=stage.window):
            values = plain(self, box)
            largest[-1] = max(largest[-1], values.numel())
            return values

        monkeypatch.setattr(stage, "window", watched)
    for side in (64, 128):
        largest.append(0)
        translate_tiled(generator_of(SMALL), picture(side, side), Tiling(side=16))
    assert 0 < largest[0] == largest[1] < 64 * 64 * 4


@pytest.mark.parametrize(
    "architecture, channels, layers", [(SMALL, 16, 4), ({"name": "unet", "width": 2, "downs": 5}, None, 10)]
)
def test_layers_that_take_nearly_all_the_time_are_computed_once(architecture, channels, layers, monkeypatch):
    """The blocks of a ResNet, all of a U-Net."""
    computed = Counter()
    for stage in (stages.Convolved, stages.Transposed):

        def watched(self, box, plain=stage.window):
            values = plain(self, box)
            computed[self] += values.numel()
            return values

        monkeypatch.setattr(stage, "window", watched)
    translate_tiled(generator_of(architecture), picture(64, 96), Tiling(side=32))
    shares = [
        count / (stage.channels * stage.height * stage.width)
        for stage, count in computed.items()
        if channels is None or stage.channels == stage.source.channels == channels
    ]
    assert shares == [1] * layers


@pytest.mark.parametrize("mode", ["exact", "thumbnail"])
def test_a_network_that_looks_at_the_whole_picture_is_refused(mode):
    generator = build_generator({"name": "ugatit", "width": 4, "blocks": 1}).eval()
    with pytest.raises(TilingError, match="ugatit looks at all of a picture at once"):
        translate_tiled(generator, np.zeros((64, 64, 3), np.uint8), Tiling(mode, 100, 32, 8))


@pytest.mark.parametrize("mode", ["exact", "thumbnail"])
def test_weights_that_want_gradients_give_the_same_pixels(mode):
    generator, pixels, tiling = generator_of(SMALL), picture(32, 40), Tiling(mode, side=24, overlap=8, thumbnail=32)
    expected = translate_tiled(generator, pixels, tiling)
    assert np.array_equal(translate_tiled(generator.requires_grad_(), pixels, tiling), expected)


@pytest.mark.parametrize("dtype, white", [(np.uint8, 255), (np.float32, 65535)])
def test_values_beyond_black_and_white_become_these(dtype, white):
    generator = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))
    generator.multiple = generator.smallest = 1
    generator.load_state_dict({"0.weight": torch.zeros(2, 3, 1, 1), "0.bias": torch.tensor([-3.0, 3.0])})
    made = translate_tiled(generator, np.zeros((20, 24, 3), dtype), Tiling(side=16))
    assert made.shape == (20, 24, 2) and (made == [0, white]).all()


def test_pictures_are_cut_that_have_more_pixels_than_the_limit():
    assert [Tiling(above=100).applies_to(10, width) for width in (10, 11)] == [False, True]
    assert [Tiling().applies_to(2048, width) for width in (2048, 2049)] == [False, True]
    assert not Tiling("never", above=100).applies_to(100, 100)


@pytest.mark.parametrize(
    "dtype, white, error", [(np.uint8, 255, 0.51), (np.uint16, 65535, 0.51), (np.float32, 1, 1e-6)]
)
def test_pixels_go_from_black_to_white_in_any_type(dtype, white, error):
    image = torch.tensor([[[-1.0, -0.6]], [[0.2, 0.3]], [[0.8, 1.0]]])  # three channels of 1 x 2 pixels
    pixels = to_pixels(image, dtype)
    assert pixels.dtype == dtype and pixels.shape == (1, 2, 3) and pixels.flags.c_contiguous
    assert pixels == pytest.approx(white * np.array([[[0, 0.6, 0.9], [0.2, 0.65, 1]]]), abs=error)
    image[1, 0, 1] = torch.nan
    with pytest.raises(ImageError, match="gives NaN"):
        to_pixels(image, dtype)
