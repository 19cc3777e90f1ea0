from pathlib import Path

import pytest
from PIL import Image

from cyclegan.inference.gallery import Block, write_gallery
from tests.browser import CHROMIUM, Browser

LEFT = "[...document.querySelectorAll('{}')].map(one => Math.round(one.getBoundingClientRect().left))"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_on_a_telephone_a_row_fits_and_its_headings_stand_over_its_pictures(tmp_path: Path):
    block = Block("AtoB", ["input", "output", "back again", "truth"])
    block.add("a.jpg", [Image.new("RGB", (256, 256))] * 4)
    write_gallery(tmp_path / "index.html", "run", "", [block], side=256)
    browser = Browser(tmp_path / "profile", tmp_path)
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    browser.open((tmp_path / "index.html").as_uri())
    assert browser.value("document.documentElement.scrollWidth") == 390
    for _ in range(2):
        assert browser.value(LEFT.format(".head span")) == browser.value(LEFT.format("img"))
        browser.value("document.querySelector('input').value = 300, document.querySelector('input').oninput()")
    browser.close()
