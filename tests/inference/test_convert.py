import pytest
import torch
from torch import nn

from cyclegan import commands
from cyclegan.commands import convert as command
from cyclegan.inference.checkpoints.convert import from_reference, to_reference
from cyclegan.inference.checkpoints.generator_file import load_generator, save_generator
from cyclegan.inference.checkpoints.initial import InitialError, init_from
from cyclegan.inference.checkpoints.reference_files import ReferenceFileError
from cyclegan.networks import DISCRIMINATORS, build_generator

SMALL = {"name": "resnet", "width": 4, "blocks": 2}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fresh(**options):
    generators = {name: build_generator({**SMALL, **options}) for name in ("G_AB", "G_BA")}
    return generators | {name: DISCRIMINATORS["patch"](3, 4, 3) for name in ("D_A", "D_B")}


@pytest.fixture
def run(tmp_path):
    """A run's folder as the training loop leaves it, and its networks."""
    networks = fresh()
    folder = tmp_path / "run"
    for images in ("000000008", "000000016"):
        (folder / "state" / images).mkdir(parents=True)
        states = {name: network.state_dict() for name, network in networks.items()}
        if images == "000000008":
            states = {name: {key: value * 0 for key, value in state.items()} for name, state in states.items()}
        torch.save({"trainer": {"networks": states}}, folder / "state" / images / "shared.pt")
    for direction, name in (("AtoB", "G_AB"), ("BtoA", "G_BA")):
        save_generator(folder / f"{direction}.safetensors", networks[name], {"direction": direction})
    return folder, networks


def test_a_run_becomes_files_that_the_reference_loads_strictly(run, reference, tmp_path):
    folder, networks = run
    to_reference(folder, tmp_path / "theirs", epoch="7")
    pairs = {"G_A": "G_AB", "G_B": "G_BA", "D_A": "D_B", "D_B": "D_A"}  # their D_A judges domain B
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == {f"7_net_{name}.pth" for name in pairs}
    for theirs, ours in pairs.items():
        weights = torch.load(tmp_path / "theirs" / f"7_net_{theirs}.pth", weights_only=True)
        network = reference["critic" if theirs[0] == "D" else "resnet"]()
        network.load_state_dict(weights, strict=True)
        assert same(dict(weights), networks[ours].state_dict())
        images = torch.rand(1, 3, 32, 32)
        assert torch.allclose(network(images), networks[ours].eval()(images), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"norm": nn.BatchNorm2d}, {"dropout": True}, {"blur": True}], ids=str)
def test_there_and_back_again_is_bit_equal(reference, tmp_path, options):
    theirs = reference["resnet"](**options).state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(theirs, tmp_path / "checkpoints" / "latest_net_G.pth")
    from_reference(tmp_path / "checkpoints", tmp_path / "ours", direction="BtoA")
    assert load_generator(tmp_path / "ours").about["direction"] == "BtoA"
    to_reference(tmp_path / "ours", tmp_path / "again")
    again = torch.load(tmp_path / "again" / "latest_net_G.pth", weights_only=True)
    assert same(dict(again), dict(theirs))


def test_the_command_tells_which_way_to_go(run, tmp_path, capsys):
    folder, networks = run
    there, back = str(tmp_path / "there"), str(tmp_path / "back")
    assert commands.run("cyclegan convert", command.main, [str(folder), "-o", there]) == 0
    assert commands.run("cyclegan convert", command.main, [there, "-o", back]) == 0
    assert "BtoA.safetensors" in capsys.readouterr().out
    assert same(load_generator(back, "BtoA").state_dict(), networks["G_BA"].state_dict())
    assert commands.run("cyclegan convert", command.main, [str(tmp_path / "nowhere"), "-o", back]) == 1
    assert commands.run("cyclegan convert", command.main, [str(folder), "-o", there, "--direction", "AtoB"]) == 1
    assert "a run is converted whole" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command.main([str(folder), "-o", there, "--strength", "0.5"])
    assert "unrecognized arguments: --strength" in capsys.readouterr().err


def test_files_that_are_there_are_not_replaced_without_being_asked(run, tmp_path, capsys):
    folder, networks = run
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for place, name, source in ((theirs, "latest_net_G_B.pth", folder), (ours, "BtoA.safetensors", theirs)):
        place.mkdir()
        (place / name).write_text("somebody's")
        given = [str(source), "-o", str(place)]
        assert commands.run("cyclegan convert", command.main, given) == 1
        assert [path.name for path in place.iterdir()] == [name]
        assert (place / name).read_text() == "somebody's"
        said = capsys.readouterr().err
        assert said == f"cyclegan convert: {place / name} is there already; choose another folder, or --overwrite\n"
        assert commands.run("cyclegan convert", command.main, [*given, "--overwrite"]) == 0
    assert same(load_generator(ours, "BtoA").state_dict(), networks["G_BA"].state_dict())


@pytest.mark.parametrize(
    "options", [{"skip": True}, {"norm": "group"}, {"upsample": "resize"}, {"padding": "zero"}, {"downs": 3}], ids=str
)
def test_networks_that_the_reference_does_not_have_are_refused(tmp_path, options):
    save_generator(tmp_path / "AtoB.safetensors", build_generator({**SMALL, **options}), {"direction": "AtoB"})
    with pytest.raises(ReferenceFileError, match=next(iter(options))):
        to_reference(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_networks_of_other_kinds_are_refused_by_name(tmp_path):
    architecture = {"name": "ugatit", "width": 4, "blocks": 1}
    save_generator(tmp_path / "AtoB.safetensors", build_generator(architecture), {"direction": "AtoB"})
    with pytest.raises(ReferenceFileError, match="has no network ugatit"):
        to_reference(tmp_path, tmp_path / "out")


def test_the_strength_of_adaptive_augmentation_stays_at_home(run, tmp_path):
    folder, networks = run
    state = folder / "state" / "000000016" / "shared.pt"
    content = torch.load(state, weights_only=True)
    content["trainer"]["networks"]["D_A"]["diffaugment.p"] = torch.tensor(0.5)
    torch.save(content, state)
    to_reference(folder, tmp_path / "theirs")
    weights = torch.load(tmp_path / "theirs" / "latest_net_D_B.pth", weights_only=True)
    assert same(dict(weights), networks["D_A"].state_dict())


def test_a_start_from_a_run_takes_every_network(run):
    folder, networks = run
    started = fresh()
    reports = init_from(started, folder)
    assert all(not report.left for report in reports)
    assert all(same(started[name].state_dict(), networks[name].state_dict()) for name in networks)


def test_a_start_from_the_references_folder_crosses_the_discriminators(reference, tmp_path):
    for name, seed in (("G_A", 1.0), ("G_B", 2.0)):
        weights = {key: value * seed for key, value in reference["resnet"]().state_dict().items()}
        torch.save(weights, tmp_path / f"latest_net_{name}.pth")
    torch.save(reference["critic"]().state_dict(), tmp_path / "latest_net_D_A.pth")
    networks = fresh()
    before = {name: value.clone() for name, value in networks["D_A"].state_dict().items()}
    reports = {report.network: report for report in init_from(networks, tmp_path)}
    assert same(networks["D_B"].state_dict(), reference["critic"]().state_dict())
    assert same(networks["D_A"].state_dict(), before)
    assert reports["D_A"].source is None
    assert "starts afresh" in str(reports["D_A"])
    twice = {key: value * 2 for key, value in reference["resnet"]().state_dict().items()}
    assert same(networks["G_BA"].state_dict(), twice)


def test_a_start_takes_what_fits_and_says_what_does_not(reference, tmp_path):
    torch.save(reference["resnet"](inputs=1).state_dict(), tmp_path / "latest_net_G.pth")
    networks = {"G_AB": build_generator({**SMALL, "blocks": 1})}
    (report,) = init_from(networks, tmp_path / "latest_net_G.pth")
    assert report.left["model.1.weight"] == "is (4, 1, 7, 7) there and (4, 3, 7, 7) here"
    assert "model.4.weight" in report.loaded
    assert "model.19.bias" in report.unused
    theirs = reference["resnet"](inputs=1).state_dict()
    assert torch.equal(networks["G_AB"].state_dict()["model.4.weight"], theirs["model.4.weight"])


def test_a_start_can_be_named_network_by_network(run, reference, tmp_path):
    folder, networks = run
    torch.save(reference["critic"]().state_dict(), tmp_path / "any name.pth")
    started = fresh()
    reports = init_from(started, {"G_BA": folder / "AtoB.safetensors", "D_A": tmp_path / "any name.pth"})
    assert [report.network for report in reports] == ["G_BA", "D_A"]
    assert same(started["G_BA"].state_dict(), networks["G_AB"].state_dict())
    assert same(started["D_A"].state_dict(), reference["critic"]().state_dict())


def test_a_start_that_finds_nothing_is_an_error(tmp_path):
    with pytest.raises(InitialError, match="no file or folder"):
        init_from(fresh(), tmp_path / "nowhere")
    with pytest.raises(InitialError, match=r"nothing in .* fits"):
        init_from(fresh(), tmp_path)
    with pytest.raises(InitialError, match=r"init_from\.G_A: no such network; choices: G_AB"):
        init_from(fresh(), {"G_A": tmp_path})
    (tmp_path / "AtoB.safetensors").write_text("rubbish")
    with pytest.raises(InitialError, match="cannot read"):
        init_from(fresh(), tmp_path)
