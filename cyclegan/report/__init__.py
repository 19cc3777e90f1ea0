"""The report of a run: one HTML file with everything in it, that opens offline, for a finished run or a running one."""

from __future__ import annotations

from pathlib import Path

from cyclegan.report.contents import read_contents
from cyclegan.report.page import render_page
from cyclegan.whole_files import write_page


def write_report(folder: Path | str, destination: Path | str | None = None) -> Path:
    """Write the report of the run in `folder`, by default to report.html there; returns the file.

    Raises ReportError for a folder without a run and for a run that has logged nothing yet.
    """
    folder = Path(folder)
    destination = Path(destination) if destination else folder / "report.html"
    page = render_page(read_contents(folder))
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_page(destination, page)
    return destination
