"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from cyclegan.config import ConfigError, Optimizer


def new_optimizer(section: Optimizer, group: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The configured optimizer for one of an algorithm's groups of networks ("generators", "discriminators", ...)."""
    changes = section.groups.get(group)
    changes = changes.model_dump(exclude_none=True) if changes else {}
    section = section.model_copy(update=changes)
    options = {"lr": section.lr, "weight_decay": section.weight_decay}
    if section.name in ("adam", "adamw"):
        kind = torch.optim.Adam if section.name == "adam" else torch.optim.AdamW
        parameters = list(parameters)
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)  # one pass over the weights
        return kind(parameters, betas=section.betas, fused=fused or None, **options)
    kind = torch.optim.SGD if section.name == "sgd" else torch.optim.RMSprop
    return kind(parameters, momentum=section.momentum, **options)


def check_groups(section: Optimizer, groups: Iterable[str]) -> None:
    """Raises ConfigError if optimizer.groups names an optimizer that the algorithm does not have."""
    unknown = set(section.groups) - set(groups)
    if unknown:
        raise ConfigError(f"optimizer.groups: no {', '.join(sorted(unknown))}; choices: {', '.join(groups)}")
