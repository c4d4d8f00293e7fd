"""Takes the picture of a report that the README shows: ``python -m pictures.screenshot OUT_DIR [HEIGHT]``.

The top of the page, 1280 pixels wide and HEIGHT high (default 1090), as Chromium shows it in light colours. CHROMIUM
names the browser where it is not on the PATH.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "report.png"
WIDTH, HEIGHT = 1280, 1090
COLOURS = 128


def taken(page: Path, height: int) -> bytes:
    """Give the top of a page as a PNG."""
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path)
        view = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
        view.goto(page.resolve().as_uri())
        shot = view.screenshot()
        browser.close()
    return shot


def main() -> None:
    """Take the picture of the report in the folder named, and keep it small."""
    height = int(sys.argv[2]) if len(sys.argv) > 2 else HEIGHT
    shot = taken(Path(sys.argv[1]) / "report.html", height)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
