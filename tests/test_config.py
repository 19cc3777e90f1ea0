from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from cyclegan.algorithms import algorithms, build_algorithm, complete_config
from cyclegan.config import Config, ConfigError, load_config
from cyclegan.data.published import SETS
from cyclegan.describe import describe_options
from cyclegan.overrides import read_yaml

SHIPPED = sorted((Path(__file__).parents[1] / "options").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_options_build_their_algorithm(path: Path):
    config = load_config(path)
    assert config.name == path.stem
    if "weights" in inspect.signature(algorithms()[config.algorithm["name"]]).parameters:
        config = load_config(path, ["algorithm.weights=random"])  # of a trained network that would be downloaded
    assert set(build_algorithm(config).generators()) <= {"AtoB", "BtoA"}


@pytest.mark.parametrize("name", ["adain", "fast_style", "linear", "variational"])
def test_the_papers_number_of_updates_comes_before_the_last_epoch(name: str):
    config = load_config(name)
    pictures = max(SETS["monet2photo"].counts[part] for part in ("trainA", "trainB"))
    assert config.training.epochs * pictures // config.training.batch_size > config.training.max_steps


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_resolved_config_can_be_given_back(path: Path, tmp_path: Path):
    config = complete_config(load_config(path))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config


def test_exponents_without_a_point_are_numbers(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("optimizer: {lr: 1e-4, weight_decay: 5E-5}")
    config = load_config(tmp_path / "x.yaml")
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.name) == (1e-4, 5e-5, "x")


def test_names_that_look_like_numbers_stay_text(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("name: e4\ndata: {root: 1e4x}")
    assert load_config(tmp_path / "x.yaml").data.root == Path("1e4x")


@pytest.mark.parametrize("word", ["no", "No", "NO", "off", "on", "yes", "y", "n"])
def test_only_true_and_false_are_booleans(word: str, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(f"name: {word}\ndata: {{flip: 0, shuffle: false}}")
    config = load_config(tmp_path / "x.yaml", ["speed.precision=no", "speed.compile=true", "deterministic=TRUE"])
    assert (config.name, config.speed.precision) == (word, "no")
    assert (config.data.shuffle, config.speed.compile, config.deterministic) == (False, True, True)


def test_a_resolved_precision_of_no_can_be_given_back(tmp_path: Path):
    config = load_config("smoke", ["speed.precision=no"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", ["1e-4", "1e5", "1e-05", "no", "2024-05-01", "007", "1_000", "0x1f", "null"])
def test_a_name_that_could_be_something_else_is_read_back(name: str, tmp_path: Path):
    config = load_config({"name": name, "data": {"root": name}})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.A.background=#ff0000", "#ff0000"),
        ("data.A.background='#ff0000'", "#ff0000"),
        ("data.A.test=/pictures/a #1", Path("/pictures/a #1")),
        ("data.A.test=2024-05-01", Path("2024-05-01")),
        ("data.A.augment=[{name: X, b: '#a # b'}]", [{"name": "X", "b": "#a # b"}]),
    ],
)
def test_nothing_on_a_command_line_is_a_comment_or_a_date(override: str, expected: object):
    domain = load_config("smoke", [override]).data.A
    assert getattr(domain, override.split("=")[0].split(".")[-1]) == expected


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_options_mean_the_same_to_any_reader_of_yaml(path: Path):
    found = load_config(path)
    assert load_config({"name": path.stem, **_numbers(yaml.safe_load(path.read_text()))}) == found


def _numbers(value):
    """What YAML 1.1 takes for text although it is a number, such as 1e-4."""
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in value.items()}
    return float(value) if isinstance(value, str) and re.fullmatch(r"\d+e-\d+", value) else value


def test_overrides_change_one_key_and_keep_the_rest():
    config = load_config("horse2zebra", ["training.epochs=3", "data.crop_size=[64, 32]", "generator.blocks=6"])
    assert config.training.epochs == 3 and config.training.decay_epochs == 100
    assert config.data.crop_size == (64, 32) and config.data.root == Path("datasets/horse2zebra")
    assert config.generator == {"name": "resnet", "blocks": 6}


def test_another_network_starts_from_its_own_defaults():
    config = load_config({"name": "x", "generator": {"name": "resnet", "blocks": 6}}, ["generator.name=unet"])
    assert config.generator == {"name": "unet"}


def test_yaml_suffix_and_folder_may_be_left_out():
    assert load_config("smoke") == load_config("smoke.yaml") == load_config("options/smoke.yaml")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"trainng": {}}, ["trainng", "did you mean training?"]),
        ({"training": {"epocs": 3}}, ["training.epocs", "did you mean epochs?"]),
        ({"data": {"A": {"chanels": 1}}}, ["data.A.chanels", "did you mean channels?"]),
        ({"optimizer": {"groups": {"generators": {"lrr": 1}}}}, ["optimizer.groups.generators.lrr", "mean lr?"]),
        ({"training": {"epochs": -1}}, ["training.epochs", "greater than or equal to 0", "-1"]),
        ({"training": {"batch_size": "four"}}, ["training.batch_size", "four"]),
        ({"data": {"resize": "crp"}}, ["data.resize", "'crop'", "crp"]),
        (
            {"data": {"load_size": "64x64"}},
            ["data.load_size: expected a valid integer or a valid tuple, found '64x64'"],
        ),
        ({"data": 3}, ["data", "3"]),
        ({"name": "a/b c"}, ["name: it names a folder", "as in a_b_c,", "found 'a/b c'"]),
        ({"name": ".."}, ["name: it names a folder"]),
        ({"name": ""}, ["name: it names a folder", "as in run,"]),
        ({"optimizer": {"betas": [0.5, 1.5]}}, ["optimizer.betas", "1.5"]),
        ({"evaluation": {"metrics": "fid,kid"}}, ["evaluation.metrics: a list expected, so [fid,kid]"]),
        ({"name": 20240501}, ["name: a word expected, found 20240501; in quotes"]),
        ({"training": {"epochs": True}}, ["training.epochs: true and false are for switches"]),
        ({"data": {"limit": True}}, ["data.limit: true and false are for switches"]),
        ({"training": {"clip": False}}, ["training.clip: true and false are for switches"]),
    ],
)
def test_a_wrong_setting_is_named(values: dict, words: list[str]):
    with pytest.raises(ConfigError) as error:
        load_config({"name": "x", **values})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"generator": {"name": "resnt"}}, ["generator.name", "did you mean resnet?", "unet"]),
        ({"generator": {"name": "resnet", "block": 6}}, ["generator.block", "did you mean blocks?"]),
        ({"generator": {"name": "resnet", "norm": "inst"}}, ["generator.norm", "'instance'"]),
        ({"generator": {"name": "resnet", "blocks": -1}}, ["generator.blocks"]),
        ({"generator": {"name": "resnet", "blocks": True}}, ["generator.blocks: true and false are for switches"]),
        ({"generator": {"name": ["resnet"]}}, ["generator.name", "['resnet']"]),
        ({"generator": {"norm": "group", "width": 12}}, ["generator: norm=group has 32 groups, and 48 ", "width"]),
        ({"discriminator": {"norm": "group", "width": 12}}, ["discriminator: norm=group has 32 groups", "width"]),
        ({"algorithm": {"name": "cyclegn"}}, ["algorithm.name", "did you mean cyclegan?"]),
        ({"algorithm": {"name": "cyclegan", "cycl": 1}}, ["algorithm.cycl", "did you mean cycle?"]),
        ({"algorithm": {"name": "cyclegan", "cycle": "ten"}}, ["algorithm.cycle", "ten"]),
        ({"discriminator": {"name": "patch", "layers": 0}}, ["discriminator.layers"]),
        ({"algorithm": {"name": "dclgan"}, "generator": {"blocks": 0}}, ["generator.blocks", "algorithm.layers"]),
        ({"algorithm": {"name": "cut"}, "generator": {"blocks": 0}}, ["generator.blocks", "algorithm.layers"]),
        ({"data": {"A": {"channels": 1}}}, ["algorithm.identity"]),
        (
            {
                "data": {"A": {"channels": 1}},
                "algorithm": {"name": "cyclegan", "identity": 0},
                "generator": {"name": "resnet", "skip": True},
            },
            ["generator", "skip"],
        ),
    ],
)
def test_a_wrong_option_of_a_network_or_algorithm_is_named(values: dict, words: list[str]):
    with pytest.raises(ConfigError) as error:
        build_algorithm(load_config({"name": "x", **values}))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("discriminator", "crop", "option"),
    [
        ({"name": "multiscale", "scales": 3}, 32, "scales"),
        ({"name": "patch", "layers": 5}, 32, "layers"),
        ({"name": "patch"}, 8, "layers"),
        ({"name": "patch"}, [256, 8], "layers"),
        ({"name": "ugatit"}, 32, "global_layers"),
    ],
)
def test_a_discriminator_too_deep_for_the_crop_is_named(discriminator: dict, crop: int | list[int], option: str):
    values = {"name": "x", "generator": {"width": 4, "blocks": 1}, "discriminator": {"width": 4, **discriminator}}
    height, width = (crop, crop) if isinstance(crop, int) else crop
    with pytest.raises(ConfigError, match=rf"data\.crop_size: {height}x{width} .* discriminator\.{option}$"):
        build_algorithm(load_config({**values, "data": {"crop_size": crop}}))
    build_algorithm(load_config({**values, "data": {"crop_size": 128}}))
    build_algorithm(load_config({**values, "data": {"crop_size": crop, "resize": "none"}}))  # sides are the pictures'


def test_a_crop_too_small_for_the_generator_is_named():
    values = {"name": "x", "discriminator": {"name": "pixel", "width": 4}, "data": {"crop_size": 4}}
    with pytest.raises(ConfigError, match=r"data\.crop_size: 4x4 .* resnet generator, which takes 8 pixels"):
        build_algorithm(load_config({**values, "generator": {"width": 4, "blocks": 1}}))
    build_algorithm(load_config({**values, "generator": {"width": 4, "blocks": 1, "downs": 1}}))


def test_trying_the_depth_draws_no_random_numbers():
    options = {"name": "x", "generator": {"width": 4, "blocks": 1}, "discriminator": {"width": 4, "spectral": True}}
    found = []
    for resize in ("crop", "none"):
        torch.manual_seed(0)
        found.append(build_algorithm(load_config({**options, "data": {"resize": resize}})))
    both = zip(found[0].parameters(), found[1].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in both)


@pytest.mark.parametrize("override", ["training.epochs", "=3", "training.epochs=[1"])
def test_an_override_that_is_none_is_named(override: str):
    with pytest.raises(ConfigError, match=r"epochs|=3"):
        load_config("smoke", [override])


@pytest.mark.parametrize("text", ["- 1", "a: [", "a: b: c", "seed: !!int abc"])
def test_a_file_that_is_no_mapping_is_named(text: str, tmp_path: Path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        load_config(tmp_path / "bad.yaml")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ConfigError, match="did you mean horse2zebra"):
        load_config("horse2zebr")


def test_help_tells_every_option():
    def keys(model, prefix=""):
        for name, field in model.model_fields.items():
            inner = field.annotation
            nested = isinstance(inner, type) and hasattr(inner, "model_fields")
            yield from keys(inner, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]

    text = describe_options()
    for key in [*keys(Config), "blocks", "spectral", "cycle", "discriminator_updates"]:
        assert f"  {key}: " in text, key


def test_yaml_in_the_data_readme_is_valid():
    text = (Path(__file__).parents[1] / "datasets" / "README.md").read_text()
    for block in text.split("```yaml")[1:]:
        load_config({"name": "x", **yaml.safe_load(block.split("```")[0])})


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_the_order_of_overrides_does_not_matter(order: slice):
    given = ["algorithm.nce=5", "algorithm.name=cut", "speed.precision=bf16", "speed=auto"][order]
    config = load_config({"name": "x", "algorithm": {"cycle": 3}, "speed": {"compile": True}}, given)
    assert config.algorithm == {"name": "cut", "nce": 5}
    assert (config.speed.choice, config.speed.precision, config.speed.compile) == ("auto", "bf16", False)


def test_naming_what_is_there_already_keeps_its_options():
    config = load_config({"name": "x", "generator": {"width": 4}}, ["generator.name=resnet", "generator.blocks=1"])
    assert config.generator == {"name": "resnet", "width": 4, "blocks": 1}


@pytest.mark.parametrize("name", [".", "..", ".a/b", ""])
def test_a_name_is_one_of_a_folder_below_results(name: str):
    with pytest.raises(ConfigError, match="name"):
        load_config({"name": name})
    assert load_config({"name": ".hidden"}).name == ".hidden"


def test_a_seed_has_32_bits():
    assert load_config({"name": "x", "seed": 2**32 - 1}).seed == 2**32 - 1
    with pytest.raises(ConfigError, match="seed"):
        load_config({"name": "x", "seed": 5_000_000_000})


def test_a_file_in_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "x.yaml").write_bytes("name: caf\u00e9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"x\.yaml: byte 9 is not UTF-8"):
        load_config(tmp_path / "x.yaml")


@pytest.mark.parametrize("text", ["data: {root: a, flip: 0, root: b}", "training: {epochs: 3}\ntraining: {epochs: 4}"])
def test_a_key_that_stands_there_twice_is_named_with_its_line(text: str, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(f"# a run\n{text}")
    word, line = ("root", 2) if text.startswith("data") else ("training", 3)
    with pytest.raises(ConfigError, match=rf"x\.yaml: not valid YAML: {word} stands there twice .*line {line}\b"):
        load_config(tmp_path / "x.yaml")


def test_a_key_that_is_merged_in_may_be_given_anew(tmp_path: Path):
    (tmp_path / "x.yaml").write_text(
        "data:\n  A: &plain {channels: 1, background: black}\n  B: {<<: *plain, channels: 3}"
    )
    data = load_config(tmp_path / "x.yaml").data
    assert (data.A.channels, data.B.channels, data.B.background) == (1, 3, "black")


def test_a_section_that_has_merged_may_itself_be_merged(tmp_path: Path):
    """PyYAML merges into a section that lies deeper before it looks at its keys."""
    (tmp_path / "x.yaml").write_text(
        "discriminator: &small {width: 8}\ndata: {A: {augment: [&b {<<: *small, width: 16}]}}\ngenerator: {<<: *b}"
    )
    assert read_yaml(tmp_path / "x.yaml")["generator"] == {"width": 16}


def test_a_word_is_the_name_of_an_algorithm_or_network(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("algorithm: cut\ngenerator: unet")
    config = load_config(tmp_path / "x.yaml", ["generator=resnet", "discriminator.width=8"])
    assert (config.algorithm, config.generator) == ({"name": "cut"}, {"name": "resnet"})
    assert config.discriminator == {"name": "patch", "width": 8}


def test_who_trains_on_other_pictures_gets_no_test_pictures_of_the_file():
    file = {"name": "x", "data": {"A": {"train": "a", "test": "b", "channels": 1}, "B": {"train": "c", "test": "d"}}}
    config = load_config(file, ["data.A.train=mine", "data.load_size=40"])
    assert (config.data.A.test, config.data.A.channels, config.data.B.test) == (None, 1, Path("d"))
    assert load_config(file, ["data.A.train=mine", "data.A.test=too"]).data.A.test == Path("too")


def test_numbers_are_finite():
    with pytest.raises(ConfigError, match=r"optimizer\.lr.*finite"):
        load_config({"name": "x"}, ["optimizer.lr=1e400"])


def test_each_choice_of_a_file_is_told_once():
    with pytest.raises(ConfigError) as error:
        load_config("horse3zebra")
    assert str(error.value).count("horse2zebra,") == 1 and "did you mean horse2zebra?" in str(error.value)


def test_another_root_is_heeded_where_the_file_names_folders():
    named = {"train": "/old/a", "test": "/old/ta"}
    values = {"name": "x", "data": {"A": {**named, "channels": 1}, "B": named, "root": "/old"}}
    data = load_config(values, ["data.root=/new"]).data
    assert (data.root, data.A.train, data.A.test, data.B.train) == (Path("/new"), None, None, None)
    assert data.A.channels == 1
    data = load_config(values, ["data.root=/new", "data.A.train=/new/a"]).data
    assert (data.A.train, data.A.test, data.B.train) == (Path("/new/a"), None, None)
    del values["data"]["B"]  # then data.root is B's
    data = load_config(values, ["data.root=/new"]).data
    assert (data.root, data.A.train, data.B.train) == (Path("/new"), Path("/old/a"), None)
