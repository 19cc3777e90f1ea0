"""The Inception-v3 of the FID, from torchvision's blocks, and torchvision's own for weights trained there.

The network of TensorFlow's file of 2015-12-05 differs from torchvision's in its pools only, but on the same weights
that moves the 2048 features by half their size: averages leave the padding out, and the last block takes a maximum
("likely an error", says pytorch-fid, kept since every published FID has it).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.networks.pretrained import WeightsError, WeightsFile, new_of_torchvision

LAYERS = (64, 192, 768, 2048)
FID_WEIGHTS = WeightsFile(
    names=("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    variable="CYCLEGAN_INCEPTION_WEIGHTS",
)
FID_CLASSES = 1008
# Pictures together on a CPU, and in the first two stages: more leave its cache (the first maps are the largest), fewer
# waste time on the weights.
AT_ONCE, AT_FIRST = 32, 4


class Inception(nn.Module):
    """(n, 3, 299, 299) in [-1, 1] to (n, layer) features: the maps after that layer, averaged.

    `state` has torchvision's names; it alone says which of the two networks it belongs to. `layer` is the number of
    channels: 64 and 192 after the first and second maximum pool, 768 after Mixed_6e, 2048 after Mixed_7c.
    """

    def __init__(self, state: dict[str, Tensor], layer: int = 2048):
        super().__init__()
        if layer not in LAYERS:
            raise EvaluationError(f"layer {layer} is not one of {LAYERS}")
        self.stages = nn.Sequential(*_stages(_loaded(state))[: LAYERS.index(layer) + 1])

    def maps(self, x: Tensor) -> Tensor:
        """(n, 3, 299, 299) in [-1, 1] to the (n, layer, h, w) maps themselves."""
        if x.device.type != "cpu":
            return self.stages(x)
        parts = x.chunk(-(-len(x) // AT_ONCE))
        return torch.cat([self.stages[2:](self._first_stages(part)) for part in parts])

    def _first_stages(self, x: Tensor) -> Tensor:
        return torch.cat([self.stages[:2](part) for part in x.split(AT_FIRST)])

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).mean((2, 3))


def read_state(path: Path | str) -> dict[str, Tensor]:
    """An Inception's tensors by torchvision's names, from a file of tensors; raises WeightsError naming the file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise WeightsError(f"{path} is no file of weights that torch.load(weights_only=True) reads") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict of Inception-v3")
    state = {key.removeprefix("module."): value for key, value in state.items()}
    if "fc.weight" not in state or "Conv2d_1a_3x3.conv.weight" not in state:
        raise WeightsError(f"{path} is not an Inception-v3: it lacks Conv2d_1a_3x3.conv.weight or fc.weight")
    return state


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights of the FID's network drawn at random, for tests that must run where the real ones are not."""
    trunk = _new_trunk(FID_CLASSES)
    generator = torch.Generator().manual_seed(seed)
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    return trunk.state_dict()


def is_fid_network(state: dict[str, Tensor]) -> bool:
    return len(state["fc.weight"]) == FID_CLASSES and not any(key.startswith("AuxLogits.") for key in state)


def _new_trunk(classes: int) -> nn.Module:
    return new_of_torchvision("inception_v3", num_classes=classes, aux_logits=False, init_weights=False)


def _loaded(state: dict[str, Tensor]) -> nn.Module:
    trunk = _new_trunk(len(state["fc.weight"]))
    trunk_state = {key: value for key, value in state.items() if not key.startswith("AuxLogits.")}
    try:
        trunk.load_state_dict(trunk_state)
    except RuntimeError as error:
        raise WeightsError(f"these are not Inception-v3's weights: {str(error).splitlines()[1].strip()}") from error
    _fuse_norms(trunk.eval())
    if is_fid_network(state):
        _take_fid_pools(trunk)
    return trunk


def _fuse_norms(trunk: nn.Module) -> None:
    for unit in trunk.modules():
        if hasattr(unit, "bn"):
            unit.conv, unit.bn = fuse_conv_bn_eval(unit.conv, unit.bn), nn.Identity()


def _take_fid_pools(trunk: nn.Module) -> None:
    averaging = (trunk.Mixed_5b, trunk.Mixed_5c, trunk.Mixed_5d, trunk.Mixed_6b, trunk.Mixed_6c, trunk.Mixed_6d)
    for block in (*averaging, trunk.Mixed_6e, trunk.Mixed_7b):
        block.branch_pool = _AfterUnpaddedMean(block.branch_pool.conv)
    trunk.Mixed_7c = _LastBlock(trunk.Mixed_7c)


class _AfterUnpaddedMean(nn.Module):
    """The 1x1 convolution after a block's average pool, with the padding's zeros taken out of the averages."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        inside = F.avg_pool2d(torch.ones_like(x[:1, :1]), 3, stride=1, padding=1)  # share of each window, (1, 1, h, w)
        # Divided behind the 1x1 convolution, where there are a quarter of the channels; its norm is folded into it.
        return F.conv2d(x, self.conv.weight).div_(inside).add_(self.conv.bias[:, None, None]).relu_()


class _LastBlock(nn.Module):
    """A block whose pool takes the maximum."""

    def __init__(self, block: nn.Module):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        *branches, _ = self.block._forward(x)
        return torch.cat([*branches, self.block.branch_pool(F.max_pool2d(x, 3, stride=1, padding=1))], 1)


def _stages(trunk: nn.Module) -> list[nn.Sequential]:
    """The trunk in four, one for each of LAYERS."""
    first = (trunk.Conv2d_1a_3x3, trunk.Conv2d_2a_3x3, trunk.Conv2d_2b_3x3, trunk.maxpool1)
    second = (trunk.Conv2d_3b_1x1, trunk.Conv2d_4a_3x3, trunk.maxpool2)
    fives = (trunk.Mixed_5b, trunk.Mixed_5c, trunk.Mixed_5d)
    sixes = (trunk.Mixed_6a, trunk.Mixed_6b, trunk.Mixed_6c, trunk.Mixed_6d, trunk.Mixed_6e)
    last = (trunk.Mixed_7a, trunk.Mixed_7b, trunk.Mixed_7c)
    return [nn.Sequential(*stage) for stage in (first, second, fives + sixes, last)]
