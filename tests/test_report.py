from __future__ import annotations

import builtins
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from cyclegan import commands
from cyclegan.commands.report import main
from cyclegan.config import load_config
from cyclegan.report import write_report
from cyclegan.report.contents import ReportError, differences, read_contents
from cyclegan.report.curves import MOST_POINTS, MissingLibrary, draw_panel, smoothed, sort_panels
from cyclegan.report.page import summary
from cyclegan.report.sheets import MOST_FRAMES, read_frames, thinned
from cyclegan.training.remarks import Remark, add_remarks
from cyclegan.whole_files import write_whole

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'$title</pre>"


class Page(HTMLParser):
    """All tags with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data):
        self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def line(images: int) -> dict[str, float]:
    return {
        "images": images,
        "epoch": images // 500,
        "step": images,
        "generators": 5 + 1000 / images,
        "generators/cycle_A": 2.0,
        "generators/cycle_B": 2.5,
        "discriminators/A": 0.2,
        "lr/generators": 2e-4,
        "speed/images_per_second": 10.0,
        "speed/waiting_for_data": 0.1,
        "speed/memory_mib": 800 + images / 100,
    }


@pytest.fixture
def run(tmp_path):
    """A run's folder with hostile names, as training leaves it in the middle of a line."""
    folder = tmp_path / HOSTILE.replace("/", "")
    (folder / "log").mkdir(parents=True)
    (folder / "samples").mkdir()
    config = load_config({"name": "run", "algorithm": {"name": "cyclegan", "cycle": 7.5}, "training": {"epochs": 3}})
    config.schedule.watch = HOSTILE
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    lines = [line(images) for images in range(100, 3000, 100)]
    lines.append({"images": 3000, "metrics/kid_AtoB": 0.03, f"metrics/{HOSTILE}": 1.0})
    written = "".join(json.dumps(values) + "\n" for values in lines)
    (folder / "log" / "metrics.jsonl").write_text(written + '{"images": 3100, "gener')
    (folder / "log" / "environment.json").write_text(json.dumps({"command": HOSTILE, "processes": 2}))
    add_remarks(folder / "log" / "remarks.jsonl", [Remark(900, "inverted", HOSTILE, 600)])
    for images in range(0, 4500, 100):
        Image.new("RGB", (64, 48), (images % 256, 0, 0)).save(folder / "samples" / f"{images:09d}.png")
    (folder / "samples" / ".000004500.png").write_bytes(b"being written")
    return folder


@pytest.fixture
def page(run):
    pytest.importorskip("matplotlib")
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_report_refers_to_nothing_outside_the_file(page, run):
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "audio", "video")
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith(("data:", "#")), (tag, attributes)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_hostile_names_and_values_stay_text(page):
    assert len(page.of("script")) == 1
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert {image["class"] for image in page.of("img")} == {"frame"}
    for where in ("watch", "command", "inverted"):
        assert where in page.text
    assert page.text.count(HOSTILE) == 3  # table of differences, remark, environment; YAML quotes it its own way


def test_slider_has_a_place_for_every_frame(page):
    (slider,) = page.of("input")
    frames = page.of("img")
    assert len(frames) == MOST_FRAMES == int(slider["max"]) + 1
    assert [frames[0]["data-label"], frames[-1]["data-label"]] == ["0 images", "4,400 images"]
    assert ["hidden" in frame for frame in frames] == [True] * (MOST_FRAMES - 1) + [False]


def test_going_back_stands_among_the_remarks_in_order_of_images(run):
    add_remarks(run / "log" / "remarks.jsonl", [Remark(2000, "diverging", "late", 1900)])
    (run / "log" / "rollbacks.jsonl").write_text(json.dumps({"images": 1000, "to": 500, "why": "x"}) + "\n")
    assert [(remark.images, remark.kind) for remark in read_contents(run).remarks] == [
        (900, "inverted"),
        (1000, "rollback"),
        (2000, "diverging"),
    ]


def test_a_curve_without_any_number_is_said_to_be_one(run):
    pytest.importorskip("matplotlib")
    lines = [{"images": 1, "metrics/fid_AtoB": float("nan"), "metrics/fid_BtoA": 2.0}, {"images": 2}]
    ((panel,),) = sort_panels(list(lines[0])[1:]).values()
    assert "no finite values: AtoB<" in draw_panel(panel, lines, [])
    lines[0]["metrics/fid_AtoB"] = 1.0
    assert "no finite values" not in draw_panel(panel, lines, [])


def test_what_is_in_a_files_place_is_named(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "there.html").mkdir()
    assert commands.run("cyclegan report", main, [str(run), "-o", str(tmp_path / "there.html")]) == 1
    assert capsys.readouterr().err.endswith(f"Is a directory: '{tmp_path / 'there.html'}'\n")
    (tmp_path / "file").touch()
    for place in ("nowhere/x", "file/x"):
        with pytest.raises(OSError, match=rf"{place}'$"):
            write_whole(tmp_path / place, "text")
    assert not list(tmp_path.glob(".*.part"))


def test_no_two_elements_share_an_id(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_one_figure_for_both_domains_of_a_quantity():
    panels = sort_panels(
        ["discriminators/A", "generators", "generators/cycle_A", "generators/cycle_B", "metrics/fid_AtoB"]
    )
    assert list(panels) == ["Metrics", "Generators", "Discriminators"]
    assert [panel.title for panel in panels["Generators"]] == ["total", "cycle"]
    assert panels["Generators"][1].keys == {"A": "generators/cycle_A", "B": "generators/cycle_B"}
    assert panels["Metrics"][0].keys == {"AtoB": "metrics/fid_AtoB"}


def test_what_differs_from_the_defaults_is_named_with_the_default():
    config = load_config({"name": "run", "algorithm": {"name": "cyclegan", "cycle": 7.5}, "training": {"epochs": 3}})
    assert differences(config.model_dump(mode="json")) == [("algorithm.cycle", 7.5, 10.0), ("training.epochs", 3, 100)]


def test_a_configuration_of_another_version_is_shown_all_the_same():
    assert ("algorithm.name", "gone", None) in differences({"algorithm": {"name": "gone"}})


def test_summary_tells_time_speed_and_memory():
    facts = summary([line(images) for images in range(100, 3100, 100)])
    assert facts == {
        "images": "3,000",
        "updates": "3,000",
        "training time": "5 min",
        "images a second, median": "10",
        "waiting for pictures": "10.0%",
        "memory, most": "830 MiB",
    }


def test_size_is_bounded(tmp_path):
    noise = Image.effect_noise((400, 300), 90).convert("RGB")
    paths = [tmp_path / f"{images:09d}.png" for images in range(9)]
    for path in paths:
        noise.save(path)
    one = len(read_frames(paths[:1])[0].webp)
    frames = read_frames(paths, most_bytes=5 * one)
    assert [frames[0].images, frames[-1].images] == [0, 8]
    assert sum(len(frame.webp) for frame in frames) <= 5 * one
    assert thinned(list(range(100)), 3) == [0, 50, 99]


def test_a_long_run_makes_no_larger_figures(run):
    pytest.importorskip("matplotlib")
    before = write_report(run).stat().st_size
    lines = [json.dumps(line(images)) for images in range(10, 40 * MOST_POINTS * 10, 10)]
    (run / "log" / "metrics.jsonl").write_text("\n".join(lines))
    assert write_report(run).stat().st_size < before + 1_000_000


def test_a_damaged_sheet_is_left_out(tmp_path):
    good, bad = tmp_path / "000000000.png", tmp_path / "000000100.png"
    Image.new("RGB", (8, 8)).save(good)
    bad.write_bytes(good.read_bytes()[:40])
    assert [frame.images for frame in read_frames([good, bad])] == [0]


def test_a_run_that_has_only_its_first_sheet_has_a_report(run):
    (run / "log" / "metrics.jsonl").unlink()
    assert "No curves yet" in write_report(run).read_text(encoding="utf-8")


def test_what_a_crash_left_on_the_disk_is_no_line(run):
    pytest.importorskip("matplotlib")
    with (run / "log" / "metrics.jsonl").open("ab") as file:
        file.write(b"\x00\xff\xfe\n" + json.dumps(line(3200)).encode() + b"\n")
    assert "<dd>3,200</dd>" in write_report(run).read_text(encoding="utf-8")


def test_a_run_that_has_logged_nothing_is_one_clear_message(tmp_path):
    (tmp_path / "config.yaml").write_text("name: run")
    with pytest.raises(ReportError, match="nothing logged yet"):
        write_report(tmp_path)


def test_a_folder_of_runs_is_no_run(run):
    with pytest.raises(ReportError, match=r"is no run's folder; runs in .*script"):
        write_report(run.parent)


def test_of_a_young_run_the_points_themselves_are_drawn():
    pytest.importorskip("matplotlib")
    (panel,) = sort_panels(["generators"])["Generators"]
    lines = [{"images": 100, "generators": 1.0}, {"images": 200, "generators": 3.0}]
    for count in (1, 2):
        drawn = draw_panel(panel, lines[:count], [])
        heights = re.findall(r'y="([\d.]+)" style="fill: var\(--a\); stroke: var\(--a\)"', drawn)
        assert len(set(heights)) == count


def test_a_flat_curve_has_its_own_values_beside_its_axis():
    pytest.importorskip("matplotlib")
    (panel,) = sort_panels(["speed/memory_mib"])["Speed and memory"]
    drawn = draw_panel(panel, [{"images": i, "speed/memory_mib": 887.7 + i / 1000} for i in (40, 50)], [])
    assert ">887.740<" in drawn


def test_a_missing_run_names_those_there_are(run):
    (run.parent / "other").mkdir()
    (run.parent / "other" / "config.yaml").write_text("name: other")
    with pytest.raises(ReportError, match=r"no folder .*runs in .*other"):
        write_report(run.parent / "nope")


def test_without_matplotlib_the_error_says_what_to_install(run, monkeypatch):
    real_import = builtins.__import__

    def importing(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(MissingLibrary, match=r"cyclegan\[report\]"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_command_writes_where_it_is_told(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main([str(run), "-o", str(tmp_path / "new" / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "new" / "page.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_command_writes_over_no_file_that_is_no_page(run, tmp_path, capsys):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(SystemExit, match="2"):
        main([str(run), "-o", str(tmp_path / "mine.png")])
    assert "mine.png: name a .html" in capsys.readouterr().err
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_smoothing_keeps_a_straight_line():
    line = [float(i) for i in range(100)]
    assert smoothed(line)[10:-10] == pytest.approx(line[10:-10])
