"""Imports point down (the table of the design): nothing below knows of anything above."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "cyclegan"
BASE = {"errors", "whole_files", "devices", "heap"}
ALLOWED = {
    "errors": set(),
    "whole_files": set(),
    "arguments": set(),
    "heap": set(),
    "devices": {"errors"},
    "overrides": {"errors"},
    "mistakes": set(),
    "config": BASE | {"overrides", "mistakes"},
    "losses": set(),
    "replay": set(),
    "networks": BASE,
    "data": BASE | {"config"},
    "inference": BASE | {"losses", "networks", "data"},
    "evaluation": BASE | {"config", "losses", "networks", "data", "inference"},
    "neural_style": BASE | {"losses", "networks", "data", "inference"},
    "algorithms": BASE | {"config", "losses", "replay", "networks", "data"},
    "training": BASE | {"config", "losses", "replay", "networks", "data", "algorithms", "inference", "evaluation"},
    "report": BASE | {"config", "algorithms", "training"},
    "survey": BASE | {"config", "data"},
    "describe": BASE | {"config", "mistakes", "networks", "algorithms"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} if node.module != "cyclegan" else {f"cyclegan.{a.name}" for a in node.names}
    return {name.split(".")[1] for name in names if name.startswith("cyclegan.")}


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_down(part: str):
    files = list((ROOT / part).rglob("*.py")) or [ROOT / f"{part}.py"]
    for path in files:
        assert imported(path) - {part} <= ALLOWED[part], path


def test_the_table_names_every_part():
    parts = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__", "commands"} == set(ALLOWED)


def test_nobody_is_asked_for_anything_when_the_program_starts():
    code = "import urllib.request as r; r.OpenerDirector.open = lambda *_, **__: print('asked')\n"
    code += "import cyclegan.training.loop"
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT.parent)
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_programs_start_without_what_few_need():
    """torchvision brings torch's compiler along: with it and albumentations a start takes nearly twice as long."""
    heavy = {"torchvision", "torch._dynamo", "albumentations"}
    code = "import sys\n"
    for module in ("training.loop", "commands.fid", "commands.translate", "commands.test"):
        code += f"import cyclegan.{module}; print('{module}', {heavy} & {{*sys.modules}})\n"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert run.returncode == 0 and all(line.endswith(" set()") for line in run.stdout.splitlines()), run
