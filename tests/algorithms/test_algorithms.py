"""What holds for every algorithm: a new file in algorithms/ is covered by its existing."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cyclegan.algorithms import Algorithm, algorithms, build_algorithm, parts_of, together
from cyclegan.config import load_config
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.split import translate_split
from cyclegan.inference.checkpoints.generator_file import load_generator
from cyclegan.inference.deployment.export import export, verify, worst
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks import DISCRIMINATORS
from cyclegan.networks.diffaugment import DiffAugment
from cyclegan.training.checkpoint import all_states
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from tests.conftest import merged
from tests.whole import losses_of

NETWORKS = {"generator": {"name": "resnet", "width": 4, "blocks": 1}, "discriminator": {"width": 4, "layers": 2}}
NEEDS = {  # what an algorithm asks for beyond its own options
    "adain": {
        "algorithm": {"weights": "random"},
        "generator": {"name": "adain", "layer": "relu2_1"},
        "init": {"name": "kaiming"},
    },
    "fast_style": {
        "algorithm": {
            "weights": "random",
            "backbone": "squeezenet",
            "content_layers": {"fire2": 1.0},
            "style_layers": {"relu1": 1.0, "fire2": 1.0},
        }
    },
    "linear": {
        "algorithm": {"weights": "random"},
        "generator": {"name": "linear", "layer": "relu2_1", "matrix": 4},
        "init": {"name": "kaiming"},
    },
    "pix2pix": {"data": {"pairing": "paired"}},
    "ugatit": {
        "generator": {"name": "ugatit", "width": 4, "blocks": 1},
        "discriminator": {"name": "ugatit", "width": 4, "global_layers": 4, "local_layers": 3},
    },
    "variational": {
        "algorithm": {"weights": "random"},
        "generator": {"name": "variational", "layer": "relu2_1", "size": 8, "width": 4},
        "init": {"name": "kaiming"},
        "training": {"batch_size": 2},
    },
}

pytestmark = pytest.mark.filterwarnings("ignore:.* has random weights")


@pytest.fixture(params=sorted(algorithms()))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def build(name: str, **sections) -> Algorithm:
    torch.manual_seed(0)
    sections = {**NETWORKS, **NEEDS.get(name, {}), **sections}
    sections["algorithm"] = {"name": name, **sections.get("algorithm", {})}
    return build_algorithm(load_config({"name": "x", **sections}))


@pytest.fixture
def algorithm(name: str) -> Algorithm:
    return build(name)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"A": torch.rand(2, 3, 32, 32) * 2 - 1, "B": torch.rand(2, 3, 32, 32) * 2 - 1}


def test_every_loss_is_finite_and_every_optimizer_has_one(algorithm: Algorithm, batch: dict):
    updated = set()
    for optimizer, terms in losses_of(algorithm, batch):
        updated.add(optimizer)
        for name, term in terms.items():
            assert term.ndim == 0 and term.isfinite(), name
    assert updated == set(algorithm.trained())


def test_every_trained_parameter_gets_a_gradient_from_its_own_loss(algorithm: Algorithm, batch: dict):
    trained = algorithm.trained()
    for optimizer, terms in losses_of(algorithm, batch):
        parameters = [p for network in trained[optimizer] for p in network.parameters()]
        sum(terms.values()).backward(inputs=parameters)
        assert all(parameter.grad is not None for parameter in parameters)


def test_every_part_of_a_loss_trains_all_parameters_and_shares_no_graph(algorithm: Algorithm, batch: dict):
    """Processes exchange gradients when they have them all; the graph of a part is gone when the next begins."""
    trained = algorithm.trained()
    for optimizer, terms in algorithm.losses(batch):
        parameters = [p for network in trained[optimizer] for p in network.parameters()]
        for part in parts_of(terms):
            for parameter in parameters:
                parameter.grad = None
            sum(part().values()).backward(inputs=parameters)
            assert all(parameter.grad is not None for parameter in parameters)


def test_adaptive_augmentation_hears_of_every_real_picture(name: str, batch: dict):
    algorithm = build(name, diffaugment={"policy": ["colour"], "target": 0.6})
    list(losses_of(algorithm, batch))
    augmentations = [part for part in algorithm.modules() if isinstance(part, DiffAugment)]
    assert bool(augmentations) == ("discriminators" in algorithm.trained())
    assert all(augmentation.heard[1] >= 1 for augmentation in augmentations)  # else: use `judge`


def test_trained_networks_are_attributes_and_each_has_one_optimizer(algorithm: Algorithm):
    networks = [id(network) for group in algorithm.trained().values() for network in group]
    assert len(set(networks)) == len(networks)
    assert set(networks) <= {id(child) for child in algorithm.children()}


def test_generators_translate_and_describe_themselves(name: str, algorithm: Algorithm, batch: dict):
    for direction, generator in algorithm.generators().items():
        source, target = direction.split("to")
        assert generator(batch[source]).shape == batch[target].shape
        wanted = {**NETWORKS, **NEEDS.get(name, {})}["generator"]
        assert wanted.items() <= generator.architecture.items()


def test_every_option_is_documented(algorithm: Algorithm):
    parameters = list(type(algorithm).__init__.__annotations__)
    for name in set(parameters) - {"config", "return"}:
        assert f"\n    {name}: " in inspect.getdoc(type(algorithm)), name


def test_the_docs_have_a_line_in_the_table_and_a_section(name: str, algorithm: Algorithm):
    docs = Path(__file__).parents[2] / "docs"
    text = "\n".join((docs / page).read_text() for page in ("algorithms.md", "style-transfer.md"))
    assert any(line.startswith("|") and f"`{name}` |" in line for line in text.splitlines())
    titles = [line.lower().replace("-", "") for line in text.splitlines() if line.startswith("## ")]
    assert name == "cyclegan" or any(name in title for title in titles)  # CycleGAN is what the whole README is about


def test_its_file_stays_small(algorithm: Algorithm):
    tree = ast.parse(inspect.getsource(inspect.getmodule(type(algorithm))))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    lines = {line for node in ast.walk(tree) if hasattr(node, "lineno") for line in (node.lineno, node.end_lineno)}
    assert len(lines) <= 150


# ---- the same, in the loop


@pytest.fixture
def run_options(name: str, options: dict, pictures: Path) -> dict:
    (pictures / "trainA" / "04.png").unlink()  # as many on both sides, and so pairs
    return suited(name, merged(options, training={"ema": 0.9}))


def suited(name: str, options: dict) -> dict:
    """The options of a run with this algorithm and what it needs."""
    needs = NEEDS.get(name, {})
    networks = {section: needs[section] for section in needs if section in NETWORKS}  # instead of those given
    return merged(merged({**options, **networks}, algorithm={"name": name}), **needs)


def everything(run: Path) -> dict[str, torch.Tensor]:
    """All tensors that a run leaves: generators as shown, networks and optimizers as trained."""
    found = {f"{path.stem}/{k}": v for path in run.glob("*.safetensors") for k, v in load_file(path).items()}
    state = torch.load(all_states(run / "state")[-1] / "shared.pt", weights_only=True)["trainer"]
    for network, weights in state["networks"].items():
        found |= {f"{network}/{key}": value for key, value in weights.items()}
    for group, optimizer in state["optimizers"].items():
        for number, moments in optimizer["state"].items():
            found |= {f"{group}/{number}/{key}": value for key, value in moments.items()}
    return found


def test_a_stopped_run_goes_on_bit_for_bit(run_options: dict):
    whole = train({**run_options, "name": "whole"})
    train(merged({**run_options, "name": "parts"}, training={"max_images": 6}))
    parts = train({**run_options, "name": "parts"})
    one, two = everything(whole), everything(parts)
    assert one.keys() == two.keys() and len(one) > 50
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
    last = [read_metrics(run / "log" / "metrics.jsonl")[-1] for run in (whole, parts)]
    assert all(value == last[1][key] for key, value in last[0].items() if not key.startswith("speed"))


def test_its_generators_load_translate_export_and_are_scored(name: str, run_options: dict, tmp_path: Path):
    run = train(merged(run_options, training={"max_images": 4}))
    directions = list(build_algorithm(load_config(run / "config.yaml")).generators())
    assert sorted(path.stem for path in run.glob("*.safetensors")) == sorted(directions)
    for direction in directions:
        generator = load_generator(run, direction)
        fake = translate_tensor(generator, torch.rand(1, 3, 33, 45) * 2 - 1)
        assert fake.shape == (1, 3, 33, 45) and fake.std() > 0
        assert generator.about["config"]["algorithm"]["name"] == name
        contract = export(generator, tmp_path / f"{direction}.pt2", "pt2")
        found, allowed = worst(verify(generator, tmp_path / f"{direction}.pt2", [(40, 64)], [1]), contract)
        assert found < allowed
    plain = Extractor("plain", lambda x: x.mean((2, 3)), lambda x: x / 255)
    scores = translate_split(run, metrics=["fid"], extractor=plain, paired=True)  # the names are mere numbers
    assert sorted(scores) == sorted(directions)
    assert all({"MAE", "PSNR", "SSIM", "fd_plain"} <= set(result["scores"]) for result in scores.values())


@pytest.mark.parametrize(
    ("options", "calls"), [({}, 1), ({"spectral": True}, 2), ({"norm": "batch"}, 2), ({"name": "multiscale"}, 1)]
)
def test_two_batches_go_through_a_network_in_one_call_where_that_computes_the_same(options: dict, calls: int):
    torch.manual_seed(0)
    options = {"name": "patch", "width": 4, "layers": 2, **options}
    network = DISCRIMINATORS[options.pop("name")](**options)
    first, second, seen = torch.randn(2, 3, 64, 64), torch.randn(1, 3, 64, 64), []
    apart = [network(first), network(second)]
    network.register_forward_pre_hook(lambda *_: seen.append(0))
    found = together(network, first, second)
    assert len(seen) == calls
    if calls == 1:
        for mine, theirs in zip(found, apart, strict=True):
            pairs = [(mine, theirs)] if isinstance(mine, torch.Tensor) else zip(mine, theirs, strict=True)
            assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_pictures_of_different_sizes_go_one_by_one():
    network = torch.nn.Conv2d(3, 1, 3)
    first, second = together(network, torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 8))
    assert (first.shape[2], second.shape[2]) == (6, 7)
