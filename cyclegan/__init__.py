"""Unpaired image-to-image translation: the CycleGAN family and the style transfer around it.

    from cyclegan import evaluate, load_config, load_generator, train, translate

Each works in a notebook on a CPU, without Accelerate having been launched. Names are imported when they are first used:
`cyclegan --help` should not wait for torch.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "load_config": "cyclegan.config",
    "train": "cyclegan.training.loop",
    "load_generator": "cyclegan.inference.checkpoints.generator_file",
    "translate": "cyclegan.inference.files",
    "evaluate": "cyclegan.evaluation.evaluator",
    "stylize": "cyclegan.neural_style",
    "take_style": "cyclegan.inference.styling",
}
__all__ = ["evaluate", "load_config", "load_generator", "stylize", "take_style", "train", "translate"]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'cyclegan' has no attribute {name!r}")
    return vars(importlib.import_module(_HOMES[name]))[name]
