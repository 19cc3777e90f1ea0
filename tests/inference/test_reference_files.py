import pickle

import pytest
import torch
from torch import nn

from cyclegan.inference.checkpoints.generator_file import GeneratorFileError, load_generator, save_generator
from cyclegan.inference.deployment.exported import open_generator
from cyclegan.networks import build_generator

RESNETS = [
    {},
    {"blocks": 6, "ngf": 8},
    {"blocks": 0},
    {"inputs": 1, "outputs": 3},
    {"norm": nn.BatchNorm2d},
    {"dropout": True},
    {"dropout": True, "norm": nn.BatchNorm2d, "inputs": 4, "outputs": 1},
    {"blur": True},
    {"blur": True, "norm": nn.BatchNorm2d, "blocks": 9},
]


@pytest.mark.parametrize("options", RESNETS, ids=str)
def test_a_resnet_of_the_reference_gives_the_same_pictures(reference, tmp_path, options):
    theirs = reference["resnet"](**options)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G_A.pth")
    images = torch.rand(2, options.get("inputs", 3), 16, 20) * 2 - 1
    ours = load_generator(tmp_path / "latest_net_G_A.pth")
    assert torch.allclose(ours(images), theirs(images), atol=1e-6)
    assert ours.about["direction"] == "AtoB"


@pytest.mark.parametrize("options", [{}, {"downs": 8}, {"norm": nn.BatchNorm2d}, {"inputs": 1, "outputs": 2}], ids=str)
def test_a_unet_of_the_reference_gives_the_same_pictures(reference, tmp_path, options):
    theirs = reference["unet"](**options)
    torch.save(theirs.state_dict(), tmp_path / "5_net_G.pth")
    side = 2 ** options.get("downs", 7)
    images = torch.rand(1, options.get("inputs", 3), side, 2 * side) * 2 - 1
    ours = load_generator(tmp_path / "5_net_G.pth")
    assert torch.allclose(ours(images), theirs(images), atol=1e-6)


def test_statistics_of_instance_norm_from_old_torch_are_dropped_and_said_so(reference, tmp_path, caplog):
    theirs = reference["resnet"]()
    weights = theirs.state_dict()
    for place in (2, 5, 8):
        weights[f"model.{place}.running_mean"] = torch.full((4,), 9.0)
        weights[f"model.{place}.running_var"] = torch.full((4,), 9.0)
    torch.save(weights, tmp_path / "latest_net_G_B.pth")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(load_generator(tmp_path)(images), theirs(images), atol=1e-6)
    assert "dropped 6 InstanceNorm statistics" in caplog.text


def test_batch_norm_from_before_torch_counted_batches_loads(reference, tmp_path):
    theirs = reference["resnet"](norm=nn.BatchNorm2d)
    weights = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "latest_net_G.pth")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(load_generator(tmp_path / "latest_net_G.pth")(images), theirs(images), atol=1e-6)


def test_prefixes_of_wrappers_and_checkpoints_around_the_weights_are_seen_through(reference, tmp_path):
    theirs = reference["resnet"]()
    wrapped = {f"module._orig_mod.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "latest_net_G.pth")
    images = torch.rand(1, 3, 16, 16)
    assert torch.allclose(load_generator(tmp_path)(images), theirs(images), atol=1e-6)


def test_a_reference_network_without_norm_gets_zero_biases(tmp_path, reference):
    weights = {name: value for name, value in reference["resnet"]().state_dict().items()}
    last = "model.19.bias"
    assert last in weights
    bare = {name: value for name, value in weights.items() if name == last or not name.endswith("bias")}
    torch.save(bare, tmp_path / "latest_net_G.pth")
    ours = load_generator(tmp_path)
    assert ours.architecture["norm"] == "none"
    assert ours.state_dict()["model.1.bias"].eq(0).all()


def test_the_direction_chooses_the_file_and_the_newest_epoch_is_taken(reference, tmp_path):
    for name, blocks in (("5_net_G_A", 1), ("20_net_G_A", 2), ("20_net_G_B", 3)):
        torch.save(reference["resnet"](blocks=blocks).state_dict(), tmp_path / f"{name}.pth")
    assert load_generator(tmp_path, "AtoB").architecture["blocks"] == 2
    assert load_generator(tmp_path, "BtoA").architecture["blocks"] == 3
    with pytest.raises(GeneratorFileError, match="give the direction AtoB or BtoA"):
        load_generator(tmp_path)
    with pytest.raises(GeneratorFileError, match="translates BtoA, not AtoB"):
        load_generator(tmp_path / "20_net_G_B.pth", "AtoB")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_pickled_is_executed(tmp_path, zipped):
    mark = tmp_path / "executed"
    torch.save({"model.1.weight": Bomb(mark)}, tmp_path / "latest_net_G.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(GeneratorFileError, match="never executed"):
        load_generator(tmp_path / "latest_net_G.pth")
    assert not mark.exists()


def test_bare_pickles_are_not_executed_either(tmp_path):
    mark = tmp_path / "executed"
    (tmp_path / "latest_net_G.pth").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(GeneratorFileError):
        load_generator(tmp_path / "latest_net_G.pth")
    assert not mark.exists()


def _saved(path, content):
    torch.save(content, path)


HOSTILE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a checkpoint"),
    "list": lambda path: _saved(path, [1, 2]),
    "number": lambda path: _saved(path, 3),
    "no tensors": lambda path: _saved(path, {"a": 1}),
    "several networks": lambda path: _saved(path, {n: {"w": torch.zeros(1)} for n in ("a", "b")}),
    "other network": lambda path: _saved(path, {"fc.weight": torch.zeros(2, 2)}),
    "number as name": lambda path: _saved(path, {1: torch.zeros(2, 2)}),
    "first layer only": lambda path: _saved(path, {"model.1.weight": torch.zeros(4, 3, 7, 7)}),
    "two layers": lambda path: _saved(
        path, {"model.1.weight": torch.zeros(4, 3, 7, 7), "model.4.weight": torch.zeros(3)}
    ),
    "outermost only": lambda path: _saved(path, {"model.model.0.weight": torch.zeros(4, 3, 4, 4)}),
    "claims": lambda path: _saved(path, {"model.1.weight": torch.zeros(1).expand(10**6, 10**4, 7, 7)}),
    "scalars": lambda path: _saved(path, {"model.1.weight": torch.zeros(()), "model.model.0.weight": torch.zeros(())}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_generator_is_refused_with_one_line_that_names_it(tmp_path, name):
    path = tmp_path / "latest_net_G.pth"
    HOSTILE[name](path)
    with pytest.raises(GeneratorFileError, match=r"latest_net_G\.pth") as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_refused(reference, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    torch.save(reference["resnet"]().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(GeneratorFileError, match="cannot read"):
        load_generator(path)


@pytest.mark.parametrize("content", ["junk text", "a b", ""])
def test_a_text_named_pth_is_told_what_is_expected(tmp_path, content):
    (tmp_path / "junk.pth").write_text(content)
    with pytest.raises(
        GeneratorFileError, match=r"junk\.pth: it is damaged, or none that torch\.save wrote; a \*_net_G"
    ):
        load_generator(tmp_path / "junk.pth")


def test_a_discriminator_is_called_one(reference, tmp_path):
    torch.save(reference["critic"]().state_dict(), tmp_path / "latest_net_D_A.pth")
    with pytest.raises(GeneratorFileError, match="a discriminator, not a generator"):
        load_generator(tmp_path / "latest_net_D_A.pth")


def test_what_cannot_be_told_from_a_file_is_an_option(reference, tmp_path):
    path = tmp_path / "latest_net_G.pth"
    torch.save(reference["resnet"]().state_dict(), path)
    assert load_generator(path).architecture.get("padding", "reflect") == "reflect"
    assert isinstance(load_generator(path, architecture={"padding": "replicate"}).model[0], nn.ReplicationPad2d)
    with pytest.raises(GeneratorFileError, match="colour"):
        load_generator(path, architecture={"colour": "blue"})


def test_a_file_that_tells_its_architecture_takes_no_other(tmp_path):
    generator = build_generator({"name": "resnet", "width": 4, "blocks": 1})
    save_generator(tmp_path / "AtoB.safetensors", generator, {"direction": "AtoB"})
    (tmp_path / "AtoB.onnx").touch()
    for file in ("AtoB.safetensors", "AtoB.onnx"):
        with pytest.raises(GeneratorFileError, match="tells its architecture itself; leave out padding=zero"):
            open_generator(tmp_path / file, architecture={"padding": "zero"})


def test_our_own_file_round_trips_bit_for_bit(tmp_path):
    generator = build_generator({"name": "resnet", "width": 4, "blocks": 1, "skip": True})
    save_generator(tmp_path / "BtoA.safetensors", generator, {"direction": "BtoA", "run": "small"})
    loaded = load_generator(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), generator.parameters(), strict=True))
    assert loaded.about["run"] == "small"
    assert len(loaded.about["sha256"]) == 64


@pytest.mark.parametrize(
    "card",
    [
        "[]",
        "{",
        '{"architecture": 3}',
        '{"architecture": {"name": "resnet", "blocks": 1000000000}}',
        '{"architecture": {"name": "nobody"}}',
        '{"architecture": {}}',
        '{"architecture": {"name": "resnet", "downs": 1000}}',
        '{"format": "x", "architecture": {"name": "resnet"}}',
        '{"architecture": {"name": "resnet", "width": "wide"}}',
    ],
)
def test_a_hostile_description_is_refused(tmp_path, card):
    from safetensors.torch import save_file

    save_file({"model.1.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "AtoB.safetensors", {"cyclegan": card})
    with pytest.raises(GeneratorFileError, match=r"AtoB\.safetensors"):
        load_generator(tmp_path)


@pytest.mark.parametrize("name", ["model.model.3.weight", "model.2.filt"])
def test_weights_without_dimensions_are_refused(tmp_path, name):
    first = "model.model.0.weight" if "model.model" in name else "model.1.weight"
    weights = {first: torch.zeros(4, 3, *((4, 4) if "model.model" in name else (7, 7))), name: torch.tensor(1.0)}
    torch.save(weights, tmp_path / "latest_net_G.pth")
    with pytest.raises(GeneratorFileError, match="too few dimensions"):
        load_generator(tmp_path)
