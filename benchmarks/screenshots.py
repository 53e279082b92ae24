"""TensorBoard as a reader sees it: `docs/tensorboard-*.png`, by a browser without a window.

`python benchmarks/screenshots.py [LOGS]` after `unstall demo`; it needs Chromium or Chrome, its driver, and selenium.
"""

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DOCS = Path(__file__).parents[1] / "docs"
GLANCE = "/?smoothing=0#custom_scalars&_smoothingWeight=0"
"""What `make tensorboard` names: a run at a glance, and nothing smoothed."""

PAGES = {
    "glance": (GLANCE, (1480, 1140)),
    "hparams": ("/#hparams", (1900, 520)),
    "text": ("/#text", (1200, 900)),
    "finder": ("/?smoothing=0&forceSVG=true&tagFilter=lr_find#timeseries", (1480, 760)),
}
"""Of each picture the address and the window."""

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver", "chromium.chromedriver")

INSIDE = """
const inside = (root, tag) => [...root.querySelectorAll('*')].flatMap(element => [
    ...(element.tagName.toLowerCase() == tag ? [element] : []),
    ...(element.shadowRoot ? inside(element.shadowRoot, tag) : []),
]);
"""
"""TensorBoard's elements hide their insides from a plain query."""


def missing() -> str | None:
    """Return what is needed to look at a page and is not there."""
    for names in BROWSERS, DRIVERS:
        if not any(map(shutil.which, names)):
            return f"none of {', '.join(names)} is installed"
    return None


@contextlib.contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """Serve a folder of runs on this machine only; yields the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={logs}", "--host=127.0.0.1", f"--port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    runs = len({file.parent for file in logs.rglob("events.out.tfevents.*")})
    try:
        wait_until(lambda: _answers(f"{address}/data/runs").count('"') >= 2 * runs > 0)
        yield address
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A browser without a window, and without the user's settings."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(next(filter(None, map(shutil.which, BROWSERS))))
    off = ("gpu", "quic", "background-networking", "component-update", "sync")
    quiet = ["no-first-run", *(f"disable-{name}" for name in off)]
    with tempfile.TemporaryDirectory() as profile:
        for word in ("headless", "no-sandbox", *quiet, f"user-data-dir={profile}"):
            options.add_argument(f"--{word}")
        driver = webdriver.Chrome(options, Service(next(filter(None, map(shutil.which, DRIVERS)))))
        try:
            yield driver
        finally:
            driver.quit()


def wait_until(condition: Any, seconds: float = 120) -> Any:
    """Return what a condition says as soon as that is something.

    Raises:
        TimeoutError: if it never does.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise TimeoutError(f"nothing after {seconds:.0f} s")


def look(driver: Any, code: str) -> Any:
    """Run a script that has a function `inside(element, tag)` for all elements of a kind within another."""
    return driver.execute_script(INSIDE + code)


def settled(driver: Any) -> None:
    """Wait until a page has not changed for three looks."""
    seen: list[bytes] = []

    def still() -> bool:
        seen.append(driver.get_screenshot_as_png())
        time.sleep(1)
        return len(seen) > 3 and len(set(seen[-3:])) == 1

    wait_until(still)


def main(logs: Path) -> None:
    """Write the pictures."""
    with tensorboard(logs) as address, browser() as driver:
        for name, (page, size) in PAGES.items():
            driver.set_window_size(*size)
            driver.get("about:blank")  # the same page with another fragment would not be loaded
            driver.get(address + page)
            settled(driver)
            file = DOCS / f"tensorboard-{name}.png"
            driver.save_screenshot(str(file))
            print(file)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "logs"))
