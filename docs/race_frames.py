"""Records the race of a report's page in a headless browser: a picture of every instant, and a sheet of all.

    python docs/race_frames.py results/runs/quick/report/report.html frames --at 0.1 0.3 0.6 1 --class 3

writes frames/race-0100.png and so on, by thousandths of the slowest lane's time, and frames/race.png. It
needs `pip install 'pardec[dev]'` and a chromium.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import sync_playwright

INSTANTS = (0.05, 0.15, 0.3, 0.6, 1.0)
HEAD = 34
"""Pixels above a frame of the sheet, for what the clock shows."""
Frame = tuple[Path, str]
"""A picture, and what the race's clock shows."""


def record(
    browser: Any,
    page: Path,
    out: Path,
    instants: Sequence[float] = INSTANTS,
    label: str | None = None,
    facet: int = 0,
    width: int = 1280,
    dark: bool = False,
) -> list[Frame]:
    """A picture of the lanes at each instant, a share from 0 to 1 of the slowest lane's time.

    browser: of playwright. label: the class whose image is decoded; None for the first. ValueError for a page
    without a race.
    """
    look = {"color_scheme": "dark" if dark else "light", "reduced_motion": "reduce"}
    context = browser.new_context(viewport={"width": width, "height": 900}, device_scale_factor=2, **look)
    try:
        opened = context.new_page()
        opened.goto(page.resolve().as_uri())
        if facet:
            opened.locator("#facet").select_option(str(facet))
        race = opened.locator(f"#race-{facet}")
        if not race.locator(".lanes").count():
            raise ValueError(f"'{page}' has no race: its rows have no stored traces and samples")
        opened.evaluate("Promise.all(Array.from(document.images, (one) => one.decode().catch(() => null)))")
        race.locator("canvas").first.wait_for()
        opened.wait_for_function(f"document.querySelector('#race-{facet} canvas').width >= 32")
        if label is not None:
            race.locator("[name=class]").select_option(label)
        out.mkdir(parents=True, exist_ok=True)
        found = []
        for instant in instants:
            race.locator("[name=time]").fill(str(round(1000 * instant)))
            path = out / f"race-{round(1000 * instant):04d}.png"
            race.locator(".lanes").screenshot(path=path)
            found.append((path, race.locator(".clock").inner_text()))
        return found
    finally:
        context.close()


def sheet(frames: Sequence[Frame], path: Path, dark: bool = False) -> Path:
    """All frames below each other, each under its time."""
    pictures = [Image.open(frame).convert("RGB") for frame, _ in frames]
    paper, ink = ("#101216", "#d7d9df") if dark else ("white", "#1f2328")
    size = max(one.width for one in pictures), sum(one.height + HEAD for one in pictures)
    whole, top = Image.new("RGB", size, paper), 0
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(size=22)
    for picture, (_, clock) in zip(pictures, frames, strict=True):
        pen.text((4, top + 4), clock, fill=ink, font=font)
        whole.paste(picture, (0, top + HEAD))
        top += picture.height + HEAD
    whole.save(path, optimize=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--at", type=float, nargs="+", default=INSTANTS, metavar="SHARE", dest="instants")
    parser.add_argument("--class", metavar="CLASS", dest="label")
    parser.add_argument("--facet", type=int, default=0)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--browser", default=shutil.which("chromium"))
    options = vars(parser.parse_args())
    page, out, path = options.pop("page"), options.pop("out"), options.pop("browser")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        frames = record(browser, page, out, **options)
        browser.close()
    print(sheet(frames, out / "race.png", options["dark"]))


if __name__ == "__main__":
    main()
