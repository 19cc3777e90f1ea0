"""The command line as a user meets it: exit codes, one line for a mistake, and the library from a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import cyclegan
from cyclegan import commands
from cyclegan.commands import test, train
from tests.conftest import merged

ROOT = Path(__file__).parents[1]


def call(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train.py", "--config", "smok"], 1, "did you mean smoke?"),
        (["train.py"], 2, "--config is missing"),
        (["test.py", "--run", "nowhere"], 1, "nowhere is no run's folder"),
        (["-m", "cyclegan", "trian"], 2, "did you mean train?"),
    ],
)
def test_a_program_ends_with_one_line_about_a_mistake(arguments: list[str], code: int, words: str):
    done = call(*arguments)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert words in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (train, ["--config", "smoke", "training.epocs=1"], "training.epocs: unknown 'epocs'; did you mean"),
        (train, ["--config", "smoke", "generator.bloks=1"], "did you mean blocks?"),
        (train, ["--config", "smoke", "data.root=nowhere"], "no folder nowhere"),
        (test, ["--run", "nowhere", "--device", "gpu"], "no device gpu here"),
    ],
)
def test_a_mistake_is_one_line(command: ModuleType, arguments: list[str], words: str, capsys: pytest.CaptureFixture):
    assert commands.run("program", command.main, arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("program: ") and words in line


def test_print_config_shows_the_resolved_run_and_can_be_given_back(tmp_path: Path, capsys: pytest.CaptureFixture):
    done = call("train.py", "--config", "smoke", "--print-config", "training.epochs=3")
    assert done.returncode == 0 and "epochs: 3" in done.stdout and "blocks: 1" in done.stdout
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert train.main(["--config", str(tmp_path / "again.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == done.stdout


def test_commands_are_listed_with_what_they_do():
    done = call("-X", "importtime", "-m", "cyclegan", "--help")
    assert done.returncode == 0 and " torch\n" not in done.stderr  # which takes seconds
    for name in ("data", "test", "train"):
        assert f"  {name} " in done.stdout


def test_train_and_test_from_the_command_line(tmp_path: Path):
    done = call("train.py", "--config", "smoke", f"results={tmp_path}")
    assert done.returncode == 0, done.stderr
    done = call("test.py", "--run", str(tmp_path / "smoke"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"gallery: {tmp_path}/smoke/test/index.html"
    assert "PSNR" in done.stdout and "untouched" in done.stdout


def test_the_library_works_without_accelerate_having_been_launched(options: dict):
    """As in a notebook: twice in one process, with different precisions."""
    config = cyclegan.load_config(options)
    run = cyclegan.train(config)
    cyclegan.train(merged({**options, "name": "again"}, speed={"precision": "bf16"}))
    assert cyclegan.load_generator(run, "AtoB").about["run"] == "tiny"
    with pytest.raises(AttributeError, match="nothing"):
        _ = cyclegan.nothing
