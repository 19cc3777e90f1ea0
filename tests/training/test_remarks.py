from __future__ import annotations

import json
from dataclasses import asdict
from types import SimpleNamespace

import torch

from cyclegan.training.environment import describe_environment, git_commit
from cyclegan.training.remarks import Remark, add_remarks, drop_remarks_after, read_remarks

EARLY = Remark(1000, "starving", "the device waits", 900)
LATE = Remark(2000, "diverging", "the loss grows — without bound", 1800)


def test_remarks_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "remarks.jsonl"
    assert read_remarks(path) == []
    add_remarks(path, [EARLY])
    add_remarks(path, [LATE])
    assert read_remarks(path) == [EARLY, LATE]


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    path = tmp_path / "remarks.jsonl"
    add_remarks(path, [EARLY, LATE])
    path.write_bytes(path.read_bytes()[:-20] + b'\n{"images": null}\n')
    assert read_remarks(path) == [EARLY]


def test_of_another_versions_lines_those_are_read_that_say_as_much(tmp_path):
    path = tmp_path / "remarks.jsonl"
    lines = [{**asdict(EARLY), "colour": "red"}, {"images": 1200, "text": "no kind"}, asdict(LATE)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_remarks(path) == [EARLY, LATE]


def test_a_resumed_run_drops_what_was_said_after_its_state(tmp_path):
    path = tmp_path / "remarks.jsonl"
    drop_remarks_after(path, 0)
    add_remarks(path, [EARLY, LATE])
    drop_remarks_after(path, 1500)
    assert read_remarks(path) == [EARLY]


def test_environment_says_what_a_run_needs_to_be_repeated():
    accelerator = SimpleNamespace(device=torch.device("cpu"), num_processes=2, mixed_precision="no")
    environment = describe_environment(accelerator)
    assert {
        "started",
        "command",
        "commit",
        "python",
        "torch",
        "accelerate",
        "device",
        "processes",
    } <= environment.keys()
    assert environment["processes"] == 2
    assert environment["torch"] == torch.__version__.partition("+")[0] or "+" in environment["torch"]
    assert json.loads(json.dumps(environment)) == environment


def test_code_outside_git_has_no_commit(tmp_path):
    assert git_commit(tmp_path) == ""
