"""The contract of an algorithm, and finding one by name. To add one: one file here with one class, one YAML.

A file whose name begins with _ is no algorithm: several share it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from cyclegan.config import Config, ConfigError, build, complete
from cyclegan.data.images import ImageError, upright_size
from cyclegan.losses import MIDDLE, Adversarial, Scores, critic_loss
from cyclegan.networks import DISCRIMINATORS, GENERATORS, build_generator
from cyclegan.networks.diffaugment import DiffAugment, adaptive, attach
from cyclegan.networks.initialize import initialize

Terms = dict[str, Tensor]
Parts = Sequence[Callable[[], Terms]]
GIVEN = ("in_channels", "out_channels")  # follow from the data, not from options


class Algorithm(nn.Module):
    """Networks, who trains them, and their losses."""

    takes_masks = False  # whether losses() heeds "A_mask" and "B_mask"

    @abstractmethod
    def trained(self) -> dict[str, list[nn.Module]]:
        """The networks that each optimizer updates."""

    @abstractmethod
    def generators(self) -> dict[str, nn.Module]:
        """What to show, score and export, by direction ("AtoB", "BtoA")."""

    @abstractmethod
    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms | Parts]]:
        """Yield (optimizer, terms) in update order; the terms add up to its loss.

        The loop updates that optimizer's networks before it asks for the next pair. Translations go into the batch, as
        "fake_B" of A and "fake_A" of B, before the pair whose optimizer trains their generator: there the loop adds the
        terms that any algorithm may have (the `terms` section).

        Terms that share no graph may come in parts, a function for each: the loop calls the next when it has the
        gradients of the one before and has let go of its graph, so that memory is that of one part, and updates after
        the last. Each part must train all parameters of the optimizer, as processes exchange gradients when they have
        them all; and it puts those translations into the batch that are of its graph.
        """


def parts_of(terms: Terms | Parts) -> Parts:
    """What an algorithm yields, as parts."""
    return [lambda: terms] if isinstance(terms, dict) else terms


def algorithms() -> dict[str, type[Algorithm]]:
    """Every algorithm by the name of its file."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return {name: _load(name) for name in names if not name.startswith("_")}


def build_algorithm(config: Config) -> Algorithm:
    """The algorithm of a run with fresh networks. Raises ConfigError for options that it does not know."""
    algorithm = build("algorithm", algorithms(), config.algorithm, config)
    for domain in ("A", "B"):
        section = getattr(config.data, domain)
        if not (section.mask or section.test_mask):
            continue
        option = f"data.{domain}.{'mask' if section.mask else 'test_mask'}"
        if not algorithm.takes_masks:
            able = ", ".join(name for name, kind in algorithms().items() if kind.takes_masks)
            raise ConfigError(f"{option}: {config.algorithm['name']} takes no masks; {able} would")
        if config.data.A.channels != config.data.B.channels:
            raise ConfigError(f"{option}: A and B must have as many channels, for what is kept as it is")
    return algorithm


def complete_config(config: Config) -> Config:
    """The same run with every option of its algorithm and networks written out, checked."""
    _, algorithm = complete("algorithm", algorithms(), config.algorithm, given=["config"])
    _, generator = complete("generator", GENERATORS, config.generator, given=GIVEN)
    _, discriminator = complete("discriminator", DISCRIMINATORS, config.discriminator, given=GIVEN)
    full = {"algorithm": algorithm, "generator": generator, "discriminator": discriminator}
    return config.model_copy(update={key: {"name": vars(config)[key]["name"], **full[key]} for key in full})


def new_generator(config: Config, source: str, target: str) -> nn.Module:
    """A fresh generator from domain `source` to domain `target` ("A" or "B")."""
    channels = {"A": config.data.A.channels, "B": config.data.B.channels}
    given = {"in_channels": channels[source], "out_channels": channels[target]}
    _, options = complete("generator", GENERATORS, config.generator, given=given)
    try:
        generator = build_generator({"name": config.generator["name"], **given, **options})
    except ValueError as error:
        raise ConfigError(f"generator: {error}") from None
    if (sides := _crop(config)) and min(sides) < generator.smallest:
        raise ConfigError(
            f"data.crop_size: {sides[0]}x{sides[1]} is too small for the {config.generator['name']} generator, which "
            f"takes {generator.smallest} pixels a side or more"
        )
    initialize(generator, config.init.name, config.init.gain)
    if options.get("skip"):
        generator.start_as_identity()
    return generator


def own_generator(config: Config, name: str) -> nn.Module:
    """From A to B, for an algorithm that goes with this one only. Raises ConfigError where another is configured."""
    if config.generator["name"] != name:
        raise ConfigError(f"generator.name: {name} needs its own, {name}; found {config.generator['name']}")
    return new_generator(config, "A", "B")


def new_discriminator(config: Config, channels: int) -> nn.Module:
    """A fresh discriminator for pictures (or stacks of pictures) with so many channels."""
    discriminator = build("discriminator", DISCRIMINATORS, config.discriminator, in_channels=channels)
    if (sides := _crop(config)) and _too_small(discriminator, (config.training.batch_size, channels, *sides)):
        raise ConfigError(
            f"data.crop_size: {sides[0]}x{sides[1]} is too small for the {config.discriminator['name']} discriminator; "
            f"take larger crops or change discriminator.{discriminator.depth}"
        )
    initialize(discriminator, config.init.name, config.init.gain)
    if config.diffaugment.policy:
        attach(discriminator, DiffAugment(**config.diffaugment.model_dump()))
    return discriminator


def _crop(config: Config) -> tuple[int, int] | None:
    """(height, width) of what the networks get, None where sides are those of the pictures."""
    crop = config.data.crop_size
    return None if "crop" not in config.data.resize else (crop, crop) if isinstance(crop, int) else crop


def _too_small(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether pictures of this shape are too small for the network's layers: tried without computing."""
    tensors = {name: value.to("meta") for name, value in chain(network.named_parameters(), network.named_buffers())}
    try:
        with torch.no_grad():
            torch.func.functional_call(network, tensors, torch.empty(shape, device="meta"))
    except (RuntimeError, ValueError):  # of a convolution or padding; of a norm with one value to norm
        return True
    return False


def check_pictures(config: Config, algorithm: Algorithm, files: Iterable[Path]) -> None:
    """Raise ConfigError for a training picture that, with the sides it has, is too small for the networks."""
    if config.data.resize != "none":
        return
    generators = algorithm.generators().values()
    multiple, least = (max(getattr(g, name) for g in generators) for name in ("multiple", "smallest"))
    if any(isinstance(network, tuple(DISCRIMINATORS.values())) for network in algorithm.children()):
        with torch.random.fork_rng(devices=[]):
            critic = build("discriminator", DISCRIMINATORS, config.discriminator, in_channels=3)
        while _too_small(critic, (config.training.batch_size, 3, least, least)):
            least += multiple
    for path in files:
        try:
            width, height = upright_size(path)
        except ImageError:  # data.corrupt says what becomes of it
            continue
        width //= 2 if config.data.side_by_side else 1
        if round(min(height, width) / multiple) * multiple < least:  # see Transform
            raise ConfigError(
                f"data.resize: none, but {path} is {width}x{height} and these networks take {least} pixels a side or "
                "more; take it out of the folder, or use a resize that ends in a crop"
            )


def judge(critic: nn.Module, real: Tensor, fake: Tensor, kind: Adversarial = "lsgan") -> Tensor:
    """`critic_loss` of a discriminator on pictures; an adaptive augmentation hears how the real ones were judged."""
    scores, fake_scores = together(critic, real, fake)
    if augmentation := adaptive(critic):
        if kind not in MIDDLE:
            raise ConfigError(f"diffaugment.target: {kind}'s scores have no middle; use a fixed p (target: null)")
        augmentation.hear(scores, MIDDLE[kind])
    return critic_loss(scores, fake_scores, kind)


def together(network: nn.Module, first: Tensor, second: Tensor) -> tuple[Scores, Scores]:
    """What the network makes of both, in one call where that computes the same: full batches cost less than halves.

    Separate calls are needed where pictures of a batch depend on each other (batch norm), where a call changes the
    network (spectral norm's vectors), and for pictures of different sizes.
    """
    dependent = any(isinstance(part, nn.BatchNorm2d) or is_parametrized(part) for part in network.modules())
    if dependent or first.shape[1:] != second.shape[1:]:
        return network(first), network(second)
    both = network(torch.cat([first, second]))
    if isinstance(both, Tensor):
        return both[: len(first)], both[len(first) :]
    return [part[: len(first)] for part in both], [part[len(first) :] for part in both]


def check_alike(reason: str, *images: Tensor) -> None:
    """Raises ConfigError, with the option that is the reason, for pictures of different sizes."""
    sides = {f"{image.shape[-1]}x{image.shape[-2]}" for image in images}
    if len(sides) > 1:
        raise ConfigError(
            f"data.resize: {reason} needs pictures of A and B of one size, found {' and '.join(sorted(sides))}; "
            "use one that ends in a crop"
        )


def _load(name: str) -> type[Algorithm]:
    module = importlib.import_module(f"{__name__}.{name}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and issubclass(value, Algorithm)
    ]
    return found
