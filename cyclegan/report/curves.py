"""Curves as small figures in SVG, whose colours follow the page."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass, field
from statistics import median

from cyclegan.errors import UserError
from cyclegan.training.remarks import Remark

HEADINGS = ("Metrics", "Generators", "Discriminators", "Learning rate", "Speed and memory")
MOST_POINTS = 600  # more than a figure has pixels
SMOOTH = 30  # a smoothed curve is the mean over a thirtieth of the run, over three points at least
FEW = 40  # points that are shown as such
EXACT = ("lr/", "metrics/")  # what has no noise, or too few points, is not smoothed
SERIES = ("--a", "--b", "--c", "--d")  # the page's colours; A and B, as everywhere, are the first two
STAND_INS = {
    "#0000a0": "--a",
    "#0000a1": "--b",
    "#0000a2": "--c",
    "#0000a3": "--d",
    "#0000a4": "--ink",
    "#0000a5": "--rule",
}
COLOURS = {name: stand_in for stand_in, name in STAND_INS.items()}


class MissingLibrary(UserError, ImportError):
    """An optional library that a command needs."""


@dataclass
class Panel:
    """One figure: its title, and the keys of its curves by label."""

    title: str
    keys: dict[str, str] = field(default_factory=dict)


def is_curve(name: str) -> bool:
    return name not in ("images", "epoch", "step")


def sort_panels(names: list[str]) -> dict[str, list[Panel]]:
    """Headings with their panels. The two domains, or directions, of one quantity share a panel."""
    panels: dict[str, dict[str, Panel]] = {}
    for name in names:
        heading, title, label = _place(name)
        panel = panels.setdefault(heading, {}).setdefault(title, Panel(title))
        panel.keys[label] = name
    return {heading: [_in_order(panel) for panel in panels[heading].values()] for heading in sorted(panels, key=_rank)}


def _rank(heading: str) -> tuple[int, str]:
    """Headings that we don't know, of an algorithm's other optimizers, come after the discriminators."""
    return (HEADINGS.index(heading) if heading in HEADINGS else len(HEADINGS) - 2, heading)


def _in_order(panel: Panel) -> Panel:
    return Panel(panel.title, dict(sorted(panel.keys.items())))


def _place(name: str) -> tuple[str, str, str]:
    """Heading, title and label: generators/cycle_A -> Generators, cycle, A."""
    group, _, rest = name.partition("/")
    if group == "lr":
        return "Learning rate", "rate of each optimizer", rest
    if group == "speed":
        return "Speed and memory", rest.replace("_mib", ", MiB").replace("_", " "), ""
    side = re.search(r"(?:^|[/_])(AtoB|BtoA|A|B)(?:$|(?=[/_]))", rest)
    if side:
        rest = (rest[: side.start()] + rest[side.end() :]).strip("/_")
    title = (rest or ("loss" if side else "total")).replace("_", " ").replace("/", " ")
    return group.capitalize(), title, side[1] if side else ""


def draw_panel(panel: Panel, lines: list[dict[str, float]], remarks: list[Remark]) -> str:
    """An <svg>: raw curves thin, smoothed ones over them, dotted lines where the doctor spoke."""
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_style(panel.title + "".join(panel.keys))):
        figure = matplotlib.figure.Figure(figsize=(4.8, 2.4), layout="constrained")
        axes = figure.add_subplot()
        shown: list[float] = []
        empty = [label or panel.title for label, name in panel.keys.items() if not _points(lines, name)[0]]
        if empty:
            said = f"no finite values: {', '.join(empty)}"
            axes.text(0.01, 0.97, said, va="top", transform=axes.transAxes, parse_math=False)
        for series, name in zip(SERIES * len(panel.keys), panel.keys.values(), strict=False):
            x, y = _thinned(*_points(lines, name))
            smooth = y if name.startswith(EXACT) or len(y) < 3 else smoothed(y)
            marker = "." if len(x) <= FEW else ""
            axes.plot(x, y, color=COLOURS[series], linewidth=0.6, alpha=0.35, marker=marker, markersize=4)
            axes.plot(x, smooth, color=COLOURS[series], linewidth=1.4, marker=marker if smooth is y else "")
            shown += [*smooth, *_without_outliers(y)]
        for remark in remarks:
            axes.axvline(remark.images, color=COLOURS["--ink"], linewidth=0.8, linestyle=":")
        axes.set_xlim(0, lines[-1]["images"] * 1.02)
        _set_axes(axes, shown)
        return _inline(figure)


def _points(lines: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    points = [(line["images"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
    points = [(x, y) for x, y in points if math.isfinite(y)]
    return [x for x, _ in points], [y for _, y in points]


def _thinned(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    """Means of neighbours, so that no figure grows with the length of the run."""
    size = math.ceil(len(x) / MOST_POINTS) or 1
    return tuple([sum(v[i : i + size]) / len(v[i : i + size]) for i in range(0, len(v), size)] for v in (x, y))


def smoothed(values: list[float]) -> list[float]:
    """A centred moving mean that is shorter at the ends."""
    half = math.ceil(len(values) / SMOOTH / 2)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _without_outliers(values: list[float]) -> list[float]:
    """One spike should not press the curve flat."""
    kept = sorted(values)
    cut = len(kept) // 100
    return kept[cut : len(kept) - cut]


def _set_axes(axes, shown: list[float]) -> None:
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    if low > 0 and high > 100 * median(shown):
        axes.set_yscale("log")
    else:
        margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        axes.set_ylim(0 if 0 <= low <= 0.5 * high else low - margin, high + margin)
    axes.xaxis.set_major_formatter(lambda images, _: _thousands(images))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="y", linewidth=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def _thousands(images: float) -> str:
    if abs(images) < 10_000:
        return f"{images:,.0f}"
    return f"{images / 1000:,.6g}k" if images < 1e6 else f"{images / 1e6:,.4g}M"


def _style(salt: str) -> dict:
    ink, rule = COLOURS["--ink"], COLOURS["--rule"]
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,  # the same run gives the same file, and no two figures the same ids
        "font.size": 9,
        "text.color": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.edgecolor": rule,
        "grid.color": rule,
        "axes.formatter.limits": (-4, 5),
        "axes.formatter.useoffset": False,  # memory is 888 MiB, not 0.04 above 887.7
    }


def _inline(figure) -> str:
    """As part of an HTML page: no prologue, no namespaces, no ids but those in use, colours by name."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r' width="[^"]*pt" height="[^"]*pt"|<metadata>.*?</metadata>', "", svg, flags=re.S)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    for stand_in, name in STAND_INS.items():
        svg = svg.replace(stand_in, f"var({name})")
    return svg


def _matplotlib():
    try:
        import matplotlib.figure
    except ImportError:
        raise MissingLibrary(
            "curves need matplotlib: pip install 'cyclegan[report]', or pip install matplotlib"
        ) from None
    return matplotlib
