"""Open every page of the site in a browser, as wide as a desk's screen and as a phone's.

    python docs/browse_site.py docs/_build/html

Fails where a page logs errors, asks for what is not there, shows a picture that is
missing or of one colour, or is wider than a phone's screen. It needs Playwright, and Chromium or
Chrome on the PATH or where CHROMIUM says; without a browser it says so and checks nothing.
"""

import functools
import os
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from check_site import pages

WIDTHS = {"desk": 1280, "phone": 390}  # CSS pixels
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Of each picture in the text: whether it is there, and whether it has more than one colour.
PICTURES = """() => [...document.querySelectorAll('article img')].map(image => {
    image.loading = 'eager';
    if (!image.complete || !image.naturalWidth) return [image.src, 'is missing'];
    const canvas = document.createElement('canvas');
    canvas.width = 64; canvas.height = 64;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, 64, 64);
    const colours = new Set(new Uint32Array(context.getImageData(0, 0, 64, 64).data.buffer));
    return colours.size > 1 ? null : [image.src, 'has one colour'];
}).filter(fault => fault)"""
LOADED = """() => Promise.all([...document.querySelectorAll('article img')].map(image => {
    image.loading = 'eager';
    return image.complete || new Promise(done => { image.onload = image.onerror = done; });
}))"""
# What lies beyond the right edge, but for what a reader can scroll to inside its own frame.
OVERFLOW = """() => {
    const width = document.documentElement.clientWidth;
    const scrolls = element => /auto|scroll/.test(getComputedStyle(element).overflowX);
    const framed = element => element.tagName !== 'ARTICLE'
        && (scrolls(element) || framed(element.parentElement));
    const wide = [...document.querySelectorAll('article *')].find(
        element => element.getBoundingClientRect().right > width + 1 && !framed(element));
    if (wide) return wide.outerHTML.slice(0, 80);
    return document.documentElement.scrollWidth > width + 1 ? 'the page' : null;
}"""


class Silent(SimpleHTTPRequestHandler):
    """Serves the site, and does not report each request."""

    def log_message(self, *args):
        """Say nothing."""


def browser_path():
    """Return where a browser is, or None."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def look(tab, url):
    """Return what is wrong with a page, as sentences."""
    found = []
    tab.goto("about:blank")  # which ends the requests of the page before
    listeners = {
        "console": lambda m: (
            m.type == "error" and found.append(f"writes {m.text!r} to the console")
        ),
        "pageerror": lambda error: found.append(f"raises {error}"),
        "requestfailed": lambda request: found.append(f"asks for {request.url} in vain"),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.goto(url, wait_until="load")
    tab.evaluate(LOADED)
    found += [f"shows {source}, which {fault}" for source, fault in tab.evaluate(PICTURES)]
    if wide := tab.evaluate(OVERFLOW):
        found.append(f"is too wide, by {wide}")
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    return found


def main(folder):
    """Open all pages, print what is wrong, and return the number of faults."""
    from playwright.sync_api import sync_playwright

    path = browser_path()
    if path is None:
        print("No browser found (set CHROMIUM to one): pages were not opened.")
        return 0
    site = Path(folder)
    handler = functools.partial(Silent, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    n_faults, names = 0, [str(page.relative_to(site)) for page in pages(site)]
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=options)
        for kind, width in WIDTHS.items():
            tab = browser.new_page(viewport={"width": width, "height": 900})
            for name in names:
                url = f"http://127.0.0.1:{server.server_port}/{name}"
                faults = look(tab, url) and look(tab, url)  # a busy machine may drop a request
                for fault in faults:
                    print(f"{name} ({kind}) {fault}")
                    n_faults += 1
            tab.close()
        browser.close()
    server.shutdown()
    print(f"{len(names)} pages opened at {len(WIDTHS)} widths: {n_faults} faults.")
    return n_faults


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) > 0)
