"""Build the documentation site, and serve it: no page loads anything from another machine.

    python docs/make_site.py             # writes build/site; every warning is an error
    python docs/make_site.py --serve     # the same, then http://127.0.0.1:8000

Needs `pip install -e ".[docs]"`.
"""

import re
import sys
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sphinx.cmd.build import build_main

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
FOREIGN = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+""")


def foreign(folder: Path) -> list[str]:
    """Return what the pages of a site would load from other machines, such as fonts and scripts."""
    pages = sorted(folder.rglob("*.html"))
    return [f"{page.name}: {found}" for page in pages for found in FOREIGN.findall(page.read_text(encoding="utf-8"))]


def main(serve: bool) -> int:
    code = build_main(["-q", "-W", "--keep-going", "-c", str(ROOT / "docs"), str(ROOT), str(SITE)])
    if code:
        return code
    if found := foreign(SITE):
        print("these would be loaded from other machines:", *found[:10], sep="\n", file=sys.stderr)
        return 1
    print(f"built {SITE.relative_to(ROOT)}/docs/index.html")
    if serve:
        handler = partial(SimpleHTTPRequestHandler, directory=SITE)
        print("http://127.0.0.1:8000/docs/ (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            ThreadingHTTPServer(("127.0.0.1", 8000), handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main("--serve" in sys.argv[1:]))
