"""The reference's networks, written down a second time and apart from ours, in its order of layers."""

import pytest
import torch
from torch import nn

INSTANCE, BATCH = nn.InstanceNorm2d, nn.BatchNorm2d


class Blur(nn.Module):
    """CUT's Downsample (down) and Upsample: pad by one pixel, blur, keep every other one or put zeros between."""

    def __init__(self, channels, down):
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0] if down else [1.0, 3.0, 3.0, 1.0])
        kernel = line[:, None] * line[None, :]
        self.down = down
        self.register_buffer("filt", (kernel / kernel.sum() * (1 if down else 4))[None, None].repeat(channels, 1, 1, 1))

    def forward(self, x):
        groups = x.shape[1]
        if self.down:
            return nn.functional.conv2d(nn.ReflectionPad2d(1)(x), self.filt, stride=2, groups=groups)
        x = nn.functional.conv_transpose2d(nn.ReplicationPad2d(1)(x), self.filt, stride=2, padding=2, groups=groups)
        return x[:, :, 1:, 1:][:, :, :-1, :-1]


class Block(nn.Module):
    def __init__(self, channels, norm, dropout):
        super().__init__()
        bias = norm is INSTANCE
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels), nn.ReLU(True)]
        layers += [nn.Dropout(0.5)] if dropout else []
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), norm(channels)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class Reference(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def resnet_like_reference(inputs=3, outputs=3, ngf=4, blocks=2, norm=INSTANCE, dropout=False, blur=False):
    bias = norm is INSTANCE
    model = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, ngf, 7, bias=bias), norm(ngf), nn.ReLU(True)]
    for c in (ngf, ngf * 2):
        model += [nn.Conv2d(c, c * 2, 3, stride=1 if blur else 2, padding=1, bias=bias), norm(c * 2), nn.ReLU(True)]
        model += [Blur(c * 2, down=True)] if blur else []
    model += [Block(ngf * 4, norm, dropout) for _ in range(blocks)]
    for c in (ngf * 4, ngf * 2):
        if blur:
            model += [Blur(c, down=False), nn.Conv2d(c, c // 2, 3, padding=1, bias=bias)]
        else:
            model += [nn.ConvTranspose2d(c, c // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)]
        model += [norm(c // 2), nn.ReLU(True)]
    model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, outputs, 7), nn.Tanh()]
    return Reference(nn.Sequential(*model))


class Level(nn.Module):
    """UnetSkipConnectionBlock; the in-place activation at its head also changes what the shortcut carries."""

    def __init__(self, outer, inner, inputs=None, inside=None, place="middle", norm=INSTANCE, dropout=False):
        super().__init__()
        bias = norm is INSTANCE
        down = nn.Conv2d(inputs or outer, inner, 4, 2, 1, bias=bias)
        self.place = place
        if place == "outermost":
            up = nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1)
            model = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        elif place == "innermost":
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            model = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm(outer)]
        else:
            up = nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1, bias=bias)
            model = [nn.LeakyReLU(0.2, True), down, norm(inner), inside, nn.ReLU(True), up, norm(outer)]
            model += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*model)

    def forward(self, x):
        return self.model(x) if self.place == "outermost" else torch.cat([x, self.model(x)], 1)


def unet_like_reference(inputs=3, outputs=3, downs=7, ngf=2, norm=INSTANCE):
    level = Level(ngf * 8, ngf * 8, place="innermost", norm=norm)
    for _ in range(downs - 5):
        level = Level(ngf * 8, ngf * 8, inside=level, norm=norm, dropout=True)
    for outer, inner in ((4, 8), (2, 4), (1, 2)):
        level = Level(ngf * outer, ngf * inner, inside=level, norm=norm)
    return Reference(Level(outputs, ngf, inputs=inputs, inside=level, place="outermost", norm=norm))


def critic_like_reference(inputs=3, ndf=4, layers=3, norm=INSTANCE):
    model, c = [nn.Conv2d(inputs, ndf, 4, 2, 1), nn.LeakyReLU(0.2, True)], ndf
    for n in range(1, layers + 1):
        wider = ndf * min(2**n, 8)
        conv = nn.Conv2d(c, wider, 4, 2 if n < layers else 1, 1, bias=norm is INSTANCE)
        model, c = [*model, conv, norm(wider), nn.LeakyReLU(0.2, True)], wider
    return Reference(nn.Sequential(*model, nn.Conv2d(c, 1, 4, 1, 1)))


def with_life(network, seed=0):
    """Weights and statistics that are not all alike, so that a mix-up shows."""
    generator = torch.Generator().manual_seed(seed)
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim != 4:
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.ndim == 4 and value.shape[1] > 1:
            value.copy_(torch.randn(value.shape, generator=generator) / (value[0].numel() ** 0.5))
    return network.eval().requires_grad_(False)


@pytest.fixture
def reference():
    """Makers of the reference's networks by name."""
    return {
        "resnet": lambda **options: with_life(resnet_like_reference(**options)),
        "unet": lambda **options: with_life(unet_like_reference(**options)),
        "critic": lambda **options: with_life(critic_like_reference(**options)),
        "batch": BATCH,
    }


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)
