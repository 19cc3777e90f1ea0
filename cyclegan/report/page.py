"""The report as HTML: all text escaped, nothing from outside."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from html import escape
from pathlib import Path
from statistics import median
from string import Template
from typing import Any

import yaml

from cyclegan.report.contents import Contents, differences
from cyclegan.report.curves import SERIES, Panel, draw_panel, is_curve, sort_panels
from cyclegan.report.sheets import Frame, read_frames
from cyclegan.training.remarks import Remark

TEMPLATE = Path(__file__).with_name("page.html")


def render_page(contents: Contents) -> str:
    """The whole document."""
    sections = [
        _remarks(contents.remarks),
        _samples(read_frames(contents.sheets)),
        _curves(contents.lines, contents.remarks),
        _configuration(contents.config),
        _environment(contents.environment),
    ]
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(contents.name),
        subtitle=_subtitle(contents),
        facts=_facts(contents.lines),
        sections="\n".join(sections),
    )


def _subtitle(contents: Contents) -> str:
    named = [contents.config.get(section, {}) for section in ("algorithm", "generator")]
    names = ", ".join(dict.fromkeys(str(part.get("name")) for part in named if isinstance(part, dict) and part))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return escape(f"{names}; as it was at {now}" if names else f"as it was at {now}")


def _facts(lines: list[dict[str, float]]) -> str:
    facts = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in summary(lines).items()]
    return f'<dl class="facts">{"".join(f"<div>{fact}</div>" for fact in facts)}</dl>' if facts else ""


def summary(lines: list[dict[str, float]]) -> dict[str, str]:
    """How far the run is, how fast, and in how much memory."""
    if not lines:
        return {}
    facts = {"images": f"{lines[-1]['images']:,}"}
    if updates := [line["step"] for line in lines if "step" in line]:
        facts["updates"] = f"{updates[-1]:,}"
    timed = [line for line in lines if line.get("speed/images_per_second")]
    if timed:
        seconds = _seconds(timed)
        waited = sum(
            spent * line.get("speed/waiting_for_data", 0.0) for spent, line in zip(seconds, timed, strict=True)
        )
        facts["training time"] = _duration(sum(seconds))
        facts["images a second, median"] = f"{median(line['speed/images_per_second'] for line in timed):.3g}"
        facts["waiting for pictures"] = f"{waited / sum(seconds):.1%}"
    if memory := [line["speed/memory_mib"] for line in lines if "speed/memory_mib" in line]:
        facts["memory, most"] = f"{max(memory):,.0f} MiB"
    return facts


def _seconds(lines: list[dict[str, float]]) -> list[float]:
    before = [0, *(line["images"] for line in lines)]
    return [
        (line["images"] - start) / line["speed/images_per_second"] for line, start in zip(lines, before, strict=False)
    ]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def _remarks(remarks: list[Remark]) -> str:
    if not remarks:
        return _section("Doctor", '<p class="soft">The training doctor has remarked nothing.</p>')
    items = [
        f"<li><b>{escape(remark.kind)}</b> after {remark.images:,} images"
        f"{f', first seen at {remark.since:,}' if remark.since < remark.images else ''}: {escape(remark.message)}</li>"
        for remark in remarks
    ]
    return _section("Doctor", f'<ul class="remarks">{"".join(items)}</ul>')


def _samples(frames: list[Frame]) -> str:
    if not frames:
        return _section("Pictures over time", '<p class="soft">No sample sheets yet.</p>')
    last = len(frames) - 1
    images = [
        f'<img class="frame" src="{frame.address}" width="{frame.width}" height="{frame.height}"'
        f' alt="Sample sheet after {frame.images:,} images" data-label="{frame.images:,} images"'
        f"{' hidden' if i != last else ''}>"
        for i, frame in enumerate(frames)
    ]
    slider = (
        f'<div class="slider" hidden><input type="range" min="0" max="{last}" value="{last}" step="1"'
        f' aria-label="training progress"><output>{frames[last].images:,} images</output></div>'
    )
    return _section("Pictures over time", f'{slider}<div class="frames">{"".join(images)}</div>')


def _curves(lines: list[dict[str, float]], remarks: list[Remark]) -> str:
    names = list(dict.fromkeys(name for line in lines for name in line if is_curve(name)))
    if not names:
        return _section("Curves", '<p class="soft">No curves yet.</p>')
    groups = [
        f'<h3>{escape(heading)}</h3><div class="panels">'
        + "".join(_figure(panel, lines, remarks) for panel in panels)
        + "</div>"
        for heading, panels in sort_panels(names).items()
    ]
    about = '<p class="soft">Over images seen. Thin: as logged; thick: smoothed; dotted: the doctor spoke.</p>'
    return _section("Curves", about + "".join(groups))


def _figure(panel: Panel, lines: list[dict[str, float]], remarks: list[Remark]) -> str:
    keys = [
        f'<span class="key" style="--series: var({series})">{escape(label)}</span>'
        for series, label in zip(SERIES * len(panel.keys), panel.keys, strict=False)
        if label
    ]
    caption = f"<figcaption><strong>{escape(panel.title)}</strong>{''.join(keys)}</figcaption>"
    return f"<figure>{caption}{draw_panel(panel, lines, remarks)}</figure>"


def _configuration(config: dict[str, Any]) -> str:
    if not config:
        return _section("Configuration", '<p class="soft">No readable config.yaml in the run.</p>')
    rows = [[key, _shown(value), _shown(default)] for key, value, default in differences(config)]
    table = _table(["differs from the defaults", "this run", "default"], rows) if rows else "<p>All defaults.</p>"
    full = escape(yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return _section(
        "Configuration", f"{table}<details><summary>all of config.yaml</summary><pre>{full}</pre></details>"
    )


def _environment(environment: dict[str, Any]) -> str:
    if not environment:
        return _section("Environment", '<p class="soft">Not recorded.</p>')
    return _section("Environment", _table([], [[str(key), str(value)] for key, value in environment.items()]))


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table(head: list[str], rows: list[list[str]]) -> str:
    top = f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{content}</section>"
