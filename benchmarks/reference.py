"""CycleGAN as everybody writes it, to measure against: float32, networks called one by one, losses read each step.

The published algorithm and settings (Zhu et al. 2017), written down from the paper's tables with nothing of the suite.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def generator(width: int = 64, blocks: int = 9) -> nn.Sequential:
    def unit(source: int, target: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(source, target, kernel, stride, 0 if kernel == 7 else 1)
        return [conv, nn.InstanceNorm2d(target), nn.ReLU(True)]

    layers = [nn.ReflectionPad2d(3), *unit(3, width, 7)]
    layers += [*unit(width, 2 * width, 3, 2), *unit(2 * width, 4 * width, 3, 2)]
    layers += [Block(4 * width) for _ in range(blocks)]
    for channels in (4 * width, 2 * width):
        up = nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, 1)
        layers += [up, nn.InstanceNorm2d(channels // 2), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


class Block(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.body = nn.Sequential(*half, nn.ReLU(True), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def discriminator(width: int = 64) -> nn.Sequential:
    layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for source, target, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
        conv = nn.Conv2d(source * width, target * width, 4, stride, 1)
        layers += [conv, nn.InstanceNorm2d(target * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class Pool:
    def __init__(self, size: int = 50):
        self.size, self.images = size, []

    def query(self, images: Tensor) -> Tensor:
        chosen = []
        for image in images.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(image)
                chosen.append(image)
            elif random.random() > 0.5:
                place = random.randrange(self.size)
                chosen.append(self.images[place].clone())
                self.images[place] = image
            else:
                chosen.append(image)
        return torch.cat(chosen)


class CycleGAN:
    """Both generators in one Adam, both discriminators in another; `step` returns the losses as numbers."""

    def __init__(self, device: torch.device, width: int = 64, blocks: int = 9):
        self.G_AB, self.G_BA = (generator(width, blocks).to(device) for _ in range(2))
        self.D_A, self.D_B = (discriminator(width).to(device) for _ in range(2))
        for network in (self.G_AB, self.G_BA, self.D_A, self.D_B):
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(module.weight, 0, 0.02)
                    nn.init.zeros_(module.bias)
        self.pool_a, self.pool_b = Pool(), Pool()
        self.generators = torch.optim.Adam([*self.G_AB.parameters(), *self.G_BA.parameters()], 2e-4, (0.5, 0.999))
        self.critics = torch.optim.Adam([*self.D_A.parameters(), *self.D_B.parameters()], 2e-4, (0.5, 0.999))
        self.l1, self.l2 = nn.L1Loss(), nn.MSELoss()

    def step(self, a: Tensor, b: Tensor) -> dict[str, float]:
        fake_b, fake_a = self.G_AB(a), self.G_BA(b)
        rec_a, rec_b = self.G_BA(fake_b), self.G_AB(fake_a)
        self._freeze(True)
        self.generators.zero_grad()
        losses = {
            "identity": 5 * (self.l1(self.G_AB(b), b) + self.l1(self.G_BA(a), a)),
            "adversarial": self._is(self.D_B(fake_b), 1.0) + self._is(self.D_A(fake_a), 1.0),
            "cycle": 10 * (self.l1(rec_a, a) + self.l1(rec_b, b)),
        }
        sum(losses.values()).backward()
        self.generators.step()
        self._freeze(False)
        self.critics.zero_grad()
        for name, critic, real, fake in (
            ("A", self.D_A, a, self.pool_a.query(fake_a)),
            ("B", self.D_B, b, self.pool_b.query(fake_b)),
        ):
            losses[name] = 0.5 * (self._is(critic(real), 1.0) + self._is(critic(fake), 0.0))
            losses[name].backward()
        self.critics.step()
        return {name: loss.item() for name, loss in losses.items()}

    def _is(self, score: Tensor, label: float) -> Tensor:
        return self.l2(score, score.new_tensor(label).expand_as(score))

    def _freeze(self, frozen: bool) -> None:
        for critic in (self.D_A, self.D_B):
            critic.requires_grad_(not frozen)


class Pictures(Dataset):
    """Pillow from file to tensor: bicubic to 286, a random crop of 256, a flip half of the time."""

    def __init__(self, root: Path, load_size: int = 286, crop_size: int = 256):
        self.sizes = load_size, crop_size
        self.a, self.b = (sorted((root / f"train{domain}").iterdir()) for domain in "AB")

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"A": self._read(self.a[index % len(self.a)]), "B": self._read(random.choice(self.b))}

    def _read(self, path: Path) -> Tensor:
        load, crop = self.sizes
        picture = Image.open(path).convert("RGB").resize((load, load), Image.Resampling.BICUBIC)
        left, top = random.randint(0, load - crop), random.randint(0, load - crop)
        picture = picture.crop((left, top, left + crop, top + crop))
        if random.random() > 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)


def loader(root: Path, batch: int, workers: int, load_size: int = 286, crop_size: int = 256) -> DataLoader:
    return DataLoader(Pictures(root, load_size, crop_size), batch, shuffle=True, num_workers=workers, drop_last=True)
