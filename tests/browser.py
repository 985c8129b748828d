"""A headless browser for tests of pages: Debian's chromium, driven by playwright. It needs no network.

`conftest.py` has the fixture once for all files, because two browsers can't be driven at a time. A test file takes
`visit` from here and says `pytestmark = pytest.mark.browser`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (400, 1400)  # pixels: a telephone and a desk


@dataclass
class Visit:
    """An opened page, and what it did that a page of ours must not do."""

    page: Any  # a playwright Page
    errors: list[str] = field(default_factory=list)  # messages of the console and exceptions
    requests: list[str] = field(default_factory=list)  # addresses other than the page itself and data URIs

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window. The user would have to scroll sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Start the browser once for all tests. A test that needs it fails, with what to install, if there is none."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail("these tests need Chromium: apt-get install chromium, or name its file in the variable CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()


@contextmanager
def visit(browser: Any, address: str | Path, width: int = 1400, dark: bool = False, **options: Any) -> Iterator[Visit]:
    """Open a file or an address in a window of this width, and collect console errors and requests.

    `options` are those of playwright's `new_context`, such as `java_script_enabled=False`.
    """
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **options)
    try:
        seen = Visit(context.new_page())
        wrong = lambda said: seen.errors.append(f"{said.text} ({said.location['url']})")  # noqa: E731
        seen.page.on("console", lambda said: wrong(said) if said.type == "error" else None)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on(
            "request", lambda sent: None if sent.url.startswith(("data:", url)) else seen.requests.append(sent.url)
        )
        seen.page.goto(url)
        yield seen
    finally:
        context.close()
