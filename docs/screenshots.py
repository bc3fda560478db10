"""Take the pictures that the README shows: record a dry run, serve the dashboard, photograph each view.

Run from the project's root, with Chromium installed::

    python docs/screenshots.py [VIEW]…

The examples are recorded first, which needs torch and transformers but no GPU. Without VIEW every picture is taken.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from memscope_dashboard.app import create_app
from memscope_dashboard.store import TraceStore
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
TRAINING, GENERATION = "llama-3-8b.memscope", "gpt2-generate.memscope"
SHOTS = (
    ("overview", "dark", TRAINING),
    ("canvas", "dark", TRAINING),
    ("timeline", "dark", TRAINING),
    ("timeline", "light", TRAINING),
    ("map", "dark", TRAINING),
    ("allocations", "light", TRAINING),
    ("replay", "light", TRAINING),
    ("kv", "light", GENERATION),
)
"""View, colour scheme and trace of each picture."""
PROGRAMS = {
    TRAINING: "examples/train_llama.py",
    GENERATION: "examples/generate_gpt2.py --layers 16 --hidden 1600 --heads 25 --batch 16 --new-tokens 160",
}


def record(folder: Path) -> dict[str, Path]:
    """Record the examples on a simulated H100."""
    traces = {name: folder / name for name in PROGRAMS}
    for name, program in PROGRAMS.items():
        options = ["run", "--dry-run", "--gpu", "H100-80GB", "-o", str(traces[name]), *program.split()]
        subprocess.run([sys.executable, "-m", "memscope", *options], cwd=ROOT, check=True)  # noqa: S603
    return traces


def pin_largest_gradient(page: Page) -> None:
    """Click a block in the middle of the map, so that the inspector has something to show."""
    box = page.locator("#map-graph .trace.bars").nth(2).locator(".point path").nth(20).bounding_box()
    if box is not None:
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.move(2, 300)
        page.wait_for_selector("#inspector .stack")


def photograph(browser: Browser, address: str, view: str, scheme: str, trace: str) -> Path:
    """Open a view at 1440 × 900 and keep what it looks like, at one and a half times the density."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900},
        device_scale_factor=1.5,
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(f"{address}/{view}?trace={trace}")
    page.wait_for_selector(".view-panel:not(.waiting)")
    page.wait_for_timeout(1500)
    if view == "canvas":
        page.wait_for_function("window.memscopeCanvas.state() !== null")
    if view == "map":
        pin_largest_gradient(page)
    if view == "allocations":
        page.locator(".ag-row").nth(2).click()
        page.wait_for_selector("#inspector .stack")
    if view == "replay":
        page.wait_for_function(
            "!document.querySelector('#replay-title').textContent.includes('Replaying')", timeout=600_000
        )
    if view == "kv":
        page.wait_for_selector("#kvlens-growth table", timeout=600_000)
    page.wait_for_timeout(500)
    path = IMAGES / f"{view}-{scheme}.png"
    page.screenshot(path=path)
    context.close()
    return path


def main() -> None:
    """Take every picture."""
    chromium = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("screenshots need Chromium: apt-get install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        traces = record(Path(folder))
        server = make_server("127.0.0.1", 0, create_app(TraceStore(list(traces.values()))).server, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ["--no-sandbox", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        wanted = [shot for shot in SHOTS if not sys.argv[1:] or shot[0] in sys.argv[1:]]
        for view, scheme, trace in wanted:
            path = photograph(browser, f"http://127.0.0.1:{server.server_port}", view, scheme, trace)
            sys.stdout.write(f"{path.relative_to(ROOT)}\n")
        browser.close()
        server.shutdown()


if __name__ == "__main__":
    main()
