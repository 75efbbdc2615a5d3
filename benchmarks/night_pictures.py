"""Pictures of the nights' page as a real Chromium shows it: docs/evidence/nights/page-WIDTH-SCHEME.webp.

    .venv/bin/python benchmarks/night_pictures.py

The nights are made up (tests/nightly_history.py): every state that the page can show.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from build_recipes.kit.paths import PROJECT
from build_recipes.nightly.page.rows import Drawing
from build_recipes.nightly.page.site import write_site

sys.path.insert(0, str(PROJECT / "tests"))

import nightly_history
from chromium import chromium

TO = PROJECT / "docs/evidence/nights"
SIZES = {1280: 2500, 390: 2100}
"""Width to the height that is kept."""


def main() -> None:
    """Draw the page and photograph it."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        events = nightly_history.write(Path(scratch) / "n.sqlite")
        site = "https://owner.github.io/vllm-armory"
        releases = "https://github.com/owner/vllm-armory/releases/download"
        how = Drawing(nightly_history.NOW, releases, f"{site}/simple/")
        page = write_site("vLLM for Arm with CUDA 13", events, Path(scratch) / "site", how, site_url=site)
        program, environment = chromium()
        browser = driver.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu"], env=environment or None
        )
        for width, height in SIZES.items():
            for scheme in ("light", "dark"):
                opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
                opened.goto(page.as_uri())
                clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
                taken = opened.context.new_cdp_session(opened).send(
                    "Page.captureScreenshot",
                    {"format": "webp", "quality": 70, "captureBeyondViewport": True, "clip": clip},
                )
                (TO / f"page-{width}-{scheme}.webp").write_bytes(base64.b64decode(taken["data"]))
                opened.close()
        browser.close()


if __name__ == "__main__":
    main()
