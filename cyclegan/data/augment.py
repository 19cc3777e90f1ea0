"""Augmentations of training pictures, by albumentations. Only who wants some imports this: it takes half a second."""

from __future__ import annotations

import copy
import difflib
import inspect
import random
import warnings
from typing import Any

import albumentations
import numpy as np

from cyclegan.config import ConfigError
from cyclegan.data.images import ImageError

DRAWS = 16  # by which an augmentation is tried


class Augmentations:
    """What a list in the options says. Plain data only, so that loader workers can be spawned.

    Args:
        where: the list's key, for what is said of mistakes
        listed: names of albumentations and what each is given
        shape: (height, width, channels) of a crop; None where sizes differ, then nothing is tried

    Raises ConfigError naming the entry for one that is not known, does not fit, or fails on a crop.
    """

    def __init__(self, where: str, listed: list[dict[str, Any]], shape: tuple[int, int, int] | None):
        self.where = where
        self.compose = albumentations.Compose([_new(f"{where}[{i}]", options) for i, options in enumerate(listed)])
        if shape:
            self._try(shape)

    def __call__(self, layers: dict[str, np.ndarray], seed: int, draw: random.Random) -> dict[str, np.ndarray]:
        """A picture ("image"), and its mask if it has one, augmented alike."""
        # One source of chance for all: with a seed, albumentations lets each draw the same numbers, so that they go
        # together.
        self.compose.set_random_state(np.random.default_rng(seed), draw)
        try:
            return self.compose(**layers)
        except Exception as error:  # whatever it may raise where sizes differ, and so nothing could be tried before
            height, width = layers["image"].shape[:2]
            raise ImageError(f"cannot use a picture of {width}x{height}: {self.where}: {_words(error)}") from error

    def check_keeps_places(self) -> None:
        """Raises ConfigError if one moves pixels, for pairs whose other side is not moved with them."""
        for i, transform in enumerate(self.compose.transforms):
            if isinstance(transform, albumentations.DualTransform):
                raise ConfigError(
                    f"{self.where}[{i}]: {type(transform).__name__} moves pixels, so with paired pictures "
                    "data.A.augment and data.B.augment must be the same list"
                )

    def _try(self, shape: tuple[int, int, int]) -> None:
        """Raises ConfigError for one that fails on a crop, or makes of it what no network takes, for some draws."""
        for i, one in enumerate(copy.deepcopy(self.compose).transforms):
            name, one.p = type(one).__name__, 1.0
            for seed in range(DRAWS):
                one.set_random_seed(seed)
                try:
                    result = one(image=np.full(shape, 127, np.uint8))["image"]
                except Exception as error:  # whatever it may raise; of a picture, amid a run, it would say less
                    raise ConfigError(
                        f"{self.where}[{i}]: {name} fails on a crop of {shape[1]}x{shape[0]}: {_words(error)}"
                    ) from None
                if result.shape != shape or result.dtype != np.uint8:
                    raise ConfigError(
                        f"{self.where}[{i}]: {name} makes {result.dtype} of {result.shape} from a crop, uint8 of "
                        f"{shape}: sizes are data.crop_size's to say, and values are brought to [-1, 1] later"
                    )


def _new(where: str, options: dict[str, Any]) -> albumentations.BasicTransform:
    options = dict(options)
    name = str(options.pop("name", None))
    known = {
        key: value
        for key, value in vars(albumentations).items()
        if isinstance(value, type) and issubclass(value, albumentations.BasicTransform)
    }
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"{where}.name: no albumentation {name!r}{hint}")
    return _construct(where, known[name], options)


def _construct(where: str, transform: type, options: dict[str, Any]) -> albumentations.BasicTransform:
    unknown = set(options) - set(inspect.signature(transform).parameters)
    if unknown:
        choices = ", ".join(inspect.signature(transform).parameters)
        raise ConfigError(f"{where}: {transform.__name__} has no {', '.join(sorted(unknown))}; choices: {choices}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return transform(**options)
    except (ValueError, TypeError, UserWarning) as error:
        raise ConfigError(f"{where}: {transform.__name__}: {_words(error)}") from None


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
