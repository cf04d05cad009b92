"""Time until a page of `spaces/` shows something to read, in a new browser.

    python spaces/facial_signal/app.py &
    taskset -c 0,1 python benchmarks/first_paint.py

Prints the median over several visits, each in a profile of its own, of the time to the first paint, to the heading and
to the whole page, and of the files that were loaded. Needs Playwright and Debian's chromium. Not a test: the figures
are those of the machine.
"""

import argparse
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
# Watches from before the first element is there. `ready` is the selector of what comes last.
WATCH = """
window.seen = {};
const look = () => {
  for (const [name, selector] of Object.entries(%s))
    if (!(name in window.seen) && document.querySelector(selector)) window.seen[name] = performance.now();
};
new MutationObserver(look).observe(document, {childList: true, subtree: true});
"""
MEASURES = """() => {
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  const loaded = performance.getEntriesByType('resource');
  return {paint: paint ? paint.startTime : NaN, ...window.seen, files: loaded.length,
          kilobytes: loaded.reduce((sum, each) => sum + each.decodedBodySize, 0) / 1000};
}"""


def visit(browser: Browser, address: str, ready: str) -> dict[str, float]:
    """Visit the page once, and return milliseconds, files and kilobytes."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH % {"heading": ".g-head h1", "ready": ready})
    page.goto(address, wait_until="commit")
    page.wait_for_selector(ready)
    page.wait_for_timeout(500)
    measured = page.evaluate(MEASURES)
    context.close()
    return measured


def main(options: argparse.Namespace) -> None:
    visits = []
    with sync_playwright() as driver:
        for _ in range(options.visits):  # a browser each: one process shares what it has compiled
            browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
            visits.append(visit(browser, options.address, options.ready))
            browser.close()
    for name in visits[0]:
        values = [measured[name] for measured in visits]
        print(f"{name:10} median {statistics.median(values):7.0f}   {min(values):.0f} to {max(values):.0f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--address", default="http://127.0.0.1:7860")
    parser.add_argument("--ready", default=".g-panel", help="selector of what comes last")
    parser.add_argument("--visits", type=int, default=5)
    main(parser.parse_args())
