"""Checks every type and shape annotation in `lightseek` while the tests run. A wrong shape fails the test."""

import pytest
from browser import chromium as chromium  # one browser for the tests of all pages
from jaxtyping import install_import_hook

install_import_hook("lightseek", "beartype.beartype")


@pytest.fixture(autouse=True, scope="session")
def caches(tmp_path_factory):
    """Keep the caches of runs out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
