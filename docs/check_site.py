"""Check that the pages of the site are whole without the network.

    python docs/check_site.py docs/_build/html

Whatever a page loads by itself (scripts, styles, pictures, fonts) must be a file of the site; links
that readers follow may lead anywhere. Prints what is not so, and ends with status 1 if there is
anything.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

LOADED = {"script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data"}
STYLES = {"stylesheet", "icon", "shortcut icon", "preload", "modulepreload"}


class Page(HTMLParser):
    """Collects what a page loads."""

    def __init__(self, text):
        super().__init__()
        self.loaded = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note the addresses that a tag loads."""
        attrs = dict(attrs)
        if tag == "link" and attrs.get("rel") in STYLES:
            self.loaded.append(attrs.get("href"))
        elif tag in LOADED and attrs.get(LOADED[tag]):
            self.loaded.append(attrs[LOADED[tag]])


def pages(site):
    """Return the pages of the site, without templates among its static files."""
    static = site / "_static"
    return [path for path in sorted(site.rglob("*.html")) if static not in path.parents]


def faults(site):
    """Yield what is wrong: a page and an address."""
    for path in pages(site):
        for address in Page(path.read_text(encoding="utf-8")).loaded:
            parts = urlparse(address)
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                yield path, f"loads {address} from elsewhere"
            elif not (path.parent / unquote(parts.path)).exists():
                yield path, f"loads {address}, which is not there"
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(
            r"url\(['\"]?(https?:[^)'\"]+)", path.read_text("utf-8", "replace")
        ):
            yield path, f"loads {address} from elsewhere"


def main():
    """Check the site that the command line names."""
    site = Path(sys.argv[1])
    found = [f"{path.relative_to(site)} {what}" for path, what in faults(site)]
    print("\n".join(found) or f"{len(pages(site))} pages load nothing from elsewhere.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
