"""What holds for every algorithm: a new file in algorithms/ is covered by its existing."""

from __future__ import annotations

import pytest
import torch

from cyclegan.algorithms import Algorithm, algorithms, build_algorithm
from cyclegan.config import load_config
from cyclegan.networks.diffaugment import DiffAugment

NETWORKS = {"generator": {"name": "resnet", "width": 4, "blocks": 1}, "discriminator": {"width": 4, "layers": 2}}
OWN_NETWORKS = {  # of algorithms that need others
    "ugatit": {
        "generator": {"name": "ugatit", "width": 4, "blocks": 1},
        "discriminator": {"name": "ugatit", "width": 4, "global_layers": 4, "local_layers": 3},
    }
}


@pytest.fixture(params=sorted(algorithms()))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, **sections) -> Algorithm:
    torch.manual_seed(0)
    return build_algorithm(
        load_config({"name": "x", "algorithm": {"name": name}, **OWN_NETWORKS.get(name, NETWORKS), **sections})
    )


@pytest.fixture
def algorithm(name: str) -> Algorithm:
    return build(name)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"A": torch.rand(2, 3, 32, 32) * 2 - 1, "B": torch.rand(2, 3, 32, 32) * 2 - 1}


def test_every_loss_is_finite_and_every_optimizer_has_one(algorithm: Algorithm, batch: dict):
    updated = set()
    for optimizer, terms in algorithm.losses(batch):
        updated.add(optimizer)
        for name, term in terms.items():
            assert term.ndim == 0 and term.isfinite(), name
    assert updated == set(algorithm.trained())


def test_every_trained_parameter_gets_a_gradient_from_its_own_loss(algorithm: Algorithm, batch: dict):
    trained = algorithm.trained()
    for optimizer, terms in algorithm.losses(batch):
        parameters = [p for network in trained[optimizer] for p in network.parameters()]
        sum(terms.values()).backward(inputs=parameters)
        assert all(parameter.grad is not None for parameter in parameters)


def test_adaptive_augmentation_hears_of_every_real_picture(name: str, batch: dict):
    algorithm = build(name, diffaugment={"policy": ["colour"], "target": 0.6})
    list(algorithm.losses(batch))
    augmentations = [part for part in algorithm.modules() if isinstance(part, DiffAugment)]
    assert augmentations and all(augmentation.heard[1] >= 1 for augmentation in augmentations)  # else: use `judge`


def test_trained_networks_are_attributes_and_each_has_one_optimizer(algorithm: Algorithm):
    networks = [id(network) for group in algorithm.trained().values() for network in group]
    assert len(set(networks)) == len(networks)
    assert set(networks) <= {id(child) for child in algorithm.children()}


def test_generators_translate_and_describe_themselves(name: str, algorithm: Algorithm, batch: dict):
    for direction, generator in algorithm.generators().items():
        source, target = direction.split("to")
        assert generator(batch[source]).shape == batch[target].shape
        wanted = OWN_NETWORKS.get(name, NETWORKS)["generator"]
        assert wanted.items() <= generator.architecture.items()


def test_every_option_is_documented(algorithm: Algorithm):
    parameters = list(type(algorithm).__init__.__annotations__)
    for name in set(parameters) - {"config", "return"}:
        assert f"        {name}: " in type(algorithm).__doc__, name
